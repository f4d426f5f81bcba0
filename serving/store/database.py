"""One SQLite file, read by many threads and written in groups.

Everything that is written while a commit is under way goes into the next one together (groups.py):
one fsync for all of them. A write is on disk when its call returns (WAL, synchronous = FULL), or
was not taken at all. Several processes may write; SQLite lets one of them at a time. Knows the
tables' names (layout.py) and nothing of what they mean.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from serving.errors import StoreUnavailable
from serving.store.groups import Groups, Write
from serving.store.layout import APPLICATION_ID, FORMAT, TABLES

T = TypeVar("T")

_BUSY_SECONDS = 30
"""How long one process waits for the transaction of another."""
_CHECKPOINT_TRIES, _CHECKPOINT_PAUSE = 5, 0.02
"""How often a checkpoint is tried, and the seconds between, for readers to finish."""
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "mmap_size = 1073741824",
)


_Work = Callable[[sqlite3.Connection], Any]


class Database:
    """store.db of one state folder; made where it is not there. Safe across threads.

    Raises StoreUnavailable, as every method does, when the file cannot be opened, read or written,
    or is of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._errors("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = self._connect()
            self._writer = self._connect()
            self._prepare(self._writer)
        self._groups: Groups[_Work] = Groups(self._write_together)

    def read(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of one SELECT; it sees every write that returned before."""
        with self._errors("read"), self._lock:
            return self._reader.execute(statement, parameters).fetchall()

    def changes(self) -> int:
        """A number that is another one once anybody, in any process, has written."""
        with self._errors("read"), self._lock:
            return int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` inside a transaction; what it wrote is on disk when this returns.

        It may share the transaction with others, whose failure does not touch it. What it raises is
        raised here, and then nothing of it was written. It must not begin or end a transaction.
        """
        return self.submit(work).result()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """As `write`, without waiting: what comes of it is the future's."""
        done = self._groups.submit(work)
        if done is None:
            raise StoreUnavailable(f"cannot write {self.path.name}: it is closed")
        return done

    def checkpoint(self) -> bool:
        """Bring all that was written into the file and empty the log beside it, which has what was
        deleted for as long as nobody does. Returns whether no reader kept it from that."""
        with self._errors("checkpoint"), closing(self._connect()) as connection:
            # Never waiting inside SQLite: a checkpoint that waits for readers keeps writers out.
            connection.execute("PRAGMA busy_timeout = 0")
            for _ in range(_CHECKPOINT_TRIES):
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    return True
                time.sleep(_CHECKPOINT_PAUSE)
        return False

    def close(self) -> None:
        """Finish what was begun and let go of the file."""
        if self._groups.close():
            with self._errors("close"), self._lock:
                self._writer.close()
                self._reader.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables of a new file; refuse a file that is not a store of this format."""
        db.execute("BEGIN IMMEDIATE")
        try:
            found = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]:
                for statement in TABLES.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
            elif found != APPLICATION_ID or version != FORMAT:
                raise StoreUnavailable(
                    f"{self.path} is not a store of format {FORMAT} (found: {version}); "
                    "give another --state folder"
                )
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _write_together(self, group: Sequence[Write[_Work]]) -> None:
        written: list[tuple[Write[_Work], Any]] = []
        failed: list[tuple[Write[_Work], BaseException]] = []
        try:
            with self._errors("write"):
                self._writer.execute("BEGIN IMMEDIATE")
                for write in group:
                    try:
                        written.append((write, self._savepoint(write)))
                    except sqlite3.Error:
                        raise  # the file's own trouble is everyone's
                    except Exception as error:
                        failed.append((write, error))
                self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        for write, result in written:
            write.done.set_result(result)
        for write, reason in failed:
            write.done.set_exception(reason)

    def _savepoint(self, write: Write[_Work]) -> Any:
        """Run one piece of work; undo it alone where it fails."""
        self._writer.execute("SAVEPOINT work")
        try:
            result = write.work(self._writer)
        except sqlite3.Error:
            raise  # it may have ended the whole transaction
        except Exception:
            self._writer.execute("ROLLBACK TO work")
            self._writer.execute("RELEASE work")
            raise
        self._writer.execute("RELEASE work")
        return result

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the file is gone or full; the next write says so

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot {doing} {self.path.name}: {error}") from error
