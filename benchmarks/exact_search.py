"""What an exact search costs: bounds first, beside FAISS scanning every row.

    python benchmarks/exact_search.py --work DIR

DIR is that of benchmarks/retrieve.py, which makes a bundle of 50 thousand items with trained
towers there. The queries are the bundle's own gate queries: vectors of its user tower. One thread,
one core, one query at a time; all rows allowed, or a random share of them. FAISS gets the same
bitmap as a selector. Both must return the same rows.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from results import write_result

SHARES = (1.0, 0.5, 0.1, 0.01)
K, QUERIES, ROUNDS = 100, 500, 5


def milliseconds(search: Callable[[Any], Any], queries: Any) -> float:
    """Median over the queries, each [1, D]."""
    spent = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        spent.append(time.perf_counter() - started)
    return median(spent) * 1000


def main() -> None:
    """Measure in rounds, one method after the other, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="that of benchmarks/retrieve.py")
    work = parser.parse_args().work
    os.sched_setaffinity(0, {0})
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy's library is used for the first time
    import faiss

    from model.ann import open_index, recall_at
    from model.bundle import open_bundle
    from serving.index.base import Bitmap
    from serving.index.faiss_index import FaissIndex

    faiss.omp_set_num_threads(1)
    bundle = open_bundle(work / "bundle")
    vectors = np.asarray(bundle.vectors)[: bundle.items.num_active]
    started = time.perf_counter()
    ours = FaissIndex(open_index(bundle.index_path), vectors)
    opened = time.perf_counter() - started
    flat = open_index(bundle.index_path)
    gate = pq.read_table(bundle.path / "gate.parquet")["interests"].to_pylist()
    queries = np.array(gate[:QUERIES], np.float32).reshape(len(gate[:QUERIES]), -1, bundle.dim)[
        :, 0
    ]
    rng = np.random.default_rng(0)
    table = [["rows allowed", "FAISS flat, ms", "Penchant, ms", "times faster", "same rows"]]
    figures: dict[str, Any] = {"open_seconds": round(opened, 3)}
    for share in SHARES:
        allowed = None if share == 1 else Bitmap(rng.random(len(vectors)) < share)
        parameters = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(allowed.packed)  # type: ignore[call-arg, arg-type]
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]

        def scan(query: Any, parameters: Any = parameters) -> Any:
            return flat.search(query, K, params=parameters)

        def bounded(query: Any, allowed: Any = allowed) -> Any:
            return ours.search(query, K, allowed=allowed)

        single = queries[:, np.newaxis]
        rounds = [
            (milliseconds(scan, single), milliseconds(bounded, single)) for _ in range(ROUNDS)
        ]
        theirs, own = (median(times) for times in zip(*rounds, strict=True))
        same = recall_at(
            np.concatenate([bounded(q)[0] for q in single]),
            np.concatenate([scan(q)[1] for q in single]),
        )
        name = f"{share:.0%}"
        figures |= {f"faiss_ms@{name}": round(theirs, 4), f"penchant_ms@{name}": round(own, 4)}
        figures[f"same_rows@{name}"] = round(same, 6)
        table.append([name, f"{theirs:.3f}", f"{own:.3f}", f"{theirs / own:.1f}", f"{same:.4f}"])
    write_result(
        "exact_search",
        title=f"Exact search: {K} of {len(vectors):,} items, one core",
        figures=figures,
        table=table,
        notes=(
            f"{len(queries)} queries from the user tower, {bundle.dim} dimensions, one at a time; "
            f"median of {ROUNDS} rounds of medians. Bitmaps are made beforehand for both. Rows "
            "that are not the same tie in float32. Opening the index takes "
            f"{opened:.2f} s, most of it for the bounds."
        ),
        command="python benchmarks/exact_search.py --work DIR",
    )


if __name__ == "__main__":
    main()
