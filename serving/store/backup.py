"""A state folder copied while it is served, and made again out of the copy.

The store is copied from one moment of it, slice by slice, by SQLite's backup API inside one read
transaction: without that, the copy would begin anew whenever a server writes. The copy is checked
before it has its name, and again before it is used. Sealed segments are not copied: servers make
them anew of the items in the store. Knows the store as a file, and two of its tables.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.atomic import sync, sync_tree
from model.errors import BundleRejected, ConfigError
from serving.errors import StoreUnavailable
from serving.store.base import store_path
from serving.store.layout import APPLICATION_ID, FORMAT

STORE, MANIFEST = "store.db", "backup.json"
_BACKUP_FORMAT = 1
_SLICE_PAGES, _SLICE_PAUSE = 512, 0.002
"""Pages copied at a time, 2 MB, and the seconds between: a server's writes have the disk, too."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds."""

    created: datetime
    num_bytes: int
    num_users: int
    num_items: int
    num_logged: int


def back_up(
    state: Path, out: Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Backup:
    """Copy the store of a state folder to `out`, which appears whole or not at all.

    progress: told how many pages of how many are copied. Raises ConfigError where `out` is taken or
    there is no store, StoreUnavailable where it cannot be read or is damaged.
    """
    path = store_path(state)
    if not path.exists():
        raise ConfigError(f"there is no store in {state}; give the --state folder of a server")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; name another folder for the backup")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with _errors(f"cannot copy {path}"):
            _copy(path, partial / STORE, progress)
            counts = _checked(partial / STORE)
        size = (partial / STORE).stat().st_size
        made = Backup(datetime.now(UTC), size, *counts)
        manifest = {
            "format": _BACKUP_FORMAT,
            "store_format": FORMAT,
            "created": made.created.isoformat(),
            "users": made.num_users,
            "items": made.num_items,
            "logged_events": made.num_logged,
            "files": {STORE: {"sha256": _sha256(partial / STORE), "size": size}},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        sync_tree(partial)
        partial.rename(out)
        sync(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def restore(backup: Path, state: Path, *, overwrite: bool = False) -> Backup:
    """Make the store of a state folder out of a backup, which is verified first.

    overwrite: whether a store that is there already gives way. Raises BundleRejected for a backup
    that is damaged or of another format, ConfigError where the state is not empty or is served,
    StoreUnavailable where it cannot be written; then nothing has changed.
    """
    made = open_backup(backup)
    path = store_path(state)
    if state.exists() and any(state.iterdir()):
        if not overwrite:
            raise ConfigError(f"{state} is not empty; name another folder, or pass --overwrite")
        if path.exists():
            _require_unused(path)
    state.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        shutil.copyfile(backup / STORE, partial)
        with _errors(f"cannot write {partial}"):
            _begin_anew(partial)
            _checked(partial)
        sync(partial)
        for left in ("-wal", "-shm"):  # of another store: they would be read as this one's
            path.with_name(path.name + left).unlink(missing_ok=True)
        partial.rename(path)
        sync(state)
    finally:
        partial.unlink(missing_ok=True)
    return made


def open_backup(backup: Path) -> Backup:
    """Verify a backup. Raises BundleRejected, naming what is wrong."""
    try:
        manifest: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        entry = manifest["files"][STORE]
        made = Backup(
            datetime.fromisoformat(manifest["created"]),
            int(entry["size"]),
            *(int(manifest[name]) for name in ("users", "items", "logged_events")),
        )
        formats = (manifest["format"], manifest["store_format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleRejected(
            f"{backup} is no backup: {MANIFEST} cannot be read ({error})"
        ) from None
    if formats != (_BACKUP_FORMAT, FORMAT):
        raise BundleRejected(
            f"{backup} is a backup of format {formats[0]} with a store of format {formats[1]}; "
            f"this version reads {_BACKUP_FORMAT} and {FORMAT}. Restore it with the version that "
            "made it"
        )
    path = backup / STORE
    if not path.is_file() or path.stat().st_size != made.num_bytes:
        raise BundleRejected(f"{backup}: {STORE} is missing or truncated; copy the backup again")
    if _sha256(path) != entry["sha256"]:
        raise BundleRejected(
            f"{backup}: {STORE} is damaged: its SHA-256 does not match; copy the backup again"
        )
    return made


def _copy(path: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as source,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        source.execute("BEGIN")
        _require_ours(source, path)  # the transaction's first read: from here on it is one moment
        source.backup(
            copy,
            pages=_SLICE_PAGES,
            sleep=_SLICE_PAUSE,
            progress=lambda _, left, total: progress(total - left, total),
        )
        source.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, and nothing beside it


def _checked(path: Path) -> tuple[int, int, int]:
    """Users, items and logged events of a store that was found whole. Raises StoreUnavailable."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise StoreUnavailable(f"the store is damaged: {verdict}")
        users, items, logged = (
            int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
            for table in ("users", "items", "event_log")
        )
    return users, items, logged


def _begin_anew(path: Path) -> None:
    """What is not the same any more in a store that was restored."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM segments")
        db.execute("DELETE FROM workers")
        found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event_log'").fetchone()
        # No export may take a new event for one that it has. Fewer than one comes in a microsecond,
        # so the time is ahead of all numbers that were given out, also after an earlier restore.
        first = max(found[0] if found else 0, time.time_ns() // 1000)
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'event_log'")
        db.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('event_log', ?)",
            (first,),
        )
        db.execute("COMMIT")


def _require_unused(path: Path) -> None:
    """Raise ConfigError where another process has the store open."""
    with contextlib.closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as db:
        try:
            # Only the last one who has a store open can take it out of WAL mode.
            (mode,) = db.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError:
            mode = "wal"
        except sqlite3.DatabaseError:
            return  # no store, or a damaged one: nobody can be using it
    if mode != "delete":
        raise ConfigError(f"{path} is in use; stop the server that runs on it first")


def _require_ours(db: sqlite3.Connection, path: Path) -> None:
    found = (
        db.execute("PRAGMA application_id").fetchone()[0],
        db.execute("PRAGMA user_version").fetchone()[0],
    )
    if found != (APPLICATION_ID, FORMAT):
        raise StoreUnavailable(f"{path} is not a store of format {FORMAT} (found: {found[1]})")


@contextlib.contextmanager
def _errors(doing: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{doing}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
