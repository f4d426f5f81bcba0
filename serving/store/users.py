"""Users by number, what they have rejected, and those that were deleted. Inside a transaction."""

import hashlib
import sqlite3

import numpy as np

from serving.store.chunks import Hashes, chunk_range


def find_user(db: sqlite3.Connection, user_id: str) -> int | None:
    """The user's number; None for an unknown one."""
    found = db.execute("SELECT user FROM users WHERE user_id = ?", (user_id,)).fetchone()
    return None if found is None else int(found[0])


def find_or_add_user(db: sqlite3.Connection, user_id: str) -> int:
    """The user's number, given once and for good."""
    found = find_user(db, user_id)
    if found is not None:
        return found
    made = db.execute("INSERT INTO users (user_id) VALUES (?)", (user_id,)).lastrowid
    assert made is not None
    return made


def reject(db: sqlite3.Connection, user: int, hashes: Hashes) -> None:
    """Add items to those that the user does not want to see."""
    (known,) = db.execute("SELECT rejected FROM users WHERE user = ?", (user,)).fetchone()
    rejected = np.union1d(np.frombuffer(known, np.uint64), hashes)
    db.execute("UPDATE users SET rejected = ? WHERE user = ?", (rejected.tobytes(), user))


def deleted_us(db: sqlite3.Connection, user_id: str) -> int | None:
    """When the user was deleted, UTC µs; None for one who never was."""
    found = db.execute(
        "SELECT deleted_us FROM deleted_users WHERE user_hash = ?", (_hash(user_id),)
    ).fetchone()
    return None if found is None else int(found[0])


def delete_user(db: sqlite3.Connection, user_id: str, *, now_us: int) -> bool:
    """Forget a user and remember that; returns whether anything was known.

    What is deleted is overwritten in the file, not only let go of.
    """
    db.execute(
        "INSERT OR REPLACE INTO deleted_users (user_hash, deleted_us) VALUES (?, ?)",
        (_hash(user_id), now_us),
    )
    user = find_user(db, user_id)
    if user is None:
        return False
    db.execute("PRAGMA secure_delete = ON")
    try:
        db.execute("DELETE FROM chunks WHERE chunk >= ? AND chunk < ?", chunk_range(user))
        for table in ("summaries", "event_log", "users"):
            db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))
    finally:
        db.execute("PRAGMA secure_delete = OFF")
    return True


def _hash(user_id: str) -> bytes:
    return hashlib.sha256(user_id.encode()).digest()[:16]
