"""What the circles of a million items cost.

    OMP_NUM_THREADS=1 python benchmarks/circles_million.py [--items 1000000]

Synthetic items of 2,000 topics with crafts and tags, 64 numbers each. Seconds of the processor are
told beside those of the clock: on a machine that others use, only the former mean anything. Beside
it, in the same run: one pass over all vectors as a bare matrix product with as many centroids,
which every clustering has to make at least once.
"""

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
from circles import purity
from results import write_result

from model.schema import Event, Feature, Schema
from training.circles.find import find_circles


def million(num: int) -> dict[str, float]:
    """Seconds, and memory beyond the vectors', of the circles of so many items of 2,000 topics."""
    rng = np.random.default_rng(3)
    topic = rng.integers(0, 2_000, num)
    middles = rng.normal(size=(2_000, 64)).astype(np.float32)
    vectors = middles[topic]
    for first in range(0, num, 1 << 16):
        part = vectors[first : first + (1 << 16)]
        part += 0.7 * rng.normal(size=part.shape).astype(np.float32)
    craft = pa.array([f"craft {'abcdefghij'[i % 10]}{chr(97 + i // 10 % 26)}" for i in range(400)])
    words = pa.array([f"word {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(500)])
    tags = words.take(pa.array(np.stack([topic % 500, rng.integers(0, 500, num)], 1).ravel()))
    items = pa.table(
        {
            "item_id": pa.array(np.arange(num)).cast(pa.string()),
            "title": pa.array(np.arange(num)).cast(pa.string()),
            "craft": craft.take(pa.array(topic % 400)),
            "tags": pa.ListArray.from_arrays(
                pa.array(np.arange(0, 2 * num + 1, 2, np.int32)), tags
            ),
        }
    )
    schema = Schema(
        name="many",
        time="none",
        item_features={
            "craft": Feature(type="category"),
            "tags": Feature(type="categories"),
        },
        events={"watch": Event(role="engagement")},
    )
    popularity = rng.zipf(1.3, num).clip(max=10**6)
    memory, began, used = _peak(), time.perf_counter(), time.process_time()
    found = find_circles(vectors, items, schema, popularity, seed=1)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    more, count = _peak() - memory, found.circles.num_rows
    return {
        "items": num,
        "circles": count,
        "districts": found.districts.num_rows,
        "seconds": round(seconds, 1),
        "processor_seconds": round(cpu, 1),
        "processor_seconds_one_bare_pass": round(bare_pass(vectors, count), 1),
        "more_memory_gb": round(more, 2),
        "topic_purity": round(purity(found.of_item.astype(np.int64), topic.tolist()), 3),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def bare_pass(vectors: np.ndarray, count: int) -> float:
    """Processor seconds of the best of `count` inner products for every vector."""
    centroids, used = np.ascontiguousarray(vectors[:count].T), time.process_time()
    for first in range(0, len(vectors), 1 << 14):
        (vectors[first : first + (1 << 14)] @ centroids).argmax(axis=1)
    return time.process_time() - used


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--name", default="circles_million", help="of the result")
    args = parser.parse_args()
    found = million(args.items)
    rows = {
        "seconds of the processor, all threads": found["processor_seconds"],
        "… of one bare pass over the vectors": found["processor_seconds_one_bare_pass"],
        "seconds by the clock": found["seconds"],
        "GB of memory beyond vectors and items": found["more_memory_gb"],
    }
    write_result(
        args.name,
        title=f"The circles of {args.items:,} items of 64 numbers",
        figures=found,
        table=[["", "measured"], *([name, f"{value:.1f}"] for name, value in rows.items())],
        notes=(
            f"{found['circles']} circles in {found['districts']} districts, named by crafts and "
            f"tags, with neighbours and samples. {found['topic_purity']:.1%} of the items are of "
            "the commonest of 2,000 topics in their circle. The clock's seconds are those of a "
            "machine with other work on it; asked for are at most 120 on two cores."
        ),
        command=f"python benchmarks/circles_million.py --items {args.items}",
    )


if __name__ == "__main__":
    main()
