"""Diversity by a determinant: the greedy most probable set of a determinantal point process.

A set's log probability is the sum of its items' values and the log determinant of their cosines, so
that an item counts by what of it none of those above has, all of them together (Chen, Zhang and
Zhou, NeurIPS 2018). Greedy, best first. Knows no caps and no floors.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.rank.diverse import units

Float32 = npt.NDArray[np.float32]

RIDGE = 0.01
"""The part of each item that is its own, whatever its vector: without it the determinant of more
items than vectors have numbers is 0, and no order of them is better than another."""
_GAIN = (1 - RIDGE) / RIDGE
_WIDE = 50.0
"""So far apart in worth, exp() of their difference is a float32 with all its digits."""
_HEAVIEST = 1e30
"""Of what values weigh beside likeness: beyond, float32 has no numbers."""


class Determinant:
    """Log determinants, item by item; a Diverse.

    The kernel over candidates is diag(q) S diag(q), with S = (1 - RIDGE) * cosines + RIDGE * I and
    q = exp((1 - strength) / (2 * strength) * value), values scaled to 0 … 1. Greedily taking the
    item that adds most to its log determinant is, times the strength, taking the highest

        (1 - strength) * value + strength * log(d²)

    where d² is what S has of an item given those above: its share of a Cholesky factor. Chen et al.
    keep that factor, a row a place: O(k² C) in all. S is of rank D but for the ridge, so d² is as
    well ridge + (1 - ridge) * f' M f with the item's unit vector f and M = (I + (1 - ridge) / ridge
    * F'F)^-1 [D, D] over the vectors F above, which one more item changes by rank one: O(k C D), no
    kernel of candidates is made, and an item that leaves a window is taken out the same way.

    The score kept is q² d² rather than its logarithm: another item above then takes something away
    from it, and no logarithm is taken at any place. Where the strength is so low that q² has no
    float32, d² is kept and the logarithm taken.
    """

    def __init__(
        self, worth: Float32, vectors: Float32, strength: float, *, window: int = 0
    ) -> None:
        """worth: [C] values from 0 to 1. vectors: [C, D]. strength: above 0, at most 1. window: how
        many of the items right above count; 0: all."""
        self._unit = units(np.asarray(vectors, np.float32))
        self._likeness = np.empty(len(worth), np.float32)
        self._window = window
        self._inverse: Float32 = np.eye(vectors.shape[1], dtype=np.float32)
        self._change: Float32 = np.empty_like(self._inverse)
        self._above: deque[int] = deque()
        weight = min((1 - strength) / strength, _HEAVIEST)
        self._worth = worth * np.float32(weight)
        first = np.float32(1 / (1 - RIDGE))  # d² of each beside nothing, by 1 - RIDGE, as all are
        self._by_logarithm = weight > _WIDE
        if self._by_logarithm:
            self._kept = np.full(len(worth), first)
            self._across = np.ascontiguousarray(self._unit.T)
            self.score = self._worth.copy()
        else:
            root = np.exp(self._worth / 2)
            self._across = np.ascontiguousarray((self._unit * root[:, np.newaxis]).T)
            self._kept = self.score = first * root**2

    def close(self, place: int, others: Sequence[int]) -> None:
        """See Diverse."""
        self._worth[place] = self.score[place] = -np.inf
        if others:
            self._worth[others] = self.score[others] = -np.inf

    def shown(self, place: int) -> None:
        """See Diverse."""
        if self._window:
            if len(self._above) == self._window:
                self._count(self._above.popleft(), -_GAIN)
            self._above.append(place)
        self._count(place, _GAIN)
        if self._by_logarithm:
            np.log(self._kept, out=self.score)  # what is left of any item is RIDGE at least
            self.score += self._worth

    def _count(self, place: int, gain: float) -> None:
        """Let an item count among those above; or, with a gain below 0, no longer."""
        vector, likeness, change = self._unit[place], self._likeness, self._change
        turned = np.dot(self._inverse, vector)
        scale = gain / (1 + gain * float(np.dot(vector, turned)))
        turned *= abs(scale) ** 0.5
        np.dot(turned, self._across, out=likeness)
        np.multiply(likeness, likeness, out=likeness)
        # By BLAS, in two thirds of the time of a product that is broadcast.
        np.dot(turned[:, np.newaxis], turned[np.newaxis], out=change)
        if scale > 0:
            np.subtract(self._kept, likeness, out=self._kept)
            np.subtract(self._inverse, change, out=self._inverse)
        else:
            np.add(self._kept, likeness, out=self._kept)
            np.add(self._inverse, change, out=self._inverse)
