"""What is known of an item from before the first fitted exposure: how often it pleased, how known.

Counted from the part `before` alone: an exposure that is learned from, or that judges, never counts
for its own item's statistics. They stay as they are until the next fit, so that serving feeds the
network the numbers it was fitted with; an item that came later has the prior row.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.value.exposures import Exposures

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

PRIOR_EXPOSURES = 20
"""How many exposures at the average rate stand beside those of an item (a Beta prior)."""


@dataclass(frozen=True, slots=True)
class ItemStats:
    """One row of numbers an item."""

    names: tuple[str, ...]
    values: Float32
    """[V, S] float32, finite."""
    prior: Float32
    """[S] float32: the row of an item of which nothing is known."""


def count_stats(before: Exposures, popularity: Int64) -> ItemStats:
    """Count from the exposures before the fitted ones.

    popularity: [V] engagements and conversions that the towers learned from.

    Columns: `rate.HEAD`, (positives + k × mean rate) / (exposures + k) with k = PRIOR_EXPOSURES,
    for each head that came true at all; `exposures` and `popularity`, log(1 + count).
    """
    num_items = len(popularity)
    shown = np.bincount(before.items, minlength=num_items)
    columns = {"exposures": np.log1p(shown), "popularity": np.log1p(popularity)}
    prior = {"exposures": 0.0, "popularity": 0.0}
    for place, head in enumerate(before.heads):
        known = before.known[:, place]
        positive = before.labels[:, place] & known
        if not positive.any():
            continue
        mean = positive.sum() / known.sum()
        hits = np.bincount(before.items[positive], minlength=num_items)
        tries = np.bincount(before.items[known], minlength=num_items)
        name = f"rate.{head.name}"
        columns[name] = (hits + PRIOR_EXPOSURES * mean) / (tries + PRIOR_EXPOSURES)
        prior[name] = float(mean)
    names = (*(n for n in columns if n.startswith("rate.")), "exposures", "popularity")
    return ItemStats(
        names=names,
        values=np.stack([columns[name] for name in names], axis=1).astype(np.float32),
        prior=np.array([prior[name] for name in names], np.float32),
    )
