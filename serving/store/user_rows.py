"""What a write of users reads and changes inside one transaction, wherever the users are kept.

What is written is decided in writing.py, merging.py and summaries.py; where it lies, in
sqlite_users.py and redis_users.py.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from serving.domain import Event
from serving.store.chunks import Hashes, Key

Row = tuple[Any, ...]
"""A chunk as it is kept: its number, then the values of chunks.COLUMNS."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is still known of the events that a bounded history has let go of; see summaries.py."""

    num_events: int
    first_us: int
    last_us: int
    last_sequence: int
    counts: str
    """JSON, event name → events."""
    seen: bytes
    """Hashes of the items, uint64."""


class UserRows(Protocol):
    """What is kept of one user."""

    @property
    def first_chunk(self) -> int:
        """The number of a first chunk; the next ones count on from it."""

    def tail(self, since_us: int) -> list[Row]:
        """The newest chunk, and those before it that reach to since_us; oldest first."""

    def between(self, start: int, end: int) -> list[Row]:
        """The chunks from this number to before that one, oldest first."""

    def oldest(self) -> int:
        """The number of the oldest chunk that is left."""

    def put(self, rows: Iterable[Row]) -> None:
        """Write the newest chunks, or write them again; the last is the newest of all."""

    def drop(self, start: int, end: int) -> None:
        """Forget the oldest chunks: from this number, which is the oldest, to before that one."""

    def last_let_go(self) -> Key | None:
        """Where the last event that was let go of stood; None where none was."""

    def summary(self) -> Summary | None:
        """Of the events that were let go of; None where none was."""

    def put_summary(self, summary: Summary) -> None:
        """Write the summary."""

    def reject(self, hashes: Hashes) -> None:
        """Add items to those that the user does not want to see."""

    def log(self, events: Sequence[Event]) -> None:
        """Put events at the end of the log; see event_log.py."""


class UserWrites(Protocol):
    """All users, inside one transaction."""

    def names(self) -> list[str]:
        """Event names by their codes; nobody else adds any before the transaction ends."""

    def add_name(self, code: int, name: str) -> None:
        """Give an event name the next code."""

    def deleted_us(self, user_id: str) -> int | None:
        """When the user was deleted, UTC µs; None for one who never was."""

    def find_or_add(self, user_id: str) -> UserRows:
        """The user, who is known from now on."""

    def savepoint(self) -> AbstractContextManager[None]:
        """The block is written whole; nothing of it where it raises ValueError or TypeError."""


def deleted_hash(user_id: str) -> bytes:
    """What is kept of the id of a user who was deleted."""
    return hashlib.sha256(user_id.encode()).digest()[:16]
