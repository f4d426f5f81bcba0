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
_STEPS = (4, 1)
_NEVER = 1e30
"""Stands for infinity where infinity less infinity would be NaN."""
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

    Begins with a guess. Exchanges of several items at once come first, of one at a time last, and
    those last decide.
    """
    num = len(classes.members) + 1
    order = np.flatnonzero(allowed)
    order = order[np.argsort(-values[order], kind="stable")]
    k = min(k, len(order))
    of, best = classes.of[order] + 1, values[order].astype(np.float64)
    if len(best) and best[0] > best[-1]:
        # Exchanges keep the number of items, so that the unit of values does not matter to them;
        # what counts as rounding does.
        best = (best - best[-1]) / (best[0] - best[-1])
    # Row c: what the best 0, 1, … of class c add up to, and on both sides what cannot be.
    sums = np.full((num, k + 2 * _STEPS[0] + 1), -_NEVER)
    sums[:, _STEPS[0]] = 0.0
    for c in range(num):
        mine = np.cumsum(best[of == c][:k])
        sums[c, _STEPS[0] + 1 : _STEPS[0] + 1 + len(mine)] = mine
    every, same = np.arange(num), np.where(np.eye(num, dtype=bool), _NEVER, 0.0)
    floors = np.concatenate([np.zeros((1, len(wanted)), np.int64), classes.members])
    between = floors[:, np.newaxis] - floors
    # More than any exchange for one item more of a floor can cost.
    unmet = 4.0 * float(best[0] - best[-1]) + 1e-6 if len(best) else 1.0
    kept = _guess(of, k, floors, wanted)

    def exchanged(step: int, changes: Int64) -> bool:
        """The best exchange of so many of one class for as many of another, where one gains."""
        at = kept + _STEPS[0]
        here, lacking = sums[every, at], wanted - kept @ floors
        gain = (sums[every, at + step] - here) - (here - sums[every, at - step])[:, np.newaxis]
        gain -= unmet * np.maximum(lacking + changes, 0).sum(axis=2)
        gain -= same
        giver, taker = divmod(int(gain.argmax()), num)
        if gain[giver, taker] + unmet * int(np.maximum(lacking, 0).sum()) <= _GAIN:
            return False
        kept[giver] -= step
        kept[taker] += step
        return True

    for step in _STEPS:
        changes = step * between
        while exchanged(step, changes):
            pass
    while 4 <= num <= _FEW_CLASSES:
        after = np.concatenate([kept[np.newaxis], kept + _pairs(num)])
        found = sums[every, after + _STEPS[0]].sum(axis=1)
        found -= unmet * np.maximum(wanted - after @ floors, 0).sum(axis=1)
        move = int(found.argmax())
        if found[move] <= found[0] + _GAIN:
            break
        kept = after[move]
        while exchanged(1, between):
            pass
    return kept


def _guess(of: Int64, k: int, floors: Bool | Int64, wanted: Int64) -> Int64:
    """[num] a set of k that is nearly the best: the best k, where for each floor in turn the best
    members that it lacks take the places of the worst items of no class.

    of: [n] each item's class, best first, 0 for none. floors: [num, F].
    """
    taken = np.arange(len(of)) < k
    for f, least in enumerate(wanted.tolist()):
        is_member = floors[of, f] > 0
        lacks = least - int(np.count_nonzero(taken & is_member))
        if lacks > 0:
            taken[np.flatnonzero(is_member & ~taken)[:lacks]] = True
            taken[np.flatnonzero(taken & (of == 0))[-lacks:]] = False
    surplus = int(np.count_nonzero(taken)) - k
    if surplus > 0:
        taken[np.flatnonzero(taken)[-surplus:]] = False
    return np.bincount(of[taken], minlength=len(floors))


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
