"""What the stages of a request cost on this machine, learned from the requests before; and what to
leave out where the time that is left does not suffice.

Knows how long stages took; not what they do.
"""

from dataclasses import dataclass

DEGRADATIONS = ("diversity", "value_model", "probes")
"""What is left out to meet a deadline, in this order: slates go by value alone; candidates go by
their retrieval score; the index reads a part of its lists."""

_MARGIN = 1.5
"""A stage is taken to need so many times what it needed on average."""
_FORGETS = 0.1
"""How much of the average a new measurement makes up."""


class Cost:
    """A running average of the seconds that one unit of a stage takes.

    Written by several threads without a lock: a lost measurement is one among many.
    """

    __slots__ = ("_average",)

    def __init__(self) -> None:
        self._average = 0.0

    def observe(self, units: int, seconds: float) -> None:
        """units: of work that took the seconds, 1 or more."""
        now = seconds / max(units, 1)
        self._average += (_FORGETS if self._average else 1.0) * (now - self._average)

    def of(self, units: int) -> float:
        """Seconds that so many units may take; 0 until the first is measured."""
        return _MARGIN * self._average * units


@dataclass(frozen=True, slots=True)
class Costs:
    """The stages that a deadline may shorten, and what always comes with them."""

    find: Cost
    """Towers and search, a query."""
    value: Cost
    """The value model, a candidate."""
    arrange: Cost
    """A slate with diversity, a slate; above what one without takes."""
    answer: Cost
    """What is left to do for an answer when it has been ranked, an item shown."""


def new_costs() -> Costs:
    """Nothing measured yet."""
    return Costs(Cost(), Cost(), Cost(), Cost())
