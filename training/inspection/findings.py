"""What a suspicious finding is, and when a number is abnormal.

Knows no table of a dataset: what is looked for is in the other files of this folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from training.inspection.distribution import Distribution

ABNORMAL_TIMES = 10.0
ABNORMAL_QUANTILE = 0.999
"""A number is abnormal that is more than 10 times the 99.9 % quantile of its kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the contract allows and that is probably a mistake."""

    what: str
    """One sentence without a full stop."""
    count: int
    total: int
    """`count` of `total`, both in `unit`."""
    unit: str
    """Plural: "events", "users", "items"."""
    example: str
    """Where to look: a file and row, or ids."""
    remedy: str
    """What to do, a sentence or two."""


@dataclass(slots=True)
class Worst:
    """The worst case that was met so far, and the condition that finds its rows again."""

    number: int = 0
    where: pl.Expr | None = None

    def meet(self, number: int, where: pl.Expr) -> None:
        """Keep this one if it is worse."""
        if number > self.number:
            self.number, self.where = number, where


def abnormal_limit(numbers: Distribution, *, least: float) -> float:
    """Numbers above this are abnormal; at least `least`, which small sets do not pass by chance."""
    return max(least, ABNORMAL_TIMES * numbers.quantile(ABNORMAL_QUANTILE))


def named(values: Sequence[object], *, most: int = 3) -> str:
    """The first few of some values as 'a', 'b', 'c' and so on, each cut to a readable length."""
    shown = ", ".join(f"{value!r:.60}" for value in values[:most])
    return shown + (", …" if len(values) > most else "")


def plain(value: float) -> str:
    """Four digits that count, and never an exponent where a person would write none."""
    if 10_000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.0f}" if 1_000 <= abs(value) < 10_000 else f"{value:.4g}"
