"""Which items stand against the positives of a batch, and how likely each was to be drawn.

Draws are a pure function of (seed, step), so a resumed run draws what the interrupted one would
have. Imports numpy alone.
"""

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


class NegativeSampler:
    """Uniform and in-batch negatives, shared by the batch, each item once."""

    def __init__(
        self,
        popularity: npt.NDArray[np.float64],
        *,
        num_uniform: int,
        num_in_batch: int,
        batch_tokens: int,
    ) -> None:
        """popularity: [V] how often each item row is a training target (only its ratios count).

        batch_tokens: about how many targets a batch has, from which the in-batch draws are made.
        """
        self.num_items = len(popularity)
        self.num_uniform = min(num_uniform, self.num_items)
        self.num_in_batch = num_in_batch
        share = popularity / max(popularity.sum(), 1e-12)
        # An item stands c ~ Poisson(T share) times among a batch's T targets, and n draws with
        # replacement miss it with chance exp(-n c / T): over c, exp(-T share (1 - e^(-n/T))).
        # Taking the draws for independent ones of the data, exp(-n share), overstates a rare item's
        # chance by half where n is near T.
        reach = batch_tokens * (1 - np.exp(-num_in_batch / batch_tokens))
        missed = (1 - self.num_uniform / self.num_items) * np.exp(-reach * share)
        self.log_q: Float32 = np.log(np.maximum(1 - missed, 1e-12)).astype(np.float32)
        """[V] float32, log of the chance that an item is among the candidates of a batch."""

    def draw(self, targets: Int64, rng: np.random.Generator) -> Int64:
        """Candidates [N], each row once, for a batch whose positives are `targets` ([T] rows)."""
        uniform = rng.choice(self.num_items, self.num_uniform, replace=False, shuffle=False)
        in_batch = targets[rng.integers(len(targets), size=self.num_in_batch)]
        return np.unique(np.concatenate([uniform, in_batch]).astype(np.int64))
