"""Events that happened just now: checked one by one, written together.

What cannot be taken is named, the rest is taken. A write is on disk before anything is said of it.
Knows no protos, and nothing of how histories are kept.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from model.schema import Schema
from serving.checks import check_length
from serving.config import Limits
from serving.domain import Budget, Event, PartError
from serving.errors import BadRequest, ClockSkew, DeadlineExceeded, TooOld, UnknownEvent
from serving.metrics import EVENTS
from serving.store.base import Outcome, UserStore

MAX_AHEAD_US = 300_000_000
"""How far in the future an event may lie: clocks differ."""
_DAY_US = 86_400_000_000
_LARGEST_POSITION = 2**31 - 1

_REFUSED: dict[Outcome, tuple[str, str, str]] = {
    Outcome.LET_GO: (
        "TOO_OLD",
        ".timestamp_us",
        "older than all that is kept of this user; the server's max_stored_events says how much",
    ),
    Outcome.DELETED: ("USER_DELETED", ".user_id", "from before the user was deleted"),
    Outcome.DAMAGED: ("STORE_UNAVAILABLE", ".user_id", "what is stored of this user is damaged"),
}
"""Code, field and message of what the store does not take."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of some events."""

    num_taken: int
    num_duplicates: int
    errors: Sequence[PartError]
    """Those that were refused, in the order of the events."""


class Recording:
    """Some events on their way to the disk."""

    def __init__(
        self,
        places: Sequence[int],
        errors: Sequence[PartError],
        outcomes: "Future[list[Outcome]] | None",
    ) -> None:
        """places: where the events that were passed on stood among those given."""
        self._places, self._errors, self._outcomes = places, errors, outcomes

    @property
    def is_done(self) -> bool:
        """Whether `result` does not wait."""
        return self._outcomes is None or self._outcomes.done()

    def result(self, timeout: float | None = None) -> Recorded:
        """What became of them, once they are on disk.

        Raises StoreUnavailable where they are not, TimeoutError where that is not known after
        `timeout` seconds.
        """
        outcomes = [] if self._outcomes is None else self._outcomes.result(timeout)
        errors = [
            *self._errors,
            *(
                PartError(i, code, f"events[{i}]{field}", message)
                for i, outcome in zip(self._places, outcomes, strict=True)
                if outcome in _REFUSED
                for code, field, message in (_REFUSED[outcome],)
            ),
        ]
        recorded = Recorded(
            sum(outcome is Outcome.TAKEN for outcome in outcomes),
            sum(outcome is Outcome.DUPLICATE for outcome in outcomes),
            sorted(errors, key=lambda error: error.index),
        )
        for name, number in (
            ("taken", recorded.num_taken),
            ("duplicate", recorded.num_duplicates),
            ("refused", len(errors)),
        ):
            if number:
                EVENTS.labels(name).inc(number)
        return recorded


class Recorder:
    """Takes events into one store. Safe across threads."""

    def __init__(self, store: UserStore, limits: Limits, *, horizon_days: float) -> None:
        """horizon_days: how late an event may come."""
        self._store, self._limits = store, limits
        for outcome in ("taken", "duplicate", "refused"):
            EVENTS.labels(outcome)  # a rate needs the 0 before the first
        self._horizon_us = int(horizon_days * _DAY_US)

    def begin(self, events: Sequence[Event], schema: Schema) -> Recording:
        """Check events against a schema and hand them to the store.

        Raises BadRequest where there are none or too many, StoreUnavailable.
        """
        if not 1 <= len(events) <= self._limits.max_events:
            raise BadRequest(
                f"{len(events)} events are not allowed; allowed: 1 to {self._limits.max_events}",
                field="events",
            )
        now = time.time_ns() // 1000
        since = now - self._horizon_us
        errors: list[PartError] = []
        places: list[int] = []
        good: list[Event] = []
        for i, event in enumerate(events):
            try:
                check_event(event, schema, self._limits, now=now, since=since)
            except BadRequest as error:
                where = f"events[{i}].{error.field}"
                errors.append(PartError(i, error.code, where, str(error)))
                continue
            places.append(i)
            good.append(event if event.timestamp_us else replace(event, timestamp_us=now))
        if not good:
            return Recording(places, errors, None)
        outcomes = self._store.record(good, since_us=since, negative=schema.negative_events)
        return Recording(places, errors, outcomes)

    def record(self, events: Sequence[Event], schema: Schema, budget: Budget) -> Recorded:
        """As `begin`, and wait until they are on disk. Raises DeadlineExceeded, too."""
        budget.check()
        recording = self.begin(events, schema)
        try:
            return recording.result(max(budget.deadline - time.monotonic(), 0.0))
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before the events were known to be on disk; send them again "
                "with the same event_id"
            ) from None


def check_event(event: Event, schema: Schema, limits: Limits, *, now: int, since: int) -> None:
    """Raise BadRequest, or a kind of it, naming the field, for an event that cannot be taken.

    now, since: UTC µs, and the earliest time that is taken.
    """
    for name in ("event_id", "user_id", "item_id"):
        value = getattr(event, name)
        if not value:
            raise BadRequest("an event needs one", field=name)
        check_length(value, name, limits.max_id_bytes)
    for name in ("exposure_id", "source_item_id"):
        check_length(getattr(event, name), name, limits.max_id_bytes)
    if event.event not in schema.events:
        raise UnknownEvent(
            f"no event {event.event!r:.80}; the dataset declares: {', '.join(schema.events)}",
            field="event",
        )
    if event.timestamp_us > now + MAX_AHEAD_US:
        raise ClockSkew(
            f"{(event.timestamp_us - now) / 1e6:,.0f} seconds in the future; allowed: at most "
            f"{MAX_AHEAD_US / 1e6:.0f}. Set the clock, or give microseconds",
            field="timestamp_us",
        )
    if event.timestamp_us and event.timestamp_us < since:
        raise TooOld(
            f"{(now - event.timestamp_us) / _DAY_US:,.1f} days old; allowed: at most "
            f"{(now - since) / _DAY_US:g} days. Older events come by a dataset",
            field="timestamp_us",
        )
    if event.value is not None and not math.isfinite(event.value):
        raise BadRequest(f"{event.value}; leave out what is not known", field="value")
    if event.position is not None and not 0 <= event.position <= _LARGEST_POSITION:
        raise BadRequest(
            f"{event.position}; allowed: 0 to {_LARGEST_POSITION}, the first place is 0",
            field="position",
        )
    if event.propensity is not None and not 0 <= event.propensity <= 1:
        raise BadRequest(f"{event.propensity}; allowed: 0 to 1", field="propensity")
