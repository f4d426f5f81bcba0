"""What is written of users inside a transaction: events that happen, histories that are loaded.

Knows what counts for whom (deleted users, negative events, the log); where an event stands in its
history is found in merging.py; where all of it lies, UserWrites knows.
"""

from collections.abc import Collection, Sequence

import numpy as np

from model.items import hash_ids
from serving.domain import Event
from serving.store import event_log
from serving.store.base import NewHistory, Outcome
from serving.store.chunks import Codes, Events
from serving.store.merging import Merged, merge_events
from serving.store.user_rows import UserRows, UserWrites


def record_events(
    users: UserWrites,
    events: Sequence[Event],
    *,
    since_us: int,
    negative: Collection[str],
    most: int,
) -> list[Outcome]:
    """Add events to their users' histories and to the log; see UserStore.record."""
    names = users.names()
    places: dict[str, list[int]] = {}
    for i, event in enumerate(events):
        places.setdefault(event.user_id, []).append(i)
    outcomes = [Outcome.DAMAGED] * len(events)
    for user_id, some in places.items():
        theirs = [events[i] for i in some]
        try:
            with users.savepoint():
                found = _record(
                    users, user_id, theirs, names, since_us=since_us, negative=negative, most=most
                )
        except (ValueError, TypeError):
            # What is stored of this user is damaged; the others' events are taken.
            names = users.names()
            continue
        for i, outcome in zip(some, found, strict=True):
            outcomes[i] = outcome
    return outcomes


def merge_history(
    users: UserWrites,
    history: NewHistory,
    names: list[str],
    *,
    negative: Collection[str],
    most: int,
) -> int:
    """Add what a history has of new events; returns how many.

    names: as `users.names` says; grows. Raises ValueError or TypeError where what is stored is
    damaged.
    """
    deleted = users.deleted_us(history.user_id)
    codes = _codes(users, history.events, names)
    events = Events(
        codes,
        np.asarray(history.timestamps_us, np.int64),
        hash_ids(history.item_ids),
        list(history.item_ids),
        np.asarray(history.sequences, np.int64),
        [event_log.local_id(history.user_id, name) for name in history.event_ids],
    )
    if deleted is not None:
        events = events.take(np.flatnonzero(events.times > deleted))
        if not len(events):
            return 0
    user = users.find_or_add(history.user_id)
    merged = merge_events(user, events, most=most, names=names)
    _reject(user, events, merged, names, negative)
    return int(merged.is_new.sum())


def _record(
    users: UserWrites,
    user_id: str,
    events: Sequence[Event],
    names: list[str],
    *,
    since_us: int,
    negative: Collection[str],
    most: int,
) -> list[Outcome]:
    """What becomes of one user's events. Raises as merge_history does."""
    deleted = users.deleted_us(user_id)
    outcomes = [Outcome.DELETED] * len(events)
    some = [i for i, e in enumerate(events) if deleted is None or e.timestamp_us > deleted]
    if not some:
        return outcomes
    theirs = [events[i] for i in some]
    item_ids = [event.item_id for event in theirs]
    new = Events(
        _codes(users, [event.event for event in theirs], names),
        np.array([event.timestamp_us for event in theirs], np.int64),
        hash_ids(item_ids),
        item_ids,
        np.array([event.sequence for event in theirs], np.int64),
        [event_log.local_id(user_id, event.event_id) for event in theirs],
    )
    user = users.find_or_add(user_id)
    merged = merge_events(user, new, since_us=since_us, most=most, names=names)
    _reject(user, new, merged, names, negative)
    is_new, is_let_go = merged.is_new.tolist(), merged.is_let_go.tolist()
    user.log([e for e, taken in zip(theirs, is_new, strict=True) if taken])
    for i, taken, let_go in zip(some, is_new, is_let_go, strict=True):
        outcomes[i] = Outcome.TAKEN if taken else Outcome.LET_GO if let_go else Outcome.DUPLICATE
    return outcomes


def _codes(users: UserWrites, events: Sequence[str], names: list[str]) -> Codes:
    """Event names as codes, [n] uint16; new names get the next codes, and a place in `names`."""
    for name in dict.fromkeys(events):
        if name not in names:
            users.add_name(len(names), name)
            names.append(name)
    return np.fromiter(map(names.index, events), np.uint16, len(events))


def _reject(
    user: UserRows,
    new: Events,
    merged: Merged,
    names: Sequence[str],
    negative: Collection[str],
) -> None:
    """Put down the items of negative events that were taken."""
    unwanted = [code for code, name in enumerate(names) if name in negative]
    places = np.flatnonzero(np.isin(new.codes, unwanted) & merged.is_new) if unwanted else ()
    if len(places):
        user.reject(new.hashes[places])
