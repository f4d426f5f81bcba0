"""Ranks and metrics of small lists, worked out by hand."""

import numpy as np
import pytest

from model.ranking_metrics import (
    ListCounts,
    gini,
    mean_metrics,
    subset_starts,
    target_ranks,
    user_metrics,
)


def test_ranks_count_from_one_and_zero_is_not_found() -> None:
    rows = np.array([[7, 3, 5], [7, 3, -1], [7, 3, -1], [1, 2, 3]])
    assert target_ranks(rows, np.array([5, 7, 4, -1])).tolist() == [3, 1, 0, 0]


def test_metrics_of_one_target_a_user_by_hand() -> None:
    # Ranks 1, 3, not found, 12. At 10: hits 2 of 4; NDCG (1 + 1 / log2 4) / 4 = 1.5 / 4;
    # MRR (1 + 1/3) / 4 = 1/3. At 1 only the first counts.
    metrics = mean_metrics(user_metrics(np.array([1, 3, 0, 12]), (1, 10)))
    assert metrics == pytest.approx(
        {
            **{"hr@1": 0.25, "recall@1": 0.25, "ndcg@1": 0.25, "mrr@1": 0.25},
            **{"hr@10": 0.5, "recall@10": 0.5, "ndcg@10": 0.375, "mrr@10": 1 / 3},
        }
    )


def test_metrics_of_several_targets_a_user_by_hand() -> None:
    # User 0 has targets at ranks 1, 3 and none; user 1 at 12; user 2 at 2 and 3.
    metrics = user_metrics(np.array([1, 3, 0, 12, 2, 3]), (2, 10), starts=np.array([0, 3, 4, 6]))
    second, third = 1 / np.log2(3), 1 / np.log2(4)
    expected: dict[str, list[float]] = {
        "hr@2": [1, 0, 1],
        "recall@2": [1 / 3, 0, 1 / 2],
        # Three targets, but a list of two: its ideal has two hits.
        "ndcg@2": [1 / (1 + second), 0, second / (1 + second)],
        "mrr@2": [1, 0, 1 / 2],
        "hr@10": [1, 0, 1],
        "recall@10": [2 / 3, 0, 1],
        "ndcg@10": [(1 + third) / (1 + second + third), 0, (second + third) / (1 + second)],
        "mrr@10": [1, 0, 1 / 2],
    }
    assert set(metrics) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(metrics[name], values, err_msg=name)


def test_no_users_have_no_metrics() -> None:
    with pytest.raises(ValueError, match="no users"):
        mean_metrics(user_metrics(np.array([], np.int64), (10,)))


def test_some_targets_alone_belong_to_some_users() -> None:
    owners = np.array([0, 0, 1, 3, 3, 3])
    users, starts = subset_starts(owners, np.array([False, True, False, True, False, True]))
    assert (users.tolist(), starts.tolist()) == ([0, 3], [0, 1, 3])


def test_what_lists_are_made_of_by_hand() -> None:
    counts = ListCounts(4, (1, 3))
    counts.add(np.array([[1, 2, -1], [1, 3, -1]]))
    counts.add(np.array([[2, 1, 3]]))
    metrics = counts.metrics(np.array([8, 4, 0, 4]))
    assert (metrics["coverage@1"], metrics["coverage@3"]) == (0.5, 0.75)
    # Listed 0, 2, 1 and 0 times at 1; 0, 3, 2 and 2 times at 3.
    assert metrics["gini@1"] == pytest.approx((-3 * 0 - 1 * 0 + 1 * 1 + 3 * 2) / (4 * 3))
    assert metrics["gini@3"] == pytest.approx((-3 * 0 - 1 * 2 + 1 * 2 + 3 * 3) / (4 * 7))
    # Shares of 16 events: 1/4 is 2 bits; an item without an event counts as one of 16: 4 bits.
    assert metrics["novelty@1"] == pytest.approx((2 * 2 + 1 * 4) / 3)
    assert metrics["novelty@3"] == pytest.approx((3 * 2 + 2 * 4 + 2 * 2) / 7)


def test_gini_of_equals_and_of_one_who_has_all() -> None:
    assert gini(np.array([5, 5, 5, 5])) == 0
    assert gini(np.array([0, 0, 0, 9])) == 0.75
    assert gini(np.zeros(3, np.int64)) == 0
