"""Objectives: what a position of a history learns from, besides the event that comes next.

`interest` learns from all weighted actions in the window after the position (the dense all-action
loss of PinnerFormer, Pancha et al., KDD 2022): one of them is drawn for each position, by the
event's weight, halved with each half-life that it lies ahead. A watch that is credited with a part
of an order (training/attribution/) weighs so much of an order more. `direct` learns from the first
conversion in the window alone.

What has not happened yet is not a negative: a position without an action weighs nothing. But near
the end of the log only what comes soon has happened, so that what takes its time would be learned
too seldom. An action `delay` after its position is seen only from positions at least so long before
the end: each counts 1 / (their share), the inverse of its chance to be seen (inverse probability of
censoring weights, Robins and Rotnitzky 1992). Imports numpy and the config alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.config import Objective

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MOST = 10.0
"""No action counts more than so many for its chance to be seen."""
_DAY = 86_400_000_000
_TRIES = 64


@dataclass(frozen=True, slots=True)
class Drawn:
    """What n positions learn from."""

    targets: Int64
    """[n] positions among the events."""
    weights: Float32
    """[n] 0 where nothing happened in the window."""


class FutureWindows:
    """The E events of a log, and which of them each position may learn from.

    A position is named by the event that follows it: its window begins there.
    """

    def __init__(
        self,
        starts: Int64,
        times: Int64,
        weights: Any,
        is_conversion: npt.NDArray[np.bool_],
        *,
        end: int,
        window_days: float,
        half_life_days: float,
    ) -> None:
        """starts: [U + 1]; times: [E] UTC µs, rising within each user; weights: [E] >= 0, of the
        actions; is_conversion: [E]. end: the end of the log, UTC µs."""
        self._times, self._end = times, end
        self._window, self._half_life = window_days * _DAY, half_life_days * _DAY
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        # Each user's clock begins where the one before has long ended: one search serves all.
        clock = times - int(times.min(initial=0))
        span = clock.max(initial=0) / 1e6 + self._window / 1e6 + 2
        clock = owner * span + clock / 1e6
        self._last: Int64 = np.searchsorted(clock, clock + self._window / 1e6, side="right")
        self._last = np.minimum(self._last, starts[1:][owner])
        self._mass: Float64 = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
        conversions = np.flatnonzero(is_conversion)
        place = np.searchsorted(conversions, np.arange(len(times)))
        self._conversion: Int64 = np.append(conversions, len(times))[place]
        """[E] the first conversion from each event on, of any user; E if there is none."""
        self._ages: Int64 = np.sort(end - times)

    def seen_share(self, delay: Int64) -> Float64:
        """[n] the share of all positions that lie at least `delay` µs before the end."""
        later = np.searchsorted(self._ages, delay, side="left")
        share: Float64 = 1.0 - later / max(len(self._ages), 1)
        return share

    def draw(self, objective: Objective, following: Int64, rng: np.random.Generator) -> Drawn:
        """What positions learn from; following: [n] the event after each."""
        if objective == "direct":
            targets = self._conversion[following]
            holds = targets < self._last[following]
            targets = np.where(holds, targets, following)
        else:
            targets, holds = self._any_action(following, rng)
        delay = self._times[targets] - self._times[following]
        chance = np.maximum(self.seen_share(delay), 1 / MOST)
        return Drawn(targets, np.where(holds, 1 / chance, 0.0).astype(np.float32))

    def _any_action(
        self, following: Int64, rng: np.random.Generator
    ) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """[n] an action of each window, by weight and nearness, and whether there is any."""
        low, high = self._mass[following], self._mass[self._last[following]]
        holds = high > low
        targets = following.copy()
        open_rows = np.flatnonzero(holds)
        # By weight first; kept with the chance that nearness leaves it, or drawn again.
        for _ in range(_TRIES):
            at = low[open_rows] + rng.random(len(open_rows)) * (high - low)[open_rows]
            found = np.searchsorted(self._mass, at, side="right") - 1
            # The sum's last digit may point past the window's last action.
            found = np.clip(found, following[open_rows], self._last[following[open_rows]] - 1)
            targets[open_rows] = found
            ahead = self._times[found] - self._times[following[open_rows]]
            keep = rng.random(len(open_rows)) < np.exp2(-ahead / self._half_life)
            open_rows = open_rows[~keep]
            if not len(open_rows):
                break
        return targets, holds
