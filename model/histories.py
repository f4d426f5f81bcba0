"""Which events of a stored history the user tower reads, and at what times it sees them.

One rule for a request that is served and for all users that are embedded in a batch. Knows no
stores, no files and no networks.
"""

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

NO_TIME = np.iinfo(np.int64).min
"""The timestamp of an event whose time is not known; sorts before every real one."""

_DAY = 86_400_000_000
"""Microseconds."""


def is_read(rows: Int64, codes: Int64) -> Bool:
    """[L] True for the events whose item the bundle knows and whose event enters histories.

    rows: [L] item rows, -1 where the bundle lacks the item. codes: [L] event codes, 0 for events
    that enter no history.
    """
    return (rows >= 0) & (codes > 0)


def known_times(times: Int64, now: int) -> Int64:
    """[L] times without NO_TIME: an unknown time is read as the next known one, or else as now."""
    if not len(times) or times[0] != NO_TIME:  # which sorts before every real time
        return times
    unknown = times == NO_TIME
    filled = np.where(unknown, np.iinfo(np.int64).max, times)[::-1]
    following: Int64 = np.minimum.accumulate(filled)[::-1]
    return np.where(following == np.iinfo(np.int64).max, now, following)


def whole_days(times: Int64) -> Int64:
    """[L] the midnight before each time, UTC µs: all that a dataset with time = "day" learns of."""
    return times - times % _DAY
