"""New events find their places in a user's stored history, inside a transaction.

Only the chunks from the earliest place on are written again, and only those that may hold an
event that came before are read: one new event of a long history costs one chunk or two. Knows one
user's rows (user_rows.py), not where they lie, and nothing of who may write what.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.histories import NO_TIME
from serving.store.chunks import CHUNK_EVENTS, Events, from_rows, to_json
from serving.store.summaries import add_seen, let_go
from serving.store.user_rows import Row, UserRows

Bool = npt.NDArray[np.bool_]

_FEW = 8
"""So many new ids are looked for in a chunk's text before its ids are parsed."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of n new events."""

    is_new: Bool
    """[n] written now."""
    is_let_go: Bool
    """[n] neither new nor known: the history has let go of that time already."""


def merge_events(
    user: UserRows,
    new: Events,
    *,
    since_us: int = int(NO_TIME),
    most: int,
    names: Sequence[str],
) -> Merged:
    """Write the events whose event_id the user does not have; of one id, the first.

    new: in any order, none earlier than since_us. since_us: ids are compared with those of events
    from this time on (and some before). most: events that stay in the history, CHUNK_EVENTS at
    least; the oldest beyond are let go, and so is what is as old as those. Raises ValueError or
    TypeError, before anything is written, where what is stored is damaged.
    """
    rows = user.tail(since_us)
    is_new = _is_first(new.event_ids) & ~_is_known(new.event_ids, rows)
    is_let_go = np.zeros(len(new), bool)
    last = user.last_let_go()
    if last is not None:
        too_late = (new.times < last[0]) | ((new.times == last[0]) & (new.sequences <= last[1]))
        is_let_go = is_new & too_late
        is_new = is_new & ~too_late
        if is_let_go.any():
            add_seen(user, new.hashes[is_let_go])
    if is_new.any():
        fresh = (new if is_new.all() else new.take(np.flatnonzero(is_new))).in_order()
        newest = _write(user, fresh, rows)
        _bound(user, newest, most, names)
    return Merged(is_new, is_let_go)


def _is_first(event_ids: Sequence[str]) -> Bool:
    """[n] whether no earlier one has the same id."""
    if len(event_ids) == 1:
        return np.ones(1, bool)
    first = np.zeros(len(event_ids), bool)
    first[list({name: i for i, name in reversed(list(enumerate(event_ids)))}.values())] = True
    return first


def _is_known(event_ids: Sequence[str], rows: Sequence[Row]) -> Bool:
    """[n] whether one of the rows has the id."""
    known: set[str] = set()
    texts = [to_json(name) for name in event_ids[:_FEW]]
    for row in rows:
        # An id that is in the list is in its text; what is in the text may still be no id.
        if len(event_ids) > _FEW or any(text in row[6] for text in texts):
            known.update(json.loads(row[6]))
    return np.fromiter((name in known for name in event_ids), bool, len(event_ids))


def _write(user: UserRows, fresh: Events, rows: Sequence[Row]) -> tuple[int, int]:
    """Write `fresh`, in order, among the user's rows; returns the newest chunk and its length."""
    chunk, old = _place(user, fresh, rows)
    events = fresh if old is None else old.followed_by(fresh).in_order()
    user.put(events.rows(chunk))
    num_full = (len(events) - 1) // CHUNK_EVENTS
    return chunk + num_full, len(events) - num_full * CHUNK_EVENTS


def _place(user: UserRows, fresh: Events, rows: Sequence[Row]) -> tuple[int, Events | None]:
    """The first chunk to write, and what stood in it and after it."""
    if not rows:
        return user.first_chunk, None
    earliest = fresh.key(0)
    first = len(rows) - 1
    while first > 0 and _last_key(rows[first - 1]) > earliest:
        first -= 1
    if first == len(rows) - 1 and _is_full(rows[first]) and _last_key(rows[first]) <= earliest:
        return rows[first][0] + 1, None
    return rows[first][0], from_rows([row[1:] for row in rows[first:]])


def _is_full(row: Row) -> bool:
    return len(row[1]) == 2 * CHUNK_EVENTS


def _last_key(row: Row) -> tuple[int, int]:
    """(timestamp, sequence) of a chunk's last event."""
    return (
        int.from_bytes(row[2][-8:], "little", signed=True),
        int.from_bytes(row[5][-8:], "little", signed=True),
    )


def _bound(user: UserRows, newest: tuple[int, int], most: int, names: Sequence[str]) -> None:
    """Let go of the oldest chunks until no more than `most` events are left."""
    chunk, length = newest
    if (chunk - user.first_chunk) * CHUNK_EVENTS + length <= most:
        return
    oldest = user.oldest()
    num_events = (chunk - oldest) * CHUNK_EVENTS + length
    num_chunks = -(-(num_events - most) // CHUNK_EVENTS)
    if num_chunks <= 0:
        return
    end = oldest + num_chunks
    let_go(user, from_rows([row[1:] for row in user.between(oldest, end)]), names)
    user.drop(oldest, end)
