"""Keeps one worker's catalogue up to the feed of items: what any worker wrote, all soon show.

A thread of its own looks whether the store has changed, applies what is new in the feed's order,
lets items expire, takes a newly sealed segment in the place of what it holds, and counts what is
done with items. Knows no requests.
"""

import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from model.errors import BundleRejected
from serving.domain import NO_LIMIT, Budget
from serving.errors import StoreUnavailable
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.encode import Encoded, ItemEncoder, VectorsOf
from serving.live.sealed import forget_sealed, open_sealed, sealed
from serving.live.tally import Tally
from serving.logs import logger
from serving.memory import give_back
from serving.metrics import DELTA_ITEMS, ITEMS_APPLIED
from serving.store.base import segments_path
from serving.store.database import Database
from serving.store.event_log import EventLog
from serving.store.item_log import ItemLog, StoredItem, all_since

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

POLL_SECONDS = 0.02
"""How often a worker looks for what others wrote; looking costs some 10 µs, and 50 with a
store in Redis."""
COUNT_SECONDS = 0.5
"""How often a worker counts the events of items, once it has counted all there were."""
_NO_LIMIT = 1 << 62
_UNSEEN = (-1, -1)
"""Instead of the changes that were seen: look again."""
_AT_ONCE = 512
"""Items applied together; searches go on meanwhile."""


class Follower:
    """One generation's catalogue, kept up to date. `catalogue` may be another one each time."""

    def __init__(
        self,
        generation: Generation,
        database: Database,
        items: ItemLog,
        *,
        events: EventLog | None = None,
        threads: int = 1,
    ) -> None:
        """Open the newest segment and apply all that came after it. Raises StoreUnavailable.

        database: of the state folder, which names the segments; items: wherever they are; events:
        what is counted by item; None: nothing is.
        """
        self.encoder = ItemEncoder(generation, threads=threads)
        self._generation, self._database, self._log = generation, database, items
        self._segments = segments_path(database.path.parent)
        self._stopping, self._hint = threading.Event(), threading.Event()
        self._applying = threading.Lock()
        self._tally = None if events is None else Tally(events, generation)
        self.applied = 0
        """The last change of the feed that the catalogue shows."""
        self._newest_item = ""
        self._changes = self._looked()
        self._feed: str | None = self._log.feed
        self._before: weakref.ref[Catalogue] | None = None
        self._beside = ThreadPoolExecutor(1, "segment")
        self._making: Future[tuple[Catalogue, int]] | None = None
        self._refused: str | None = None
        """A segment that is damaged."""
        self.catalogue = self._read_anew()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Go on following in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        self._hint.set()
        if self._thread is not None:
            self._thread.join()
        self._beside.shutdown(cancel_futures=True)

    def hint(self) -> None:
        """Something was written just now: look at once."""
        self._hint.set()

    def vectors_of(self, budget: Budget) -> VectorsOf:
        """Which of some items are known [n], and their vectors [n, D]: also of those that another
        worker has taken just now."""
        return vectors_from(self.catalogue, self.encoder, self._log, budget)

    def _run(self) -> None:
        failing, due = False, 0.0
        while not self._stopping.is_set():
            self._hint.wait(POLL_SECONDS)
            self._hint.clear()
            try:
                self.look()
                if time.monotonic() >= due and not self.count():
                    due = time.monotonic() + COUNT_SECONDS
                failing = False
            except (StoreUnavailable, BundleRejected) as error:
                if not failing:
                    logger().error("cannot follow the items", reason=str(error))
                failing = True
                self._stopping.wait(1.0)
            except Exception as error:  # a defect, which must not leave this worker behind for good
                if not failing:
                    logger().exception("defect: cannot follow the items", exc_info=error)
                failing = True
                self._stopping.wait(1.0)

    def count(self) -> bool:
        """Count some of what was recorded; whether there may be more. Raises StoreUnavailable."""
        return self._tally is not None and self._tally.step()

    def look(self) -> None:
        """Apply what is new, and let expire what is over."""
        with self._applying:
            for catalogue in self._held():
                catalogue.expire(time.time_ns() // 1000)  # also where the store does not answer
            changes = self._looked()
            if changes == self._changes and not self._is_made():
                return
            feed, took = self._log.feed, False
            if feed == self._feed and self._log.holds(self.applied, self._newest_item):
                took = self._change_segment()
                self._catch_up()
            else:
                logger().error("the store has lost items, reading all anew", applied=self.applied)
                if feed == self._feed:
                    forget_sealed(self._database, self._log, self._generation.version)
                self._feed = self._making = None  # so that it is begun again where it ends halfway
                self.catalogue = self._read_anew()
                self._feed = feed
            # While a segment was taken another may have been sealed.
            self._changes = _UNSEEN if took else changes

    def _looked(self) -> tuple[int, int]:
        """What is another once a segment was sealed, or an item written."""
        return self._database.changes(), self._log.changes()

    def _read_anew(self) -> Catalogue:
        """All items, as of now."""
        catalogue = self._opened()
        for items in all_since(self._log, self.applied, most=_NO_LIMIT, at_once=_AT_ONCE):
            apply_items(catalogue, self.encoder, items, self._log)
            self._has_applied(items)
        catalogue.expire(time.time_ns() // 1000)
        return catalogue

    def _opened(self) -> Catalogue:
        """The catalogue as of the newest segment."""
        segment = None
        try:
            segment = open_sealed(self._database, self._log, self._segments, self._generation)
        except BundleRejected as error:  # the store has all that was in it
            logger().error("sealed segment left aside, reading all items", reason=str(error))
        self.applied = 0 if segment is None else segment.sequence
        self._newest_item = ""
        return Catalogue(self._generation, segment, tally=self._tally)

    def _change_segment(self) -> bool:
        """Where another segment was sealed: a new catalogue over it, and what came after it.

        It is made beside this one, which goes on being kept up to date, and takes its place a
        moment after it is ready; returns whether it was.
        """
        if self._making is None:
            held = self.catalogue.segment
            newest = sealed(self._database, self._log, self._generation.version)
            if newest is None or newest[0] in (self._refused, held and held.folder.name):
                return False
            self._making = self._beside.submit(self._made)
            if self._thread is None:  # nothing else looks
                wait([self._making])
        if not self._is_made():
            return False
        making, self._making = self._making, None
        self._changes = _UNSEEN  # and again, where this fails
        self._take(making)
        return True

    def _is_made(self) -> bool:
        return self._making is not None and self._making.done()

    def _made(self) -> tuple[Catalogue, int]:
        """A catalogue over the newest segment, and the last change of the feed that it shows."""
        segment = open_sealed(self._database, self._log, self._segments, self._generation)
        made = Catalogue(self._generation, segment, tally=self._tally)
        applied = 0 if segment is None else segment.sequence
        for items in all_since(self._log, applied, most=self.applied, at_once=_AT_ONCE):
            if self._stopping.is_set():
                break
            apply_items(made, self.encoder, items, self._log)
            applied = items[-1].sequence
        return made, applied

    def _take(self, making: "Future[tuple[Catalogue, int]]") -> None:
        """Go on with what was made, brought up to the end of the feed."""
        try:
            made, applied = making.result()
        except BundleRejected as error:  # the store has all that was in it
            newest = sealed(self._database, self._log, self._generation.version)
            self._refused = newest[0] if newest else None
            logger().error("sealed segment left aside", reason=str(error))
            return
        # To the very end: what has changed twice since is in the feed once, where it changed last.
        items: Sequence[StoredItem] = ()
        for items in all_since(self._log, applied, most=_NO_LIMIT, at_once=_AT_ONCE):
            apply_items(made, self.encoder, items, self._log)
            self._hide(items, self._held())
            applied = items[-1].sequence
        made.expire(time.time_ns() // 1000)
        self._before, self.catalogue = weakref.ref(self.catalogue), made
        if applied > self.applied:
            self.applied, self._newest_item = applied, items[-1].item_id if items else ""
        del made
        give_back()
        if self.catalogue.segment is not None:
            taken = self.catalogue.segment
            logger().info("segment taken", folder=taken.folder.name, rows=taken.num_rows)

    def _catch_up(self) -> None:
        for items in all_since(self._log, self.applied, most=_NO_LIMIT, at_once=_AT_ONCE):
            apply_items(self.catalogue, self.encoder, items, self._log)
            self._hide(items, self._held()[1:])
            self._has_applied(items)
        DELTA_ITEMS.set(self.catalogue.num_in_memory)

    def _has_applied(self, items: Sequence[StoredItem]) -> None:
        self.applied, self._newest_item = items[-1].sequence, items[-1].item_id
        ITEMS_APPLIED.inc(len(items))

    def _held(self) -> list[Catalogue]:
        """The catalogue, and the one before it while a request has it."""
        before = None if self._before is None else self._before()
        return [self.catalogue] if before is None else [self.catalogue, before]

    def _hide(self, items: Sequence[StoredItem], catalogues: Sequence[Catalogue]) -> None:
        """Requests that began before these items went must not show them either."""
        now = time.time_ns() // 1000
        gone = [item.item_id for item in items if not item.is_shown(now)]
        for catalogue in catalogues if gone else ():
            catalogue.kill(gone)


def vectors_from(
    catalogue: Catalogue, encoder: ItemEncoder, log: ItemLog, budget: Budget = NO_LIMIT
) -> VectorsOf:
    """Which of some items are known, and their vectors: of a catalogue, and where it lacks one, of
    what the store has by now. A room may come before its product in the feed."""

    def vectors_of(ids: Sequence[str]) -> tuple[Bool, Float32]:
        rows = catalogue.rows_of(ids)
        known, vectors = rows >= 0, catalogue.vectors_of(np.maximum(rows, 0))
        stored = log.read([ids[i] for i in np.flatnonzero(~known).tolist()]) if len(ids) else {}
        # Its own links, if it has any, are left aside: nothing goes round in circles.
        there = [replace(one, links=()) for one in stored.values() if not one.is_deleted]
        alone = encoder.known(there)
        if alone:
            made = encoder.encode(alone, vectors_of, budget).vectors
            of = {one.item_id: vector for one, vector in zip(alone, made, strict=True)}
            for i in np.flatnonzero(~known).tolist():
                if ids[i] in of:
                    known[i], vectors[i] = True, of[ids[i]]
        return known, vectors

    return vectors_of


def apply_items(
    catalogue: Catalogue, encoder: ItemEncoder, items: Sequence[StoredItem], log: ItemLog
) -> None:
    """Bring a catalogue up to these items, distinct, each in its newest state. log: where they are
    from."""
    now = time.time_ns() // 1000
    items = encoder.resolved(items)
    catalogue.kill([item.item_id for item in items if not item.is_shown(now)])
    # What cannot be retrieved any more may be named by histories still; what is deleted may not,
    # nor may that of which this bundle knows a change alone.
    kept = encoder.known([item for item in items if not item.is_deleted])
    if not kept:
        return
    encoded = encoded_items(catalogue, encoder, kept, log)
    catalogue.append(
        encoder.table(kept, encoded.vectors),
        encoded,
        np.array([item.expires_us for item in kept], np.int64),
        np.array([item.is_shown(now) for item in kept]),
    )


def encoded_items(
    catalogue: Catalogue, encoder: ItemEncoder, items: Sequence[StoredItem], log: ItemLog
) -> Encoded:
    """What the networks make of the items: as the store has it where this bundle made it."""
    generation = catalogue.generation
    made = [item.encoded is not None and item.encoded_by == generation.version for item in items]
    ready, others = np.flatnonzero(made), np.flatnonzero(~np.array(made))
    dim = generation.bundle.dim
    if not len(others):
        return Encoded.unpacked([item.encoded or b"" for item in items], dim)
    fresh = encoder.encode(
        [items[i] for i in others.tolist()], vectors_from(catalogue, encoder, log)
    )
    if not len(ready):
        return fresh
    known = Encoded.unpacked([items[i].encoded or b"" for i in ready.tolist()], dim)
    order = np.argsort(np.concatenate([ready, others]))
    return Encoded(
        np.concatenate([known.vectors, fresh.vectors]),
        np.concatenate([known.value_vectors, fresh.value_vectors]),
    ).take(order)
