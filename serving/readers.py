"""Who asks: a query's user becomes rows, event codes and times that the tower can read.

Users come from the store or from the request. Knows no search and no protos.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.histories import NO_TIME, is_read, known_times, whole_days
from model.items import hash_ids
from serving.domain import EmbedRequest, History, PartError, RetrieveRequest, UserQuery
from serving.live.catalogue import Catalogue
from serving.moment import with_moment
from serving.recording import MAX_AHEAD_US
from serving.store.base import StoredHistory, UserStore

Int64 = npt.NDArray[np.int64]

_MANY_EVENTS = 2048
_NO_PAST = History((), (), ())
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
    """[L] item rows that the tower reads the newest of, oldest first, all >= 0."""
    events: Int64
    """[L] event codes from 1."""
    times: Int64
    """[L] UTC µs, or NO_TIME."""
    seen: Int64
    """[n] item rows of every event that was read, -1 where the bundle lacks the item; where seen
    items are left out, of every event that is known."""
    rejected: Int64 = field(default_factory=lambda: NOTHING)
    """[r] item rows that the user does not want to see, whatever else is asked."""
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
    origins: npt.NDArray[np.int8] | None = None
    """What serving/origins.py has told of the circles, for the moment that is answered for."""


class Readers:
    """Reads the users of queries for one catalogue."""

    def __init__(self, catalogue: Catalogue, store: UserStore) -> None:
        self._catalogue, self._generation, self._store = catalogue, catalogue.generation, store
        self._negative = self._generation.schema.negative_events
        self._codes: tuple[Sequence[str], Int64] = ((), NOTHING)

    def read(
        self,
        query: UserQuery,
        position: int,
        request: RetrieveRequest | EmbedRequest,
        *,
        clock: int = 0,
    ) -> Reader:
        """The user of the query at `position` of its request; an empty one where unknown.

        Where the request says for which time it asks, later events count for nothing. clock: the
        time now, UTC µs. Raises StoreUnavailable.
        """
        num_shown, exclude_seen = 0, False
        if isinstance(request, RetrieveRequest):
            num_shown, exclude_seen = request.num_history, request.exclude_seen
        if query.vectors is not None:
            return Reader(NOTHING, NOTHING, NOTHING, NOTHING, gave_vectors=True)
        until = request.time_us
        if query.history is not None:
            return self._inline(query, query.history, position, num_shown, until)
        wanted = self._generation.bundle.max_history
        limit = None if until or request.whole_history else max(wanted, num_shown)
        while True:
            stored = self._store.read(query.user_id, limit=limit, others=exclude_seen)
            if stored is None:
                reader = Reader(NOTHING, NOTHING, NOTHING, NOTHING)
                break
            reader = self._stored(stored, position, num_shown, until)
            if limit is None or len(stored.item_ids) < limit or len(reader.rows) >= wanted:
                break
            # Some of the latest events do not count here; older ones take their places.
            limit = 8 * limit if limit < _MANY_EVENTS else None
        if query.moment is not None:
            past = _NO_PAST if stored is None else self._past(stored, until)
            self._add_moment(reader, past, query.moment, position, num_shown, until, clock)
        return reader

    def _stored(self, stored: StoredHistory, position: int, num_shown: int, until: int) -> Reader:
        """until: UTC µs, or 0 for all that is stored."""
        catalogue = self._catalogue
        num_events = _num_until(stored.timestamps_us, until)
        item_ids, times = stored.item_ids[:num_events], stored.timestamps_us[:num_events]
        events = stored.events[:num_events]
        names, codes = self._names_and_codes()
        rows = catalogue.rows_of(item_ids)
        reader = _usable(rows, codes[events], times)
        reader.profile = stored.profile
        if len(rows) and rows.max() < 0:
            reader.num_errors = 1
            reader.errors = [
                PartError(
                    position,
                    "FOREIGN_HISTORY",
                    f"queries[{position}].user_id",
                    f"none of the {len(rows)} stored events is about an item of this bundle: "
                    "does the state belong to another catalogue?",
                )
            ]
        if len(stored.others):
            reader.seen = np.concatenate([rows, catalogue.rows_of_hashes(stored.others)])
        if len(stored.rejected):
            reader.rejected = self._rejected(stored, num_events, rows)
        if num_shown:
            reader.shown = Shown(
                item_ids[-num_shown:],
                [names[code] for code in events[-num_shown:].tolist()],
                times[-num_shown:],
            )
        return reader

    def _names_and_codes(self) -> tuple[Sequence[str], Int64]:
        """The store's event names, and the user tower's code of each."""
        names, codes = self._codes
        if names is not self._store.event_names:
            names = self._store.event_names
            codes = self._generation.event_codes_of(names)
            self._codes = (names, codes)
        return names, codes

    def _rejected(self, stored: StoredHistory, num_events: int, rows: Int64) -> Int64:
        """The rows that the user had rejected after the first num_events of the history, whose
        items have these rows."""
        rejected = stored.rejected
        if num_events < len(stored.item_ids):
            names = self._store.event_names
            is_negative = np.array([name in self._negative for name in names], bool)[stored.events]
            later = np.flatnonzero(is_negative[num_events:]) + num_events
            hashes = hash_ids([stored.item_ids[i] for i in later.tolist()])
            rejected = np.setdiff1d(rejected, hashes)
            earlier = rows[is_negative[:num_events]]
            return np.concatenate([earlier, self._catalogue.rows_of_hashes(rejected)])
        return self._catalogue.rows_of_hashes(rejected)

    def _past(self, stored: StoredHistory, until: int) -> History:
        """What is stored, as far as it counts."""
        num_events = _num_until(stored.timestamps_us, until)
        names = self._store.event_names
        return History(
            stored.item_ids[:num_events],
            [names[code] for code in stored.events[:num_events].tolist()],
            stored.timestamps_us[:num_events],
        )

    def _add_moment(
        self,
        reader: Reader,
        past: History,
        moment: History,
        position: int,
        num_shown: int,
        until: int,
        clock: int,
    ) -> None:
        """Let what the user did just now count beside what is stored."""
        now = until or clock
        generation = self._generation
        moment = self._named(self._come(reader, moment, position, until, now), missing=now)
        history = with_moment(past, moment)
        times = np.asarray(history.timestamps_us, np.int64)
        rows, codes = (
            self._catalogue.rows_of(history.item_ids),
            generation.event_codes_of(history.events),
        )
        merged = _usable(rows, codes, times)
        reader.rows, reader.events, reader.times = merged.rows, merged.events, merged.times
        self._report(reader, moment, position, "moment")
        if num_shown:
            reader.shown = Shown(
                history.item_ids[-num_shown:], history.events[-num_shown:], times[-num_shown:]
            )

    def _come(
        self, reader: Reader, moment: History, position: int, until: int, now: int
    ) -> History:
        """What of a moment has come: until the time that is asked for; else, since clocks differ,
        as far ahead as an event may be recorded, and the rest is named."""
        come = _until(moment, until or now + MAX_AHEAD_US)
        late = range(len(come.item_ids), 0 if until else len(moment.item_ids))
        what = f"more than {MAX_AHEAD_US / 1e6:.0f} seconds ahead of the server's clock; left aside"
        where = f"queries[{position}].moment.timestamps_us"
        errors = [PartError(position, "CLOCK_SKEW", f"{where}[{i}]", what) for i in late]
        reader.num_errors += len(errors)
        reader.errors = [*reader.errors, *errors][:MAX_ERRORS]
        return come

    def _inline(
        self, query: UserQuery, history: History, position: int, num_shown: int, until: int
    ) -> Reader:
        history = self._named(_until(history, until), missing=int(NO_TIME))
        times = np.asarray(history.timestamps_us, np.int64)
        reader = Reader(NOTHING, NOTHING, NOTHING, NOTHING)
        rows, codes = self._report(reader, history, position, "history")
        usable = _usable(rows, codes, times)
        reader.rows, reader.events, reader.times = usable.rows, usable.events, usable.times
        if query.profile:
            reader.profile = json.dumps(dict(query.profile), sort_keys=True, default=_listed)
        if num_shown:
            reader.shown = Shown(
                history.item_ids[-num_shown:], history.events[-num_shown:], times[-num_shown:]
            )
        return reader

    def _named(self, history: History, *, missing: int) -> History:
        """A history of a request with an event name and a time for each event."""
        num_events = len(history.item_ids)
        return History(
            history.item_ids,
            history.events or [self._generation.default_event] * num_events,
            history.timestamps_us
            if len(history.timestamps_us)
            else np.full(num_events, missing, np.int64),
        )

    def _report(
        self, reader: Reader, given: History, position: int, field: str
    ) -> tuple[Int64, Int64]:
        """Count a request's own events as seen, or as rejected, and name those that cannot be used.

        Returns their rows and the tower's codes of them.
        """
        generation, where = self._generation, f"queries[{position}].{field}"
        rows, codes = (
            self._catalogue.rows_of(given.item_ids),
            generation.event_codes_of(given.events),
        )
        is_negative = np.array([name in self._negative for name in given.events], bool)
        reader.seen = np.concatenate([reader.seen, rows])
        if is_negative.any():
            reader.rejected = np.concatenate([reader.rejected, rows[is_negative]])
        unknown, others = np.flatnonzero(rows < 0), np.flatnonzero((codes == 0) & ~is_negative)
        errors = [
            PartError(
                position,
                "UNKNOWN_ITEM",
                f"{where}.item_ids[{i}]",
                f"no item {given.item_ids[i]!r} in the bundle; left aside",
            )
            for i in unknown[:MAX_ERRORS].tolist()
        ] + [
            PartError(
                position,
                "EVENT_NOT_IN_HISTORY",
                f"{where}.events[{i}]",
                f"event {given.events[i]!r} enters no history; left aside",
            )
            for i in others[:MAX_ERRORS].tolist()
        ]
        reader.num_errors += len(unknown) + len(others)
        reader.errors = [*reader.errors, *errors][:MAX_ERRORS]
        return rows, codes


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


def _until(history: History, until: int) -> History:
    """What of a request's history is not later than `until` (0: all)."""
    if not len(history.timestamps_us):
        return history
    num_events = _num_until(np.asarray(history.timestamps_us, np.int64), until)
    return History(
        history.item_ids[:num_events],
        history.events[:num_events],
        history.timestamps_us[:num_events],
    )


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
