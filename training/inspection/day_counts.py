"""How many of something there were on each day. Days are those of UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True, slots=True)
class DayCounts:
    """Named counts, all over the same D days."""

    first: date
    counts: Mapping[str, npt.NDArray[np.int64]]
    """By name: [D] how many on each day from `first` on, zeros included."""

    @property
    def total(self) -> npt.NDArray[np.int64]:
        """[D] of all names together."""
        summed: npt.NDArray[np.int64] = np.stack(list(self.counts.values())).sum(axis=0)
        return summed

    @property
    def num_days(self) -> int:
        """D."""
        return len(self.total)

    def day(self, number: int) -> date:
        """The day at a position, from 0."""
        return self.first + timedelta(days=number)

    def bulk(self) -> "DayCounts":
        """Without the first and the last 0.05 %, where most of the days are theirs.

        One time of 1970 in a log of last month would leave nothing to be seen of the month.
        """
        held = np.cumsum(self.total)
        low, high = np.searchsorted(held, np.array([0.0005, 0.9995]) * held[-1])
        if 2 * (high - low + 1) >= self.num_days:
            return self
        kept = {name: counts[low : high + 1] for name, counts in self.counts.items()}
        return DayCounts(self.day(int(low)), kept)

    @property
    def last(self) -> date:
        """The last of the D days."""
        return self.day(self.num_days - 1)


def day_counts(counted: pl.DataFrame) -> DayCounts | None:
    """Out of the columns day (a date), name and n; None where there is no row.

    Names come in the order of their first row.
    """
    if not counted.height:
        return None
    numbers = counted["day"].to_physical().to_numpy()  # days since 1970
    begin, num_days = numbers.min(), int(np.ptp(numbers)) + 1
    counts = {
        name: np.zeros(num_days, np.int64) for name in counted["name"].unique(maintain_order=True)
    }
    for name, number, n in zip(counted["name"], numbers - begin, counted["n"], strict=True):
        counts[name][number] += n
    return DayCounts(date(1970, 1, 1) + timedelta(days=int(begin)), counts)
