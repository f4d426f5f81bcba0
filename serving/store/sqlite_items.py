"""ItemLog in store.db: a table of items, ordered by the number of their last change."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from serving.errors import BadRequest
from serving.store.database import Database
from serving.store.item_log import (
    COLUMNS,
    StoredItem,
    Upsert,
    changed,
    item_of,
    now_us,
    row_of,
    tombstone,
)

_READ_TOGETHER = 500
_PUT = f"INSERT OR REPLACE INTO items ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteItemLog:
    """The items of a Database; see ItemLog."""

    feed = ""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changes(self) -> int:
        """A number that is another one once anybody has written."""
        return self._database.changes()

    def holds(self, sequence: int, item_id: str) -> bool:
        """Yes: what is on disk is not lost."""
        return True

    def read(self, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Those of these items that the store has, deleted ones too."""
        found: dict[str, StoredItem] = {}
        for start in range(0, len(item_ids), _READ_TOGETHER):
            some = item_ids[start : start + _READ_TOGETHER]
            marks = ", ".join("?" * len(some))
            rows = self._database.read(
                f"SELECT {COLUMNS} FROM items WHERE item_id IN ({marks})", some
            )
            found.update((row[0], item_of(row)) for row in rows)
        return found

    def since(self, sequence: int, *, limit: int, most: int | None = None) -> list[StoredItem]:
        """At most `limit` items that changed after this number, the earliest change first; none
        that changed after `most`."""
        rows = self._database.read(
            f"SELECT {COLUMNS} FROM items WHERE sequence > ? AND sequence <= ? "
            "ORDER BY sequence LIMIT ?",
            (sequence, (1 << 62) if most is None else most, limit),
        )
        return [item_of(row) for row in rows]

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

    def upsert(self, upserts: Sequence[Upsert]) -> tuple[int, dict[int, BadRequest]]:
        """Write the changes; returns the number of the last, and what was refused, by its place."""

        def work(db: sqlite3.Connection) -> tuple[int, dict[int, BadRequest]]:
            sequence, now = _newest(db), now_us()
            refused: dict[int, BadRequest] = {}
            for place, upsert in enumerate(upserts):
                change = upsert.change
                found = db.execute(
                    f"SELECT {COLUMNS} FROM items WHERE item_id = ?", (change.item_id,)
                ).fetchone()
                old = None if found is None else item_of(found)
                try:
                    new = changed(old, change, in_bundle=upsert.in_bundle, now_us=now)
                except BadRequest as error:
                    refused[place] = error
                    continue
                sequence += 1
                # Somebody else changed it meanwhile: what was made of it is of another item.
                holds = (0 if old is None else old.sequence) == upsert.assumed
                new = replace(new, encoded_by=upsert.encoded_by)
                db.execute(_PUT, row_of(new, sequence, upsert.encoded if holds else None))
            return sequence, refused

        return self._database.write(work)

    def delete(self, item_ids: Sequence[str], in_bundle: Sequence[bool]) -> tuple[list[bool], int]:
        """Delete items; returns which of them there were, and the number of the last change."""

        def work(db: sqlite3.Connection) -> tuple[list[bool], int]:
            sequence, now = _newest(db), now_us()
            existed = []
            for item_id, known in zip(item_ids, in_bundle, strict=True):
                found = db.execute(
                    "SELECT is_deleted FROM items WHERE item_id = ?", (item_id,)
                ).fetchone()
                existed.append(known if found is None else not found[0])
                if existed[-1]:
                    sequence += 1
                    db.execute(_PUT, row_of(tombstone(item_id, now), sequence, None))
            return existed, sequence

        return self._database.write(work)


def _newest(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT COALESCE(MAX(sequence), 0) FROM items").fetchone()[0])
