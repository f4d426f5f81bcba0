"""Which circle of a new bundle is which of the one before: by the items that they share.

Each training turns the space anew, so that where a centroid lies says nothing of who it was. The
items do. Knows no vectors, no names and no files.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

KEEPS = 0.5
"""An id lasts where at least this share of the old circle's items are in the new one, and of the
new circle's in the old one; by weight, among the items that both bundles have."""
COMES_FROM = 0.25
"""A circle has another as its predecessor where at least this share of it was in that one."""
BULK = 0.5
"""A circle went into another, or was made of another, where this share of it did, or was."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What O old and W new circles share: parallel arrays over the pairs that share anything."""

    old: Int64
    """[n] positions of old circles."""
    new: Int64
    """[n] positions of new circles."""
    of_old: Float64
    """[n] the share of the old circle's weight that is in the new one."""
    of_new: Float64
    """[n] the share of the new circle's weight that was in the old one."""

    @property
    def mutual(self) -> Float64:
        """[n] the smaller of the two shares."""
        return np.minimum(self.of_old, self.of_new)


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the circles of one level, by their ids."""

    kept: int
    """How many ids lasted."""
    born: list[int]
    """New ids, those of split and merged circles among them."""
    ended: dict[int, list[int]]
    """Old ids that did not last → where a quarter of their items or more went, the most first."""
    splits: dict[int, list[int]]
    """Old id → the two or more new circles that were each made of it for the most part."""
    merges: dict[int, list[int]]
    """New circle → the ids of the two or more old circles that mostly went into it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of W new circles."""

    ids: Int64
    """[W]"""
    lasted: Int64
    """[W] the position of the old circle whose id each has; -1 where its id is new."""
    predecessors: list[list[tuple[int, float]]]
    """[W] ids of other old circles that it came from, and the share of it that did; most first."""
    changes: Changes


def overlap(old: Int64, new: Int64, weights: Float64) -> Overlap:
    """What circles share. old, new: [N] the circle of each item in either bundle, old -1 where the
    item is new. weights: [N] how much it counts, above 0."""
    both = np.flatnonzero(old >= 0)
    old, new, weights = old[both], new[both], weights[both]
    shape = (int(old.max(initial=-1)) + 1, int(new.max(initial=-1)) + 1)
    if not len(both):
        nothing, none = np.empty(0, np.int64), np.empty(0)
        return Overlap(nothing, nothing, none, none)
    shared = coo_matrix((weights, (old, new)), shape).tocsr()  # which adds up what is given twice
    pairs = shared.tocoo()
    rows, columns = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
    of_old = pairs.data / np.bincount(old, weights, minlength=shape[0])[rows]
    of_new = pairs.data / np.bincount(new, weights, minlength=shape[1])[columns]
    return Overlap(rows, columns, of_old, of_new)


def matched(shared: Overlap, num_new: int, *, keeps: float = KEEPS) -> Int64:
    """[num_new] the old circle that each new one is; -1 for none.

    Of all ways to pair circles off whose mutual shares are `keeps` or more, the one with the
    greatest sum of them (Kuhn, 1955), found for each connected part of the graph by itself: a
    matrix of all old by all new circles would be half a gigabyte for the largest catalogues.
    """
    found = np.full(num_new, -1, np.int64)
    good = np.flatnonzero(shared.mutual >= keeps)
    if not len(good):
        return found
    old, new, worth = shared.old[good], shared.new[good], shared.mutual[good]
    num_old = int(old.max()) + 1
    edges = coo_matrix((worth, (old, new + num_old)), (num_old + num_new,) * 2)
    part_of_old = connected_components(edges, directed=False)[1][old]
    order = np.argsort(part_of_old, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(part_of_old[order])) + 1):
        olds, row = np.unique(old[places], return_inverse=True)
        news, column = np.unique(new[places], return_inverse=True)
        matrix = np.zeros((len(olds), len(news)))
        matrix[row, column] = worth[places]
        for i, j in zip(*linear_sum_assignment(matrix, maximize=True), strict=True):
            if matrix[i, j] > 0:
                found[news[j]] = olds[i]
    return found


def fresh(num: int, *, next_id: int) -> Identity:
    """The ids of circles that nothing came before."""
    ids = np.arange(next_id, next_id + num)
    nothing = Changes(kept=0, born=ids.tolist(), ended={}, splits={}, merges={})
    return Identity(ids, np.full(num, -1), [[] for _ in ids], nothing)


def identify(
    old: Int64,
    new: Int64,
    weights: Float64,
    *,
    old_ids: Int64,
    num_new: int,
    next_id: int,
    keeps: float = KEEPS,
) -> Identity:
    """The ids of new circles, and what became of the old ones.

    old, new, weights: as for `overlap`. old_ids: [O] the ids of the old circles. next_id: the
    first id that no circle ever had.
    """
    shared = overlap(old, new, weights)
    lasted = matched(shared, num_new, keeps=keeps)
    ids = np.append(old_ids, -1)[lasted]
    is_new = np.flatnonzero(lasted < 0)
    ids[is_new] = next_id + np.arange(len(is_new))
    predecessors: list[list[tuple[int, float]]] = [[] for _ in range(num_new)]
    went: dict[int, list[int]] = {}
    made: dict[int, list[int]] = {}
    into: dict[int, list[int]] = {}
    # The heaviest first, so that every list has its own heaviest first.
    for i in np.lexsort((shared.old, shared.new, -shared.mutual)).tolist():
        before, now = int(old_ids[shared.old[i]]), int(ids[shared.new[i]])
        if shared.of_new[i] >= COMES_FROM and before != now:
            predecessors[shared.new[i]].append((before, float(shared.of_new[i])))
        if shared.of_old[i] >= COMES_FROM:
            went.setdefault(before, []).append(now)
        if shared.of_new[i] >= BULK:
            made.setdefault(before, []).append(now)
        if shared.of_old[i] >= BULK:
            into.setdefault(now, []).append(before)
    for ancestors in predecessors:
        ancestors.sort(key=lambda one: -one[1])
    ended = sorted(set(old_ids.tolist()) - set(ids.tolist()))
    changes = Changes(
        kept=int((lasted >= 0).sum()),
        born=ids[is_new].tolist(),
        ended={one: went.get(one, []) for one in ended},
        splits={one: parts for one, parts in sorted(made.items()) if len(parts) > 1},
        merges={one: parts for one, parts in sorted(into.items()) if len(parts) > 1},
    )
    return Identity(ids, lasted, predecessors, changes)
