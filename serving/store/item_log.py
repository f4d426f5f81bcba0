"""Items as they were upserted and deleted, and a feed of what changed since.

An item is kept as it is now, beside the number of its last change: reading what changed since a
number gives every item once, in its newest state, so the feed never has to be trimmed. Kept are
raw features by name; rows and vectors belong to a bundle. Knows no bundle. Where the items lie:
sqlite_items.py, redis_items.py.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from serving.domain import ItemChange
from serving.errors import BadRequest

NEVER = 0
"""`expires_us` of an item that does not expire."""
_UNSAID = -1
"""How None is kept: of `is_available` and `expires_us`, which nobody has said."""
COLUMNS = (
    "item_id, sequence, kind, body, is_whole, is_deleted, is_available, expires_us, updated_us, "
    "encoded, encoded_by"
)
"""An item as it is kept: `row_of`, `item_of`."""

Features = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as the store has it, in its newest state."""

    item_id: str
    sequence: int
    """Of its last change; each change has another one, and later ones have higher ones."""
    kind: str
    """Empty where only the bundle knows it."""
    features: Features
    """Raw features that were given, by name; None for one that was cleared."""
    links: tuple[tuple[str, str], ...]
    """(relation, item_id) of what it is linked to."""
    is_whole: bool
    """True where all of it was given: it was not in the bundle, or had been deleted."""
    is_deleted: bool
    is_available: bool | None
    """None: as the bundle says."""
    expires_us: int | None
    """UTC µs, or NEVER. None: as the bundle says."""
    updated_us: int
    encoded: bytes | None
    """What the networks of the bundle `encoded_by` made of it (serving/live/encode.py)."""
    encoded_by: str
    created_us: int
    """When it was first written since it was last deleted, UTC µs; 0: before this was kept."""

    def is_shown(self, now_us: int) -> bool:
        """Whether it may be retrieved at this time, as far as is said here."""
        expired = self.expires_us not in (None, NEVER) and (self.expires_us or 0) <= now_us
        return self.is_available is not False and not self.is_deleted and not expired


@dataclass(frozen=True, slots=True)
class Upsert:
    """A change, and what was made of the item on the assumption that nobody else changes it."""

    change: ItemChange
    in_bundle: bool
    assumed: int
    """The sequence of the item that the change was applied to; 0 where there was none."""
    encoded: bytes | None
    encoded_by: str


def changed(
    old: StoredItem | None, change: ItemChange, *, in_bundle: bool, now_us: int
) -> StoredItem:
    """The item after a change. in_bundle: whether the bundle knows one of this id.

    Raises BadRequest where neither has a kind.
    """
    if old is None or old.is_deleted:
        # What was deleted begins anew: nothing of the bundle's lies beneath it any more.
        anew = old is not None or not in_bundle
        said: tuple[bool | None, int | None] = (True, NEVER) if anew else (None, None)
        old = StoredItem(change.item_id, 0, "", {}, (), anew, False, *said, 0, None, "", now_us)
    # What the bundle no longer has is given whole, too: what was said of it, and its kind anew.
    is_whole = old.is_whole or not in_bundle
    if is_whole and not (change.kind or (old.is_whole and old.kind)):
        raise BadRequest("a new item needs a kind", field="kind")
    return StoredItem(
        change.item_id,
        0,
        change.kind or old.kind,
        {**old.features, **change.features},
        old.links if change.links is None else tuple(change.links),
        is_whole,
        False,
        old.is_available if change.available is None else change.available,
        old.expires_us if change.expires_at_us is None else change.expires_at_us,
        now_us,
        None,
        "",
        old.created_us,
    )


def tombstone(item_id: str, now_us: int) -> StoredItem:
    """An item after it was deleted."""
    return StoredItem(item_id, 0, "", {}, (), True, True, False, NEVER, now_us, None, "", 0)


class ItemLog(Protocol):
    """The items of one store. Safe across threads and processes; raises StoreUnavailable."""

    @property
    def feed(self) -> str:
        """Which feed the numbers are of; empty for the state folder's own. It is another one where
        the store was emptied."""

    def changes(self) -> int:
        """A number that is another one once anybody has written an item; cheap."""

    def holds(self, sequence: int, item_id: str) -> bool:
        """Whether the feed still has the change of this number, or a later one of that item: not
        where the store has lost it. item_id: empty where it is not known."""

    def read(self, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Those of these items that the store has, deleted ones too."""

    def since(self, sequence: int, *, limit: int, most: int | None = None) -> list[StoredItem]:
        """At most `limit` items that changed after this number, the earliest change first; none
        that changed after `most`."""

    def newest(self) -> int:
        """The number of the last change; 0 where there was none."""

    def num_since(self, sequence: int) -> int:
        """How many items have changed after this number."""

    def upsert(self, upserts: Sequence[Upsert]) -> tuple[int, dict[int, BadRequest]]:
        """Write the changes; returns the number of the last, and what was refused, by its place.

        On disk when it returns, or none is. Refused is a change of an item that has gone meanwhile,
        where it cannot stand alone.
        """

    def delete(self, item_ids: Sequence[str], in_bundle: Sequence[bool]) -> tuple[list[bool], int]:
        """Delete items; returns which of them there were, and the number of the last change.

        in_bundle: whether the bundle knows each.
        """


def all_since(
    log: ItemLog, sequence: int, *, most: int, at_once: int
) -> Iterator[list[StoredItem]]:
    """What changed after one number and not after another, so many items at a time."""
    while True:
        items = log.since(sequence, limit=at_once, most=most)
        if items:
            yield items
            sequence = items[-1].sequence
        if len(items) < at_once:
            return


def now_us() -> int:
    """UTC µs."""
    return time.time_ns() // 1000


def row_of(item: StoredItem, sequence: int, encoded: bytes | None) -> tuple[Any, ...]:
    """An item as it is kept, the values of COLUMNS. encoded: what its networks made of it, by
    item.encoded_by, where that holds still."""
    body = {"features": item.features, "links": item.links, "created_us": item.created_us}
    return (
        item.item_id,
        sequence,
        item.kind,
        json.dumps(body, ensure_ascii=False, default=_listed),
        item.is_whole,
        item.is_deleted,
        _UNSAID if item.is_available is None else item.is_available,
        _UNSAID if item.expires_us is None else item.expires_us,
        item.updated_us,
        encoded,
        item.encoded_by if encoded else "",
    )


def _listed(value: object) -> object:
    """JSON for a vector."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value).__name__}")


def item_of(row: Sequence[Any]) -> StoredItem:
    """What `row_of` made a row of."""
    item_id, sequence, kind, body, whole, deleted, available, expires, updated, encoded, by = row
    found = json.loads(body)
    return StoredItem(
        item_id,
        sequence,
        kind,
        found["features"],
        tuple((relation, to) for relation, to in found["links"]),
        bool(whole),
        bool(deleted),
        None if available == _UNSAID else bool(available),
        None if expires == _UNSAID else expires,
        updated,
        encoded,
        by,
        found.get("created_us", 0),
    )
