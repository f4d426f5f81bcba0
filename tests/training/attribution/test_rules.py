"""The rules of attribution, against shares worked out by hand."""

import numpy as np
import pytest

from training.attribution.rules import last_touch, position_based, time_decay

# Orders with 3 touches, none, 1 and 4.
STARTS = np.array([0, 3, 3, 4, 8])


def test_the_last_touch_takes_all() -> None:
    np.testing.assert_array_equal(last_touch(STARTS), [0, 0, 1, 1, 0, 0, 0, 1])


def test_credit_halves_with_each_half_life() -> None:
    age = np.array([5.0, 3.0, 1.0, 900.0, 2.0, 2.0, 2.0, 2.0])
    # Two days: 1/4 : 1/2 : 1 of the newest, so sevenths; one touch alone has all, however old.
    expected = [1 / 7, 2 / 7, 4 / 7, 1, 0.25, 0.25, 0.25, 0.25]
    np.testing.assert_allclose(time_decay(STARTS, age, half_life=2.0), expected)


def test_what_happened_very_long_ago_is_still_shared_out() -> None:
    credit = time_decay(np.array([0, 2]), np.array([9000.0, 8998.0]), half_life=2.0)
    np.testing.assert_allclose(credit, [1 / 3, 2 / 3])


def test_the_ends_take_their_shares() -> None:
    credit = position_based(STARTS, ends=0.4)
    np.testing.assert_allclose(credit, [0.4, 0.2, 0.4, 1.0, 0.4, 0.1, 0.1, 0.4])


def test_two_touches_share_evenly_whatever_the_ends_take() -> None:
    np.testing.assert_allclose(position_based(np.array([0, 2]), ends=0.1), [0.5, 0.5])


@pytest.mark.parametrize("num", [0, 3])
def test_orders_without_touches_have_no_credit(num: int) -> None:
    starts = np.zeros(num + 1, np.int64)
    for credit in (
        last_touch(starts),
        time_decay(starts, np.empty(0), half_life=1.0),
        position_based(starts, ends=0.4),
    ):
        assert credit.shape == (0,)
