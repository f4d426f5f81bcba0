"""VectorIndex over the FAISS index of a bundle.

A search is planned by how many rows are allowed: few are copied out and scanned; of many, those
that can be among the best are found first (serving/index/bounds.py) and only they are scored. What
is left to FAISS is what the bounds cannot narrow down. `benchmarks/exact_search.py` measures each.
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from model.ann import exact_search
from serving.index.base import Bitmap, Float32, Int64
from serving.index.bounds import ScoreBounds
from serving.index.scan import inside, members, nothing, scan_rows

SCAN_ROWS = 1500
"""With at most this many rows allowed, those rows are scanned exactly."""
MAX_FETCH = 2048
"""Excluded rows are met by fetching more, up to this many; beyond, by an exact scan."""


class FaissIndex:
    """A FAISS index, read-only, with the vectors that it was built of beside it.

    index: N vectors, inner product. vectors: [N, D] float32, the same rows, for exact scans.
    """

    def __init__(self, index: Any, vectors: Float32) -> None:
        self._index, self._vectors = index, vectors
        exact = isinstance(index, faiss.IndexFlat)
        self._bounds = ScoreBounds.worth_it(vectors) if exact else None

    @property
    def num_rows(self) -> int:
        """N: rows are 0 … N - 1."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """D: the length of a vector."""
        return int(self._index.d)

    def search(
        self,
        queries: Float32,
        k: int,
        *,
        allowed: Bitmap | None = None,
        excluded: Sequence[Int64] | None = None,
    ) -> tuple[Int64, Float32]:
        """The k best rows of each query; see VectorIndex.search."""
        num_allowed = self.num_rows if allowed is None else allowed.count
        if num_allowed == 0 or not len(queries):
            return nothing(len(queries), k)
        if allowed is not None and num_allowed <= SCAN_ROWS:
            return scan_rows(self._vectors, allowed.rows, queries, k, excluded)
        if self._bounds is None:
            return self._scan_all(queries, k, allowed, excluded)
        rows, scores = nothing(len(queries), k)
        for i, query in enumerate(queries):
            out = None if excluded is None else excluded[i : i + 1]
            found = self._best(self._bounds, query, k, allowed, out)
            if found is None:
                found = self._scan_all(queries[i : i + 1], k, allowed, out)
            rows[i], scores[i] = found
        return rows, scores

    def _best(
        self,
        bounds: ScoreBounds,
        query: Float32,
        k: int,
        allowed: Bitmap | None,
        excluded: Sequence[Int64] | None,
    ) -> tuple[Int64, Float32] | None:
        """The k best rows of one query [D] by their bounds; None where these do not help."""
        upper = bounds.upper(query)
        if allowed is not None:
            upper = np.where(allowed.mask, upper, np.float32(-np.inf))
        if excluded is not None:
            upper[inside(excluded[0], self.num_rows)] = -np.inf
        return bounds.best(query, upper, k)

    def _scan_all(
        self,
        queries: Float32,
        k: int,
        allowed: Bitmap | None,
        excluded: Sequence[Int64] | None,
    ) -> tuple[Int64, Float32]:
        """Search in the FAISS index, or among the vectors where too many rows are excluded."""
        num_allowed = self.num_rows if allowed is None else allowed.count
        longest = max((len(out) for out in excluded), default=0) if excluded is not None else 0
        if longest and k + longest > min(MAX_FETCH, num_allowed):
            mask = None if allowed is None else allowed.mask
            existing = [inside(out, self.num_rows) for out in excluded or ()]
            return exact_search(queries, self._vectors, k, allowed=mask, excluded=existing)
        parameters = None
        if allowed is not None:
            # FAISS keeps a pointer to the bitmap: `packed` lives as long as `allowed` does.
            selector = faiss.IDSelectorBitmap(allowed.packed)  # type: ignore[call-arg, arg-type]
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        fetch = min(k + longest, num_allowed)
        scores, rows = self._index.search(queries, fetch, params=parameters)
        if longest and excluded is not None:
            _drop(rows, scores, excluded)
        _settle(rows, scores)
        return _fit(rows, scores, k)


def _drop(rows: Int64, scores: Float32, excluded: Sequence[Int64]) -> None:
    """Turn excluded rows into none, and move the nones to the end of each query, in place."""
    for i, out in enumerate(excluded):
        if not len(out):
            continue
        gone = members(rows[i], out)
        if gone.any():
            kept = np.count_nonzero(~gone)
            rows[i, :kept], scores[i, :kept] = rows[i, ~gone], scores[i, ~gone]
            rows[i, kept:], scores[i, kept:] = -1, -np.inf


def _settle(rows: Int64, scores: Float32) -> None:
    """Make the order the documented one, in place: FAISS leaves equal scores in any order."""
    if rows[:, -1].min() < 0:
        scores[rows < 0] = -np.inf
    tied = scores[:, 1:] == scores[:, :-1]
    if not tied.any():
        return
    for i in np.flatnonzero(tied.any(axis=1)):
        order = np.lexsort((rows[i], -scores[i]))
        rows[i], scores[i] = rows[i, order], scores[i, order]


def _fit(rows: Int64, scores: Float32, k: int) -> tuple[Int64, Float32]:
    """Cut or pad to exactly k columns."""
    width = rows.shape[1]
    if width >= k:
        return rows[:, :k], scores[:, :k]
    out_rows, out_scores = nothing(len(rows), k)
    out_rows[:, :width], out_scores[:, :width] = rows, scores
    return out_rows, out_scores
