"""index.faiss: exact or inverted lists, by the number of items; tuned and measured on user vectors.

Lists that cannot be tuned to the recall that they promise are not written: then it is exact. Knows
vectors and the file; not where they come from, nor what a filter is.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model.ann import Float32, build_exact, exact_search, open_index, recall_of, write_index
from model.ivf import TARGET, build_ivf, tune
from training.peak_memory import peak_memory

EXACT_ROWS = 100_000
"""With more items than this the index is one of inverted lists."""
NUM_TUNED = 1000
"""Queries that the index is tuned and measured with, half each."""
_SEED = 17


def write_tuned_index(
    path: Path,
    vectors: Float32,
    queries: Float32,
    *,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Write index.faiss over vectors [N, D]; returns what the manifest says of it (docs/bundle.md).

    queries: [Q, D] vectors of the user tower. Where there are none, items stand for them. The
    recall is measured against exact search, on queries that neither space nor setting is made of.
    """
    users = len(queries) > 1
    # At random: in order, every second query may be of one and the same interest of its user.
    some = queries if users else vectors
    queries = some[np.random.default_rng(_SEED).permutation(len(some))[:NUM_TUNED]]
    with peak_memory() as peak:
        write = _write_lists if len(vectors) > EXACT_ROWS else _write_exact
        about = write(path, vectors, queries, progress)
    return {
        **about,
        "metric": "inner_product",
        "measured_with": "users" if users else "items",
        "peak_memory_bytes": peak.num_bytes,
    }


def _write_lists(
    path: Path, vectors: Float32, queries: Float32, progress: Callable[[str], None]
) -> dict[str, Any]:
    progress("build the index")
    started = time.perf_counter()
    index = build_ivf(vectors, queries[::2])
    built = time.perf_counter() - started
    progress("tune the index")
    tuned = tune(index, vectors, queries)
    lists = {"kind": "ivf", "build_seconds": round(built, 1), **tuned.manifest()}
    if tuned.recall < TARGET:
        return {**_write_exact(path, vectors, queries, progress), "instead_of": lists}
    write_index(index, path)
    return lists


def _write_exact(
    path: Path, vectors: Float32, queries: Float32, progress: Callable[[str], None]
) -> dict[str, Any]:
    progress("build the index")
    started = time.perf_counter()
    write_index(build_exact(vectors), path)
    built = time.perf_counter() - started
    k = min(100, len(vectors))
    recall = 1.0
    if k:  # else every item is retired
        found = open_index(path).search(queries, k)[0]
        best = exact_search(queries, vectors, k)[1][:, -1]
        longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max()))
        recall = recall_of(found, best, queries, longest=longest, depth=k)
    seconds = {"build_seconds": round(built, 1), "tuning_seconds": 0.0}
    return {"kind": "exact", **seconds, "recall@100": recall}


def sentence(about: dict[str, Any]) -> str:
    """What the manifest says of an index, for the person who made it."""
    kind = "exact" if about["kind"] == "exact" else f"inverted lists, {about['probes']} read"
    peak = about["peak_memory_bytes"]
    memory = "" if peak is None else f", {peak / 2**20:,.0f} MiB of memory at most"
    return (
        f"index ({kind}): recall@100 {about['recall@100']:.4f} against exact search; built in "
        f"{about['build_seconds']:.1f} s, tuned in {about['tuning_seconds']:.1f} s{memory}"
        + _warning(about.get("instead_of"))
    )


def _warning(lists: dict[str, Any] | None) -> str:
    """Why lists were not written, where they were tried; empty where they were not."""
    if lists is None:
        return ""
    return (
        f"\nWarning: inverted lists found {lists['recall@100']:.4f} of the best 100 with "
        f"{lists['probes']} read and {lists['fetch']} scored, and {TARGET} is wanted, so the "
        "index is exact: every query scores all items. Look whether many items have nearly the "
        "same vector, or lengths far apart (docs/guides/choose-an-index.md)."
    )
