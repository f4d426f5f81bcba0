"""What each user did with each candidate before, and with its kin, and what with no conversion.

Training and serving share both, so that a server ranks what an evaluation ranked, from the same
numbers. Knows histories as arrays; no stores, no files and no networks.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model.schema import Schema

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_FEW = 1 << 22
"""Counts of so many pairs and events are made at once, 16 MB; a server asks about a few users."""


class Past:
    """The histories of U users, ready to be asked about any of their items."""

    def __init__(
        self,
        items: npt.NDArray[np.integer],
        events: npt.NDArray[np.integer],
        starts: Int64,
        *,
        num_items: int,
        num_events: int,
    ) -> None:
        """items, events: [E] item rows (all >= 0) and event codes from 1, user after user. starts:
        [U + 1], user u has those from starts[u] to starts[u + 1]."""
        self.num_items, self._num_events = num_items, num_events
        owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self._pairs, place = np.unique(owners * num_items + items, return_inverse=True)
        self._room = len(items) + 1
        self._kinds = place * num_events + (events - 1)

    @cached_property
    def _keys(self) -> Int64:
        """[E] sorted by pair, event and place: what is between two of them is counted at once."""
        found: Int64 = np.sort(self._kinds * self._room + np.arange(len(self._kinds)))
        return found

    @cached_property
    def _table(self) -> Float32:
        """[pairs + 1, num_events] log1p of what all of a user's events are; zeros last."""
        size = (len(self._pairs) + 1) * self._num_events
        counts = np.log1p(np.bincount(self._kinds, minlength=size)).astype(np.float32)
        return counts.reshape(-1, self._num_events)

    def of(self, users: Int64, candidates: Int64, *, stops: Int64 | None = None) -> Float32:
        """log1p of how often each user did each kind of event with each candidate.

        users: [B] from 0 to U - 1. candidates: [B, C] item rows, -1 for none, which nobody did
        anything with. stops: [B], only events at places before it count; None: all of the user's.

        Returns [B, C, num_events] float32.
        """
        counts = np.zeros((*candidates.shape, self._num_events), np.float32)
        if not len(self._pairs) or not candidates.size:
            return counts
        wanted = users[:, None] * self.num_items + candidates
        place = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
        met = (self._pairs[place] == wanted) & (candidates >= 0)
        if stops is None and len(self._pairs) * self._num_events <= _FEW:
            return self._table.take(np.where(met, place, len(self._pairs)), axis=0)
        kinds = place[met][:, None] * self._num_events + np.arange(self._num_events)
        begin = kinds * self._room
        end = begin + (self._room - 1)
        if stops is not None:
            end = begin + np.broadcast_to(stops[:, None], met.shape)[met][:, None]
        found = np.searchsorted(self._keys, end) - np.searchsorted(self._keys, begin)
        counts[met] = np.log1p(found)
        return counts


class Kin:
    """The histories of U users by what their items share with others: a creator, a category."""

    def __init__(
        self,
        codes: Sequence[npt.NDArray[np.integer]],
        events: npt.NDArray[np.integer],
        starts: Int64,
        *,
        num_events: int,
    ) -> None:
        """codes: of each of G columns [E] the value of each event's item, as a number; below 0: it
        has none. events, starts: as in Past."""
        # One number more for items without a value, which no candidate is ever asked with.
        self._columns = [
            Past(
                column.astype(np.int64) + 1,
                events,
                starts,
                num_items=int(column.max(initial=-1)) + 2,
                num_events=num_events,
            )
            for column in codes
        ]

    def of(
        self,
        users: Int64,
        codes: Sequence[npt.NDArray[np.integer]],
        *,
        stops: Int64 | None = None,
    ) -> Float32:
        """log1p of how often each user did each kind of event with items of each candidate's value.

        users, stops: as in Past.of. codes: of each column [B, C] the candidates' values, below 0
        for none. Returns [B, C, G * num_events] float32.
        """
        found = []
        for past, column in zip(self._columns, codes, strict=True):
            # Values that no history has lie beyond those that it was made of.
            known = (column >= 0) & (column < past.num_items - 1)
            found.append(past.of(users, np.where(known, column + 1, -1), stops=stops))
        return np.concatenate(found, axis=-1)


def unconverted(
    items: npt.NDArray[np.integer],
    events: npt.NDArray[np.integer],
    starts: Int64,
    converts: Bool,
    *,
    most: int,
    has_order: bool,
    num_items: int,
    allowed: Bool | None = None,
) -> tuple[Int64, Int64]:
    """What each user engaged with and did not convert on: the last first where events have an
    order, else what was engaged with most often first, ties to the lower row.

    items, events, starts: as in Past. converts: [1 + num_events] by event code, whether it is a
    conversion. most: so many a user at most. allowed: [E], False on events with items that are not
    wanted; None: all are.

    Returns the item rows [n], user after user, and how many each user has [U].
    """
    num_users = len(starts) - 1
    owners = np.repeat(np.arange(num_users), np.diff(starts))
    pairs, place = np.unique(owners * num_items + items, return_inverse=True)
    converted = np.zeros(len(pairs), bool)
    converted[place[converts[events]]] = True
    if allowed is not None:
        converted[place[~allowed]] = True  # left out in the same way
    strength = np.bincount(place, minlength=len(pairs))
    if has_order:
        strength[place] = np.arange(len(items))  # of several places the last stays
    left = np.flatnonzero(~converted)
    owner = pairs[left] // num_items
    order = left[np.lexsort((pairs[left], -strength[left], owner))]
    counts = np.bincount(owner, minlength=num_users)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return pairs[order[rank < most]] % num_items, np.minimum(counts, most)


def conversions(schema: Schema) -> Bool:
    """[1 + history events] by event code, whether it is a conversion."""
    roles = [schema.events[name].role for name in schema.history_events]
    return np.array([False, *(role == "conversion" for role in roles)])
