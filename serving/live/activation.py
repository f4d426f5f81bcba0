"""A bundle takes another's place in two phases: first all have it ready, then all change over.

The compactor's process verifies it, seals the live items for it and asks the gate; then every
worker opens it beside the one that it serves; then one write makes it the active one, and each
worker changes over between two requests. A request holds one catalogue, so no answer is of two
bundles. Where anything fails, the one before goes on serving, and the store says why.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from model.bundle import open_bundle
from model.errors import BundleRejected, PenchantError
from serving.config import ServerConfig
from serving.errors import StoreUnavailable
from serving.generation import Generation
from serving.live import gate
from serving.live.catalogue import Catalogue
from serving.live.compactor import Compactor
from serving.live.follower import POLL_SECONDS, Follower
from serving.live.sealed import open_sealed
from serving.logs import logger
from serving.memory import give_back
from serving.store.base import segments_path
from serving.store.database import Database
from serving.store.event_log import EventLog
from serving.store.generations import GenerationLog, StoredGeneration
from serving.store.item_log import ItemLog

PATIENCE_SECONDS = 300.0
"""How long all workers together may take to open a bundle."""
_BEAT_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a worker tries again to open the active bundle; doubled each time."""


def open_generation(config: ServerConfig, path: Path, version: str) -> Generation:
    """Verify, open and warm up a bundle. version: the one it must have; empty: any.

    Raises BundleRejected for whatever is wrong with it, ConfigError, OSError and MemoryError.
    """
    try:
        return _open_generation(config, path, version)
    except (PenchantError, OSError, MemoryError):
        raise
    except Exception as error:  # its checksums hold, and something in it is not what it should be
        raise BundleRejected(
            f"{path} cannot be opened here ({type(error).__name__}: {error})"
        ) from error


def _open_generation(config: ServerConfig, path: Path, version: str) -> Generation:
    bundle = open_bundle(path)
    found = bundle.manifest.version
    if version not in ("", found):
        raise BundleRejected(
            f"{path} holds version {found} now; the other workers serve {version}. Restart the "
            "server to serve the new one."
        )
    generation = Generation(
        bundle, index=config.index, device=config.device, onnx_threads=config.onnx_threads
    )
    generation.warm_up()
    return generation


class Current:
    """What a worker serves now: the active generation, and its live items kept up to date."""

    def __init__(
        self,
        config: ServerConfig,
        database: Database,
        items: ItemLog,
        events: EventLog,
        *,
        worker: str = "",
    ) -> None:
        """Open the active bundle, or, where the store names none, the one of the configuration.

        worker: its name; without one, it neither says that it is alive nor changes over. Raises
        BundleRejected, ConfigError and StoreUnavailable.
        """
        self._config, self._database, self._worker = config, database, worker
        self._items, self._events = items, events
        self._log = GenerationLog(database)
        # Without a name it is no server's worker, and what servers activate is not its concern.
        active = self._log.active() if worker else None
        self._number = 0 if active is None else active.number
        path = config.bundle if active is None else active.path
        version = "" if active is None else active.version
        generation = open_generation(config, path, version)
        self.follower = self._follower(generation)
        self._next: tuple[int, Follower] | None = None
        self._refused = 0
        self._pause, self._not_before = _FIRST_PAUSE, 0.0
        self._stopping = threading.Event()
        self._beating = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, on_change: Callable[[Generation], None] = lambda generation: None) -> None:
        """Follow the items, and change over when another generation becomes active.

        on_change: called with each generation that is served, the first one too.
        """
        on_change(self.follower.catalogue.generation)
        self.follower.start()
        if self._worker:
            self._beat()
            self._threads = [
                threading.Thread(target=self._run, args=(on_change,), name="activation"),
                # Of its own: to open a bundle takes longer than a worker may be silent.
                threading.Thread(target=self._keep_beating, name="beat"),
            ]
            for thread in self._threads:
                thread.daemon = True
                thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self.follower.close()
        if self._next is not None:
            self._next[1].close()

    def _run(self, on_change: Callable[[Generation], None]) -> None:
        changes = -1
        while not self._stopping.wait(POLL_SECONDS):
            try:
                seen = self._database.changes()
                if seen != changes or 0 < self._not_before <= time.monotonic():
                    self._look(on_change)
                    changes = seen
            except StoreUnavailable as error:
                logger().error("cannot follow activations", reason=str(error))
                self._stopping.wait(1.0)
            except Exception as error:  # a defect, which must not leave this worker behind for good
                logger().exception("defect: cannot follow activations", exc_info=error)
                self._stopping.wait(_LONGEST_PAUSE)

    def _keep_beating(self) -> None:
        while not self._stopping.wait(_BEAT_SECONDS):
            with contextlib.suppress(StoreUnavailable):  # whoever follows activations says so
                self._beat()

    def _look(self, on_change: Callable[[Generation], None]) -> None:
        """Prepare what is coming, or change over to what is active."""
        active = self._log.active()
        if active is not None and active.number != self._number:
            self._change_over(active, on_change)
        coming = self._log.coming()
        if coming is None or coming.state != "prepared":
            if self._next is not None and (coming is None or coming.number != self._next[0]):
                self._next[1].close()
                self._next = None
            return
        if coming.number == self._refused or (self._next and self._next[0] == coming.number):
            return
        try:
            self._next = (coming.number, self._opened(coming))
        except Exception as error:
            self._refused = coming.number
            self._log.fail(coming.number, f"worker {self._worker}: {_reason(error)}")
            return
        self._beat()

    def _opened(self, coming: StoredGeneration) -> Follower:
        """The generation, ready to serve. Raises whatever keeps it from that."""
        generation = open_generation(self._config, coming.path, coming.version)
        follower = self._follower(generation)
        follower.start()
        return follower

    def _change_over(
        self, active: StoredGeneration, on_change: Callable[[Generation], None]
    ) -> None:
        if self._next is None or self._next[0] != active.number:
            # Not asked to prepare: it came up meanwhile, or was taken for gone.
            if time.monotonic() < self._not_before:
                return
            try:
                self._next = (active.number, self._opened(active))
            except Exception as error:
                self._not_before = time.monotonic() + self._pause
                logger().error(
                    "cannot open the active bundle, serving the one before",
                    path=str(active.path),
                    reason=_reason(error),
                    again_in=self._pause,
                )
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                return
        self._pause, self._not_before = _FIRST_PAUSE, 0.0
        old, self.follower = self.follower, self._next[1]
        self._number, self._next = active.number, None
        on_change(self.follower.catalogue.generation)
        logger().info("bundle changed", bundle=active.version, generation=active.number)
        self._beat()
        old.close()  # calls that have begun hold its catalogue and finish with it
        del old
        give_back()

    def _follower(self, generation: Generation) -> Follower:
        return Follower(
            generation,
            self._database,
            self._items,
            events=self._events,
            threads=self._config.onnx_threads,
        )

    def _beat(self) -> None:
        with self._beating:  # so that what is older is not written later
            coming = self._next
            self._log.beat(
                f"{self._worker}.{os.getpid()}",
                prepared=coming[0] if coming else self._number,
                serving=self._number,
            )


class Activator:
    """Brings activations that were asked for to their end; runs in the compactor's process."""

    def __init__(self, config: ServerConfig, database: Database, items: ItemLog) -> None:
        self._config, self._database, self._items = config, database, items
        self._log = GenerationLog(database)
        self._is_tidy = False

    def step(self, compactor: Compactor) -> Compactor:
        """Where somebody asked for a bundle: verify, check and activate it.

        compactor: of the active bundle. Returns the one of the bundle that is active afterwards.
        """
        coming = self._log.coming()
        if coming is None:
            return compactor
        self._is_tidy = False
        try:
            mine = self._prepare(coming, compactor)
            self._wait_for_workers(coming.number)
        except Exception as error:  # whatever it is, the bundle before it goes on
            self._log.fail(coming.number, _reason(error))
            logger().error("bundle refused", path=str(coming.path), reason=_reason(error))
            return compactor
        if self._log.read(coming.number).state != "prepared":
            return compactor  # a worker could not open it, and said so
        self._log.flip(coming.number)
        return mine

    def tidy(self, compactor: Compactor) -> None:
        """Remove the segments of bundles that are neither active nor were before, where there may
        be any. Raises StoreUnavailable."""
        if not self._is_tidy:
            kept = (self._log.active(), self._log.previous())
            compactor.keep_only({one.version for one in kept if one is not None})
            self._is_tidy = True

    def _prepare(self, coming: StoredGeneration, compactor: Compactor) -> Compactor:
        generation = open_generation(self._config, coming.path, coming.version)
        mine = Compactor(self._config, self._database, self._items, generation=generation)
        mine.seal_all()
        if not coming.skips_gate:
            active = self._catalogue(compactor.generation)
            reasons = gate.check(self._catalogue(generation), active)
            if reasons:
                raise BundleRejected(
                    f"{coming.path} was not activated: {'; '.join(reasons)}. Nothing has changed; "
                    "--skip-gate activates it all the same."
                )
        self._log.prepared(coming.number, generation.version)
        return mine

    def _catalogue(self, generation: Generation) -> Catalogue:
        """A generation with its live items as they were sealed last."""
        segments = segments_path(self._config.state)
        segment = open_sealed(self._database, self._items, segments, generation)
        return Catalogue(generation, segment)

    def _wait_for_workers(self, number: int) -> None:
        """Until all living workers have it ready, or one could not. Raises BundleRejected."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while self._log.read(number).state == "prepared":
            waiting = self._log.waiting_for(number)
            if not waiting:
                return
            if time.monotonic() > patience:
                raise BundleRejected(
                    f"not ready after {PATIENCE_SECONDS:g} seconds: {', '.join(waiting)}"
                )
            time.sleep(POLL_SECONDS)


def _reason(error: Exception) -> str:
    """Why a bundle could not be opened, for people."""
    known = isinstance(error, (PenchantError, OSError))
    return str(error) if known else f"{type(error).__name__}: {error}"
