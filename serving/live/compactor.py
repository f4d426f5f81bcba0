"""The one process that seals live items into a segment, so that workers need not hold them.

    python -m serving.live.compactor < config.json

is how the supervisor starts it. When enough items have changed since the last segment, it writes
the next one: the old one's items that did not change, and the newest state of those that did. It
reads the store as workers do, and names the new segment there; workers then take it in the place of
the old one and of what they held in memory. Nothing waits for it, and it runs at low priority.
"""

import fcntl
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from model import ann
from model.bundle import open_bundle
from model.errors import BundleRejected, PenchantError
from serving.config import ServerConfig
from serving.errors import StoreUnavailable
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.encode import ItemEncoder
from serving.live.follower import apply_items
from serving.live.sealed import open_sealed, put_sealed, sealed
from serving.live.segment import Segment, write_segment
from serving.logs import configure_logs, logger
from serving.store.base import segments_path, store_path
from serving.store.database import Database
from serving.store.item_log import ItemLog

SHARE = 4
"""A segment is written anew when a quarter of it has changed, or SEAL_ROWS items where it is small:
so that each item is written a few times in all, however many there are."""
_POLL_SECONDS = 0.5
_AT_ONCE = 512
_NICENESS = 10


class Compactor:
    """Seals the live items of one bundle."""

    def __init__(
        self, config: ServerConfig, database: Database, *, generation: Generation | None = None
    ) -> None:
        """Open the bundle, where it is not given. Raises BundleRejected and StoreUnavailable."""
        self._config, self._database = config, database
        self._log = ItemLog(database)
        self._segments = segments_path(config.state)
        self._generation = generation or Generation(open_bundle(config.bundle))
        self._encoder = ItemEncoder(self._generation)
        self._changes = -1

    def step(self) -> bool:
        """Seal where it is time to; returns whether it was. Raises StoreUnavailable."""
        changes = self._database.changes()
        if changes == self._changes:
            return False
        self._changes = changes
        newest = sealed(self._database, self._generation.version)
        num_changed = self._log.num_since(newest[1] if newest else 0)
        if num_changed < self._config.seal_rows:
            return False
        segment = self._opened()
        if segment is not None and num_changed < segment.num_rows // SHARE:
            return False
        self.seal(segment)
        return True

    def seal(self, segment: Segment | None) -> None:
        """Write the next segment; nothing where the last one, `segment`, has all there is."""
        end = self._log.newest()
        catalogue = Catalogue(self._generation, segment)
        start = segment.sequence if segment is not None else 0
        if segment is not None and end == start:
            return
        for items in self._log.all_since(start, most=end, at_once=_AT_ONCE):
            apply_items(catalogue, self._encoder, items)
        name = f"{self._generation.version[:12]}-{end:012d}"
        bundle = self._generation.bundle
        index = ann.open_index(bundle.index_path) if bundle.ann["kind"] == "ivf" else None
        contents = catalogue.contents(end)
        write_segment(
            self._segments / name,
            contents,
            schema=self._generation.schema,
            bundle_version=self._generation.version,
            index=index,
        )
        put_sealed(self._database, self._generation.version, name, end)
        logger().info("segment sealed", folder=name, rows=len(contents.vectors))
        self._remove_old({name, segment.folder.name if segment else name})

    def _opened(self) -> Segment | None:
        try:
            return open_sealed(self._database, self._segments, self._generation)
        except BundleRejected as error:  # the store has all that was in it
            logger().error("sealed segment is damaged, sealing all anew", reason=str(error))
            return None

    def _remove_old(self, kept: set[str]) -> None:
        """Remove this bundle's older segments; whoever still maps one keeps its bytes."""
        for folder in self._segments.glob(f"{self._generation.version[:12]}-*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def only_one(state: Path) -> int | None:
    """A file descriptor that holds the right to compact this state; None where another has it."""
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / "compactor.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def main() -> int:
    """Compact until SIGTERM or the end of stdin; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which sends TERM
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    config = ServerConfig.from_json(sys.stdin.readline())
    configure_logs(config.log_level, worker="compactor")
    os.nice(_NICENESS)
    threading.Thread(target=_watch_stdin, args=(stopping,), daemon=True).start()
    while only_one(config.state) is None:
        if stopping.wait(1.0):
            return 0
    try:
        database = Database(store_path(config.state))
        compactor = Compactor(config, database)
    except (PenchantError, OSError) as error:
        logger().error("cannot compact", reason=str(error))
        return 1
    while not stopping.wait(_POLL_SECONDS):
        try:
            compactor.step()
        except (StoreUnavailable, OSError) as error:
            logger().error("could not seal, trying again", reason=str(error))
            stopping.wait(10.0)
    database.close()
    return 0


def _watch_stdin(stopping: threading.Event) -> None:
    while sys.stdin.read(4096):
        pass
    stopping.set()


if __name__ == "__main__":
    sys.exit(main())
