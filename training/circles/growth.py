"""How circles grow: their share of the events of the latest days against the days before.

Knows no vectors and no names.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

GROWTH_DAYS = 7
_DAY_US = 86_400_000_000
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Growth:
    """Of C circles."""

    recent: Int64
    """[C] events of the latest GROWTH_DAYS days."""
    growth: Float32
    """[C] the circle's share of those events over its share of as many days before, less 1: 0 where
    it holds its own, 1 where its share has doubled. NaN where there is no share before."""


def count_events(
    times: npt.NDArray[np.int64],
    items: npt.NDArray[np.integer],
    *,
    num_items: int,
    days: int = GROWTH_DAYS,
) -> tuple[Int64, Int64] | None:
    """Events of each item [V] in the latest days, and in as many days before.

    times: [E] UTC µs; below 0 where an event has none. items: [E] item rows. None where the events
    do not go back so far.
    """
    known = times[times >= 0]
    if not len(known):
        return None
    end, span = int(known.max()), days * _DAY_US
    if int(known.min()) > end - 2 * span:
        return None
    recent, before = np.zeros(num_items, np.int64), np.zeros(num_items, np.int64)
    for first in range(0, len(times), _BLOCK):
        time, item = times[first : first + _BLOCK], items[first : first + _BLOCK]
        recent += np.bincount(item[time > end - span], minlength=num_items)
        earlier = (time > end - 2 * span) & (time <= end - span)
        before += np.bincount(item[earlier], minlength=num_items)
    return recent, before


def growth_of(events: tuple[Int64, Int64], of_item: npt.NDArray[np.integer], num: int) -> Growth:
    """The growth of `num` circles. events: of count_events. of_item: [V] the circle of each."""
    recent, before = (
        np.bincount(of_item, counts, minlength=num).astype(np.int64) for counts in events
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        share, share_before = recent / recent.sum(), before / before.sum()
        growth = np.where(before > 0, share / share_before - 1, np.nan)
    return Growth(recent, growth.astype(np.float32))
