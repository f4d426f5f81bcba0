"""One query's slate by all rules at once, and what each of them cost in predicted value.

Pure: arrays in, a slate and its costs out. Knows no requests and no items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.rank.floors import Floor
from serving.rank.places import Group
from serving.rank.slate import REASONS, Method, Slate, arrange

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

STEPS = ("exploration", "caps", "floors", "shares", "diversity")
"""What may cost a slate value, in the order in which costs are told: each is what it gives up
beyond those before it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one slate has to keep; arrays over its C candidates."""

    vectors: Float32 | None = None
    """[C, D], needed where diversity is above 0."""
    diversity: float = 0.0
    method: Method = "mmr"
    window: int = 0
    caps: Sequence[Group] = ()
    floors: Sequence[Floor] = ()
    """Exposure floors of this slate."""
    shares: Sequence[Floor] = ()
    """Of kinds and origins."""
    drawn: Float32 | None = None
    """[C] values drawn for exploration; None: the slate is made by the values themselves."""
    lifted: Float32 | None = None
    """[C] what prices of paced floors add to members; None: no floor is paced."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A slate, and what it cost."""

    slate: Slate
    """`missing` has one number for each of the floors, then for each of the shares."""
    best_value: float
    """The sum of the k highest values."""
    costs: tuple[float, ...]
    """One for each of STEPS; best_value less all of them is the sum of the slate's values."""


def compose(values: Float32, k: int, rules: Rules) -> Composed:
    """The slate of k.

    values: [C] predicted. Costs are differences between slates by value alone that keep more and
    more of the rules; only the last one is diverse. A slate that keeps the next rules as it is
    stays: the best of all that need not keep them is the best of those that do.
    """
    k = min(k, len(values))
    best = float(np.sort(values)[len(values) - k :].sum(dtype=np.float64))
    by = values if rules.drawn is None else rules.drawn
    lifted = by if rules.lifted is None else by + rules.lifted
    caps, floors, shares = tuple(rules.caps), tuple(rules.floors), tuple(rules.shares)
    steps: list[tuple[str, Float32, tuple[Group, ...], tuple[Floor, ...]]] = []
    if rules.drawn is not None:
        steps.append(("exploration", by, (), ()))
    if caps:
        steps.append(("caps", by, caps, ()))
    if floors or rules.lifted is not None:
        steps.append(("floors", lifted, caps, floors))
    if shares:
        steps.append(("shares", lifted, caps, (*floors, *shares)))
    costs, before = dict.fromkeys(STEPS, 0.0), best
    slate, made_by = arrange(values, k), values
    for name, worth, some, least in steps:
        if worth is made_by and _keeps(slate, some, least):
            slate = Slate(slate.places, slate.reasons, (0,) * len(least))
            continue
        slate, made_by = arrange(worth, k, caps=some, floors=least), worth
        now = float(values[slate.places].sum(dtype=np.float64))
        costs[name], before = before - now, now
    if rules.diversity:
        slate = arrange(
            lifted,
            k,
            vectors=rules.vectors,
            diversity=rules.diversity,
            method=rules.method,
            window=rules.window,
            caps=caps,
            floors=(*floors, *shares),
        )
        costs["diversity"] = before - float(values[slate.places].sum(dtype=np.float64))
    return Composed(_explained(slate, values, k, rules), best, tuple(costs.values()))


def _keeps(slate: Slate, caps: Sequence[Group], floors: Sequence[Floor]) -> bool:
    """Whether a slate holds to caps and floors."""
    for cap in caps:
        codes = cap.codes[slate.places]
        codes = codes[codes >= 0]
        if len(codes) > cap.most and int(np.unique(codes, return_counts=True)[1].max()) > cap.most:
            return False
    return all(int(np.count_nonzero(one.members[slate.places])) >= one.least for one in floors)


def _explained(slate: Slate, values: Float32, k: int, rules: Rules) -> Slate:
    """The slate with the reasons of what stands there by its price or by a draw alone."""
    if rules.drawn is None and rules.lifted is None:
        return slate
    unlikely = np.ones(len(values), bool)
    unlikely[np.argsort(-values, kind="stable")[:k]] = False
    reasons = slate.reasons.copy()
    moved = unlikely[slate.places] & (reasons == REASONS.index("value"))
    if rules.drawn is not None:
        reasons[moved] = REASONS.index("exploration")
    if rules.lifted is not None:
        reasons[moved & (rules.lifted[slate.places] > 0)] = REASONS.index("exposure_floor")
    return Slate(slate.places, reasons, slate.missing)
