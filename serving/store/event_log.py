"""Every taken event as it came, in the order of coming, until it is exported and trimmed.

Rows are appended in the transaction that adds the event to its user's history (user_rows.py), and
leave with their user. Knows no Parquet (serving/store/export.py) and no histories.
"""

from typing import Protocol
from urllib.parse import quote

from serving.domain import Event
from serving.store.chunks import to_json
from serving.store.database import Database

ABSENT = ("", None)


class EventLog(Protocol):
    """The log of one store, whose rows have numbers that rise and are never used again.

    Every method raises StoreUnavailable where the store cannot be read or written.
    """

    def store_id(self) -> str:
        """Which store this is, 16 hexadecimal digits."""

    def next_part(self, after: int, most_rows: int) -> tuple[int, int] | None:
        """The first and the last number of the next rows after this number, at most so many; None
        where there are none."""

    def rows(self, after: int, until: int, *, limit: int) -> list[tuple[int, str]]:
        """(number, body) of the first `limit` rows in (after, until]."""

    def trim(self, until: int, *, limit: int) -> int:
        """Delete the first rows, at most `limit`, up to this number; returns how many."""


class SqliteEventLog:
    """EventLog in store.db."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store_id(self) -> str:
        """Which store this is, 16 hexadecimal digits."""
        return str(self._database.read("SELECT store_id FROM identity")[0][0])

    def next_part(self, after: int, most_rows: int) -> tuple[int, int] | None:
        """The first and the last number of the next rows after this number; None for none."""
        ((first, last),) = self._database.read(
            "SELECT MIN(number), MAX(number) FROM (SELECT number FROM event_log WHERE number > ? "
            "ORDER BY number LIMIT ?)",
            (after, most_rows),
        )
        return None if first is None else (first, last)

    def rows(self, after: int, until: int, *, limit: int) -> list[tuple[int, str]]:
        """(number, body) of the first `limit` rows in (after, until]."""
        return self._database.read(
            "SELECT number, body FROM event_log WHERE number > ? AND number <= ? "
            "ORDER BY number LIMIT ?",
            (after, until, limit),
        )

    def trim(self, until: int, *, limit: int) -> int:
        """Delete the first rows, at most `limit`, up to this number; returns how many."""
        return self._database.write(
            lambda db: (
                db.execute(
                    "DELETE FROM event_log WHERE number IN "
                    "(SELECT number FROM event_log WHERE number <= ? ORDER BY number LIMIT ?)",
                    (until, limit),
                ).rowcount
            )
        )


def local_id(user_id: str, event_id: str) -> str:
    """An event's id among its user's events: what `qualified_id` made of it is taken back."""
    return event_id.removeprefix(_prefix(user_id))


def qualified_id(user_id: str, event_id: str) -> str:
    """An event's id among all users' events, as a dataset needs it."""
    return _prefix(user_id) + local_id(user_id, event_id)


def _prefix(user_id: str) -> str:
    return quote(user_id, safe="") + "/"


def to_body(event: Event) -> str:
    """What the log keeps of an event, as JSON."""
    body: dict[str, object] = {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "event": event.event,
        "timestamp_us": event.timestamp_us,
        "sequence": event.sequence,
    }
    for name in ("value", "exposure_id", "source_item_id", "position", "propensity"):
        value = getattr(event, name)
        if value not in ABSENT:
            body[name] = value
    return to_json(body)
