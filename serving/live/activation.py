"""A bundle takes another's place in two phases: first all have it ready, then all change over.

The compactor's process verifies it, seals the live items for it and asks the gate; then every
worker opens it beside the one that it serves; then one write makes it the active one, and each
worker changes over between two requests. A request holds one catalogue, so no answer is of two
bundles. Where anything fails, the one before goes on serving, and the store says why.
"""

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


def open_generation(config: ServerConfig, path: Path, version: str) -> Generation:
    """Verify, open and warm up a bundle. version: the one it must have; empty: any.

    Raises BundleRejected and ConfigError.
    """
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
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, on_change: Callable[[Generation], None] = lambda generation: None) -> None:
        """Follow the items, and change over when another generation becomes active.

        on_change: called with each generation that is served, the first one too.
        """
        on_change(self.follower.catalogue.generation)
        self.follower.start()
        if self._worker:
            self._beat()
            self._thread = threading.Thread(
                target=self._run, args=(on_change,), name="activation", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.follower.close()
        if self._next is not None:
            self._next[1].close()

    def _run(self, on_change: Callable[[Generation], None]) -> None:
        changes, due = -1, 0.0
        while not self._stopping.wait(POLL_SECONDS):
            try:
                seen = self._database.changes()
                if seen != changes:
                    changes = seen
                    self._look(on_change)
                if time.monotonic() >= due:
                    self._beat()
                    due = time.monotonic() + _BEAT_SECONDS
            except StoreUnavailable as error:
                logger().error("cannot follow activations", reason=str(error))
                self._stopping.wait(1.0)

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
        follower = self._opened(coming)
        if follower is not None:
            self._next = (coming.number, follower)
            self._beat()

    def _opened(self, coming: StoredGeneration) -> Follower | None:
        """The generation, ready to serve; None where it cannot be, which ends its activation."""
        try:
            generation = open_generation(self._config, coming.path, coming.version)
            follower = self._follower(generation)
        except PenchantError as error:
            self._refused = coming.number
            self._log.fail(coming.number, f"worker {self._worker}: {error}")
            return None
        follower.start()
        return follower

    def _change_over(
        self, active: StoredGeneration, on_change: Callable[[Generation], None]
    ) -> None:
        if self._next is None or self._next[0] != active.number:
            # Not asked to prepare: it came up meanwhile, or was taken for gone.
            follower = self._opened(active)
            if follower is None:
                return
            self._next = (active.number, follower)
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
        self._log.beat(
            f"{self._worker}.{os.getpid()}",
            prepared=self._next[0] if self._next else self._number,
            serving=self._number,
        )


class Activator:
    """Brings activations that were asked for to their end; runs in the compactor's process."""

    def __init__(self, config: ServerConfig, database: Database, items: ItemLog) -> None:
        self._config, self._database, self._items = config, database, items
        self._log = GenerationLog(database)

    def step(self, compactor: Compactor) -> Compactor:
        """Where somebody asked for a bundle: verify, check and activate it.

        compactor: of the active bundle. Returns the one of the bundle that is active afterwards.
        """
        coming = self._log.coming()
        if coming is None:
            return compactor
        try:
            mine = self._prepare(coming, compactor)
            self._wait_for_workers(coming.number)
        except (PenchantError, OSError) as error:
            self._log.fail(coming.number, str(error))
            logger().error("bundle refused", path=str(coming.path), reason=str(error))
            return compactor
        if self._log.read(coming.number).state != "prepared":
            return compactor  # a worker could not open it, and said so
        self._log.flip(coming.number)
        return mine

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
