"""Thompson sampling: rank by what a candidate might be worth, the less is known of it the more.

The chances of the value model are taken as the means of Beta distributions whose weight is the
evidence about the item (docs/decisions/0026). Knows no slates.
"""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

PRIOR_EVENTS = 20.0
"""How many events what the model says of an item weighs that nobody has met: as many as the prior
of the statistics that it learned from (docs/value-model.md)."""
_LEAST = 1e-5
"""Chances are kept this far from 0 and 1, where no Beta distribution is."""


def sampled(chances: Float32, events: Int64, strength: float, rng: np.random.Generator) -> Float32:
    """[n, T] chances drawn once a candidate and head.

    chances: [n, T] the model's. events: [n] how many events of histories each item has. strength: 0
    to 1, how much of the way from the model's chance to the drawn one is gone.

    Drawn from Beta(p * w, (1 - p) * w) with w = PRIOR_EVENTS + events, whose mean is p and whose
    variance, p * (1 - p) / (w + 1), falls as an item is met.
    """
    mean = np.clip(chances.astype(np.float64), _LEAST, 1 - _LEAST)
    weight = (PRIOR_EVENTS + events)[:, np.newaxis]
    drawn = rng.beta(mean * weight, (1 - mean) * weight)
    found: Float32 = (chances + strength * (drawn - chances)).astype(np.float32)
    return found
