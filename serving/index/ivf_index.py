"""VectorIndex over millions of vectors: the inverted lists of model/ivf.py, searched under filters.

Without a filter a query reads as many lists as the tuning found enough. A filter thins the lists
out, and may follow them (all of a craft's items lie in a few), so that no tuned number holds. Then
the k-th score found so far tells how many better rows to expect in the lists not read, and reading
goes on until those are few. Where few rows are allowed at all, they are scored one and all.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import faiss
import numpy as np

from model.ivf import TUNED_K, Setting, search_ivf
from serving.index.base import Bitmap, Float32, Int64
from serving.index.scan import inside, nothing, scan_rows

SCAN_ROWS = 20_000
"""With at most this many rows allowed, those rows are scored and no list is read."""
_MISSED = 0.005
"""Share of the k best that may be expected in lists that a filtered search leaves unread."""
_CAUTION = 1.5
"""What a list's scores are taken to spread more than rows do on average: some lists are wider."""
_SAMPLED = 20_000
MAX_EXCLUDED = 1024
"""Excluded rows are met by fetching so many more; where there are more, by a bitmap."""


class IvfIndex:
    """Inverted lists, read-only, with the vectors that they were built of beside them.

    index: from model.ivf.build_ivf. vectors: [N, D] float32, the same rows. settings: from
    model.ivf.tune, the largest share first.
    """

    def __init__(self, index: Any, vectors: Float32, settings: Sequence[Setting]) -> None:
        self._index, self._vectors, self._settings = index, vectors, tuple(settings)
        self._centroids = index.quantizer.reconstruct_n(0, index.nlist)
        self._list_of_row = np.empty(index.ntotal, np.int32)
        for number in range(index.nlist):
            size = index.invlists.list_size(number)
            rows = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
            self._list_of_row[rows] = number
        some = np.linspace(0, index.ntotal - 1, min(_SAMPLED, index.ntotal)).astype(np.int64)
        rest = vectors[some] - self._centroids[self._list_of_row[some]]
        self._residuals = rest.T @ rest / max(len(rest), 1)
        self._counts: WeakKeyDictionary[Bitmap, Int64] = WeakKeyDictionary()

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
        """The k best rows of each query, nearly always; see VectorIndex.search."""
        num_allowed = self.num_rows if allowed is None else allowed.count
        if num_allowed == 0 or not len(queries):
            return nothing(len(queries), k)
        if num_allowed <= SCAN_ROWS:
            rows = np.arange(self.num_rows) if allowed is None else allowed.rows
            return scan_rows(self._vectors, rows, queries, k, excluded)
        if excluded is not None and max(map(len, excluded)) > MAX_EXCLUDED:
            return self._one_by_one(queries, k, allowed, excluded)
        return self._search(queries, k, allowed, excluded)

    def _search(
        self,
        queries: Float32,
        k: int,
        allowed: Bitmap | None,
        excluded: Sequence[Int64] | None,
    ) -> tuple[Int64, Float32]:
        if allowed is None:
            return self._read(queries, k, None, excluded, probes=0)
        counts = self._allowed_in_lists(allowed)
        rows, scores = nothing(len(queries), k)
        for i in range(len(queries)):
            query, out = queries[i : i + 1], None if excluded is None else excluded[i : i + 1]
            products = self._centroids @ query[0]
            order = np.argsort(-products)
            spread = _CAUTION * float(np.sqrt(query[0] @ self._residuals @ query[0]))
            probes = 0
            while True:
                found = self._read(query, k, allowed, out, probes=probes)
                probes = max(probes, self._setting(allowed.count / self.num_rows).probes)
                more = _still_needed(products[order], counts[order], found[1][0, -1], spread, k)
                if more <= probes or probes >= self._index.nlist:
                    break
                probes = min(max(more, 2 * probes), self._index.nlist)
            rows[i], scores[i] = found[0][0], found[1][0]
        return rows, scores

    def _read(
        self,
        queries: Float32,
        k: int,
        allowed: Bitmap | None,
        excluded: Sequence[Int64] | None,
        *,
        probes: int,
    ) -> tuple[Int64, Float32]:
        """Read at least `probes` lists, and as many as the tuning says; more to find k rows."""
        share = 1.0 if allowed is None else allowed.count / self.num_rows
        setting = self._setting(share)
        longest = 0 if excluded is None else max(map(len, excluded))
        stretch = max(k / TUNED_K, 1.0)
        fetch = max(int(setting.fetch * stretch), 0 if allowed is None else 3 * k) + longest
        probes = max(int(setting.probes * stretch), probes)
        selector = None
        if allowed is not None:
            # FAISS keeps a pointer to the bitmap: `packed` lives as long as `allowed` does.
            selector = faiss.IDSelectorBitmap(allowed.packed)  # type: ignore[call-arg, arg-type]
        while True:
            rows, scores = search_ivf(
                self._index,
                self._vectors,
                queries,
                k,
                probes=probes,
                fetch=fetch,
                selector=selector,
                excluded=excluded,
            )
            if rows[:, -1].min() >= 0 or probes >= self._index.nlist:
                return rows, scores
            probes *= 4

    def _one_by_one(
        self,
        queries: Float32,
        k: int,
        allowed: Bitmap | None,
        excluded: Sequence[Int64],
    ) -> tuple[Int64, Float32]:
        """Queries with many excluded rows: each gets a bitmap of its own."""
        rows, scores = nothing(len(queries), k)
        for i, out in enumerate(excluded):
            mask = np.ones(self.num_rows, bool) if allowed is None else allowed.mask.copy()
            mask[inside(out, self.num_rows)] = False
            found = self.search(queries[i : i + 1], k, allowed=Bitmap(mask))
            rows[i], scores[i] = found[0][0], found[1][0]
        return rows, scores

    def _setting(self, share: float) -> Setting:
        """The tuned setting for the next smaller share; the widest for what is below all."""
        return next((s for s in self._settings if s.share <= share), self._settings[-1])

    def _allowed_in_lists(self, allowed: Bitmap) -> Int64:
        """[nlist] how many allowed rows each list has."""
        counts = self._counts.get(allowed)
        if counts is None:
            counts = np.bincount(self._list_of_row[allowed.mask], minlength=self._index.nlist)
            self._counts[allowed] = counts
        return counts


def _still_needed(products: Float32, counts: Int64, worst: float, spread: float, k: int) -> int:
    """How many of the lists, in this order, must be read to miss few of the k best rows.

    products: [nlist] of the centroids with the query, falling. counts: allowed rows of each list.
    worst: the k-th score so far. spread: the standard deviation of a row's score around its list's
    product. A list is expected to hold as many better rows as a normal distribution has above
    `worst`, by the logistic approximation, whose tail is the longer one.
    """
    if not np.isfinite(worst):
        return len(counts)
    above = (worst - products) / max(spread, 1e-9)
    expected = counts / (1 + np.exp(np.minimum(1.702 * above, 50.0)))
    missed = np.cumsum(expected[::-1])[::-1]
    return int((missed > _MISSED * k).sum())
