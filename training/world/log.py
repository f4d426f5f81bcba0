"""The event log of the synthetic world, while it grows: plain arrays of row numbers and times.

Knows which events there are and what they mean, not why they happen.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.schema import Event

EVENTS: dict[str, Event] = {
    "exposure": Event(role="exposure", weight=0.0),
    "watch": Event(role="engagement", weight=1.0, unit="seconds"),
    "click": Event(role="engagement", weight=1.0),
    "like": Event(role="engagement", weight=2.0),
    "follow": Event(role="engagement", weight=3.0),
    "cart": Event(role="engagement", weight=4.0),
    "order": Event(role="conversion", weight=10.0, unit="CNY"),
    "not_interested": Event(role="negative", weight=1.0),
}
_CODES = {name: code for code, name in enumerate(EVENTS)}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The slots of one day's sessions, ordered by session and position: [n] arrays."""

    session: Ints
    """Positions in Sessions."""
    position: Ints
    """From 0 within the session; a number is skipped where a repeat was dropped."""
    item: Ints
    propensity: Floats
    """The policy's probability of drawing this item for this slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """One day's sessions: [R] arrays, ordered by user and then by start."""

    user: Ints
    start: Ints
    """UTC microseconds."""
    length: Ints
    """Slots."""


@dataclass(slots=True)
class EventLog:
    """Events in the order in which the world made them; row numbers are stable."""

    num_rows: int = 0
    num_exposures: int = 0
    _parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def add(
        self,
        event: str,
        *,
        user: Ints,
        item: Ints,
        time: Ints,
        value: Floats | None = None,
        exposure: Ints | None = None,
        source: Ints | None = None,
        position: Ints | None = None,
        propensity: Floats | None = None,
    ) -> Ints:
        """Append n events of one name and return their row numbers, [n].

        user, item, source: [n] row numbers; source -1: came from nowhere. time: UTC microseconds.
        exposure: [n] numbers of exposures, -1: of none; an `exposure` event is numbered here.
        """
        num = len(user)
        none = np.full(num, -1, np.int64)
        if event == "exposure":
            exposure = self.num_exposures + np.arange(num)
            self.num_exposures += num
        self._parts.append(
            {
                "user": user,
                "item": item,
                "event": np.full(num, _CODES[event], np.int8),
                "time": time,
                "value": np.full(num, np.nan) if value is None else value,
                "exposure": none if exposure is None else exposure,
                "source": none if source is None else source,
                "position": none if position is None else position,
                "propensity": np.full(num, np.nan) if propensity is None else propensity,
            }
        )
        rows = self.num_rows + np.arange(num)
        self.num_rows += num
        return rows

    def twin(self) -> "EventLog":
        """The same events so far; what is added to one is not in the other."""
        return EventLog(self.num_rows, self.num_exposures, list(self._parts))

    def columns(self, since: int = 0) -> dict[str, NDArray[Any]]:
        """Events from row `since` on: row, user, item, event (a position in EVENTS), time, value,
        exposure, source, position, propensity; arrays of one length, by row number."""
        at, first = len(self._parts), self.num_rows
        while at and first > since:
            at -= 1
            first -= len(self._parts[at]["user"])
        together = {
            name: np.concatenate([part[name] for part in self._parts[at:]])[since - first :]
            for name in self._parts[0]
        }
        return {"row": np.arange(since, self.num_rows), **together}

    def exposure_times(self) -> Ints:
        """[num_exposures] when each was, UTC microseconds, by its number."""
        code = _CODES["exposure"]
        return np.concatenate(
            [np.empty(0, np.int64)] + [part["time"][part["event"] == code] for part in self._parts]
        )
