"""Credit by removal: shares by hand, and logs whose causes are known because they were drawn."""

import numpy as np
import pytest

from tests.training.attribution.logs import log_of
from training.attribution.log import Log
from training.attribution.rates import order_rates
from training.attribution.removal import Removal, _Fit, fit_removal
from training.attribution.touches import find_touches

VIDEO, TEA, CUP = 0, 1, 2
KINDS = ("video", "product", "product")


def fit(log: Log, *, days: float = 7.0, control: bool = True) -> Removal:
    touches = find_touches(log, days=days)
    found = fit_removal(order_rates(log, touches, days=days), len(touches.episode), control=control)
    credited = np.bincount(touches.order, found.credit, minlength=len(log.orders.user))
    np.testing.assert_allclose(credited + found.background + found.control, 1.0)
    return found


def test_the_first_shares_are_those_of_the_rates_at_the_start() -> None:
    # One order two days after a long watch of the video that shows nothing but the tea.
    log = log_of(
        orders=[(0, TEA, 5.0)],
        episodes=[(0, VIDEO, 3.0, 2)],
        circles=[0, 0, 1],
        kinds=KINDS,
        shows=[(VIDEO, TEA)],
        num_users=1,
        end=10.0,
    )
    touches = find_touches(log, days=7.0)
    rates = order_rates(log, touches, days=7.0)
    first = _Fit(rates, control=True)
    first.share_out()
    # Three circles (two, and that of items without one), ten days each: 1 / 30 orders a day.
    # Popularity but for this order: the tea and nothing else in its circle, so a share of 1.
    background = 1 / 30
    # Shown and of one circle, each 0.002 orders over seven days; the control as much.
    caused, beside = 2 * 0.002 / 7, 2 * 0.002 / 7
    total = background + caused + beside
    assert first.background == pytest.approx([background / total])
    assert first.caused.sum() == pytest.approx(caused / total)
    assert first.beside.sum() == pytest.approx(beside / total)


def test_time_stands_open_only_inside_the_log() -> None:
    log = log_of(
        orders=[(0, TEA, 5.0)],
        episodes=[(0, VIDEO, 3.0, 2)],
        circles=[0, 0, 1],
        kinds=KINDS,
        num_users=1,
        end=4.25,  # a day and a quarter after the watch
    )
    rates = order_rates(log, find_touches(log, days=3.0), days=3.0)
    np.testing.assert_allclose(rates.edges, [0, 1 / 24, 0.5, 1, 2, 3])
    after = [1 / 24, 0.5 - 1 / 24, 0.5, 0.25, 0.0]
    np.testing.assert_allclose(rates.openings.after, [after])
    np.testing.assert_allclose(rates.openings.around, [[2 / 24, 1 - 2 / 24, 1.0, 1.25, 1.0]])


def drawn(*, stirred: float, mood: float, seed: int, num: int = 1500) -> tuple[Log, float]:
    """Users who watch one video on day 10 or 20; the share of orders that those watches stirred.

    Each orders by chance now and then. stirred: the chance of an order 1 to 4 days after a watch.
    mood: that of one up to 4 days before it or after it, which the watch has no part in.
    """
    rng = np.random.default_rng(seed)
    orders: list[tuple[int, int, float]] = []
    episodes: list[tuple[int, int, float, int]] = []
    num_stirred = 0
    for user in range(num):
        day = float(rng.choice([10.0, 20.0]))
        episodes.append((user, VIDEO, day, 2))
        orders += [(user, TEA, float(d)) for d in rng.uniform(0, 30, rng.poisson(0.15))]
        orders += [(user, CUP, float(d)) for d in rng.uniform(0, 30, rng.poisson(0.15))]
        if rng.random() < stirred:
            orders.append((user, TEA, day + float(rng.uniform(1, 4))))
            num_stirred += 1
        if rng.random() < mood:
            orders.append((user, TEA, day + float(rng.uniform(-4, 4))))
    log = log_of(
        orders=orders,
        episodes=episodes,
        circles=[0, 0, 1],
        kinds=KINDS,
        shows=[(VIDEO, TEA)],
        num_users=num,
        end=30.0,
    )
    return log, num_stirred / len(orders)


def test_what_watches_stirred_is_found_and_no_more() -> None:
    log, share = drawn(stirred=0.2, mood=0.0, seed=1)
    assert 0.3 < share < 0.5
    found = fit(log)
    assert found.credit.sum() / len(log.orders.user) == pytest.approx(share, abs=0.04)
    # It came on the second to the fourth day: what the lags say.
    shows = found.lags[2] if found.orders_per_touch[:, 2].sum() else found.lags[4]
    assert shows[3:6].sum() > 0.85


@pytest.mark.parametrize("seed", [2, 3])
def test_where_nothing_was_stirred_nothing_is_credited(seed: int) -> None:
    log, _ = drawn(stirred=0.0, mood=0.0, seed=seed)
    assert find_touches(log, days=7.0).starts[-1] > 30  # the rules would credit all of these
    assert fit(log).credit.sum() / len(log.orders.user) < 0.01


def test_the_control_takes_what_a_mood_brings_before_and_after() -> None:
    log, _ = drawn(stirred=0.0, mood=0.3, seed=4)
    found, without = fit(log), fit(log, control=False)
    num = len(log.orders.user)
    assert without.credit.sum() / num > 0.15  # half of the moods' orders come after the watch
    assert found.credit.sum() / num < 0.04


def test_an_item_that_stirs_more_gets_more_of_a_shared_order() -> None:
    # Two videos of one circle; the first is followed by an order the next day, the second never.
    rng = np.random.default_rng(5)
    orders, episodes = [], []
    for user in range(400):
        video = user % 2
        episodes.append((user, video, 5.0, 2))
        if video == 0 and rng.random() < 0.5:
            orders.append((user, 2, 5.0 + float(rng.uniform(1, 2))))
        orders += [(user, 2, float(day)) for day in rng.uniform(0, 20, rng.poisson(0.1))]
    both = 400
    episodes += [(both, 0, 5.0, 2), (both, 1, 5.5, 2)]
    orders.append((both, 2, 6.6))
    log = log_of(
        orders=orders,
        episodes=episodes,
        circles=[0, 0, 0],
        kinds=("video", "video", "product"),
        num_users=both + 1,
        end=20.0,
    )
    touches = find_touches(log, days=7.0)
    found = fit(log)
    first, second = found.credit[touches.starts[-2] : touches.starts[-1]]
    assert first > 0.6 and second < 0.2  # last touch gives all to the second


def test_a_log_without_touches_leaves_all_unattributed() -> None:
    log = log_of(
        orders=[(0, TEA, 5.0), (0, CUP, 5.0)],
        episodes=[],
        circles=[0, 0, 1],
        kinds=KINDS,
        num_users=1,
        end=10.0,
    )
    np.testing.assert_allclose(fit(log).background, 1.0)
