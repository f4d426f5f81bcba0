"""Ranks and metrics of small lists, worked out by hand."""

import numpy as np
import pytest

from model.ranking_metrics import coverage, ranking_metrics, target_ranks


def test_ranks_count_from_one_and_zero_is_not_found() -> None:
    rows = np.array([[7, 3, 5], [7, 3, -1], [7, 3, -1], [1, 2, 3]])
    assert target_ranks(rows, np.array([5, 7, 4, -1])).tolist() == [3, 1, 0, 0]


def test_metrics_by_hand() -> None:
    # Ranks 1, 3, not found, 12. At 10: hits 2 of 4; NDCG (1 + 1 / log2 4) / 4 = 1.5 / 4;
    # MRR (1 + 1/3) / 4 = 1/3. At 1 only the first counts.
    metrics = ranking_metrics(np.array([1, 3, 0, 12]), (1, 10))
    assert metrics == pytest.approx(
        {
            **{"hr@1": 0.25, "recall@1": 0.25, "ndcg@1": 0.25, "mrr@1": 0.25},
            **{"hr@10": 0.5, "recall@10": 0.5, "ndcg@10": 0.375, "mrr@10": 1 / 3},
        }
    )


def test_no_users_have_no_metrics() -> None:
    with pytest.raises(ValueError, match="no users"):
        ranking_metrics(np.array([], np.int64), (10,))


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    assert coverage(np.array([[1, 2, -1], [2, 3, -1]]), 12) == 0.25
    assert coverage(np.full((1, 1), -1), 0) == 0.0
