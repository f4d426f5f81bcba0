"""Which bundle is active, which one is on its way, and how far each worker has come with it.

An activation is a row that goes from `preparing` (somebody asked) over `prepared` (verified,
checked, its live items sealed) to `active`, when every worker has it ready; the one before is
`retired`. Where anything fails it is `failed`, with the reason, and nothing else changes. All
workers read the same row, so one write makes all of them change over. Knows no bundle.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serving.errors import BadRequest
from serving.store.database import Database

State = Literal["preparing", "prepared", "active", "failed", "retired"]

_COLUMNS = "number, path, version, state, message, skips_gate, created_us, changed_us"
_GONE_SECONDS = 5.0
"""A worker that has said nothing for so long is taken for gone."""


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """A bundle that was activated, or is to be."""

    number: int
    path: Path
    version: str
    """Which it must have; empty: any, until it was verified."""
    state: State
    message: str
    """Why it failed."""
    skips_gate: bool
    created_us: int
    changed_us: int


class GenerationLog:
    """The generations of one store. Safe across threads and processes; raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def adopt(self, path: Path, version: str) -> int:
        """Make a bundle the active one, where it is not: what a server is started with. Activations
        that were under way are dropped. Returns its number."""

        def work(db: sqlite3.Connection) -> int:
            now = _now()
            db.execute(
                "UPDATE generations SET state = 'failed', changed_us = ?, "
                "message = 'the server was started again' "
                "WHERE state IN ('preparing', 'prepared')",
                (now,),
            )
            db.execute("DELETE FROM workers")
            found = db.execute(
                "SELECT number, path, version FROM generations WHERE state = 'active'"
            ).fetchone()
            if found is not None and (found[1], found[2]) == (str(path), version):
                return int(found[0])
            number = _insert(db, path, version, "preparing", False, now)
            _flip(db, number, now)
            return number

        return self._database.write(work)

    def request(self, path: Path, *, version: str = "", skips_gate: bool = False) -> int:
        """Ask for a bundle to be activated; returns its number. version: it must have; empty: any.

        Raises BadRequest while another activation is under way.
        """

        def work(db: sqlite3.Connection) -> int:
            found = db.execute(
                "SELECT number, path FROM generations WHERE state IN ('preparing', 'prepared')"
            ).fetchone()
            if found is not None:
                raise BadRequest(
                    f"{found[1]} is being activated (number {found[0]}); wait until it is done",
                    field="bundle_path",
                )
            return _insert(db, path, version, "preparing", skips_gate, _now())

        return self._database.write(work)

    def previous(self) -> StoredGeneration | None:
        """What was active before the active one; None where there is none."""
        active = self.active()
        found = self._read(
            "WHERE state = 'retired' AND version != ? ORDER BY changed_us DESC LIMIT 1",
            ("" if active is None else active.version,),
        )
        return found[0] if found else None

    def active(self) -> StoredGeneration | None:
        """The active generation; None where the store has known no server yet."""
        found = self._read("WHERE state = 'active'")
        return found[0] if found else None

    def coming(self) -> StoredGeneration | None:
        """The generation that is being activated; None where there is none."""
        found = self._read("WHERE state IN ('preparing', 'prepared')")
        return found[0] if found else None

    def read(self, number: int) -> StoredGeneration:
        """One generation. Raises BadRequest where there is none of that number."""
        found = self._read("WHERE number = ?", (number,))
        if not found:
            raise BadRequest(f"no generation {number}", field="number")
        return found[0]

    def newest(self, most: int) -> list[StoredGeneration]:
        """The newest generations, the newest first."""
        return self._read("ORDER BY number DESC LIMIT ?", (most,))

    def prepared(self, number: int, version: str) -> None:
        """It was verified and checked; the workers may open it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE generations SET state = 'prepared', version = ?, changed_us = ? "
                "WHERE number = ? AND state = 'preparing'",
                (version, _now(), number),
            )

        self._database.write(work)

    def fail(self, number: int, reason: str) -> None:
        """It cannot be activated; whatever is active stays."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE generations SET state = 'failed', message = ?, changed_us = ? "
                "WHERE number = ? AND state IN ('preparing', 'prepared')",
                (reason, _now(), number),
            )

        self._database.write(work)

    def flip(self, number: int) -> None:
        """Make it the active one: all workers change over."""
        self._database.write(lambda db: _flip(db, number, _now()))

    def beat(self, worker: str, *, prepared: int, serving: int) -> None:
        """A worker says that it is alive, which generation it has ready, and which it serves.

        worker: a name that no other process of this state has.
        """

        def work(db: sqlite3.Connection) -> None:
            now = _now()
            db.execute(
                "INSERT OR REPLACE INTO workers (name, prepared, serving, seen_us) "
                "VALUES (?, ?, ?, ?)",
                (worker, prepared, serving, now),
            )
            gone = now - round(10 * _GONE_SECONDS * 1e6)
            db.execute("DELETE FROM workers WHERE seen_us < ?", (gone,))

        self._database.write(work)

    def waiting_for(self, number: int) -> list[str]:
        """Living workers that do not have the generation ready."""
        rows = self._database.read(
            "SELECT name FROM workers WHERE prepared != ? AND serving != ? AND seen_us > ?",
            (number, number, _now() - round(_GONE_SECONDS * 1e6)),
        )
        return [name for (name,) in rows]

    def _read(self, rest: str, parameters: Sequence[Any] = ()) -> list[StoredGeneration]:
        rows = self._database.read(f"SELECT {_COLUMNS} FROM generations {rest}", parameters)
        return [
            StoredGeneration(
                number, Path(path), version, state, message, bool(skips), created, changed
            )
            for number, path, version, state, message, skips, created, changed in rows
        ]


def _insert(
    db: sqlite3.Connection, path: Path, version: str, state: State, skips_gate: bool, now: int
) -> int:
    made = db.execute(
        "INSERT INTO generations (path, version, state, message, skips_gate, created_us, "
        "changed_us) VALUES (?, ?, ?, '', ?, ?, ?)",
        (str(path), version, state, skips_gate, now, now),
    ).lastrowid
    assert made is not None
    return made


def _flip(db: sqlite3.Connection, number: int, now: int) -> None:
    db.execute(
        "UPDATE generations SET state = 'retired', changed_us = ? WHERE state = 'active'", (now,)
    )
    db.execute(
        "UPDATE generations SET state = 'active', changed_us = ? WHERE number = ?", (now, number)
    )


def _now() -> int:
    return time.time_ns() // 1000
