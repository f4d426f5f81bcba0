"""Which rows can be among the k best of a query, found without reading whole vectors.

A vector's inner product with a query is that of their leading principal components plus that of
the rest, and the rest is at most the product of the two rests' lengths (Cauchy-Schwarz). Trained
towers put nearly all of a vector into a few components, so these bounds, a quarter of the memory,
rule out nearly every row: measured on 47 thousand trained 64-d vectors, k = 100, a median of 224
rows and 489 at the 90th percentile have to be scored. The answer stays exact. Knows no filters.
"""

import numpy as np
import numpy.typing as npt

from serving.index.base import Float32, Int64

NUM_COMPONENTS = 15
"""Leading components kept; with the length of the rest 16 numbers a row, one cache line."""
_FOLDS = 32
"""Rows that share one maximum when the k-th best bound is estimated."""
_MIN_ROWS = 4096
_MOST = 8
"""With more than one row in so many left to score, reading all is as cheap."""
_BLOCK = 1 << 16
_ROUNDING = 2e-5
"""What float32 may add to an inner product, as a share of the lengths' product: two sums of 64
terms, each with an error of at most 64 × 2^-24 (Higham 2002, section 3.1), and room to spare."""


class ScoreBounds:
    """Upper bounds of the inner products of N vectors with any query. Immutable."""

    def __init__(self, vectors: Float32) -> None:
        """vectors: [N, D] float32, D > NUM_COMPONENTS; kept, for scoring."""
        self._vectors = vectors
        # eigh gives the components with the smallest share first.
        _, components = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
        self._components = np.ascontiguousarray(components[:, : -NUM_COMPONENTS - 1 : -1])
        self._bounds = np.empty((NUM_COMPONENTS + 1, len(vectors)), np.float32)
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            self._bounds[:, start : start + _BLOCK] = self._shorten(block).T
        self._longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0)))

    @classmethod
    def worth_it(cls, vectors: Float32) -> "ScoreBounds | None":
        """The bounds of these vectors, or None where they would rule out too little.

        That is so for few or short vectors and for those without leading components, as noise is.
        """
        if len(vectors) < _MIN_ROWS or vectors.shape[1] < 2 * NUM_COMPONENTS:
            return None
        bounds = cls(vectors)
        some = vectors[:: len(vectors) // 16]
        served = sum(bounds.best(row, bounds.upper(row), _FOLDS) is not None for row in some)
        return bounds if served > len(some) // 2 else None

    def upper(self, query: Float32) -> Float32:
        """[N] float32: no row's inner product with `query` [D] is larger than this."""
        upper: Float32 = self._shorten(query[np.newaxis])[0] @ self._bounds
        return upper

    def _shorten(self, vectors: Float32) -> Float32:
        """Leading components and length of the rest: [n, D] → [n, NUM_COMPONENTS + 1] float32.

        In float64, since a rest that is small beside the whole would drown in float32's rounding.
        """
        exact = vectors.astype(np.float64)
        leading = exact @ self._components
        rest = np.einsum("nd,nd->n", exact, exact) - np.einsum("nd,nd->n", leading, leading)
        short = np.empty((len(vectors), NUM_COMPONENTS + 1), np.float32)
        short[:, :-1], short[:, -1] = leading, np.sqrt(np.maximum(rest, 0))
        return short

    def best(self, query: Float32, upper: Float32, k: int) -> tuple[Int64, Float32] | None:
        """The k best rows and their scores, best first; None where the bounds rule out too little.

        upper: what `upper` gave for `query`, with -inf for rows that must not be returned.
        """
        width = len(upper) // _FOLDS
        if k > width:
            return None
        # The k-th best of the maxima of disjoint sets is at most the k-th best of all.
        maxima = upper[: _FOLDS * width].reshape(_FOLDS, width).max(axis=0)
        rows = self._at_least(upper, np.partition(maxima, width - k)[width - k])
        if rows is None:
            return None
        scores = self._vectors.take(rows, axis=0) @ query
        slack = _ROUNDING * self._longest * float(np.sqrt(query @ query))
        rows = self._at_least(upper, np.partition(scores, len(rows) - k)[len(rows) - k] - slack)
        if rows is None:
            return None
        scores = self._vectors.take(rows, axis=0) @ query
        order = np.argsort(-scores, kind="stable")[:k]
        return rows[order], scores[order]

    def _at_least(self, upper: Float32, floor: np.floating[npt.NBitBase]) -> Int64 | None:
        """Rows whose bound is at least `floor`, rising; None where those are too many."""
        if not np.isfinite(floor):
            return None
        rows = np.flatnonzero(upper >= floor)
        return rows if len(rows) <= len(upper) // _MOST else None
