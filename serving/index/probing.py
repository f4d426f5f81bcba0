"""What a search of inverted lists has to read and to fetch, foretold for each query.

The rows of a list score about what its centroid does, give or take: a normal distribution, as wide
as the list is. That tells, before anything is read, which score the k-th best row will have, how
many better rows to expect in each list, and how many rows are so close behind that codes might take
them for better, whatever rows a filter leaves. Knows no index.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.index.base import Float32, Int64

MISSED = 0.002
"""Share of the k best that may be expected in the lists that are left unread."""
SPARE = 1.5
"""Candidates fetched, in multiples of those that codes may take for better on average."""
_NEAREST = 256
"""Lists, the most promising, that scores are foretold from; more where they hold few rows."""
_GRID = np.linspace(0, 1, 33, dtype=np.float32)[:, np.newaxis]


class Lists(NamedTuple):
    """The lists as one query sees them, all [L]."""

    products: Float32
    """Inner products of the centroids with the query."""
    spreads: Float32
    """Standard deviation of a row's score around its list's product."""
    sizes: Int64
    """Rows of each list."""

    def those(self, numbers: npt.NDArray[np.intp]) -> "Lists":
        """Some of the lists."""
        return Lists(self.products[numbers], self.spreads[numbers], self.sizes[numbers])


class Plan(NamedTuple):
    """How to search."""

    lists: npt.NDArray[np.intp]
    """Numbers of the lists to read."""
    fetch: int
    """Candidates to score in full."""


def plan(
    lists: Lists, allowed: Int64, k: int, *, tuned: tuple[int, int], gone: Float32, weight: float
) -> Plan:
    """What to read and fetch so that nearly all of the k best rows that are allowed are found.

    allowed: [L] rows of each list that a filter leaves. tuned: (k, fetch) that were found to go
    together where every row is allowed; they tell how far codes can be off. gone: [G] scores,
    rising, of some of the allowed rows that must not be returned, each of which stands for `weight`
    of them: unlike what a filter leaves out, such rows are often the best.
    """
    lists = lists._replace(spreads=np.maximum(lists.spreads, np.float32(1e-20)))  # of a zero query
    useful = np.flatnonzero(allowed)
    within, counts = lists.those(useful), allowed[useful]
    scores, better = _curve(within, counts, k + weight * len(gone))
    left = better - weight * (len(gone) - np.searchsorted(gone, scores))
    left = np.maximum.accumulate(left)  # the one is an estimate, the other is not
    worst = _where(scores, left, k)
    everything = _curve(lists, lists.sizes, tuned[1])
    slack = _where(*everything, tuned[0]) - _where(*everything, tuned[1])
    # np.interp wants rising abscissae; scores fall.
    fetch = np.interp(worst - slack, scores[::-1], left[::-1])

    expected = counts * _chance(within, np.float32(worst))
    # Those that hold next to nothing need not be sorted.
    telling = np.flatnonzero(expected > MISSED * k / 2 / max(len(useful), 1))
    telling = telling[np.argsort(expected[telling])]
    skipped = int(np.searchsorted(np.cumsum(expected[telling]), MISSED * k / 2))
    return Plan(useful[telling[skipped:]], int(SPARE * fetch) + 1)


def _curve(lists: Lists, counts: Int64, depth: float) -> tuple[Float32, Float32]:
    """Scores, falling, and how many of the `counts` rows are expected above each; some of both.

    depth: how many rows down it must be right.
    """
    near = _NEAREST
    some = np.arange(len(counts))
    while near < len(counts):
        floor = np.partition(lists.products, -near)[-near]
        promising = np.flatnonzero(lists.products >= floor)
        if counts[promising].sum() >= 10 * depth:
            some = promising
            break
        near *= 4
    lists, counts = lists.those(some), counts[some]
    high = (lists.products + 6 * lists.spreads).max()
    low = (lists.products - 6 * lists.spreads).min()
    scores = high - (high - low) * _GRID
    return scores[:, 0], _chance(lists, scores) @ counts.astype(np.float32)


def _where(scores: Float32, better: Float32, k: float) -> float:
    """The score that about k rows are better than, by interpolation of their logarithms."""
    return float(np.interp(np.log(k), np.log(np.maximum(better, 1e-3)), scores))


def _chance(lists: Lists, score: np.float32 | Float32) -> Float32:
    """That a row of each list scores more; the logistic curve, whose tail is a little longer."""
    above = (score - lists.products) / lists.spreads
    chance: Float32 = 1 / (1 + np.exp(np.minimum(1.702 * above, 50)))
    return chance
