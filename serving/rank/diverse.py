"""What a candidate is still worth beside those that stand above it: two ways to say it.

Marginal relevance counts the most alike item above; a determinant counts all of them together. Each
keeps a score a candidate, which falls as places are filled. Knows no caps and no floors.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_ROUNDING = 1e-5
ALL_PAIRS = 2048
"""Of so many candidates all pairs are compared at once, which takes 16 MB; of 20,000 it would be
1.6 GB."""


class Diverse(Protocol):
    """Scores of candidates; -inf for those that may not be shown any more.

    For each place `close`, then `shown`, after which scores hold for the next one.
    """

    score: Float32
    """[C], changed in place."""

    def close(self, place: int, others: Sequence[int]) -> None:
        """A candidate is about to be given the next place, and others may not have one for it."""

    def shown(self, place: int) -> None:
        """It has been given the place."""


class MarginalRelevance:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

    def __init__(self, worth: Float32, vectors: Float32, strength: float) -> None:
        """worth: [C] values from 0 to 1. vectors: [C, D]. strength: 0 to 1; the score of a
        candidate is

            (1 - strength) * worth - strength * likeness

        with as likeness the largest cosine to an item above, 0 where all are below 0.
        """
        self._worth = worth * np.float32(1 - strength)
        self.score = self._worth.copy()
        self._unit, self._strength = units(vectors), np.float32(strength)
        # [C, C] what column j is worth beside row i. One product for all pairs takes less time than
        # one a place that is filled: 0.3 ms for 500 candidates of 64 numbers.
        self._beside = self._worth_beside(self._unit) if len(worth) <= ALL_PAIRS else None

    def close(self, place: int, others: Sequence[int]) -> None:
        """See Diverse."""
        self.score[place] = -np.inf
        if others:
            self.score[others] = -np.inf

    def shown(self, place: int) -> None:
        """See Diverse."""
        beside = (
            self._worth_beside(self._unit[place]) if self._beside is None else self._beside[place]
        )
        np.minimum(self.score, beside, out=self.score)

    def _worth_beside(self, above: Float32) -> Float32:
        """[..., C] what candidates are worth beside items with these vectors [..., D]."""
        found: Float32 = above @ self._unit.T
        found *= -self._strength
        found += self._worth
        return found


def within_reach(worth: Float32, k: int, strength: float) -> Int64:
    """[n] the candidates that marginal relevance alone may give one of k places.

    Of the k that are worth most one at least is left at each place, and none loses more than the
    strength: what is worth less than the last of them by more than that is never taken.
    """
    mine = worth * np.float32(1 - strength)
    least = np.partition(mine, len(mine) - k)[len(mine) - k] - np.float32(strength + _ROUNDING)
    return np.flatnonzero(mine >= least)


def scaled(values: Float32) -> Float32:
    """Values on a scale from 0 to 1; all 0 where they are all alike."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if not high > low:
        return np.zeros(len(values), np.float32)
    found: Float32 = ((values - low) / (high - low)).astype(np.float32)
    return found


def units(vectors: Float32) -> Float32:
    """[C, D] vectors of length 1; those of length 0 stay."""
    norms = np.sqrt(np.einsum("cd,cd->c", vectors, vectors))
    unit: Float32 = vectors / np.maximum(norms, 1e-12)[:, np.newaxis]
    return unit
