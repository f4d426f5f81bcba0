"""What the stages of a request cost on this machine, learned from the requests before; and what to
leave out where the time that is left does not suffice.

Knows how long stages took; not what they do.
"""

import time
from dataclasses import dataclass

DEGRADATIONS = ("diversity", "value_model", "probes")
"""What is left out to meet a deadline, in this order: slates go by value alone; candidates go by
their retrieval score; the index reads a part of its lists."""

_MARGIN = 1.5
"""A stage is taken to need so many times what it needed on average."""
_FORGETS = 0.1
"""How much of the average a new measurement makes up."""
_FRESH = 2.0
"""Seconds for which an average holds without a new measurement."""
_HALVES = 2.0
"""Seconds in which it then loses half."""


class Cost:
    """A running average of the seconds that one unit of a stage takes.

    A stage that is left out is not measured, so that after one bad moment (a machine that stood
    still for a minute) it would be left out for good: an average that nothing renews fades, until
    the stage is tried again. Written by several threads without a lock: a lost measurement is one
    among many.
    """

    __slots__ = ("_average", "_measured")

    def __init__(self) -> None:
        self._average, self._measured = 0.0, 0.0

    def observe(self, units: int, seconds: float) -> None:
        """units: of work that took the seconds, 1 or more."""
        now, average = seconds / max(units, 1), self._faded()
        self._average = average + (_FORGETS if average else 1.0) * (now - average)
        self._measured = time.monotonic()

    def of(self, units: int) -> float:
        """Seconds that so many units may take; 0 until the first is measured."""
        return _MARGIN * self._faded() * units

    def _faded(self) -> float:
        stale = time.monotonic() - self._measured - _FRESH
        if stale <= 0:
            return self._average
        return float(self._average * 0.5 ** min(stale / _HALVES, 100))


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
