"""Recall, hit rate, NDCG and MRR of ranked lists. Pure functions over arrays; no model, no data."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def target_ranks(rows: Int64, targets: Int64) -> Int64:
    """Where each user's one target stands in the list.

    rows: [B, K] int64, best first, -1 for none. targets: [B] int64.
    Returns [B] int64: 1 for the first place; 0 where the target is not in the list.
    """
    hit = (rows == targets[:, None]) & (targets[:, None] >= 0)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0).astype(np.int64)


def ranking_metrics(ranks: Int64, ks: Sequence[int]) -> dict[str, float]:
    """Mean metrics of users with one target each.

    ranks: [B] int64, 1 = first, 0 = not found within the list that was searched.

    Returns `hr@k`, `recall@k` (equal to hr@k with one target), `ndcg@k` and `mrr@k` for each k:
    NDCG of one target at rank r is 1 / log2(1 + r), its ideal is 1. Raises ValueError for no users.
    """
    if not len(ranks):
        raise ValueError("no users to evaluate: the split holds no target")
    metrics: dict[str, float] = {}
    for k in ks:
        hit = (ranks > 0) & (ranks <= k)
        safe = np.where(hit, ranks, 1)
        rate = float(hit.mean())
        metrics[f"hr@{k}"] = rate
        metrics[f"recall@{k}"] = rate
        metrics[f"ndcg@{k}"] = float(np.where(hit, 1.0 / np.log2(1.0 + safe), 0.0).mean())
        metrics[f"mrr@{k}"] = float(np.where(hit, 1.0 / safe, 0.0).mean())
    return metrics


def coverage(rows: Int64, num_items: int) -> float:
    """Share of the catalogue that appears in any list; rows [B, K] int64, -1 for none."""
    return len(np.unique(rows[rows >= 0])) / num_items if num_items else 0.0
