"""What a store of user histories can do. Knows ids and raw features, never rows or vectors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(slots=True)
class StoredHistory:
    """A user as the store has them; events oldest first.

    item_ids: [n]. events: [n] uint16, indexes into the store's `event_names`.
    timestamps_us: [n] int64, microseconds since 1970 UTC; NO_TIME where the time is not known.
    profile: the user's raw features as a JSON object, or empty.
    """

    item_ids: list[str]
    events: npt.NDArray[np.uint16]
    timestamps_us: npt.NDArray[np.int64]
    profile: str


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


class UserStore(Protocol):
    """User histories and profiles. Methods may be called from any thread.

    Every method raises StoreUnavailable when the store cannot be read or written; a write is then
    not taken at all.
    """

    @property
    def event_names(self) -> Sequence[str]:
        """What the codes in StoredHistory.events mean; only ever grows at its end."""

    def read(self, user_id: str, *, limit: int | None) -> StoredHistory | None:
        """The user's latest `limit` events (all where None); None for an unknown user."""

    def merge_histories(self, histories: Iterable[NewHistory]) -> int:
        """Add the events whose event_id the user does not have yet; returns how many.

        A user's events stay in the order of (timestamp, sequence). All of one call is on disk
        when it returns, or none.
        """

    def put_profiles(self, profiles: Iterable[tuple[str, str]]) -> None:
        """Set users' raw features, (user_id, JSON object) each. On disk when it returns."""

    def num_users(self) -> int:
        """How many users have a history or a profile."""

    def list_users(self, *, after: int, limit: int) -> list[tuple[int, str, int]]:
        """(number, user_id, events) of at most `limit` users whose number is above `after`.

        Numbers are given once and never change, so the last one of a page begins the next.
        """

    def close(self) -> None:
        """Let go of the files; the store cannot be used afterwards."""


def store_path(state: Path) -> Path:
    """Where a state folder keeps its store."""
    return state / "store.db"


def segments_path(state: Path) -> Path:
    """Where a state folder keeps sealed segments of live items."""
    return state / "segments"
