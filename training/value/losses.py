"""What the value model is trained to make small: pure functions of logits and labels.

The log loss makes probabilities true on the whole; the ranking loss orders what one user was shown,
which is all that a slate asks for, and which the log loss alone neglects: how often a user clicks
at all explains more of it than which of the items (Sculley, Combined Regression and Ranking, KDD
2010). The two do not contradict each other: both are least where the logits are the true ones.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def log_losses(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Log loss of each head [T]: the mean over the exposures at which its label is known.

    logits, labels, known: [n, T] float32, known 1 or 0.
    """
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * known
    return each.sum(dim=0) / known.sum(dim=0).clamp(min=1)


def ranking_losses(
    logits: Tensor, labels: Tensor, known: Tensor, pairs: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Log loss of each head [T] over pairs of one user's exposures, of which one came true.

    logits, labels, known: [n, T]. pairs: of same_user_pairs. A pair's loss is that of telling which
    of the two came true from the difference of their logits. Each exposure that came true counts
    with the share of the user's exposures that did not; the sum is divided by n.
    """
    first, second, weights = pairs
    chosen = (labels * known).index_select(0, first)
    passed = ((1 - labels) * known).index_select(0, second)
    gaps = logits.index_select(0, first) - logits.index_select(0, second)
    losses = F.softplus(-gaps) * chosen * passed * weights.unsqueeze(-1)
    return losses.sum(dim=0) / len(logits)


def head_weights(rates: Tensor, power: float) -> Tensor:
    """What each head's losses count [T]: 1 for the one that is hardest to guess, more for others.

    rates: [T] float32 between 0 and 1, how often each head comes true. What guessing just the rate
    costs is its entropy; a head counts by the inverse of its own to this power. With 0 the layers
    that all share learn common heads alone; with 1 one click less is worth a hundred likes.
    """
    entropy = F.binary_cross_entropy(rates, rates, reduction="none")
    return (entropy.max() / entropy) ** power


def same_user_pairs(owners: Int64, came_true: Bool) -> tuple[Tensor, Tensor, Tensor]:
    """All ordered pairs of examples of one user of which the first came true.

    owners: [n] whose each is. came_true: [n], for any head; a pair without one has nothing to tell.
    Returns first [p], second [p] int64 places in owners, and weights [p] float32: 1 over the number
    of the user's examples among them.
    """
    order = np.argsort(owners, kind="stable")
    sizes = np.unique(owners, return_counts=True)[1]
    chosen = np.flatnonzero(came_true[order])
    mine = np.repeat(sizes, sizes)[chosen]
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)[chosen]
    first = np.repeat(chosen, mine)
    within = np.arange(len(first)) - np.repeat(np.cumsum(mine) - mine, mine)
    second = np.repeat(starts, mine) + within
    weights = np.repeat(1 / mine, mine).astype(np.float32)
    return (
        torch.from_numpy(order[first]),
        torch.from_numpy(order[second]),
        torch.from_numpy(weights),
    )
