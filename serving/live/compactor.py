"""Seals live items into a segment, so that workers need not hold them.

Runs in a process of its own (serving/live/background.py). When enough items have changed since the
last segment, it writes the next one: the old one's items that did not change, and the newest state
of those that did. It reads the store as workers do, and names the new segment there; workers then
take it in the place of the old one and of what they held in memory. Nothing waits for it.
"""

import shutil
import time
from collections.abc import Collection

from model.bundle import open_bundle
from model.errors import BundleRejected
from serving.config import ServerConfig
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.encode import ItemEncoder
from serving.live.follower import apply_items
from serving.live.gate import user_vectors
from serving.live.sealed import forget_others, open_sealed, put_sealed, sealed
from serving.live.segment import Segment, write_segment
from serving.logs import logger
from serving.store.base import segments_path
from serving.store.database import Database
from serving.store.item_log import ItemLog, all_since

SHARE = 8
"""A segment is written anew when an eighth of it has changed, or `seal_rows` items where it is
small: each item is written a few times in all, however many there are, and what workers hold in
memory, and score row by row, stays a small part."""
NUM_QUERIES = 128
"""User vectors that a segment's lists are made and tuned for: with 512, a third of the time that a
seal takes."""
_AT_ONCE = 512
_NAMED = 12
"""Characters of a bundle's version that its segments are named by."""


class Compactor:
    """Seals the live items of one bundle."""

    def __init__(
        self,
        config: ServerConfig,
        database: Database,
        items: ItemLog,
        *,
        generation: Generation | None = None,
    ) -> None:
        """Open the bundle, where it is not given. Raises BundleRejected and StoreUnavailable."""
        self._config, self._database, self._log = config, database, items
        self._segments = segments_path(config.state)
        self.generation = generation or Generation(open_bundle(config.bundle))
        self._encoder = ItemEncoder(self.generation)
        self._changes = (-1, -1)

    def step(self) -> bool:
        """Seal where it is time to; returns whether it was. Raises StoreUnavailable."""
        changes = self._database.changes(), self._log.changes()
        if changes == self._changes:
            return False
        self._changes = changes
        newest = sealed(self._database, self._log, self.generation.version)
        num_changed = self._log.num_since(newest[1] if newest else 0)
        if num_changed < self._config.seal_rows:
            return False
        segment = self._opened()
        if segment is not None and num_changed < segment.num_rows // SHARE:
            return False
        self.seal(segment)
        return True

    def seal_all(self) -> None:
        """Seal every live item there is, however few have changed."""
        self.seal(self._opened())

    def seal(self, segment: Segment | None) -> None:
        """Write the next segment; nothing where the last one, `segment`, has all there is."""
        began, end = time.monotonic(), self._log.newest()
        catalogue = Catalogue(self.generation, segment)
        start = segment.sequence if segment is not None else 0
        if segment is not None and end == start:
            return
        deleted: set[str] = set()
        for items in all_since(self._log, start, most=end, at_once=_AT_ONCE):
            apply_items(catalogue, self._encoder, items, self._log)
            deleted.update(item.item_id for item in items if item.is_deleted)
        of_feed = f"{self._log.feed[:8]}-" if self._log.feed else ""
        name = f"{self.generation.version[:_NAMED]}-{of_feed}{end:012d}"
        has_lists = self.generation.bundle.ann["kind"] == "ivf"
        contents = catalogue.contents(end, without=deleted)
        # Of that number already: damaged, or of items that the store has lost.
        shutil.rmtree(self._segments / name, ignore_errors=True)
        write_segment(
            self._segments / name,
            contents,
            schema=self.generation.schema,
            bundle_version=self.generation.version,
            queries=user_vectors(self.generation)[:NUM_QUERIES] if has_lists else None,
        )
        put_sealed(self._database, self._log, self.generation.version, name, end)
        logger().info(
            "segment sealed",
            folder=name,
            rows=len(contents.vectors),
            seconds=round(time.monotonic() - began, 2),
        )
        self._remove_old({name, segment.folder.name if segment else name})

    def keep_only(self, versions: Collection[str]) -> None:
        """Remove the segments of all other bundles; whoever still maps one keeps its bytes."""
        forget_others(self._database, versions)
        kept = {version[:_NAMED] for version in versions}
        for folder in self._segments.glob("[!.]*"):
            if folder.name.partition("-")[0] not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _opened(self) -> Segment | None:
        try:
            return open_sealed(self._database, self._log, self._segments, self.generation)
        except BundleRejected as error:  # the store has all that was in it
            logger().error("sealed segment is damaged, sealing all anew", reason=str(error))
            return None

    def _remove_old(self, kept: set[str]) -> None:
        """Remove this bundle's older segments; whoever still maps one keeps its bytes."""
        for folder in self._segments.glob(f"{self.generation.version[:_NAMED]}-*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
