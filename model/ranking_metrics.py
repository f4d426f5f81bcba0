"""Recall, hit rate, NDCG and MRR of ranked lists, and what the lists are made of.

Pure functions over arrays; no model, no data. A user may have one target or several.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def target_ranks(rows: Int64, targets: Int64) -> Int64:
    """Where each target stands in its list.

    rows: [T, K] int64, best first, -1 for none; a user's list again for each of their targets.
    targets: [T] int64.
    Returns [T] int64: 1 for the first place; 0 where the target is not in the list.
    """
    hit = (rows == targets[:, None]) & (targets[:, None] >= 0)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0).astype(np.int64)


def user_metrics(
    ranks: Int64, ks: Sequence[int], *, starts: Int64 | None = None
) -> dict[str, Float64]:
    """Metrics of each user, [n] each.

    ranks: [T] int64, 1 = first, 0 = not found within the list that was searched. starts: [n + 1],
    user i has ranks starts[i] .. starts[i + 1], at least one; not given: one target a user.

    Returns for each k, of a user with t targets: `hr@k` (any of them found), `recall@k` (share of
    the t found), `ndcg@k` (a target at rank r gains 1 / log2(1 + r), over the gain of the min(t, k)
    first places), `mrr@k` (1 / rank of the first one found).
    """
    if starts is None:
        starts = np.arange(len(ranks) + 1)
    first, counts = starts[:-1], np.diff(starts)
    metrics: dict[str, Float64] = {}
    if not len(counts):
        return {f"{name}@{k}": np.empty(0) for k in ks for name in ("hr", "recall", "ndcg", "mrr")}
    for k in ks:
        hit = (ranks > 0) & (ranks <= k)
        safe = np.where(hit, ranks, 1)
        found = np.add.reduceat(hit.astype(np.float64), first)
        gain = np.add.reduceat(np.where(hit, 1.0 / np.log2(1.0 + safe), 0.0), first)
        ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))[np.minimum(counts, k) - 1]
        metrics[f"hr@{k}"] = (found > 0).astype(np.float64)
        metrics[f"recall@{k}"] = found / counts
        metrics[f"ndcg@{k}"] = gain / ideal
        metrics[f"mrr@{k}"] = np.maximum.reduceat(np.where(hit, 1.0 / safe, 0.0), first)
    return metrics


def mean_metrics(metrics: Mapping[str, Float64]) -> dict[str, float]:
    """The mean over users of each metric. Raises ValueError for no users."""
    if any(not len(values) for values in metrics.values()):
        raise ValueError("no users to evaluate: the split holds no target")
    return {name: float(values.mean()) for name, values in metrics.items()}


def subset_starts(owners: Int64, chosen: npt.NDArray[np.bool_]) -> tuple[Int64, Int64]:
    """Users of some targets alone: owners [T] rising, chosen [T] bool.

    Returns the users [m] with a chosen target, and starts [m + 1] into the chosen targets.
    """
    users, first = np.unique(owners[chosen], return_index=True)
    return users, np.append(first, int(chosen.sum()))


class ListCounts:
    """How often each item was listed, for several list lengths; adds up batch by batch."""

    def __init__(self, num_items: int, ks: Sequence[int]) -> None:
        self._counts = {k: np.zeros(num_items, np.int64) for k in ks}

    def add(self, rows: Int64) -> None:
        """rows: [B, K] int64, best first, -1 for none; K at least the longest of the lengths."""
        for k, counts in self._counts.items():
            listed, times = np.unique(rows[:, :k], return_counts=True)
            counts[listed[listed >= 0]] += times[listed >= 0]

    def metrics(self, popularity: Int64) -> dict[str, float]:
        """What the lists are made of; popularity: [V] training events of each item.

        `coverage@k`: share of the catalogue in any list. `gini@k`: of how often items are listed, 0
        all alike, near 1 a few items take all. `novelty@k`: mean over listed items of -log2 of
        their share of the training events, in bits, an item without any counting as one with one
        (Castells et al., Recommender Systems Handbook, 2015).
        """
        metrics = {}
        bits = np.log2(max(popularity.sum(), 1)) - np.log2(np.maximum(popularity, 1))
        for k, counts in self._counts.items():
            metrics[f"coverage@{k}"] = float((counts > 0).mean()) if len(counts) else 0.0
            metrics[f"gini@{k}"] = gini(counts)
            metrics[f"novelty@{k}"] = float((counts * bits).sum() / max(counts.sum(), 1))
        return metrics


def gini(counts: Int64) -> float:
    """The Gini coefficient of counts [V]: 0 where all are equal, 1 - 1/V where one has all."""
    total = counts.sum()
    if not total:
        return 0.0
    num = len(counts)
    place = np.arange(1, num + 1)
    return float((2 * place - num - 1) @ np.sort(counts) / (num * total))
