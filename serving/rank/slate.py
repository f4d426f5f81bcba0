"""One slate out of one query's candidates: by value, diverse, capped, with floors.

Pure functions over arrays; a step a place, none of them a loop over candidates. Knows no requests
and no items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.rank.diverse import Diverse, MarginalRelevance, scaled, within_reach
from serving.rank.dpp import Determinant
from serving.rank.floors import Floor
from serving.rank.places import Group, Places

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Method = Literal["mmr", "dpp"]
METHODS: tuple[Method, ...] = ("mmr", "dpp")

REASONS = (
    "value",
    "diversity",
    "kind_share",
    "exposure_floor",
    "origin_share",
    "exploration",
)
"""Why an item holds its place: the best value left; moved by diversity; to meet a kind's share, an
exposure floor, an origin's share; to learn how good it is."""
_VALUE, _DIVERSITY = 0, 1


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
    method: Method = "mmr",
    window: int = 0,
    caps: Sequence[Group] = (),
    floors: Sequence[Floor] = (),
) -> Slate:
    """The k candidates to show and their order.

    values: [C] what each is worth, candidates in order of retrieval, which breaks ties. vectors:
    [C, D], needed where diversity is above 0. diversity: 0 to 1, the strength of `method`: see
    serving/rank/diverse.py and dpp.py. window: for `dpp`, how many items right above count; 0: all.
    caps hold without exception. floors hold where there are enough candidates: an item is taken for
    a floor where otherwise the places left would not suffice. Where caps would leave a floor unmet
    that way, what floors need is set aside first.

    Without diversity and caps, no slate that meets the floors has a higher sum of values (with
    three or more floors that overlap: see serving/rank/floors.py); with caps on one column and no
    floors, none that keeps them has.
    """
    k = min(k, len(values))
    if not diversity and not caps and not floors:
        return Slate(np.argsort(-values, kind="stable")[:k], np.full(k, _VALUE), ())

    if diversity and k > 1 and not caps and not floors:
        assert vectors is not None
        worth = scaled(values)
        some = within_reach(worth, k, diversity) if method == "mmr" else np.arange(len(values))
        scores = _scores(worth[some], vectors[some], diversity, method, window)
        return _free(values, some[_best(scores, k)])

    def fill(state: Places) -> tuple[list[int], list[int]]:
        if not diversity or k < 2:
            return _by_value(values, state)
        assert vectors is not None
        scores = _scores(scaled(values), vectors, diversity, method, window)
        # What is set aside has closed others already.
        for place in np.flatnonzero(np.frombuffer(state.gone, np.uint8)).tolist():
            scores.close(place, ())
        return _diverse(values, state, scores)

    state = Places(values, k, caps, floors)
    places, reasons = fill(state)
    missing = state.missing()
    if caps and any(missing) and (held := _set_aside(values, k, caps, floors)):
        wanted = np.zeros(len(values), bool)
        wanted[held] = True
        state = Places(values, k, caps, [Floor(wanted, len(held))])
        state.hold(held)
        again, why = fill(state)
        if sum(_missing(floors, again)) < sum(missing):
            places, missing = again, _missing(floors, again)
            reasons = [_reason_of(place, why[i], floors) for i, place in enumerate(again)]
    return Slate(np.array(places, np.int64), np.array(reasons, np.int64), missing)


def _by_value(values: Float32, state: Places) -> tuple[list[int], list[int]]:
    """Places and reasons by value alone: one walk down the candidates, best first."""
    order = np.argsort(-values, kind="stable").tolist()
    gone, places, reasons = state.gone, list[int](), list[int]()
    best = at = 0
    while state.left and at < len(order):
        place = order[at]
        if gone[place]:
            at += 1
            continue
        # A place that floors do not need is anybody's.
        forced = 0 < state.needed >= state.left
        if forced and not state.is_needed(place):
            at += 1
            continue
        while gone[order[best]]:
            best += 1
        was_needed = state.needed
        reasons.append(_VALUE if order[best] == place else REASONS.index(state.reason(place)))
        places.append(place)
        closed = state.take(place)
        at += 1
        if closed and forced and state.needed < was_needed - 1:
            at = best  # a floor was given up: those who were passed over may have its place
    return places, reasons


def _scores(
    worth: Float32, vectors: Float32, diversity: float, method: Method, window: int
) -> Diverse:
    if method == "mmr":
        return MarginalRelevance(worth, vectors, diversity)
    return Determinant(worth, vectors, diversity, window=window)


def _best(scores: Diverse, k: int) -> list[int]:
    """The best k by scores that fall as places are filled, where nothing else counts."""
    score, places = scores.score, list[int]()
    while True:
        place = int(score.argmax())
        places.append(place)
        if len(places) == k:
            return places
        scores.close(place, ())
        scores.shown(place)


def _free(values: Float32, places: Int64) -> Slate:
    """A slate in which diversity alone has moved items: from where the best value left was not
    taken."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    taken, best, reasons = bytearray(len(values) + 1), 0, list[int]()
    for rank in ranks[places].tolist():
        reasons.append(_VALUE if rank == best else _DIVERSITY)
        taken[rank] = 1
        while taken[best]:
            best += 1
    return Slate(places, np.array(reasons, np.int64), ())


def _diverse(values: Float32, state: Places, scores: Diverse) -> tuple[list[int], list[int]]:
    """Places and reasons by scores that fall as places are filled."""
    order = np.argsort(-values, kind="stable").tolist()
    score, gone, places, reasons, best = scores.score, state.gone, list[int](), list[int](), 0
    while state.left:
        forced = 0 < state.needed >= state.left
        if forced:
            place = int(np.where(state.wanted(), score, -np.inf).argmax())
        else:
            place = int(score.argmax())
        if gone[place]:
            break
        while gone[order[best]]:
            best += 1
        if order[best] == place:
            reasons.append(_VALUE)
        else:
            reasons.append(REASONS.index(state.reason(place)) if forced else _DIVERSITY)
        places.append(place)
        scores.close(place, state.take(place))
        if state.left:
            scores.shown(place)
    return places, reasons


def _set_aside(
    values: Float32, k: int, caps: Sequence[Group], floors: Sequence[Floor]
) -> list[int]:
    """Members for all floors as far as caps let them, those of the scarcest floor first, best
    first."""
    state = Places(values, k, caps, ())
    held: list[int] = []
    spare = [int(np.count_nonzero(floor.members)) - floor.least for floor in floors]
    order = np.argsort(-values, kind="stable")
    for f in np.argsort(spare, kind="stable").tolist():
        members = floors[f].members
        lacks = floors[f].least - int(np.count_nonzero(members[held]))
        for place in order[members[order]].tolist():
            if lacks <= 0 or not state.left:
                break
            if not state.gone[place]:
                state.take(place)
                held.append(place)
                lacks -= 1
    return held


def _missing(floors: Sequence[Floor], places: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        max(floor.least - int(np.count_nonzero(floor.members[list(places)])), 0) for floor in floors
    )


def _reason_of(place: int, reason: int, floors: Sequence[Floor]) -> int:
    """The reason of a place that was filled for one floor over all that was set aside."""
    if reason in (_VALUE, _DIVERSITY):
        return reason
    return next(REASONS.index(floor.reason) for floor in floors if floor.members[place])
