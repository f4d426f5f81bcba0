"""Ages as the value model reads them."""

import numpy as np

from model.freshness import UNKNOWN, freshness

DAY = 86_400_000_000


def test_an_age_is_counted_to_the_request() -> None:
    """By hand: seven days old, just created, created later, unknown."""
    now = np.array([10 * DAY])
    created = np.array([[3 * DAY, 10 * DAY, 11 * DAY, UNKNOWN]])
    found = freshness(created, now)
    assert found.dtype == np.float32 and found.shape == (1, 4, 2)
    np.testing.assert_allclose(found[0], [[1, np.log(8)], [1, 0], [1, 0], [0, 0]], rtol=1e-6)
