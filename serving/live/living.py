"""A search of rows of which some have died: a built index forgets none, so the dead are left out.

A few more rows are fetched than are wanted, and those that died are dropped, which costs nothing
while they are few among the best. Where too many of those have died (what sells best changes most),
the living are searched alone, by a bitmap that is made anew now and then, not for each search.
"""

import math
from collections.abc import Sequence
from threading import Lock

import numpy as np

from serving.index.base import Bitmap, Bool, Float32, Int64, VectorIndex
from serving.index.scan import members, nothing

_SPARE = 16
"""Dead rows among the best that are always allowed for."""
_AS_DENSE = 2
"""How much denser than among all rows the dead may lie among the best."""
_TRIES_AGAIN = 100
"""Searches of the living alone, after which all are searched once more and the dead are dropped."""
_STALE = 64
"""Rows, or a hundredth of the dead where that is more, that may have died since the bitmap of the
living was made; they are dropped like others. Making it takes 4 ms for a million rows."""


class Living:
    """Which of N rows are alive. One thread lets them die, any number read."""

    def __init__(self, mask: Bool) -> None:
        """mask: [N], kept and changed in place; from True to False alone."""
        self.mask = mask
        self.num_dead = int(len(mask) - np.count_nonzero(mask))
        self.often_short = False
        """Whether the last search had too many dead among the best."""
        self._bitmap: Bitmap | None = None
        self._num_dead = self._calls = 0
        self._lock = Lock()

    def kill(self, rows: Int64) -> None:
        """These rows, distinct, are not alive any more."""
        self.num_dead += int(np.count_nonzero(self.mask[rows]))
        self.mask[rows] = False

    def tries_again(self) -> bool:
        """True once in so many calls."""
        self._calls += 1
        return self._calls % _TRIES_AGAIN == 0

    def bitmap(self) -> Bitmap:
        """The living, and some that died lately."""
        with self._lock:
            lately = self.num_dead - self._num_dead
            if self._bitmap is None or lately > max(_STALE, self.num_dead // 100):
                self._num_dead = self.num_dead
                self._bitmap = Bitmap(self.mask.copy())
            return self._bitmap


def search_living(
    index: VectorIndex,
    queries: Float32,
    k: int,
    allowed: Bitmap | None,
    excluded: Sequence[Int64],
    living: Living,
) -> tuple[Int64, Float32]:
    """The k best living rows of each query, as VectorIndex.search answers.

    allowed: as there. excluded: Q sorted arrays of rows, or none. living: of all rows of the index.
    """
    out = excluded or None
    if not living.num_dead:
        return index.search(queries, k, allowed=allowed, excluded=out)
    most = index.num_rows if allowed is None else allowed.count
    short = np.ones(len(queries), bool)
    rows, scores = nothing(len(queries), k)
    if not living.often_short or allowed is not None:
        spare = _SPARE + math.ceil(_AS_DENSE * living.num_dead / index.num_rows * k)
        rows, scores, short = _search(index, queries, k, spare, allowed, most, out, living)
    if short.any():
        alive = living.bitmap()
        some = alive if allowed is None else Bitmap(alive.mask & allowed.mask)
        places = np.flatnonzero(short)
        rest = None if out is None else [out[i] for i in places.tolist()]
        spare = _SPARE + max(_STALE, living.num_dead // 100)
        rows[places], scores[places], _ = _search(
            index, queries[places], k, spare, some, some.count, rest, living
        )
    if allowed is None:
        # Tried again the other way now and then: another query may have none.
        living.often_short = bool(short.any()) and not living.tries_again()
    return rows, scores


def _search(
    index: VectorIndex,
    queries: Float32,
    k: int,
    spare: int,
    allowed: Bitmap | None,
    most: int,
    excluded: Sequence[Int64] | None,
    living: Living,
) -> tuple[Int64, Float32, Bool]:
    """The first k living rows among the k + spare best, and which queries there might be more for.

    most: how many rows are allowed.
    """
    width = max(min(k + spare, most), 1)
    found, scores = index.search(queries, width, allowed=allowed, excluded=excluded)
    keep = (found >= 0) & living.mask[found]
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, order, 1)
    rows, best = nothing(len(found), k)
    rows[:, : order.shape[1]] = np.where(kept, np.take_along_axis(found, order, 1), -1)
    best[:, : order.shape[1]] = np.where(kept, np.take_along_axis(scores, order, 1), -np.inf)
    short = (keep.sum(axis=1) < k) & (found[:, -1] >= 0) & (width < most)
    return rows, best, short


def scan_better(
    vectors: Float32,
    allowed: Bool,
    queries: Float32,
    floors: Float32,
    k: int,
    excluded: Sequence[Int64],
) -> list[tuple[Int64, Float32]]:
    """Part.better of a few thousand vectors [n, D], all scored. allowed: [n].

    Nearly all of them score below what was found elsewhere already, and are not looked at again.
    """
    scores = queries @ vectors.T
    found = []
    for i, (mine, floor) in enumerate(zip(scores, floors.tolist(), strict=True)):
        rows = np.flatnonzero(mine > floor)
        rows = rows[allowed[rows]]
        if len(excluded):
            rows = rows[~members(rows, excluded[i])]
        if len(rows) > k:
            rows = rows[np.argpartition(mine[rows], len(rows) - k)[len(rows) - k :]]
        found.append((rows, mine[rows]))
    return found
