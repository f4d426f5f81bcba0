"""One slate out of one query's candidates: by value, diverse, capped, with shares of kinds.

Pure functions over arrays; a step a place, none of them a loop over candidates. Knows no requests
and no items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

REASONS = ("value", "diversity", "kind_share")
"""Why an item holds its place: the best value left; moved by diversity; to meet a kind's share."""
_VALUE, _DIVERSITY, _KIND_SHARE = range(len(REASONS))


@dataclass(frozen=True, slots=True)
class Group:
    """At most so many items of one value of a column."""

    codes: Int32
    """[C] each candidate's value; below 0: none, which is not counted."""
    most: int


@dataclass(frozen=True, slots=True)
class Floor:
    """At least so many items of one sort."""

    members: npt.NDArray[np.bool_]
    """[C] which candidates are of that sort. No candidate is of two sorts."""
    least: int


@dataclass(frozen=True, slots=True)
class Slate:
    """What is shown."""

    places: Int64
    """[n] positions among the candidates, best first; fewer than k where caps or candidates end."""
    reasons: Int64
    """[n] indexes into REASONS."""
    missing: tuple[int, ...]
    """One a floor: how many of its items there were too few."""


def arrange(
    values: Float32,
    k: int,
    *,
    vectors: Float32 | None = None,
    diversity: float = 0.0,
    caps: Sequence[Group] = (),
    floors: Sequence[Floor] = (),
) -> Slate:
    """The k candidates to show and their order.

    values: [C] what each is worth, candidates in order of retrieval, which breaks ties. vectors:
    [C, D], needed where diversity is above 0. diversity: 0 to 1; maximal marginal relevance
    (Carbonell and Goldstein, SIGIR 1998): the next item is the one with the highest

        (1 - diversity) * value - diversity * likeness

    with values scaled to 0 … 1, and as likeness the largest cosine to an item above, 0 where all
    are below 0. caps hold without exception. floors hold where there are enough candidates: an item
    is taken for its sort where otherwise the places left would not suffice.
    """
    k = min(k, len(values))
    if not diversity and not caps and not floors:
        return Slate(np.argsort(-values, kind="stable")[:k], np.full(k, _VALUE), ())
    worth, marginal = values, None
    if diversity and k > 1:
        assert vectors is not None
        worth = _scaled(values) * np.float32(1 - diversity)
        marginal = _marginal(worth, vectors, np.float32(diversity))
    by_value = np.argsort(-values, kind="stable").tolist()
    codes = [group.codes.tolist() for group in caps]
    counts: list[dict[int, int]] = [{} for _ in caps]
    needs, missing = [floor.least for floor in floors], [0] * len(floors)
    sort_of = _sorts(floors, len(values))
    gone = np.zeros(len(values), bool)
    _give_up_what_is_not_there(floors, gone, needs, missing)
    score, best = worth.copy(), 0
    places: list[int] = []
    reasons: list[int] = []
    while len(places) < k:
        needed = sum(needs)
        if needed and needed >= k - len(places):
            wanted = np.logical_or.reduce(
                [floor.members for floor, need in zip(floors, needs, strict=True) if need]
            )
            place = int(np.where(wanted, score, -np.inf).argmax())
            forced = True
        else:
            place, forced = int(score.argmax()), False
            if gone[place]:
                break
        while gone[by_value[best]]:
            best += 1
        is_best = by_value[best] == place
        reasons.append(_VALUE if is_best else _KIND_SHARE if forced else _DIVERSITY)
        places.append(place)
        gone[place] = True
        score[place] = -np.inf
        if sort_of[place] >= 0 and needs[sort_of[place]]:
            needs[sort_of[place]] -= 1
        for group, of_group, seen in zip(caps, codes, counts, strict=True):
            code = of_group[place]
            if code >= 0:
                seen[code] = seen.get(code, 0) + 1
                if seen[code] == group.most:
                    full = group.codes == code
                    gone |= full
                    score[full] = -np.inf
                    _give_up_what_is_not_there(floors, gone, needs, missing)
        if marginal is not None:
            np.minimum(score, marginal[place], out=score)
    missing = [had + need for had, need in zip(missing, needs, strict=True)]  # where places end
    return Slate(np.array(places, np.int64), np.array(reasons, np.int64), tuple(missing))


def _give_up_what_is_not_there(
    floors: Sequence[Floor], gone: npt.NDArray[np.bool_], needs: list[int], missing: list[int]
) -> None:
    """Need no more than is left, in place: a floor that cannot be met forces nobody early."""
    for i, floor in enumerate(floors):
        left = int(np.count_nonzero(floor.members & ~gone)) if needs[i] else 0
        missing[i] += max(needs[i] - left, 0)
        needs[i] = min(needs[i], left)


def _scaled(values: Float32) -> Float32:
    """Values on a scale from 0 to 1; all 0 where they are all alike."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if not high > low:
        return np.zeros(len(values), np.float32)
    scaled: Float32 = ((values - low) / (high - low)).astype(np.float32)
    return scaled


def _marginal(worth: Float32, vectors: Float32, diversity: np.float32) -> Float32:
    """[C, C] what column j is worth beside row i: worth less diversity times their likeness.

    One product for all pairs takes less time than one a place that is filled: 0.3 ms for 500
    candidates of 64 numbers.
    """
    norms = np.sqrt(np.einsum("cd,cd->c", vectors, vectors))
    unit = vectors / np.maximum(norms, 1e-12)[:, np.newaxis]
    beside: Float32 = unit @ unit.T
    beside *= -diversity
    beside += worth
    return beside


def _sorts(floors: Sequence[Floor], num_candidates: int) -> list[int]:
    """Each candidate's floor, -1 for none."""
    sorts = np.full(num_candidates, -1)
    for i, floor in enumerate(floors):
        sorts[floor.members] = i
    return sorts.tolist()
