"""ALS: users solved from their history at the question, against the closed form in float64."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from tests.training.histories import CART, ORDER, WATCH, histories_of
from tests.training.tiny import interactions
from training.als import ALS
from training.dataset import Interactions

NO_ITEMS = pa.table({})
TRAINING = interactions([20] * 50, num_items=40, seed=1)


def fitted(training: Interactions = TRAINING, *, seed: int = 3, factors: int = 8) -> ALS:
    return ALS.fit(training, NO_ITEMS, seed=seed, factors=factors, regularization=0.5, alpha=0.5)


def test_users_are_solved_in_closed_form_from_the_history_at_the_question() -> None:
    weights = {WATCH: 1.0, CART: 2.0, ORDER: 3.0}
    asked = histories_of(
        [[(5, WATCH), (5, ORDER), (7, CART)], [(9, WATCH)]], num_items=40, weights=weights
    )
    ranker = fitted()
    vectors = ranker.model.item_factors.astype(np.float64)
    expected = []
    # Confidence 1 + 0.5 · weight: 5 was watched and bought, 1 + 0.5 · (1 + 3).
    for confidences in ({5: 3.0, 7: 2.0}, {9: 1.5}):
        left, right = vectors.T @ vectors + 0.5 * np.eye(8), np.zeros(8)
        for item, confidence in confidences.items():
            left += (confidence - 1) * np.outer(vectors[item], vectors[item])
            right += confidence * vectors[item]
        scores = vectors @ np.linalg.solve(left, right)
        expected.append(np.argsort(-scores, kind="stable")[:40].tolist())
    assert ranker.top(asked, np.array([0, 1]), 40, excluded=None).tolist() == expected
    assert ranker.top(asked, np.array([1, 0]), 40, excluded=None).tolist() == expected[::-1]


def test_what_two_crowds_like_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    crowds = [rng.permutation(8)[:5] + (8 if user % 2 else 0) for user in range(60)]
    ranker = fitted(histories_of([crowd.tolist() for crowd in crowds], num_items=16), factors=2)
    asked = histories_of([[2, 5], [12]], num_items=16)
    first, second = ranker.top(
        asked, np.arange(2), 6, excluded=[np.array([2, 5]), np.array([12])]
    ).tolist()
    assert set(first) == {0, 1, 3, 4, 6, 7}
    assert set(second) < {8, 9, 10, 11, 13, 14, 15}


def test_items_and_users_without_events_are_left_to_popularity() -> None:
    # 2 has 3 events, 0 and 1 have 2; 3 and 4 none, so they have no vector and come last.
    ranker = fitted(histories_of([[0, 1, 2], [0, 1, 2], [2]], num_items=5))
    asked = histories_of([[0], [], [4]], num_items=5)
    found = ranker.top(asked, np.arange(3), 5, excluded=None).tolist()
    assert sorted(found[0][:3]) == [0, 1, 2] and found[0][3:] == [3, 4]
    assert found[1] == found[2] == [2, 0, 1, 3, 4]
    # Nor does chance speak for what only chance has placed.
    more = replace(TRAINING, num_items=45)
    asked = histories_of([[42], []], num_items=45)
    first, second = fitted(more).top(asked, np.arange(2), 45, excluded=None).tolist()
    assert first == second


def test_a_weight_of_zero_says_nothing() -> None:
    ranker = fitted()
    asked = histories_of([[(5, WATCH), (7, CART)], [5]], num_items=40, weights={CART: 0.0})
    first, second = ranker.top(asked, np.arange(2), 10, excluded=None).tolist()
    assert first == second


def test_the_seed_decides_and_blas_threads_are_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("implicit.utils._checked_blas_config", False)
    with threadpool_limits(2, "blas"):
        with pytest.warns(RuntimeWarning, match="OPENBLAS_NUM_THREADS|BLAS"):
            AlternatingLeastSquares()
        monkeypatch.setattr("implicit.utils._checked_blas_config", False)
        one = fitted().model.item_factors
    assert (fitted().model.item_factors == one).all()
    assert not np.allclose(fitted(seed=4).model.item_factors, one, atol=1e-3)
