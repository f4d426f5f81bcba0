"""VectorIndex over millions of vectors: the inverted lists of model/ivf.py, searched under filters.

Without a filter a query reads as many lists as the tuning found enough. A filter thins the lists
out, and may follow them (all of a craft's items lie in a few), so that no tuned number holds: then
lists that have no allowed row are skipped, and how many of the others to read is predicted for each
query (serving/index/probing.py). Where few rows are allowed at all, they are scored one and all.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import faiss
import numpy as np
import numpy.typing as npt

from model.ann import exact_search
from model.ivf import TUNED_K, Setting, parts, reading, search_ivf
from serving.index.base import Bitmap, Float32, Int64
from serving.index.probing import Lists, plan
from serving.index.scan import inside, nothing, scan_rows

SCAN_ROWS = 20_000
"""With at most this many rows allowed, those rows are scored and no list is read."""
NOT_MUCH_DEEPER = 2
"""So many times TUNED_K are found by reading and fetching as many times what was tuned, which is
more than enough: lists farther away hold fewer of the best. Beyond, a plan reads less."""
FEW_EXCLUDED = 100
"""So many excluded rows are met by fetching more; where there are more, by a plan and a bitmap."""
DEEP = 0.01
"""Where excluded rows that are better than the answer outnumber this share of the others, all are
scored: so far down, more rows lie close together than codes tell apart."""
_SCORED = 1000
"""Excluded rows that are scored, to tell how far down the best of the others are."""
_SAMPLED = 16
"""Rows a list, on average, that the lists' widths are estimated from."""
_PRIOR = 4
"""Rows of average width that every list is taken to have beside those."""
_BLOCK = 1 << 16

Packed = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Rows that a search may return, as the lists see them."""

    rows: Packed
    """[ceil(N / 8)], row r is bit r % 8 of byte r // 8."""
    counts: Int64
    """[L] such rows of each list."""

    def without(self, out: Int64) -> tuple[Packed, Int64]:
        """The rows less those of `out` (sorted), and what `out` has of them."""
        if not len(out):
            return self.rows, out
        byte, bit = out >> 3, (1 << (out & 7)).astype(np.uint8)
        held = (self.rows[byte] & bit) != 0
        rows = self.rows.copy()
        np.bitwise_and.at(rows, byte, ~bit)
        return rows, out[held]


class IvfIndex:
    """Inverted lists, read-only, with the vectors that they were built of beside them.

    index: from model.ivf.build_ivf. vectors: [N, D] float32, the same rows. setting: from
    model.ivf.tune.
    """

    def __init__(self, index: Any, vectors: Float32, setting: Setting) -> None:
        self._index, self._vectors, self._setting = index, vectors, setting
        self._probes = setting.probes
        self._lists, self._to_queries = parts(index)
        self._centroids: Float32 = self._lists.quantizer.reconstruct_n(0, self._lists.nlist)
        self._list_of_row = np.empty(index.ntotal, np.min_scalar_type(self._lists.nlist))
        for number in range(self._lists.nlist):
            size = self._lists.invlists.list_size(number)
            if not size:  # it has no pointer to rows, either
                continue
            rows = faiss.rev_swig_ptr(self._lists.invlists.get_ids(number), size)
            self._list_of_row[rows] = number
        self._sizes = self._count(self._list_of_row)
        self._residuals, self._widths = self._measure_lists()
        self._every_row = Bitmap(np.ones(self.num_rows, bool))
        self._known: WeakKeyDictionary[Bitmap, _Allowed] = WeakKeyDictionary()
        self._share = 1.0

    def quick(self, share: float) -> "IvfIndex":
        """The same lists, of which a search reads this share only, those that promise most."""
        index = copy(self)
        index._share = share
        index._probes = max(round(self._setting.probes * share), 1)
        return index

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
            some = np.arange(self.num_rows) if allowed is None else allowed.rows
            return scan_rows(self._vectors, some, queries, k, excluded)
        longest = 0 if excluded is None else max(map(len, excluded))
        if allowed is None and k <= NOT_MUCH_DEEPER * TUNED_K and longest <= FEW_EXCLUDED:
            depth = max(k, TUNED_K)
            found = search_ivf(
                self._index,
                self._vectors,
                queries,
                k,
                # The excluded rows may be the best, and farther down rows lie closer together.
                fetch=self._setting.fetch * (depth + longest) // TUNED_K,
                # FAISS gives any rows where it is to read more lists than there are.
                how=reading(min(self._probes * depth // TUNED_K, self._lists.nlist)),
                excluded=excluded,
            )
            if found[0][:, -1].min() >= 0:
                return found
        rows, scores = nothing(len(queries), k)
        everything = self._allowed(allowed)
        for i in range(len(queries)):
            out = np.empty(0, np.int64) if excluded is None else inside(excluded[i], self.num_rows)
            found = self._search_planned(queries[i : i + 1], k, everything, out)
            rows[i], scores[i] = found[0][0], found[1][0]
        return rows, scores

    def _search_planned(
        self, query: Float32, k: int, allowed: _Allowed, out: Int64
    ) -> tuple[Int64, Float32]:
        """The k best of one query [1, D] among the rows allowed, without those of `out`."""
        rows, out = allowed.without(out)
        num_left = int(allowed.counts.sum()) - len(out)
        if num_left == 0:
            return nothing(1, k)
        turned = query[0] @ self._to_queries
        lists = Lists(
            self._centroids @ turned,
            self._widths * np.sqrt(turned @ self._residuals @ turned),
            self._sizes,
        )
        step = len(out) // _SCORED + 1
        gone = np.sort(self._vectors.take(out[::step], axis=0) @ query[0])
        tuned = TUNED_K, self._setting.fetch
        todo = plan(lists, allowed.counts, k, tuned=tuned, gone=gone, weight=step)
        fetch = min(max(todo.fetch, k), num_left)
        if self._share < 1:  # the last promise most
            some = todo.lists[-max(round(len(todo.lists) * self._share), 1) :]
            return self._read(query, k, fetch, rows, some)
        for numbers in (todo.lists, np.flatnonzero(allowed.counts)):
            found = self._read(query, k, fetch, rows, numbers)
            better = step * (len(gone) - np.searchsorted(gone, found[1][0, -1]))
            if better > DEEP * num_left:
                break
            if np.count_nonzero(found[0] >= 0) >= min(k, num_left):
                return found
        # Or the query is all zeros, of which codes say nothing.
        mask = np.unpackbits(rows, count=self.num_rows, bitorder="little").astype(bool)
        return exact_search(query, self._vectors, k, allowed=mask)

    def _read(
        self, query: Float32, k: int, fetch: int, rows: Packed, lists: npt.NDArray[np.intp]
    ) -> tuple[Int64, Float32]:
        """The k best of the rows of a bitmap in these lists."""
        mask = np.zeros(self._lists.nlist, bool)
        mask[lists] = True
        packed = np.packbits(mask, bitorder="little")
        # FAISS keeps pointers to the bitmaps, which live until it has searched.
        how = reading(
            max(len(lists), 1),
            rows=faiss.IDSelectorBitmap(rows),  # type: ignore[call-arg, arg-type]
            lists=faiss.IDSelectorBitmap(packed),  # type: ignore[call-arg, arg-type]
        )
        return search_ivf(self._index, self._vectors, query, k, fetch=fetch, how=how)

    def _allowed(self, bitmap: Bitmap | None) -> _Allowed:
        """The rows of a bitmap; worked out once for as long as it lives."""
        if bitmap is None:
            bitmap = self._every_row
        known = self._known.get(bitmap)
        if known is None:
            counts = self._count(self._list_of_row[bitmap.mask])
            known = _Allowed(bitmap.packed, counts)
            self._known[bitmap] = known
        return known

    def _count(self, lists: npt.NDArray[Any]) -> Int64:
        counts: Int64 = np.bincount(lists, minlength=self._lists.nlist)
        return counts

    def _measure_lists(self) -> tuple[Float32, Float32]:
        """Second moment [D, D] of rows around their centroids, and each list's width beside it.

        Both in the space of the turned queries; a width of 1 is the average.
        """
        size = min(_SAMPLED * self._lists.nlist, self.num_rows)
        sample = np.linspace(0, self.num_rows - 1, size).astype(np.int64)
        to_items = np.linalg.inv(self._to_queries.astype(np.float64)).T.astype(np.float32)
        moment = np.zeros((self.dim, self.dim))
        squares, counts = (np.zeros(self._lists.nlist) for _ in range(2))
        for start in range(0, size, _BLOCK):
            rows = sample[start : start + _BLOCK]
            lists = self._list_of_row[rows]
            rest = self._vectors[rows] @ to_items - self._centroids[lists]
            moment += rest.T @ rest
            squares += np.bincount(lists, np.einsum("nd,nd->n", rest, rest), len(squares))
            counts += self._count(lists)
        moment /= max(size, 1)
        average = max(float(np.trace(moment)), 1e-30)
        widths = np.sqrt((squares + _PRIOR * average) / (counts + _PRIOR) / average)
        return moment.astype(np.float32), widths.astype(np.float32)
