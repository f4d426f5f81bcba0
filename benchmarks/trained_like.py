"""Vectors like those of trained towers, in any number: what indexes are measured on.

    python benchmarks/trained_like.py --work DIR --items 1000000

makes them once and keeps them in DIR. Real towers come first: a simulated world of 50 thousand
items and 3,000 users (60 days), trained to the end of the recipe `demo`, exported. Its item vectors
are rows 0, 1, … as they are. Every further row takes one of them at random and adds a normal draw
with the covariance of its 16 nearest neighbours: the same places, as dense, and around each the
same spread and directions as there are among the trained ones. The queries are the bundle's own
gate queries, 2,000 vectors of the user tower.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from commands import penchant

from model.bundle import open_bundle

ITEMS, USERS, DAYS = 50_000, 3_000, 60
NEIGHBOURS, BLOCK, SEED = 16, 1 << 15, 17
HOW = (
    f"The vectors: the towers of a simulated world ({ITEMS:,} items, {USERS:,} users, {DAYS} days; "
    "recipe `demo`, 12 epochs) gave the first ones; each further one is one of those, drawn at "
    f"random, plus a normal draw with the covariance of its {NEIGHBOURS} nearest neighbours. The "
    "queries are that bundle's gate queries: vectors of its user tower."
)
Float32 = npt.NDArray[np.float32]


def trained_like(work: Path, num_items: int) -> tuple[Float32, Float32]:
    """vectors [num_items, D], memory-mapped, and queries [Q, D]; made where they are not there."""
    bundle = work / "trained" / "bundle"
    if not bundle.exists():
        _train(work / "trained")
    opened = open_bundle(bundle)
    gate = pq.read_table(bundle / "gate.parquet")["interests"].to_pylist()
    queries = np.array(gate, np.float32).reshape(-1, opened.dim)
    path = work / f"vectors-{num_items}.npy"
    if not path.exists():
        trained = np.asarray(opened.vectors)[: opened.items.num_active]
        partial = path.with_suffix(".partial.npy")
        np.save(partial, _upsampled(trained, num_items))
        partial.rename(path)
    return np.load(path, mmap_mode="r"), queries


def _train(folder: Path) -> None:
    world, run = folder / "world", folder / "run"
    if not world.exists():
        penchant("simulate", world, "--users", USERS, "--items", ITEMS, "--days", DAYS)
    if not (run / "checkpoints" / "best.safetensors").exists():
        penchant("train", world, "--out", run, "--recipe", "demo")
    penchant("export", run, "--bundle", folder / "bundle", "--snapshot", folder / "snapshot")


def _upsampled(trained: Float32, num_items: int) -> Float32:
    """[num_items, D]: the trained vectors, and new ones between them."""
    import faiss

    flat = faiss.IndexFlatL2(trained.shape[1])
    flat.add(trained)
    neighbours = flat.search(trained, NEIGHBOURS + 1)[1][:, 1:]
    rng = np.random.default_rng(SEED)
    vectors = np.empty((num_items, trained.shape[1]), np.float32)
    vectors[: len(trained)] = trained[:num_items]
    for start in range(len(trained), num_items, BLOCK):
        size = min(BLOCK, num_items - start)
        base = rng.integers(len(trained), size=size)
        around = trained[neighbours[base]]  # [size, NEIGHBOURS, D]
        around -= around.mean(axis=1, keepdims=True)
        weights = rng.standard_normal((size, NEIGHBOURS), np.float32) / np.sqrt(NEIGHBOURS)
        step = np.einsum("bn,bnd->bd", weights.astype(np.float32), around)
        vectors[start : start + size] = trained[base] + step
    return vectors


def main() -> None:
    """Make them, and say where they lie."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    vectors, queries = trained_like(arguments.work, arguments.items)
    print(f"{vectors.shape} vectors and {queries.shape} queries in {arguments.work}")


if __name__ == "__main__":
    main()
