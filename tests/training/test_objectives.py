"""Future windows: what positions learn from, by hand and where the delays are known."""

import numpy as np
import pytest

from model.errors import ConfigError
from training.config import RunConfig
from training.objectives import FutureWindows

DAY = 86_400_000_000


def windows(
    days: list[list[float]],
    weights: list[float],
    orders: list[bool],
    *,
    end: float,
    window: float = 5.0,
    half_life: float = 2.0,
) -> FutureWindows:
    """days: of each user's events."""
    starts = np.concatenate([[0], np.cumsum([len(user) for user in days])])
    times = np.round(np.concatenate([np.array(user) for user in days]) * DAY).astype(np.int64)
    return FutureWindows(
        starts,
        times,
        np.array(weights),
        np.array(orders),
        end=round(end * DAY),
        window_days=window,
        half_life_days=half_life,
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_direct_takes_the_first_order_of_the_window_and_of_the_same_user() -> None:
    found = windows(
        [[0.0, 1.0, 4.0, 9.5], [0.0, 2.0]],
        [1.0] * 6,
        [False, False, True, True, False, False],
        end=1000.0,
    ).draw("direct", np.arange(6), rng())
    # From day 0 and 1 the order of day 4; it and that of day 9.5 are each their own position's
    # first; the other user never orders, whoever else does.
    assert found.targets[:4].tolist() == [2, 2, 2, 3]
    assert (found.weights > 0).tolist() == [True, True, True, True, False, False]


def test_an_order_past_the_window_is_none() -> None:
    whole = windows([[0.0, 5.1]], [1.0, 1.0], [False, True], end=1000.0)
    assert whole.draw("direct", np.array([0]), rng()).weights.tolist() == [0.0]


def test_interest_draws_by_weight_and_nearness() -> None:
    # Weights 1, 3, 4 at days 0, 2, 4 with a half-life of 2 days: 1, 1.5, 1; what weighs nothing and
    # what lies past the window is never drawn.
    days = [[0.0, 1.0, 2.0, 4.0, 7.0]]
    of = windows(days, [1.0, 0.0, 3.0, 4.0, 99.0], [False] * 5, end=1e6)
    drawn = of.draw("interest", np.zeros(40_000, np.int64), rng())
    share = np.bincount(drawn.targets, minlength=5) / 40_000
    np.testing.assert_allclose(share, [1 / 3.5, 0, 1.5 / 3.5, 1 / 3.5, 0], atol=0.01)


def test_a_position_with_nothing_ahead_weighs_nothing() -> None:
    of = windows([[0.0, 1.0], [3.0]], [1.0, 0.0, 2.0], [False] * 3, end=4.0)
    drawn = of.draw("interest", np.array([0, 1, 2]), rng())
    assert (drawn.weights > 0).tolist() == [True, False, True]
    assert drawn.targets.tolist()[::2] == [0, 2]


def test_what_is_seen_from_half_of_the_positions_counts_twice() -> None:
    # Ages at the end: 10, 8, 6, 4 days; an order 5 days ahead is seen from two of four positions.
    of = windows([[0.0], [2.0], [4.0, 9.0]], [1.0] * 4, [False, False, False, True], end=10.0)
    np.testing.assert_allclose(of.seen_share(np.array([0, 5 * DAY])), [1.0, 3 / 4])
    drawn = of.draw("direct", np.array([2]), rng())
    assert drawn.targets.tolist() == [3] and drawn.weights == pytest.approx([4 / 3])


def test_orders_that_take_their_time_are_not_learned_too_seldom() -> None:
    num = 30_000
    draws = np.random.default_rng(8)
    watched = draws.uniform(0, 40, num)
    is_slow = draws.random(num) < 0.5
    ordered = watched + np.where(is_slow, 20.0, 1.0)
    # Watches spread over 40 days, each of another user; half are followed by an order a day later,
    # half by one 20 days later, which the log, ending on day 40, often does not hold.
    days = [
        [watch, order] if order <= 40 else [watch]
        for watch, order in zip(watched, ordered, strict=True)
    ]
    flags = [flag for user in days for flag in (False, True)[: len(user)]]
    of = windows(days, [1.0] * len(flags), flags, end=40.0, window=30.0)
    following = np.cumsum([0] + [len(user) for user in days])[:-1]
    drawn = of.draw("direct", following, rng())
    seen = drawn.weights > 0
    plain = is_slow[seen].mean()
    corrected = drawn.weights[seen & is_slow].sum() / drawn.weights[seen].sum()
    # 20 of 40 days show a slow order, 39 of 40 a quick one: a third instead of a half.
    assert plain == pytest.approx(20 / 59, abs=0.01)
    assert abs(corrected - 0.5) < 0.5 * abs(plain - 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ("interest", "likes")}, "objectives = 'interest,likes' is not allowed"),
        ({"objectives": ("direct", "direct")}, "each of interest, direct at most once"),
        ({"window_days": 0.0}, "window_days = 0.0"),
        ({"half_life_days": -1.0}, "half_life_days"),
        ({"credit_days": 400.0}, "credit_days = 400.0 is not allowed; allowed: 0 to 365"),
    ],
)
def test_a_config_that_is_not_allowed(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig(**change)  # type: ignore[arg-type]
