"""Growth: shares of the latest days against the days before, worked out by hand."""

import numpy as np

from training.circles.growth import count_events, growth_of

DAY = 86_400_000_000


def test_a_share_that_doubles_and_one_that_was_not_there() -> None:
    # Days before: item 0 three events, item 1 one. Latest days: two and two, and item 2 four.
    times = [0, 1, 2, 3, 8 * DAY, 9 * DAY, 8 * DAY, 9 * DAY, 10 * DAY, 10 * DAY, 10 * DAY, 14 * DAY]
    items = [0, 0, 0, 1, 0, 0, 1, 1, 2, 2, 2, 2]
    counts = count_events(np.array(times) + 1, np.array(items), num_items=4)
    assert counts is not None
    recent, before = counts
    assert recent.tolist() == [2, 2, 4, 0]
    # The window is open at its beginning: what happened 14 days before the last event is outside.
    assert before.tolist() == [2, 1, 0, 0]
    growth = growth_of(counts, np.array([0, 1, 2, 2]), 3)
    assert growth.recent.tolist() == [2, 2, 4]
    np.testing.assert_allclose(growth.growth[:2], [2 / 8 / (2 / 3) - 1, 2 / 8 / (1 / 3) - 1])
    assert np.isnan(growth.growth[2])


def test_too_short_a_log_tells_nothing() -> None:
    assert count_events(np.array([0, 13 * DAY]), np.array([0, 0]), num_items=1) is None
    assert count_events(np.array([-1, -1]), np.array([0, 0]), num_items=1) is None
