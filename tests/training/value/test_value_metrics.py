"""AUC, GAUC and NDCG against numbers worked out by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from training.value.metrics import Ranking, bootstrap


def test_by_hand() -> None:
    """User 0 is shown four: scores 4 3 2 1, the second and the last came true. User 1 three: 9 8 7,
    the first came true. User 2 two, and both came true: nothing to compare."""
    users = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    labels = np.array([0, 1, 0, 1, 1, 0, 0, 1, 1], bool)
    scores = np.array([4.0, 3, 2, 1, 9, 8, 7, 0, 0.5])
    ranking = Ranking(users, labels, scores, 3, slate_scores=-scores)
    assert (ranking.num_exposures, ranking.num_positives, ranking.num_users) == (9, 5, 2)
    found = ranking.measure()
    # User 0: of 4 pairs, 3 over 2 is right. User 1: both are. Weighted by 4 and 3 exposures.
    assert found["gauc"] == pytest.approx((4 * 0.25 + 3 * 1.0) / 7)
    assert found["slate_auc"] == pytest.approx((4 * 0.75 + 3 * 0.0) / 7)  # the other way round
    gain = [1 / math.log2(1 + rank) for rank in range(1, 5)]
    one = (gain[1] + gain[3]) / (gain[0] + gain[1])
    assert found["ndcg"] == pytest.approx((one + 1) / 2)
    # All 5 × 4 pairs: 9 is above all four, 3 above 2 alone, 1, 0 and 0.5 above none.
    assert found["auc"] == pytest.approx(5 / 20)
    # User 1 twice, user 2 never.
    again = ranking.measure(np.array([1.0, 2.0, 0.0]))
    assert again["gauc"] == pytest.approx((4 * 0.25 + 6 * 1.0) / 10)
    assert again["slate_auc"] == pytest.approx((4 * 0.75 + 6 * 0.0) / 10)
    assert again["ndcg"] == pytest.approx((one + 2) / 3)
    # Positives 3, 1 and 9 twice; negatives 4, 2 and 8, 7 twice: 6 × 2 + 1 of 4 × 6 pairs.
    assert again["auc"] == pytest.approx(13 / 24)


def test_equal_scores_share_their_places() -> None:
    users = np.zeros(4, np.int64)
    labels = np.array([1, 0, 0, 1], bool)
    for scores in (np.zeros(4), np.ones(4)):
        found = Ranking(users, labels, scores, 1, slate_scores=scores).measure()
        assert found["auc"] == found["gauc"] == found["slate_auc"] == 0.5
        gain = np.array([1 / math.log2(1 + rank) for rank in range(1, 5)])
        assert found["ndcg"] == pytest.approx(2 * gain.mean() / gain[:2].sum())


def test_with_nothing_to_compare_there_is_no_figure() -> None:
    for labels in (np.zeros(3, bool), np.ones(3, bool)):
        scores = np.arange(3.0)
        ranking = Ranking(np.array([0, 0, 1]), labels, scores, 2, slate_scores=scores)
        assert all(math.isnan(value) for value in ranking.measure().values())
    none = np.empty(0)
    empty = Ranking(np.empty(0, np.int64), np.empty(0, bool), none, 2, slate_scores=none)
    assert all(math.isnan(value) for value in empty.measure().values())


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 30, 1000)
    labels = rng.random(1000) < 0.3
    scores = np.round(rng.normal(size=1000) + labels, 1)  # many ties
    found = Ranking(users, labels, scores, 31, slate_scores=scores).measure()
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores))
    own = [users == u for u in range(30)]
    aucs = [roc_auc_score(labels[m], scores[m]) for m in own]
    assert found["slate_auc"] == found["gauc"]
    assert found["gauc"] == pytest.approx(np.average(aucs, weights=[m.sum() for m in own]))
    ndcgs = [ndcg_score([labels[m]], [scores[m]]) for m in own]
    assert found["ndcg"] == pytest.approx(np.mean(ndcgs))


def test_intervals_are_of_users_and_paired() -> None:
    rng = np.random.default_rng(4)
    users = np.repeat(np.arange(300), 10)
    labels = rng.random(3000) < 0.4
    good, bad = rng.normal(size=3000) + labels, rng.normal(size=3000) + 0.2 * labels
    rankings = {
        name: Ranking(users, labels, scores, 300, slate_scores=scores)
        for name, scores in (("good", good), ("bad", bad), ("same", good))
    }
    own, above = bootstrap(rankings, 300, samples=200, seed=1)
    for name, ranking in rankings.items():
        for metric, value in ranking.measure().items():
            interval = own[name][metric]
            assert interval.value == value and interval.low < value < interval.high
            assert interval.high - interval.low < 0.08
    assert all(0 < gap.low < gap.value < gap.high for gap in above["bad"].values())
    # The same users are drawn for all.
    assert all((gap.low, gap.value, gap.high) == (0, 0, 0) for gap in above["same"].values())
