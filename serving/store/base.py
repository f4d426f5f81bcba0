"""What a store of user histories can do. Knows ids and raw features, never rows or vectors."""

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.errors import ConfigError
from serving.domain import Event

MAX_STORED_EVENTS = 10_000
"""Of one user, unless told otherwise."""
SQLITE = "sqlite"
"""The store that a state folder holds; the others are named by a URL."""
_SCHEMES = ("redis://", "rediss://", "unix://")


@dataclass(slots=True)
class StoredHistory:
    """A user as the store has them; events oldest first. Hashes are those of item ids, by
    model.items.hash_ids.

    item_ids: [n]. events: [n] uint16, indexes into the store's `event_names`.
    timestamps_us: [n] int64, microseconds since 1970 UTC; NO_TIME where the time is not known.
    profile: the user's raw features as a JSON object, or empty.
    rejected: [r] uint64, the items with a negative event, whenever that was.
    others: [o] uint64, where asked for, the items of all events that are not given here, those that
    the history has let go of included; one may be here twice, and one that is given, too.
    """

    item_ids: list[str]
    events: npt.NDArray[np.uint16]
    timestamps_us: npt.NDArray[np.int64]
    profile: str
    rejected: npt.NDArray[np.uint64]
    others: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class NewHistory:
    """Events of one user to be merged into the store, in any order.

    item_ids, events (names), event_ids: [n]. timestamps_us: [n] int64 or NO_TIME.
    sequences: [n] int64, the order among equal timestamps.
    """

    user_id: str
    item_ids: Sequence[str]
    events: Sequence[str]
    timestamps_us: npt.NDArray[np.int64]
    sequences: npt.NDArray[np.int64]
    event_ids: Sequence[str]


class Outcome(Enum):
    """What became of one event."""

    TAKEN = auto()
    """It is written."""
    DUPLICATE = auto()
    """The user has an event of this id already."""
    LET_GO = auto()
    """It is as old as events that the user's bounded history has let go of."""
    DELETED = auto()
    """It is from before the user was deleted."""
    DAMAGED = auto()
    """What is stored of the user cannot be read."""


class UserStore(Protocol):
    """User histories and profiles. Methods may be called from any thread.

    Every method raises StoreUnavailable when the store cannot be read or written; a write is then
    not taken at all.
    """

    @property
    def event_names(self) -> Sequence[str]:
        """What the codes in StoredHistory.events mean; only ever grows at its end."""

    @property
    def most_together(self) -> int:
        """Histories that one call of `merge_histories` should bring at most."""

    def read(
        self, user_id: str, *, limit: int | None, others: bool = False
    ) -> StoredHistory | None:
        """The user's latest `limit` events (all that are stored where None); None for an unknown
        user. others: whether StoredHistory.others is wanted."""

    def record(
        self, events: Sequence[Event], *, since_us: int, negative: Collection[str]
    ) -> "Future[list[Outcome]]":
        """Add events that happened just now; what became of each is there once all are on disk.

        Of one user's events with one event_id the first is taken. Those that are taken are logged,
        too. since_us: the earliest time of them all; ids are compared with those of events from
        then on. negative: the names of events after which an item is not shown any more.
        """

    def merge_histories(
        self, histories: Iterable[NewHistory], *, negative: Collection[str] = ()
    ) -> int:
        """Add the events whose event_id the user does not have yet; returns how many.

        A user's events stay in the order of (timestamp, sequence). All of one call is on disk
        when it returns, or none. What is from before the user was deleted is left out.
        """

    def put_profiles(
        self, profiles: Iterable[tuple[str, str]], *, as_of_us: int | None = None
    ) -> None:
        """Set users' raw features, (user_id, JSON object) each. On disk when it returns.

        as_of_us: of what time they are, UTC µs; users who were deleted later are left out.
        None: now.
        """

    def delete_user(self, user_id: str, *, now_us: int) -> bool:
        """Forget all about a user, and remember when; returns whether anything was known."""

    def num_users(self) -> int:
        """How many users have a history or a profile."""

    def list_users(self, *, after: int, limit: int) -> list[tuple[int, str, int]]:
        """(number, user_id, events) of at most `limit` users whose number is above `after`; events
        that the history has let go of count, too.

        Numbers are given once and never change, so the last one of a page begins the next.
        """


def check_store(store: str) -> None:
    """Raise ConfigError for what names no store."""
    if store != SQLITE and not store.startswith(_SCHEMES):
        scheme, _, rest = store.partition("://")
        shown = f"{scheme}://" if rest else "" if "@" in store else store  # no password
        raise ConfigError(
            f"store {shown[:80]!r} is not allowed; allowed: {SQLITE}, redis://HOST:PORT/DB, "
            "rediss:// for TLS, unix://PATH"
        )


def store_path(state: Path) -> Path:
    """Where a state folder keeps its store."""
    return state / "store.db"


def segments_path(state: Path) -> Path:
    """Where a state folder keeps sealed segments of live items."""
    return state / "segments"
