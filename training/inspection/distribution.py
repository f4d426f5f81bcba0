"""How often each number occurs, and what follows from it: quantiles, the mean, the long tail.

Kept as distinct values and their counts, so that a hundred million users with a few thousand
different numbers of events are a few thousand rows. Knows nothing of what was counted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Distribution:
    """N distinct values, ascending, and how often each occurs."""

    values: Float64
    """[N]"""
    counts: Int64
    """[N] at least 1 each."""

    @property
    def num(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    @property
    def sum(self) -> float:
        """Their sum."""
        return float(self.values @ self.counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        return self.sum / self.num if len(self.values) else 0.0

    def quantile(self, share: float) -> float:
        """The number at position floor(share × (n - 1)) in ascending order; 0 where there are none.

        The lower of two neighbours, so that one giant among few is never its own yardstick.
        """
        if not len(self.values):
            return 0.0
        rank = int(share * (self.num - 1))
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank, side="right")])

    def num_above(self, limit: float) -> int:
        """How many are greater than `limit`."""
        return int(self.counts[self.values > limit].sum())

    def share_of_top(self, shares: Float64) -> Float64:
        """For each share of the numbers, greatest first, the share of the sum that they hold.

        shares: [S] from 0 to 1. Returns [S]; zeros where the sum is 0.
        """
        held, holders = self._curve()
        return np.interp(shares, holders, held)

    @property
    def gini(self) -> float:
        """The Gini coefficient: 0 where all are equal, near 1 where one holds everything."""
        held, holders = self._curve()
        return float(2 * np.trapezoid(held, holders) - 1) if held[-1] else 0.0

    def _curve(self) -> tuple[Float64, Float64]:
        """([N + 1] share of the sum, [N + 1] share of the numbers), from the greatest on."""
        counts = self.counts[::-1]
        held = np.cumsum(np.concatenate([[0.0], self.values[::-1] * counts]))
        holders = np.cumsum(np.concatenate([[0.0], counts]))
        return held / (held[-1] or 1.0), holders / (holders[-1] or 1.0)


class Gathering:
    """A distribution in the making: takes in numbers, part by part."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []

    def add(self, numbers: pl.Series) -> None:
        """Take in more numbers, none of them null."""
        self.add_counted(numbers.rename("value").value_counts(name="n"))

    def add_counted(self, counted: pl.DataFrame) -> None:
        """Take in the columns `value` and `n`, how often it occurs."""
        types = {"value": pl.Float64, "n": pl.Int64}
        self._parts.append(counted.select("value", "n").cast(types))  # type: ignore[arg-type]

    def distribution(self) -> Distribution:
        """Of everything that was taken in."""
        if not self._parts:
            return Distribution(np.zeros(0), np.zeros(0, np.int64))
        merged = pl.concat(self._parts).group_by("value").agg(pl.col("n").sum()).sort("value")
        return Distribution(merged["value"].to_numpy(), merged["n"].to_numpy())


def distribution(numbers: pl.Series) -> Distribution:
    """Of one series without nulls."""
    gathering = Gathering()
    gathering.add(numbers)
    return gathering.distribution()
