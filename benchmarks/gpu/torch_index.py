"""The index `torch` on a GPU: time of a batch beside the time to read the matrix once.

    python benchmarks/gpu/torch_index.py [--items 1000000] [--dim 64] [--device cuda]

Needs torch and numpy alone (no install of Penchant, no FAISS, no gRPC), so that it runs under any
CUDA machine's own torch. The floor is the bf16 matrix's bytes over the bandwidth of a copy on the
same device in the same run: no exact search over it can be faster. `--device cpu` is for trying it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[1]))

from results import FOLDER, write_result

from serving.index.base import Bitmap, DeviceName, Float32
from serving.index.torch_index import TorchIndex, require_device

K = 100
BATCHES = (1, 16, 64, 256)
SEED = 5


def main() -> None:
    """Measure, and write results/torch_index.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=50, help="of each measurement; the median")
    parser.add_argument("--results", type=Path, default=FOLDER, help="where the result goes")
    arguments = parser.parse_args()
    device: DeviceName = arguments.device
    require_device(device)
    rng = np.random.default_rng(SEED)
    vectors = drawn(rng, arguments.items, arguments.dim)
    queries = drawn(rng, max(BATCHES), arguments.dim)
    started = time.perf_counter()
    index = TorchIndex(vectors, device=device)
    opened = time.perf_counter() - started
    bandwidth = copy_bandwidth(device, arguments.rounds)
    matrix = vectors.size * 2
    floor = matrix / bandwidth * 1000
    masks = {
        "all": None,
        "50% allowed": Bitmap(rng.random(len(vectors)) < 0.5),
        "1% allowed": Bitmap(rng.random(len(vectors)) < 0.01),
    }
    seen = np.sort(rng.choice(len(vectors), min(1000, len(vectors) // 2), replace=False))
    table = [["rows", "queries", "ms a batch", "times the floor", "queries a second", "recall"]]
    figures: dict[str, Any] = {
        "floor_ms": round(floor, 4),
        "copy_gb_per_second": round(bandwidth / 1e9, 1),
        "open_seconds": round(opened, 2),
    }
    cases: list[tuple[str, Bitmap | None, bool]] = [(n, m, False) for n, m in masks.items()]
    cases.append((f"{len(seen)} excluded a query", None, True))
    for label, mask, excluding in cases:
        for size in BATCHES:
            batch = queries[:size]
            excluded = [seen] * size if excluding else None

            def search(
                batch: Float32 = batch, mask: Any = mask, excluded: Any = excluded
            ) -> tuple[Any, Any]:
                return index.search(batch, K, allowed=mask, excluded=excluded)

            left_out = None if excluded is None else seen
            found = recall(search()[0], vectors, batch, mask, left_out)
            spent = milliseconds(search, arguments.rounds)
            key = f"{label}, {size}"
            figures |= {f"ms@{key}": round(spent, 4), f"ratio@{key}": round(spent / floor, 2)}
            figures[f"recall@{key}"] = round(found, 6)
            rate = size / spent * 1000
            row = [label, str(size), f"{spent:.3f}", f"{spent / floor:.1f}"]
            table.append([*row, f"{rate:,.0f}", f"{found:.4f}"])
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    write_result(
        "torch_index" if device == "cuda" else "torch_index_cpu",
        title=f"Index `torch`: {K} of {len(vectors):,} items of {arguments.dim} dimensions, {name}",
        figures={"device": name, "torch": torch.__version__, **figures},
        table=table,
        notes=(
            f"Median of {arguments.rounds} calls of TorchIndex.search, arrays of numpy in and out, "
            f"so with both transfers. The floor is {floor:.3f} ms: {matrix / 1e6:.0f} MB of bf16 "
            f"at {bandwidth / 1e9:,.0f} GB/s, the speed of a copy on the device, reads and writes "
            "counted. The vectors are drawn, with a falling spectrum; the search scores every row "
            f"whatever they are. Recall is against float32 products of all rows. Opening the index "
            f"took {opened:.1f} s."
        ),
        command=f"python benchmarks/gpu/torch_index.py --items {arguments.items}",
        folder=arguments.results,
    )


def drawn(rng: np.random.Generator, num: int, dim: int) -> Float32:
    """[num, dim] float32 whose numbers get smaller, as trained vectors' principal components do."""
    shares = (0.9 ** np.arange(dim)).astype(np.float32)
    return rng.standard_normal((num, dim), np.float32) * shares


def copy_bandwidth(device: DeviceName, rounds: int) -> float:
    """Bytes a second that a copy on the device reads and writes, together."""
    size = (1 << 30) if device == "cuda" else (1 << 26)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size / milliseconds(copy, rounds) * 1000


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    """Median time of a call, after a few that do not count."""
    spent = []
    for number in range(rounds + 3):
        started = time.perf_counter()
        work()
        if number >= 3:
            spent.append(time.perf_counter() - started)
    return median(spent) * 1000


def recall(
    rows: Any, vectors: Float32, queries: Float32, mask: Bitmap | None, left_out: Any
) -> float:
    """Mean share of the true K best, by float32 products of every row, that were found."""
    shares = []
    for found, query in zip(rows, queries, strict=True):
        scores = vectors @ query
        if mask is not None:
            scores[~mask.mask] = -np.inf
        if left_out is not None:
            scores[left_out] = -np.inf
        best = np.argpartition(-scores, K)[:K]
        shares.append(np.isin(best[np.isfinite(scores[best])], found).mean())
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
