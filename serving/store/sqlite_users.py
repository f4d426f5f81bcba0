"""Users in store.db inside a transaction: by number, with what they rejected and who was deleted.

UserWrites and UserRows as statements; what is written is decided elsewhere.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from serving.domain import Event
from serving.store import event_log
from serving.store.chunks import COLUMNS, INSERT, Hashes, Key, chunk_range
from serving.store.user_rows import Row, Summary, deleted_hash

_NEWEST_FIRST = (
    f"SELECT chunk, {COLUMNS} FROM chunks WHERE chunk >= ? AND chunk < ? ORDER BY chunk DESC"
)
_SUMMARY = "num_events, first_us, last_us, last_sequence, counts, seen"


class SqliteUsers:
    """UserWrites in the transaction that a connection is in."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def names(self) -> list[str]:
        """Event names by their codes."""
        return [name for (name,) in self._db.execute("SELECT name FROM event_names ORDER BY code")]

    def add_name(self, code: int, name: str) -> None:
        """Give an event name the next code."""
        self._db.execute("INSERT INTO event_names VALUES (?, ?)", (code, name))

    def deleted_us(self, user_id: str) -> int | None:
        """When the user was deleted, UTC µs; None for one who never was."""
        found = self._db.execute(
            "SELECT deleted_us FROM deleted_users WHERE user_hash = ?", (deleted_hash(user_id),)
        ).fetchone()
        return None if found is None else int(found[0])

    def find_or_add(self, user_id: str) -> "SqliteUserRows":
        """The user, whose number is given once and for good."""
        user = _find(self._db, user_id)
        if user is None:
            user = self._db.execute("INSERT INTO users (user_id) VALUES (?)", (user_id,)).lastrowid
            assert user is not None
        return SqliteUserRows(self._db, user)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """The block is written whole, or nothing of it where it meets damage."""
        self._db.execute("SAVEPOINT one_user")
        try:
            yield
        except (ValueError, TypeError):
            self._db.execute("ROLLBACK TO one_user")
            self._db.execute("RELEASE one_user")
            raise
        self._db.execute("RELEASE one_user")


class SqliteUserRows:
    """UserRows of one user by their number."""

    def __init__(self, db: sqlite3.Connection, user: int) -> None:
        self._db, self._user = db, user
        self._start, self._end = chunk_range(user)

    @property
    def first_chunk(self) -> int:
        """The number of a first chunk."""
        return self._start

    def tail(self, since_us: int) -> list[Row]:
        """The newest chunk, and those before it that reach to since_us; oldest first."""
        rows: list[Row] = []
        cursor = self._db.execute(_NEWEST_FIRST, (self._start, self._end))
        for row in cursor:
            if rows and int.from_bytes(row[2][-8:], "little", signed=True) < since_us:
                break
            rows.append(row)
        cursor.close()
        return rows[::-1]

    def between(self, start: int, end: int) -> list[Row]:
        """The chunks from this number to before that one, oldest first."""
        return self._db.execute(
            f"SELECT chunk, {COLUMNS} FROM chunks WHERE chunk >= ? AND chunk < ? ORDER BY chunk",
            (start, end),
        ).fetchall()

    def oldest(self) -> int:
        """The number of the oldest chunk that is left."""
        (oldest,) = self._db.execute(
            "SELECT MIN(chunk) FROM chunks WHERE chunk >= ? AND chunk < ?", (self._start, self._end)
        ).fetchone()
        return int(oldest)

    def put(self, rows: Iterable[Row]) -> None:
        """Write chunks, or write them again."""
        for row in rows:
            self._db.execute(INSERT, row)

    def drop(self, start: int, end: int) -> None:
        """Forget the chunks from this number to before that one."""
        self._db.execute("DELETE FROM chunks WHERE chunk >= ? AND chunk < ?", (start, end))

    def last_let_go(self) -> Key | None:
        """Where the last event that was let go of stood; None where none was."""
        found = self._db.execute(
            "SELECT last_us, last_sequence FROM summaries WHERE user = ?", (self._user,)
        ).fetchone()
        return None if found is None else (int(found[0]), int(found[1]))

    def summary(self) -> Summary | None:
        """Of the events that were let go of; None where none was."""
        found = self._db.execute(
            f"SELECT {_SUMMARY} FROM summaries WHERE user = ?", (self._user,)
        ).fetchone()
        return None if found is None else Summary(*found)

    def put_summary(self, summary: Summary) -> None:
        """Write the summary."""
        self._db.execute(
            f"INSERT OR REPLACE INTO summaries (user, {_SUMMARY}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self._user,
                summary.num_events,
                summary.first_us,
                summary.last_us,
                summary.last_sequence,
                summary.counts,
                summary.seen,
            ),
        )

    def reject(self, hashes: Hashes) -> None:
        """Add items to those that the user does not want to see."""
        (known,) = self._db.execute(
            "SELECT rejected FROM users WHERE user = ?", (self._user,)
        ).fetchone()
        rejected = np.union1d(np.frombuffer(known, np.uint64), hashes)
        self._db.execute(
            "UPDATE users SET rejected = ? WHERE user = ?", (rejected.tobytes(), self._user)
        )

    def log(self, events: Sequence[Event]) -> None:
        """Put events at the end of the log."""
        rows = ((self._user, event_log.to_body(event)) for event in events)
        self._db.executemany("INSERT INTO event_log (user, body) VALUES (?, ?)", rows)


def delete_user(db: sqlite3.Connection, user_id: str, *, now_us: int) -> bool:
    """Forget a user and remember that; returns whether anything was known.

    What is deleted is overwritten in the file, not only let go of.
    """
    db.execute(
        "INSERT OR REPLACE INTO deleted_users (user_hash, deleted_us) VALUES (?, ?)",
        (deleted_hash(user_id), now_us),
    )
    user = _find(db, user_id)
    if user is None:
        return False
    db.execute("PRAGMA secure_delete = ON")
    try:
        db.execute("DELETE FROM chunks WHERE chunk >= ? AND chunk < ?", chunk_range(user))
        for table in ("summaries", "event_log", "users"):
            db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))
    finally:
        db.execute("PRAGMA secure_delete = OFF")
    return True


def _find(db: sqlite3.Connection, user_id: str) -> int | None:
    found = db.execute("SELECT user FROM users WHERE user_id = ?", (user_id,)).fetchone()
    return None if found is None else int(found[0])
