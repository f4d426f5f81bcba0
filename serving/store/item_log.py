"""Items as they were upserted and deleted, and a feed of what changed since.

An item is kept as it is now, beside the number of its last change: reading what changed since a
number gives every item once, in its newest state, so the feed never has to be trimmed. Kept are
raw features by name; rows and vectors belong to a bundle. Knows no bundle.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.domain import ItemChange
from serving.errors import BadRequest
from serving.store.database import Database

NEVER = 0
"""`expires_us` of an item that does not expire."""
_COLUMNS = (
    "item_id, sequence, kind, body, is_whole, is_deleted, is_available, expires_us, updated_us, "
    "encoded, encoded_by"
)
_READ_TOGETHER = 500

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
    """False where the bundle's features lie beneath those given here."""
    is_deleted: bool
    is_available: bool
    expires_us: int
    """UTC µs, or NEVER."""
    updated_us: int
    encoded: bytes | None
    """What the networks of the bundle `encoded_by` made of it (serving/live/encode.py)."""
    encoded_by: str

    def is_shown(self, now_us: int) -> bool:
        """Whether it may be retrieved at this time."""
        expired = self.expires_us != NEVER and self.expires_us <= now_us
        return self.is_available and not self.is_deleted and not expired


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

    Raises BadRequest for a new item without a kind.
    """
    if old is None or old.is_deleted:
        # What was deleted begins anew: nothing of the bundle's lies beneath it any more.
        is_whole = old is not None or not in_bundle
        if is_whole and not change.kind:
            raise BadRequest("a new item needs a kind", field="kind")
        old = StoredItem(change.item_id, 0, "", {}, (), is_whole, False, True, NEVER, 0, None, "")
    return StoredItem(
        change.item_id,
        0,
        change.kind or old.kind,
        {**old.features, **change.features},
        old.links if change.links is None else tuple(change.links),
        old.is_whole,
        False,
        old.is_available if change.available is None else change.available,
        old.expires_us if change.expires_at_us is None else change.expires_at_us,
        now_us,
        None,
        "",
    )


class ItemLog:
    """The items of one store. Safe across threads and processes; raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Those of these items that the store has, deleted ones too."""
        found: dict[str, StoredItem] = {}
        for start in range(0, len(item_ids), _READ_TOGETHER):
            some = item_ids[start : start + _READ_TOGETHER]
            marks = ", ".join("?" * len(some))
            rows = self._database.read(
                f"SELECT {_COLUMNS} FROM items WHERE item_id IN ({marks})", some
            )
            found.update((row[0], _item(row)) for row in rows)
        return found

    def since(self, sequence: int, *, limit: int, most: int | None = None) -> list[StoredItem]:
        """At most `limit` items that changed after this number, the earliest change first; none
        that changed after `most`."""
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM items WHERE sequence > ? AND sequence <= ? "
            "ORDER BY sequence LIMIT ?",
            (sequence, (1 << 62) if most is None else most, limit),
        )
        return [_item(row) for row in rows]

    def all_since(self, sequence: int, *, most: int, at_once: int) -> Iterator[list[StoredItem]]:
        """What changed after one number and not after another, so many items at a time."""
        while True:
            items = self.since(sequence, limit=at_once, most=most)
            if items:
                yield items
                sequence = items[-1].sequence
            if len(items) < at_once:
                return

    def newest(self) -> int:
        """The number of the last change; 0 where there was none."""
        ((number,),) = self._database.read("SELECT COALESCE(MAX(sequence), 0) FROM items")
        return int(number)

    def num_since(self, sequence: int) -> int:
        """How many items have changed after this number."""
        ((number,),) = self._database.read(
            "SELECT COUNT(*) FROM items WHERE sequence > ?", (sequence,)
        )
        return int(number)

    def upsert(self, upserts: Sequence[Upsert]) -> int:
        """Write the changes; returns the number of the last. On disk when it returns, or none is.

        Raises BadRequest where an item that was there is gone now and the change cannot stand
        alone.
        """

        def work(db: sqlite3.Connection) -> int:
            sequence, now = _newest(db), _now()
            for upsert in upserts:
                change = upsert.change
                found = db.execute(
                    f"SELECT {_COLUMNS} FROM items WHERE item_id = ?", (change.item_id,)
                ).fetchone()
                old = None if found is None else _item(found)
                new = changed(old, change, in_bundle=upsert.in_bundle, now_us=now)
                sequence += 1
                # Somebody else changed it meanwhile: what was made of it is of another item.
                holds = (0 if old is None else old.sequence) == upsert.assumed
                encoded = upsert.encoded if holds else None
                _put(db, new, sequence, encoded, upsert.encoded_by if encoded else "")
            return sequence

        return self._database.write(work)

    def delete(self, item_ids: Sequence[str], in_bundle: Sequence[bool]) -> tuple[list[bool], int]:
        """Delete items; returns which of them there were, and the number of the last change.

        in_bundle: whether the bundle knows each.
        """

        def work(db: sqlite3.Connection) -> tuple[list[bool], int]:
            sequence, now = _newest(db), _now()
            existed = []
            for item_id, known in zip(item_ids, in_bundle, strict=True):
                found = db.execute(
                    "SELECT is_deleted FROM items WHERE item_id = ?", (item_id,)
                ).fetchone()
                existed.append(known if found is None else not found[0])
                if existed[-1]:
                    sequence += 1
                    gone = StoredItem(
                        item_id, 0, "", {}, (), True, True, False, NEVER, now, None, ""
                    )
                    _put(db, gone, sequence, None, "")
            return existed, sequence

        return self._database.write(work)


def _newest(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT COALESCE(MAX(sequence), 0) FROM items").fetchone()[0])


def _now() -> int:
    return time.time_ns() // 1000


def _put(
    db: sqlite3.Connection, item: StoredItem, sequence: int, encoded: bytes | None, by: str
) -> None:
    body = {"features": item.features, "links": item.links}
    db.execute(
        f"INSERT OR REPLACE INTO items ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            item.item_id,
            sequence,
            item.kind,
            json.dumps(body, ensure_ascii=False, default=_listed),
            item.is_whole,
            item.is_deleted,
            item.is_available,
            item.expires_us,
            item.updated_us,
            encoded,
            by,
        ),
    )


def _listed(value: object) -> object:
    """JSON for a vector."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _item(row: Sequence[Any]) -> StoredItem:
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
        bool(available),
        expires,
        updated,
        encoded,
        by,
    )
