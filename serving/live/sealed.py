"""Which sealed segment is in use, and how it is opened: store.db names it, one for each bundle.

Segments are a machine's own, also where the items are in a store that several share; then they are
of the feed of that store, and of no other.
"""

import sqlite3
from collections.abc import Collection
from pathlib import Path

from model.errors import BundleRejected
from serving.generation import Generation
from serving.live.segment import Segment
from serving.store.database import Database
from serving.store.item_log import ItemLog

_TRIES = 5


def sealed(database: Database, log: ItemLog, bundle_version: str) -> tuple[str, int] | None:
    """Folder name and last change of a bundle's newest segment; None where there is none, or where
    it is ahead of a store that has lost its newest changes."""
    found = database.read(
        "SELECT folder, sequence FROM segments WHERE bundle_version = ?",
        (_name(log, bundle_version),),
    )
    if not found or (log.feed and found[0][1] > log.newest()):
        return None
    return found[0][0], int(found[0][1])


def put_sealed(
    database: Database, log: ItemLog, bundle_version: str, folder: str, sequence: int
) -> None:
    """Name a segment that has been written as its bundle's newest."""

    def work(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT OR REPLACE INTO segments (bundle_version, sequence, folder) VALUES (?, ?, ?)",
            (_name(log, bundle_version), sequence, folder),
        )

    database.write(work)


def forget_sealed(database: Database, log: ItemLog, bundle_version: str) -> None:
    """Let go of a segment of items that the store has lost."""

    def work(db: sqlite3.Connection) -> None:
        name = _name(log, bundle_version)
        db.execute("DELETE FROM segments WHERE bundle_version = ?", (name,))

    database.write(work)


def forget_others(database: Database, versions: Collection[str]) -> None:
    """Let go of the segments of all bundles but these, whatever feed they are of."""

    def work(db: sqlite3.Connection) -> None:
        for (name,) in db.execute("SELECT bundle_version FROM segments").fetchall():
            if name.partition(" ")[0] not in versions:
                db.execute("DELETE FROM segments WHERE bundle_version = ?", (name,))

    database.write(work)


def open_sealed(
    database: Database, log: ItemLog, segments: Path, generation: Generation
) -> Segment | None:
    """The newest segment of a generation's bundle; None where there is none.

    Raises BundleRejected where it is damaged.
    """
    for attempt in range(_TRIES):
        newest = sealed(database, log, generation.version)
        if newest is None:
            return None
        folder = segments / newest[0]
        try:
            return Segment(
                folder,
                schema=generation.schema,
                bundle_version=generation.version,
                num_beside=generation.items.num_active,
            )
        except BundleRejected:
            # Sealed anew, and removed, while it was being opened: the store names the next one.
            if sealed(database, log, generation.version) == newest or attempt + 1 == _TRIES:
                raise
    raise AssertionError("the loop returns or raises")


def _name(log: ItemLog, bundle_version: str) -> str:
    return f"{bundle_version} {log.feed}" if log.feed else bundle_version
