"""UserStore in one SQLite file: the embedded default.

A user's events lie in chunks of up to CHUNK_EVENTS, ordered by (timestamp, sequence) within and
across chunks; the key of a chunk is the user's number and the chunk's, so that a user's chunks are
neighbours and the latest events are one short range read (about 30 µs for 50 events). A chunk is
rewritten whole; what a request does not need (sequences, event ids) lies in its last columns,
which SQLite then does not read. Times and sequences are packed int64, ids are JSON lists.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import StoreUnavailable
from serving.store.base import NewHistory, StoredHistory

CHUNK_EVENTS = 128
_CHUNKS_A_USER = 1 << 20
_APPLICATION_ID = 0x50454E43
_FORMAT = 1

_TABLES = """
CREATE TABLE users (
    user INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    profile TEXT NOT NULL DEFAULT ''
);
CREATE TABLE event_names (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE chunks (
    chunk INTEGER PRIMARY KEY,
    item_ids TEXT NOT NULL,
    events BLOB NOT NULL,
    timestamps BLOB NOT NULL,
    sequences BLOB NOT NULL,
    event_ids TEXT NOT NULL
);
"""
_READ = f"""
SELECT u.profile, c.item_ids, c.events, c.timestamps FROM users u LEFT JOIN chunks c
ON c.chunk >= u.user * {_CHUNKS_A_USER} AND c.chunk < (u.user + 1) * {_CHUNKS_A_USER}
WHERE u.user_id = ? ORDER BY c.chunk DESC LIMIT ?
"""
_READ_WHOLE = f"""
SELECT item_ids, events, timestamps, sequences, event_ids FROM chunks
WHERE chunk >= ? * {_CHUNKS_A_USER} AND chunk < (? + 1) * {_CHUNKS_A_USER} ORDER BY chunk
"""

_LIST = f"""
SELECT u.user, u.user_id, (SELECT COALESCE(SUM(LENGTH(c.events)), 0) / 2 FROM chunks c
    WHERE c.chunk >= u.user * {_CHUNKS_A_USER} AND c.chunk < (u.user + 1) * {_CHUNKS_A_USER})
FROM users u WHERE u.user > ? ORDER BY u.user LIMIT ?
"""

_decode = json.JSONDecoder().raw_decode  # what json.loads does, without its checks of types

Events = npt.NDArray[np.uint16]
Int64 = npt.NDArray[np.int64]


class SqliteStore:
    """User histories and profiles in `path`, which is made if it is not there.

    One process may write while others read. Raises StoreUnavailable, as every method does, when
    the file cannot be opened or is of another format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        with self._errors("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA mmap_size = 1073741824")
            self._prepare()
        self._names: list[str] = []
        self._read_names()

    @property
    def event_names(self) -> Sequence[str]:
        """What the codes in StoredHistory.events mean; only ever grows at its end."""
        return self._names

    def read(self, user_id: str, *, limit: int | None) -> StoredHistory | None:
        """The user's latest `limit` events (all where None); None for an unknown user."""
        num_chunks = -1 if limit is None else -(-limit // CHUNK_EVENTS) + 1
        try:
            with self._lock:
                chunks = self._db.execute(_READ, (user_id, num_chunks)).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot read {self._path.name}: {error}") from error
        if not chunks:
            return None
        profile = chunks[0][0]
        try:
            item_ids, events, times = _unpacked(chunks)
        except (ValueError, TypeError) as error:
            raise self._damaged(user_id, str(error)) from error
        if limit is not None and len(item_ids) > limit:
            start = len(item_ids) - limit
            item_ids, events, times = item_ids[start:], events[start:], times[start:]
        if len(events) and max(events.tolist()) >= len(self._names):
            self._read_names()  # another process has added an event name since
            if max(events.tolist()) >= len(self._names):
                raise self._damaged(user_id, "an event code without a name")
        return StoredHistory(item_ids, events, times, profile)

    def merge_histories(self, histories: Iterable[NewHistory]) -> int:
        """Add the events whose event_id the user does not have yet; returns how many."""
        added = 0
        with self._write():
            for history in histories:
                user, is_new = self._user(history.user_id)
                try:
                    added += self._merge(user, history, is_new=is_new)
                except (ValueError, TypeError) as error:  # of what is stored already
                    raise self._damaged(history.user_id, str(error)) from error
        return added

    def put_profiles(self, profiles: Iterable[tuple[str, str]]) -> None:
        """Set users' raw features, (user_id, JSON object) each. On disk when it returns."""
        with self._write():
            self._db.executemany(
                "INSERT INTO users (user_id, profile) VALUES (?, ?) "
                "ON CONFLICT (user_id) DO UPDATE SET profile = excluded.profile",
                profiles,
            )

    def num_users(self) -> int:
        """How many users have a history or a profile."""
        with self._errors("read"), self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM users").fetchone()[0])

    def list_users(self, *, after: int, limit: int) -> list[tuple[int, str, int]]:
        """(number, user_id, events) of at most `limit` users whose number is above `after`."""
        with self._errors("read"), self._lock:
            return self._db.execute(_LIST, (after, limit)).fetchall()

    def close(self) -> None:
        """Let go of the files; the store cannot be used afterwards."""
        with self._errors("close"), self._lock:
            self._db.close()

    def _prepare(self) -> None:
        """Make the tables of a new file; refuse a file that is not a store of this format."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            found = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not self._db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]:
                for statement in _TABLES.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {_FORMAT}")
            elif found != _APPLICATION_ID or version != _FORMAT:
                raise StoreUnavailable(
                    f"{self._path} is not a store of format {_FORMAT} (found: {version}); "
                    "give another --state folder"
                )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _damaged(self, user_id: str, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._path.name} is damaged where it holds user {user_id!r:.80}: {reason}"
        )

    def _read_names(self) -> None:
        with self._errors("read"), self._lock:
            rows = self._db.execute("SELECT name FROM event_names ORDER BY code").fetchall()
        # A new list, never a change in place: readers may hold the old one.
        self._names = [name for (name,) in rows]

    def _user(self, user_id: str) -> tuple[int, bool]:
        """The user's number, and whether the user was made just now."""
        found = self._db.execute("SELECT user FROM users WHERE user_id = ?", (user_id,)).fetchone()
        if found is not None:
            return int(found[0]), False
        made = self._db.execute("INSERT INTO users (user_id) VALUES (?)", (user_id,)).lastrowid
        assert made is not None
        return made, True

    def _merge(self, user: int, new: NewHistory, *, is_new: bool) -> int:
        """Write one user's merged chunks; returns how many events were added."""
        item_ids, event_ids = list(new.item_ids), list(new.event_ids)
        events = self._codes(new.events)
        times, sequences = np.asarray(new.timestamps_us), np.asarray(new.sequences)
        old = [] if is_new else self._db.execute(_READ_WHOLE, (user, user)).fetchall()
        old_ids = [event_id for chunk in old for event_id in json.loads(chunk[4])]
        fresh = _first_seen(event_ids, set(old_ids))
        if not len(fresh):
            return 0
        if len(fresh) < len(event_ids):
            item_ids = [item_ids[i] for i in fresh]
            event_ids = [event_ids[i] for i in fresh]
            events, times, sequences = events[fresh], times[fresh], sequences[fresh]
        if old:
            item_ids = [item_id for chunk in old for item_id in json.loads(chunk[0])] + item_ids
            event_ids = old_ids + event_ids
            events = np.concatenate([_joined(old, 1, np.uint16), events])
            times = np.concatenate([_joined(old, 2, np.int64), times])
            sequences = np.concatenate([_joined(old, 3, np.int64), sequences])
        if not len(item_ids) == len(event_ids) == len(events) == len(times) == len(sequences):
            raise ValueError("its columns differ in length")
        order = np.lexsort((sequences, times))
        if not np.array_equal(order, np.arange(len(order))):
            item_ids = [item_ids[i] for i in order]
            event_ids = [event_ids[i] for i in order]
            events, times, sequences = events[order], times[order], sequences[order]
        chunks = (
            (
                user * _CHUNKS_A_USER + start // CHUNK_EVENTS,
                json.dumps(item_ids[start : start + CHUNK_EVENTS], ensure_ascii=False),
                events[start : start + CHUNK_EVENTS].tobytes(),
                times[start : start + CHUNK_EVENTS].tobytes(),
                sequences[start : start + CHUNK_EVENTS].tobytes(),
                json.dumps(event_ids[start : start + CHUNK_EVENTS], ensure_ascii=False),
            )
            for start in range(0, len(item_ids), CHUNK_EVENTS)
        )
        self._db.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?, ?)", chunks)
        return len(fresh)

    def _codes(self, events: Sequence[str]) -> Events:
        """Event names as codes, [n] uint16; new names get the next codes."""
        code_of = {name: code for code, name in enumerate(self._names)}
        for name in dict.fromkeys(events):
            if name not in code_of:
                code_of[name] = len(code_of)
                self._db.execute("INSERT INTO event_names VALUES (?, ?)", (code_of[name], name))
                self._names = [*self._names, name]
        return np.fromiter((code_of[name] for name in events), np.uint16, len(events))

    @contextmanager
    def _write(self) -> Iterator[None]:
        """One transaction: all of it is on disk afterwards, or none."""
        with self._errors("write"), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            names = self._names
            try:
                # Names another process added meanwhile; inside the transaction they cannot change.
                rows = self._db.execute("SELECT name FROM event_names ORDER BY code").fetchall()
                self._names = [name for (name,) in rows]
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._names = names
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot {doing} {self._path.name}: {error}") from error


def _first_seen(event_ids: Sequence[str], known: set[str]) -> Int64:
    """Positions of the ids that are not known, each id once."""
    position_of = {name: i for i, name in reversed(list(enumerate(event_ids)))}
    return np.sort(np.array([i for name, i in position_of.items() if name not in known], np.int64))


def _unpacked(chunks: Sequence[tuple[Any, ...]]) -> tuple[list[str], Events, Int64]:
    """Item ids, event codes and times of _READ's rows, which come newest first.

    Raises ValueError or TypeError where a chunk is damaged.
    """
    if len(chunks) == 1:
        item_ids = _decode(chunks[0][1])[0] if chunks[0][1] is not None else []
        events = np.frombuffer(chunks[0][2] or b"", np.uint16)
        times = np.frombuffer(chunks[0][3] or b"", np.int64)
    else:
        oldest_first = chunks[::-1]
        item_ids = [item_id for chunk in oldest_first for item_id in json.loads(chunk[1])]
        events = np.frombuffer(b"".join(chunk[2] for chunk in oldest_first), np.uint16)
        times = np.frombuffer(b"".join(chunk[3] for chunk in oldest_first), np.int64)
    if not len(item_ids) == len(events) == len(times):
        raise ValueError(f"{len(item_ids)} items, {len(events)} events, {len(times)} times")
    return item_ids, events, times


def _joined(
    chunks: Sequence[tuple[bytes, ...]], column: int, dtype: type
) -> npt.NDArray[np.generic]:
    return np.frombuffer(b"".join(chunk[column] for chunk in chunks), dtype)
