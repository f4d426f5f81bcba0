"""How many items of each sort a slate has to hold so that all its floors are met at least cost.

Floors may overlap: an item may be new, live and of an adjacent circle at once. Items with the same
memberships are one class; a floor asks for so many items of all its classes together. What is
worked out here is how many of each class: classes do not overlap, so that whoever fills the slate
need only keep a least number of each. Pure functions over arrays. Knows no caps and no requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_FEW = 10
_FEW_CLASSES = 9
"""Exchanges of two for two are tried where there are no more classes: there are 756 then."""
_GAIN = 1e-9
"""What gains less is rounding."""


@dataclass(frozen=True, slots=True)
class Floor:
    """At least so many items of one sort."""

    members: Bool
    """[C] which candidates are of that sort; a candidate may be of several."""
    least: int
    reason: str = "kind_share"
    """Of serving/rank/slate.py's REASONS: why an item holds its place that is there for this."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Candidates by what floors they are members of."""

    of: Int64
    """[C] each candidate's class, -1 for a member of no floor."""
    members: Bool
    """[K, F] which floors each class counts for."""


def classes_of(floors: Sequence[Floor]) -> Classes:
    """The classes that occur among the candidates of one or more floors."""
    if len(floors) == 1:
        return Classes(floors[0].members.astype(np.int64) - 1, np.ones((1, 1), bool))
    signatures = np.zeros(len(floors[0].members), np.int64)
    for i, floor in enumerate(floors):
        signatures |= floor.members.astype(np.int64) << i
    # As np.unique, for one small number a candidate in a third of its time.
    if len(floors) <= _FEW:
        occurs = np.bincount(signatures, minlength=1 << len(floors)) > 0
        occurs[0] = False
        found = np.flatnonzero(occurs)
        of = (np.cumsum(occurs) - 1)[signatures]
        of[signatures == 0] = -1
    else:
        found, of = np.unique(signatures[signatures > 0]), np.full(len(signatures), -1)
        of[signatures > 0] = np.searchsorted(found, signatures[signatures > 0])
    bits = found[:, np.newaxis] >> np.arange(len(floors)) & 1
    return Classes(of, bits.astype(bool))


def reserved(
    values: Float32 | Float64, k: int, classes: Classes, least: Sequence[int], allowed: Bool
) -> list[int]:
    """[K] the least number of each class that a slate of k needs, so that floors are met by the set
    of the highest sum of values that meets them.

    values: [C]. least: [F]. allowed: [C] which candidates may be shown. Where the floors do not
    overlap, that is what each asks for, as far as there are members. Where they do: exchanges
    between classes, from the best k on, as long as one gains anything; a floor's missing item costs
    more than any exchange. What gains nothing by exchanges of up to two items for two is the
    optimum where two floors overlap (their constraints are totally unimodular, so that any better
    set is reached by such exchanges, each a gain), and nearly always where more do.
    """
    counts = np.bincount(classes.of[allowed] + 1, minlength=len(classes.members) + 1)[1:]
    if int(classes.members.sum()) == len(classes.members):  # each class is of one floor
        floor_of = classes.members.argmax(axis=1)
        sizes = counts.tolist()
        return [min(least[f], size) for f, size in zip(floor_of.tolist(), sizes, strict=True)]
    wanted = np.minimum(least, counts @ classes.members)
    kept = _best_counts(values, k, classes, wanted, allowed)[1:]
    # What the best set has beyond the floors it would have anyhow: it need not be reserved.
    spare = kept @ classes.members - wanted
    for c in np.argsort(classes.members.sum(axis=1), kind="stable").tolist():
        cut = min(int(kept[c]), max(int(spare[classes.members[c]].min()), 0))
        kept[c] -= cut
        spare[classes.members[c]] -= cut
    needs: list[int] = kept.tolist()
    return needs


def _best_counts(
    values: Float32 | Float64, k: int, classes: Classes, wanted: Int64, allowed: Bool
) -> Int64:
    """[1 + K] how many of no class, and of each class, the best set of k has.

    Exchanges of several items at once come first, of one at a time last, and those last decide.
    """
    num = len(classes.members) + 1
    order = np.flatnonzero(allowed)
    order = order[np.argsort(-values[order], kind="stable")]
    k = min(k, len(order))
    of, best = classes.of[order] + 1, values[order].astype(np.float64)
    sizes = np.bincount(of, minlength=num)
    # Row c: what the best 0, 1, … of class c add up to.
    sums = np.zeros((num, k + 1))
    for c in range(num):
        mine = np.cumsum(best[of == c][:k])
        sums[c, 1 : len(mine) + 1] = mine
    most = np.minimum(sizes, k)
    kept = np.bincount(of[:k], minlength=num)
    floors = np.concatenate([np.zeros((1, len(wanted)), np.int64), classes.members])
    every, between = np.arange(num), floors[:, np.newaxis] - floors
    # More than any exchange for one item more of a floor can cost.
    unmet = 4.0 * float(best[0] - best[-1]) + 1e-6 if len(best) else 1.0

    def worth(counts: Int64) -> Float64:
        """Of each row of counts: its sum of values, less what is unmet; -inf where impossible."""
        inside = (counts >= 0) & (counts <= most)
        found = sums[every, np.where(inside, counts, 0)].sum(axis=1)
        found -= unmet * np.maximum(wanted - counts @ floors, 0).sum(axis=1)
        return np.where(inside.all(axis=1), found, -np.inf)

    def exchanged(step: int) -> bool:
        """The best exchange of so many of one class for as many of another, where one gains."""
        here = sums[every, kept]
        into = np.where(
            kept + step <= most, sums[every, np.minimum(kept + step, k)] - here, -np.inf
        )
        out = np.where(kept >= step, here - sums[every, np.maximum(kept - step, 0)], np.inf)
        lacking = wanted - kept @ floors
        lacks = np.maximum(lacking + step * between, 0).sum(axis=2)
        lacks -= int(np.maximum(lacking, 0).sum())
        gain = into - out[:, np.newaxis] - unmet * lacks
        gain[every, every] = -np.inf
        best = int(gain.argmax())
        giver, taker = divmod(best, num)
        if gain[giver, taker] <= _GAIN:
            return False
        kept[giver] -= step
        kept[taker] += step
        return True

    for step in (16, 4, 1):
        while exchanged(step):
            pass
    while num <= _FEW_CLASSES:
        after = kept + _pairs(num)
        found = worth(after)
        if not len(found) or found.max() <= worth(kept[np.newaxis])[0] + _GAIN:
            break
        kept = after[int(found.argmax())]
        while exchanged(1):
            pass
    return kept


@lru_cache(maxsize=32)
def _pairs(num: int) -> Int64:
    """[n, num] exchanges of two items for two, of four classes."""
    moves = []
    for four in combinations(range(num), 4):
        for out in combinations(four, 2):
            move = np.zeros(num, np.int64)
            move[list(four)], move[list(out)] = 1, -1
            moves.append(move)
    return np.array(moves, np.int64).reshape(-1, num)
