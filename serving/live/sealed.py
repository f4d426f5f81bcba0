"""Which sealed segment is in use, and how it is opened: the store names it, one for each bundle."""

import sqlite3
from pathlib import Path

from model.errors import BundleRejected
from model.ivf import Setting
from serving.generation import Generation
from serving.live.segment import Segment
from serving.store.database import Database

_TRIES = 5


def sealed(database: Database, bundle_version: str) -> tuple[str, int] | None:
    """Folder name and last change of a bundle's newest segment; None where there is none."""
    found = database.read(
        "SELECT folder, sequence FROM segments WHERE bundle_version = ?", (bundle_version,)
    )
    return (found[0][0], int(found[0][1])) if found else None


def put_sealed(database: Database, bundle_version: str, folder: str, sequence: int) -> None:
    """Name a segment that has been written as its bundle's newest."""

    def work(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT OR REPLACE INTO segments (bundle_version, sequence, folder) VALUES (?, ?, ?)",
            (bundle_version, sequence, folder),
        )

    database.write(work)


def open_sealed(
    database: Database, segments: Path, generation: Generation, *, but: str = ""
) -> Segment | None:
    """The newest segment of a generation's bundle; None where there is none, or it is `but`.

    Raises BundleRejected where it is damaged.
    """
    about = generation.bundle.ann
    setting = None
    if about["kind"] == "ivf":
        setting = Setting(probes=about["probes"], fetch=about["fetch"])
    for attempt in range(_TRIES):
        newest = sealed(database, generation.version)
        if newest is None or newest[0] == but:
            return None
        folder = segments / newest[0]
        try:
            return Segment(
                folder, schema=generation.schema, bundle_version=generation.version, setting=setting
            )
        except BundleRejected:
            # Sealed anew, and removed, while it was being opened: the store names the next one.
            if sealed(database, generation.version) == newest or attempt + 1 == _TRIES:
                raise
    raise AssertionError("the loop returns or raises")
