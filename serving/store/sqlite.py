"""UserStore in store.db: the embedded default.

A user's events lie in chunks (chunks.py), found by one short range read: the latest 50 take about
10 µs. New ones are written (writing.py) in the transactions of the Database, which others share.
A history is bounded; what it lets go of is summed up (summaries.py).
"""

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from serving.domain import Event
from serving.errors import StoreUnavailable
from serving.store.base import MAX_STORED_EVENTS, NewHistory, Outcome, StoredHistory
from serving.store.chunks import CHUNK_EVENTS, CHUNKS_A_USER, Hashes, unpacked
from serving.store.database import Database
from serving.store.sqlite_users import SqliteUsers, delete_user
from serving.store.writing import merge_history, record_events

_READ = f"""
SELECT u.user, u.profile, u.rejected, c.chunk, c.item_ids, c.events, c.timestamps
FROM users u LEFT JOIN chunks c
ON c.chunk >= u.user * {CHUNKS_A_USER} AND c.chunk < (u.user + 1) * {CHUNKS_A_USER}
WHERE u.user_id = ? ORDER BY c.chunk DESC LIMIT ?
"""
_LET_GO = "SELECT seen FROM summaries WHERE user = ?"
_OTHERS = f"""
SELECT item_hashes FROM chunks
WHERE chunk >= ?1 * {CHUNKS_A_USER} AND chunk < (?1 + 1) * {CHUNKS_A_USER}
UNION ALL SELECT seen FROM summaries WHERE user = ?1
"""
_LIST = f"""
SELECT u.user, u.user_id, (SELECT COALESCE(SUM(LENGTH(c.events)), 0) / 2 FROM chunks c
    WHERE c.chunk >= u.user * {CHUNKS_A_USER} AND c.chunk < (u.user + 1) * {CHUNKS_A_USER})
    + COALESCE((SELECT s.num_events FROM summaries s WHERE s.user = u.user), 0)
FROM users u WHERE u.user > ? ORDER BY u.user LIMIT ?
"""
_PUT_PROFILE = (
    "INSERT INTO users (user_id, profile) VALUES (?, ?) "
    "ON CONFLICT (user_id) DO UPDATE SET profile = excluded.profile"
)
_NONE: Hashes = np.empty(0, np.uint64)


class SqliteStore:
    """User histories and profiles in a Database. Every method raises StoreUnavailable where it
    cannot be read or written."""

    most_together = 512
    """See UserStore; a running server's writes wait that long."""

    def __init__(self, database: Database, *, most_events: int = MAX_STORED_EVENTS) -> None:
        """most_events: of one user, above which the oldest are let go."""
        self.database, self._most = database, most_events
        self._event_names: list[str] = []
        self._read_names()

    @property
    def event_names(self) -> Sequence[str]:
        """What the codes in StoredHistory.events mean; only ever grows at its end."""
        return self._event_names

    def read(
        self, user_id: str, *, limit: int | None, others: bool = False
    ) -> StoredHistory | None:
        """The user's latest `limit` events (all that are stored where None); None for an unknown
        user. others: whether StoredHistory.others is wanted."""
        num_chunks = -1 if limit is None else -(-limit // CHUNK_EVENTS) + 1
        rows = self.database.read(_READ, (user_id, num_chunks))
        if not rows:
            return None
        (user, profile, rejected, *_), oldest = rows[0], rows[-1][3]
        try:
            item_ids, events, times = unpacked([row[4:] for row in rows[::-1]])
        except (ValueError, TypeError) as error:
            raise self._damaged(user_id, str(error)) from error
        is_all = oldest is None or oldest % CHUNKS_A_USER == 0
        if limit is not None and len(item_ids) > limit:
            start = len(item_ids) - limit
            item_ids, events, times = item_ids[start:], events[start:], times[start:]
            is_all = False
        if len(events) and max(events.tolist()) >= len(self._event_names):
            self._read_names()  # another process has added an event name since
            if max(events.tolist()) >= len(self._event_names):
                raise self._damaged(user_id, "an event code without a name")
        return StoredHistory(
            item_ids,
            events,
            times,
            profile,
            np.frombuffer(rejected, np.uint64),
            self._others(user_id, user, limit) if others and not is_all else _NONE,
        )

    def record(
        self, events: Sequence[Event], *, since_us: int, negative: Collection[str]
    ) -> "Future[list[Outcome]]":
        """Add events that happened just now, and log them; see UserStore."""
        return self.database.submit(
            lambda db: record_events(
                SqliteUsers(db), events, since_us=since_us, negative=negative, most=self._most
            )
        )

    def merge_histories(
        self, histories: Iterable[NewHistory], *, negative: Collection[str] = ()
    ) -> int:
        """Add the events whose event_id the user does not have yet; returns how many."""

        def work(db: sqlite3.Connection) -> int:
            users, added = SqliteUsers(db), 0
            names = users.names()
            for history in histories:
                try:
                    added += merge_history(
                        users, history, names, negative=negative, most=self._most
                    )
                except (ValueError, TypeError) as error:  # of what is stored already
                    raise self._damaged(history.user_id, str(error)) from error
            return added

        return self.database.write(work)

    def put_profiles(
        self, profiles: Iterable[tuple[str, str]], *, as_of_us: int | None = None
    ) -> None:
        """Set users' raw features, (user_id, JSON object) each. On disk when it returns."""

        def work(db: sqlite3.Connection) -> None:
            users = SqliteUsers(db)
            for user_id, profile in profiles:
                deleted = users.deleted_us(user_id)
                if deleted is None or as_of_us is None or deleted < as_of_us:
                    db.execute(_PUT_PROFILE, (user_id, profile))

        self.database.write(work)

    def delete_user(self, user_id: str, *, now_us: int) -> bool:
        """Forget all about a user, and remember when; returns whether anything was known."""
        known = self.database.write(partial(delete_user, user_id=user_id, now_us=now_us))
        # The log beside the file has what was written of them. It is deleted either way; the
        # background process empties that log every minute.
        with contextlib.suppress(StoreUnavailable):
            self.database.checkpoint()
        return known

    def num_users(self) -> int:
        """How many users have a history or a profile."""
        return int(self.database.read("SELECT COUNT(*) FROM users")[0][0])

    def list_users(self, *, after: int, limit: int) -> list[tuple[int, str, int]]:
        """(number, user_id, events) of at most `limit` users whose number is above `after`."""
        return self.database.read(_LIST, (after, limit))

    def _others(self, user_id: str, user: int, limit: int | None) -> Hashes:
        """Of a user with more events than are given whole."""
        rows = self.database.read(_LET_GO if limit is None else _OTHERS, (user,))
        try:
            return np.frombuffer(b"".join(row[0] for row in rows), np.uint64)
        except (ValueError, TypeError) as error:
            raise self._damaged(user_id, str(error)) from error

    def _damaged(self, user_id: str, reason: str) -> StoreUnavailable:
        name = self.database.path.name
        return StoreUnavailable(f"{name} is damaged where it holds user {user_id!r:.80}: {reason}")

    def _read_names(self) -> None:
        # A new list, never a change in place: readers may hold the old one.
        rows = self.database.read("SELECT name FROM event_names ORDER BY code")
        self._event_names = [name for (name,) in rows]
