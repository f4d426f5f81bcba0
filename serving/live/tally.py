"""How many events of histories each item has had since a bundle was made.

Read from the log of events, a few rows at a time, so that every worker counts what any worker was
told, and counts it again after a restart. What left the log before it was read, trimmed or with its
user, is not counted. Knows no requests.
"""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.generation import Generation
from serving.store.event_log import EventLog

Int64 = npt.NDArray[np.int64]

AT_ONCE = 500
"""Rows of the log of one step: some 2 ms, in which other threads wait for the interpreter."""
_NO_LIMIT = 1 << 62


class Tally:
    """Counts for one generation. One thread steps, any number read."""

    def __init__(self, log: EventLog, generation: Generation) -> None:
        as_of = generation.bundle.manifest.as_of
        self._log, self._generation = log, generation
        # Where no times are known, what the bundle has counted cannot be told apart: all counts.
        self._since = -1 if as_of is None else round(as_of.timestamp() * 1e6)
        self._counted = frozenset(generation.schema.history_events)
        self._read = 0
        self._of_bundle = np.zeros(generation.items.num_items, np.int32)
        self._of_others = Counter[str]()

    def step(self) -> bool:
        """Count the log's next rows; whether there may be more. Raises StoreUnavailable."""
        rows = self._log.rows(self._read, _NO_LIMIT, limit=AT_ONCE)
        if not rows:
            return False
        bodies = [json.loads(body) for _, body in rows]
        ids = [
            body["item_id"]
            for body in bodies
            if body["timestamp_us"] > self._since and body["event"] in self._counted
        ]
        places = self._generation.rows_of(ids)
        np.add.at(self._of_bundle, places[places >= 0], 1)
        self._of_others.update(ids[place] for place in np.flatnonzero(places < 0).tolist())
        self._read = rows[-1][0]
        return len(rows) == AT_ONCE

    def of(self, item_ids: Sequence[str]) -> Int64:
        """[n] how many events each item has had since."""
        rows = self._generation.rows_of(item_ids)
        counts = self._of_bundle[np.maximum(rows, 0)].astype(np.int64)
        for place in np.flatnonzero(rows < 0).tolist():
            counts[place] = self._of_others[item_ids[place]]
        return counts
