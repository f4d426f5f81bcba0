"""What each rule of a slate costs in predicted value, worked out by hand."""

from typing import Any

import numpy as np
import pytest

from serving.rank.compose import STEPS, Rules, compose
from serving.rank.explore import PRIOR_EVENTS, sampled
from serving.rank.floors import Floor
from serving.rank.places import Group
from serving.rank.slate import REASONS

VALUES = np.array([0.5, 1.0, 0.0, 0.9, 0.4], np.float32)


def costs(values: np.ndarray, k: int, rules: Rules) -> dict[str, Any]:
    made = compose(values, k, rules)
    assert made.best_value - sum(made.costs) == pytest.approx(
        float(values[made.slate.places].sum()), abs=1e-6
    )
    return {
        step: pytest.approx(cost, abs=1e-6)
        for step, cost in zip(STEPS, made.costs, strict=True)
        if abs(cost) > 1e-6
    }


def test_each_step_by_hand() -> None:
    assert costs(VALUES, 2, Rules()) == {}
    # Best two: 1.9. One of creator 7: 1 and 0, 1.5.
    creator = Group(np.array([1, 7, 2, 7, 3], np.int32), 1)
    assert costs(VALUES, 2, Rules(caps=[creator])) == {"caps": 0.4}
    # And one that is new: 1 and 4, 1.4.
    new = Floor(np.array([False, False, True, False, True]), 1, "exposure_floor")
    assert costs(VALUES, 2, Rules(caps=[creator], floors=[new])) == {"caps": 0.4, "floors": 0.1}
    # And one that is live: 4 and 2 are, 4 counts for both, so that nothing more is given up.
    live = Floor(np.array([False, False, False, False, True]), 1)
    assert costs(VALUES, 2, Rules(floors=[new], shares=[live])) == {"floors": 0.5}
    assert costs(VALUES, 2, Rules(shares=[live])) == {"shares": 0.5}


def test_a_price_and_a_draw_by_hand() -> None:
    lifted = np.array([0, 0, 0.95, 0, 0], np.float32)  # 2 stands before 3
    rules = Rules(lifted=lifted)
    assert costs(VALUES, 2, rules) == {"floors": 0.9}
    made = compose(VALUES, 2, rules).slate
    assert made.places.tolist() == [1, 2]
    assert [REASONS[one] for one in made.reasons] == ["value", "exposure_floor"]
    drawn = np.array([1.5, 1.0, 0.0, 0.2, 0.4], np.float32)
    assert costs(VALUES, 2, Rules(drawn=drawn)) == {"exploration": 0.4}
    made = compose(VALUES, 2, Rules(drawn=drawn)).slate
    assert made.places.tolist() == [0, 1]
    assert [REASONS[one] for one in made.reasons] == ["exploration", "value"]


def test_diversity_is_told_last() -> None:
    vectors = np.eye(5, dtype=np.float32)
    vectors[3] = vectors[1]
    for method in ("mmr", "dpp"):
        rules = Rules(vectors=vectors, diversity=0.5, method=method)
        assert compose(VALUES, 2, rules).slate.places.tolist() == [1, 0]
        assert costs(VALUES, 2, rules) == {"diversity": 0.4}


def test_nothing_to_show() -> None:
    made = compose(VALUES[:0], 3, Rules())
    assert made.slate.places.tolist() == [] and made.best_value == 0


def test_draws_are_those_of_a_beta_distribution() -> None:
    chances = np.tile(np.array([[0.2, 0.01]], np.float32), (40_000, 1))
    events = np.repeat([0, 180], 20_000)
    drawn = sampled(chances, events, 1.0, np.random.default_rng(3)).astype(np.float64)
    for part, weight in ((slice(0, 20_000), PRIOR_EVENTS), (slice(20_000, None), 200.0)):
        assert drawn[part].mean(axis=0) == pytest.approx([0.2, 0.01], rel=0.05)
        deviation = (np.array([0.2, 0.01]) * [0.8, 0.99] / (weight + 1)) ** 0.5
        assert drawn[part].std(axis=0) == pytest.approx(deviation, rel=0.05)
    half = sampled(chances, events, 0.5, np.random.default_rng(3))
    np.testing.assert_allclose(half, (chances + drawn) / 2, atol=1e-6)
    again = sampled(chances, events, 1.0, np.random.default_rng(3))
    np.testing.assert_array_equal(again, drawn.astype(np.float32))


def test_no_chance_is_too_near_to_an_end_to_be_drawn() -> None:
    chances = np.array([[0.0], [1.0]], np.float32)
    drawn = sampled(chances, np.zeros(2, np.int64), 1.0, np.random.default_rng(1))
    assert np.isfinite(drawn).all() and drawn[0, 0] < 0.1 and drawn[1, 0] > 0.9
