"""Rules of attribution: what they give the touches of an order, and nothing is left unattributed.

Pure functions over ragged arrays: order o has the touches starts[o] .. starts[o + 1], oldest first.
They say who was there, not who mattered: an order that would have come anyway is credited in full.
"""

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def last_touch(starts: Int64) -> Float64:
    """[P] all credit to the last touch. starts: [O + 1]."""
    credit = np.zeros(starts[-1])
    credit[starts[1:][np.diff(starts) > 0] - 1] = 1.0
    return credit


def time_decay(starts: Int64, age: Float64, *, half_life: float) -> Float64:
    """[P] in proportion to 2^(-age / half_life). age: [P] days before the order."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    # Measured from the order's newest touch, so that old touches alone do not vanish.
    newest = np.full(len(starts) - 1, np.inf)
    np.minimum.at(newest, owner, age)
    weight = np.exp2(-(age - newest[owner]) / half_life)
    total = np.bincount(owner, weight, minlength=len(starts) - 1)
    credit: Float64 = weight / total[owner]
    return credit


def position_based(starts: Int64, *, ends: float) -> Float64:
    """[P] the first and the last touch get the share `ends` each, those between the rest, evenly.

    A single touch gets all, two get half each.
    """
    counts = np.diff(starts)
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owner)) - starts[owner]
    num = counts[owner]
    is_end = (place == 0) | (place == num - 1)
    middle = (1 - 2 * ends) / np.maximum(num - 2, 1)
    credit: Float64 = np.where(is_end, ends, middle)
    return np.where(num <= 2, 1 / np.maximum(num, 1), credit)
