"""What the stages of a request cost on this machine, learned from the requests before; and what to
leave out where the time that is left does not suffice.

Knows how long stages took; not what they do.
"""

import time
from dataclasses import dataclass

DEGRADATIONS = ("diversity", "value_model", "probes")
"""What is left out to meet a deadline, in this order: slates go by value alone; candidates go by
their retrieval score; the index reads a part of its lists."""

MARGIN = 1.5
"""A stage is taken to need so many times what it needed on average."""
_FORGETS = 0.1
"""How much of the average a new measurement makes up."""
_OUTLIER = 10
"""A measurement counts as so many averages at most: machines stand still at times."""
_FRESH = 2.0
"""Seconds for which an average holds without a new measurement."""
_HALVES = 2.0
"""Seconds in which it then loses half."""
_SIZES = 24


class Cost:
    """Running averages of the seconds that one unit of a stage takes, by how many units there are:
    each of many takes less than one alone.

    A stage that is left out is not measured, so that after one bad moment (a machine that stood
    still for a minute) it would be left out for good: an average that nothing renews fades, until
    the stage is tried again. Written by several threads without a lock: a lost measurement is one
    among many.
    """

    __slots__ = ("_averages", "_measured")

    def __init__(self) -> None:
        # By the number's length in bits; 0: not measured.
        self._averages, self._measured = [0.0] * _SIZES, [0.0] * _SIZES

    def observe(self, units: int, seconds: float) -> None:
        """units: of work that took the seconds, 1 or more."""
        size = _size(units)
        now, average = seconds / max(units, 1), self._faded(size)
        if average:
            now = average + _FORGETS * (min(now, _OUTLIER * average) - average)
        self._averages[size] = now
        self._measured[size] = time.monotonic()

    def of(self, units: int, *, margin: float = MARGIN) -> float:
        """Seconds that so many units may take: margin times what they took on average; 0 until the
        first is measured."""
        wanted = _size(units)
        # What was measured of about as many; of fewer rather than of more.
        known = [size for size in range(_SIZES) if self._averages[size]]
        if not known:
            return 0.0
        size = min(known, key=lambda size: (abs(size - wanted), size))
        return margin * self._faded(size) * units

    def _faded(self, size: int) -> float:
        stale = time.monotonic() - self._measured[size] - _FRESH
        if stale <= 0:
            return self._averages[size]
        return float(self._averages[size] * 0.5 ** min(stale / _HALVES, 100))


def _size(units: int) -> int:
    return min(units.bit_length(), _SIZES - 1)


@dataclass(frozen=True, slots=True)
class Costs:
    """The stages that a deadline may shorten, and what always comes with them."""

    find: Cost
    """Towers and search, a vector that is searched with."""
    value: Cost
    """The value model, a candidate."""
    arrange: Cost
    """A slate with diversity, a slate; above what one without takes."""
    answer: Cost
    """What is left to do for an answer when it has been ranked, an item shown or a slate."""


def new_costs() -> Costs:
    """Nothing measured yet."""
    return Costs(Cost(), Cost(), Cost(), Cost())
