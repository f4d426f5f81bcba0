"""Who asks: a query's user becomes rows, event codes and times that the tower can read.

Users come from the store or from the request. Knows no search and no protos.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.histories import NO_TIME, is_read, known_times, whole_days
from serving.domain import EmbedRequest, History, PartError, RetrieveRequest, UserQuery
from serving.live.catalogue import Catalogue
from serving.store.base import StoredHistory, UserStore

Int64 = npt.NDArray[np.int64]

MAX_ERRORS = 100
"""Parts left aside that one answer names; the rest is counted."""
NOTHING: Int64 = np.empty(0, np.int64)


@dataclass(slots=True)
class Shown:
    """The latest events of a history, for display: [h] each, oldest first."""

    item_ids: Sequence[str]
    events: Sequence[str]
    """Event names."""
    timestamps_us: Int64
    """UTC µs, or NO_TIME."""


@dataclass(slots=True)
class Reader:
    """What is known about one query's user. Rows belong to the catalogue that it was read for."""

    rows: Int64
    """[L] item rows that the tower reads, oldest first, all >= 0."""
    events: Int64
    """[L] event codes from 1."""
    times: Int64
    """[L] UTC µs, or NO_TIME."""
    seen: Int64
    """[n] item rows of every event that was read, -1 where the bundle lacks the item."""
    profile: str = ""
    """JSON object of raw user features, or empty."""
    shown: Shown | None = None
    """As many of the latest events as the request asked for; None where it asked for none."""
    errors: Sequence[PartError] = ()
    """What of an inline history had to be left aside; the first MAX_ERRORS of it."""
    num_errors: int = 0
    """How much that was in all."""
    gave_vectors: bool = False
    """The query holds its interests itself; nothing else is known, nor needed."""


class Readers:
    """Reads the users of queries for one catalogue."""

    def __init__(self, catalogue: Catalogue, store: UserStore) -> None:
        self._catalogue, self._generation, self._store = catalogue, catalogue.generation, store
        self._codes: tuple[Sequence[str], Int64] = ((), NOTHING)

    def read(
        self, query: UserQuery, position: int, request: RetrieveRequest | EmbedRequest
    ) -> Reader:
        """The user of the query at `position` of its request; an empty one where unknown.

        Where the request says for which time it asks, later events count for nothing.
        Raises StoreUnavailable.
        """
        num_shown, exclude_seen = 0, False
        if isinstance(request, RetrieveRequest):
            num_shown, exclude_seen = request.num_history, request.exclude_seen
        until = request.time_us
        if query.vectors is not None:
            return Reader(NOTHING, NOTHING, NOTHING, NOTHING, gave_vectors=True)
        if query.history is not None:
            return self._inline(query, query.history, position, num_shown, until)
        if exclude_seen:
            return self._stored(query, position, None, num_shown, until)
        limit = max(self._generation.bundle.max_history, num_shown)
        reader = self._stored(query, position, limit, num_shown, until)
        if len(reader.rows) < len(reader.seen) == limit:
            # Some of the latest events do not count here; older ones take their places.
            return self._stored(query, position, None, num_shown, until)
        return reader

    def _stored(
        self, query: UserQuery, position: int, limit: int | None, num_shown: int, until: int
    ) -> Reader:
        """until: UTC µs, or 0 for all that is stored."""
        stored = self._store.read(query.user_id, limit=limit)
        if stored is None:
            return Reader(NOTHING, NOTHING, NOTHING, NOTHING)
        num_events = _num_until(stored.timestamps_us, until)
        if num_events < len(stored.item_ids) == limit:  # older ones take the places
            return self._stored(query, position, None, num_shown, until)
        if num_events < len(stored.item_ids):
            stored = StoredHistory(
                stored.item_ids[:num_events],
                stored.events[:num_events],
                stored.timestamps_us[:num_events],
                stored.profile,
            )
        names, codes = self._codes
        if names is not self._store.event_names:
            names = self._store.event_names
            codes = self._generation.event_codes_of(names)
            self._codes = (names, codes)
        seen = self._catalogue.rows_of(stored.item_ids)
        reader = _usable(seen, codes[stored.events], stored.timestamps_us)
        reader.profile = stored.profile
        if len(seen) and seen.max() < 0:
            reader.num_errors = 1
            reader.errors = [
                PartError(
                    position,
                    "FOREIGN_HISTORY",
                    f"queries[{position}].user_id",
                    f"none of the {len(seen)} stored events is about an item of this bundle: "
                    "does the state belong to another catalogue?",
                )
            ]
        if num_shown:
            reader.shown = Shown(
                stored.item_ids[-num_shown:],
                [names[code] for code in stored.events[-num_shown:].tolist()],
                stored.timestamps_us[-num_shown:],
            )
        return reader

    def _inline(
        self, query: UserQuery, history: History, position: int, num_shown: int, until: int
    ) -> Reader:
        generation, where = self._generation, f"queries[{position}].history"
        num_events = len(history.item_ids)
        if len(history.timestamps_us):
            num_events = _num_until(np.asarray(history.timestamps_us, np.int64), until)
            history = History(
                history.item_ids[:num_events],
                history.events[:num_events],
                history.timestamps_us[:num_events],
            )
        names = history.events or [generation.default_event] * num_events
        times = np.asarray(history.timestamps_us, np.int64)
        if not len(times):
            times = np.full(num_events, NO_TIME)
        seen, codes = self._catalogue.rows_of(history.item_ids), generation.event_codes_of(names)
        reader = _usable(seen, codes, times)
        if query.profile:
            reader.profile = json.dumps(dict(query.profile), sort_keys=True, default=_listed)
        if num_shown:
            reader.shown = Shown(
                history.item_ids[-num_shown:], names[-num_shown:], times[-num_shown:]
            )
        unknown, others = np.flatnonzero(seen < 0), np.flatnonzero(codes == 0)
        reader.num_errors = len(unknown) + len(others)
        errors = [
            PartError(
                position,
                "UNKNOWN_ITEM",
                f"{where}.item_ids[{i}]",
                f"no item {history.item_ids[i]!r} in the bundle; left aside",
            )
            for i in unknown[:MAX_ERRORS].tolist()
        ] + [
            PartError(
                position,
                "EVENT_NOT_IN_HISTORY",
                f"{where}.events[{i}]",
                f"event {names[i]!r} enters no history; left aside",
            )
            for i in others[:MAX_ERRORS].tolist()
        ]
        reader.errors = errors[:MAX_ERRORS]
        return reader


def times_as_trained(
    readers: Sequence[Reader], now: Int64, *, by_day: bool
) -> tuple[list[Int64], Int64]:
    """The times of each reader's events, and the moments [Q] of asking, as the networks read them.

    now: [Q] UTC µs. by_day: where all that is known of an event is its day, time goes from midnight
    to midnight, as in training.
    """
    times = [
        known_times(reader.times, moment)
        for reader, moment in zip(readers, now.tolist(), strict=True)
    ]
    if not by_day:
        return times, now
    return [whole_days(one) for one in times], whole_days(now)


def _num_until(times: Int64, until: int) -> int:
    """How many of the events, oldest first, are not later than `until` (0: all)."""
    return int(np.searchsorted(times, until, side="right")) if until else len(times)


def _usable(seen: Int64, codes: Int64, times: Int64) -> Reader:
    """The events whose item the bundle knows and whose event enters histories."""
    if not len(seen) or (seen.min() >= 0 and codes.min() > 0):
        return Reader(seen, codes, times, seen)
    keep = is_read(seen, codes)
    return Reader(seen[keep], codes[keep], times[keep], seen)


def _listed(value: object) -> object:
    """JSON for the vectors of a profile."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value).__name__}")
