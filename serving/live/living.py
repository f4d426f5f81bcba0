"""A search of rows of which some have died: a built index forgets none, so the dead are left out.

A few more rows are fetched than are wanted, and those that died are dropped, which costs nothing
while they are few. Where too many of the best have died, the living are searched alone.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.index.base import Bitmap, Bool, Float32, Int64, VectorIndex
from serving.index.scan import nothing

_SPARE = 16
"""Dead rows among the best that are always allowed for."""
_AS_DENSE = 2
"""How much denser than among all rows the dead may lie among the best."""


def search_living(
    index: VectorIndex,
    queries: Float32,
    k: int,
    allowed: Bitmap | None,
    excluded: Sequence[Int64],
    *,
    alive: npt.NDArray[np.bool_],
    num_dead: int,
) -> tuple[Int64, Float32]:
    """The k best living rows of each query, as VectorIndex.search answers.

    allowed: as there. excluded: Q sorted arrays of rows, or none. alive: [N or more]. num_dead:
    about how many of the N rows are not alive.
    """
    out = excluded or None
    if not num_dead:
        return index.search(queries, k, allowed=allowed, excluded=out)
    share = num_dead / index.num_rows
    most = index.num_rows if allowed is None else allowed.count
    width = min(k + _SPARE + math.ceil(_AS_DENSE * share * k), max(most, 1))
    found, scores = index.search(queries, width, allowed=allowed, excluded=out)
    living = (found >= 0) & alive[found]
    short = (living.sum(axis=1) < k) & (found[:, -1] >= 0) & (width < most)
    rows, best = _pressed(found, scores, living, k)
    if short.any():
        mask = alive[: index.num_rows]
        some = Bitmap(mask.copy() if allowed is None else mask & allowed.mask)
        places = np.flatnonzero(short)
        rest = None if out is None else [out[i] for i in places.tolist()]
        rows[places], best[places] = index.search(queries[places], k, allowed=some, excluded=rest)
    return rows, best


def _pressed(found: Int64, scores: Float32, keep: Bool, k: int) -> tuple[Int64, Float32]:
    """The first k of each row that are kept, in their order."""
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, order, 1)
    rows, best = nothing(len(found), k)
    rows[:, : order.shape[1]] = np.where(kept, np.take_along_axis(found, order, 1), -1)
    best[:, : order.shape[1]] = np.where(kept, np.take_along_axis(scores, order, 1), -np.inf)
    return rows, best
