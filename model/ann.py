"""Nearest items by inner product: the exact reference, and the FAISS index a bundle carries.

Row r of the index is row r of the vectors. Knows no item ids and no filters but bitmaps over rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from model.mapped_lists import open_mapped, write_mapped

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

LISTS = ".lists"
"""Ending of the file beside index.faiss that has the same to be mapped."""
_ROUNDING = 1e-6
"""What float32 may make of an inner product, as a share of the lengths' product."""
_BLOCK_SCORES = 1 << 25
"""Scores in memory at once, 128 MB; a top-k takes about three times that."""


def exact_search(
    queries: Float32,
    vectors: Float32,
    k: int,
    *,
    allowed: Bool | None = None,
    excluded: Sequence[Int64] | None = None,
) -> tuple[Int64, Float32]:
    """The k rows with the largest inner product; the reference every index is held to.

    queries: [Q, D] float32. vectors: [N, D] float32. allowed: [N] bool, False rows are never
    returned. excluded: Q arrays of rows that the query must not return.

    Returns rows [Q, k] int64 (-1: none) and scores [Q, k] float32 (-inf: none), best first; among
    equal scores the lower row comes first. Memory is a block of queries times N.
    """
    num_queries, num_rows = len(queries), len(vectors)
    rows = np.full((num_queries, k), -1, np.int64)
    scores = np.full((num_queries, k), -np.inf, np.float32)
    depth = min(k, num_rows)
    if depth == 0:
        return rows, scores
    size = max(_BLOCK_SCORES // num_rows, 1)
    for start in range(0, num_queries, size):
        block = queries[start : start + size] @ vectors.T
        if allowed is not None:
            block[:, ~allowed] = -np.inf
        if excluded is not None:
            for i, out in enumerate(excluded[start : start + size]):
                block[i, out] = -np.inf
        top = _top(block, depth)
        found = np.take_along_axis(block, top, axis=1)
        end = start + len(block)
        scores[start:end, :depth] = found
        rows[start:end, :depth] = np.where(np.isneginf(found), -1, top)
    return rows, scores


def _top(scores: Float32, depth: int) -> Int64:
    """Columns of the `depth` largest of each row, ordered, ties to the lower column."""
    num_columns = scores.shape[1]
    if depth < num_columns:
        threshold = -np.partition(-scores, depth - 1, axis=1)[:, depth - 1 : depth]
        # argpartition picks arbitrary columns among those tied at the threshold; take the lowest.
        above = scores > threshold
        tied = scores == threshold
        room = depth - above.sum(axis=1, keepdims=True)
        chosen = above | (tied & (np.cumsum(tied, axis=1) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(scores), depth)
    else:
        columns = np.broadcast_to(np.arange(num_columns), scores.shape)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1).astype(np.int64)


def build_exact(vectors: Float32) -> Any:
    """A FAISS flat inner-product index over [N, D] float32 vectors."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index


def write_index(index: Any, path: Path) -> None:
    """Write index.faiss and, where it has inverted lists, the same as index.lists, to be mapped."""
    faiss.write_index(index, str(path))
    if isinstance(index, faiss.IndexPreTransform):
        write_mapped(index, path.with_suffix(LISTS))
    else:
        path.with_suffix(LISTS).unlink(missing_ok=True)


def open_index(path: Path) -> Any:
    """Open index.lists where it is there, else index.faiss memory-mapped.

    The caller has verified the checksums. Raises BundleRejected where index.lists does not fit
    together.
    """
    lists = path.with_suffix(LISTS)
    mapped = open_mapped(lists) if lists.exists() else None
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC) if mapped is None else mapped


def recall_of(
    found: Float32, best: Float32, queries: Float32, *, longest: float, depth: int
) -> float:
    """Share of the `depth` best that were found, told by scores: of rows that tie, any will do.

    found: [Q, k] scores of what was found, -inf for none. best: [Q] score of the exact search's
    row at `depth`. longest: length of the longest vector; with the queries' [Q, D] it says how far
    rounding can move a score. 1 where depth is 0.
    """
    slack = _ROUNDING * longest * np.sqrt(np.einsum("qd,qd->q", queries, queries))
    hits = (found >= (best - slack)[:, np.newaxis]).sum(axis=1)
    wanted = len(best) * depth
    return float(np.minimum(hits, depth).sum() / wanted) if wanted else 1.0


def recall_at(found: Int64, exact: Int64) -> float:
    """Share of the exact rows [Q, k] (-1 ignored) that are among the found rows [Q, k']."""
    hits = total = 0
    for have, want in zip(found, exact, strict=True):
        want = want[want >= 0]
        hits += int(np.isin(want, have).sum())
        total += len(want)
    return hits / total if total else 1.0
