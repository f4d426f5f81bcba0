"""The circles of one generation by their ids, and each user's share of them.

Reads what the bundle says (model/circles.py); finds no clusters. Knows no protos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.circles import LEVELS, Level
from model.histories import NO_TIME
from model.schema import Role, Schema
from serving.circle_results import Circle
from serving.errors import UnknownCircle

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

ROLE_WEIGHTS: dict[Role, float] = {"engagement": 1.0, "conversion": 3.0}
"""What an act says about where a person is at home: buying says more than watching."""
HALF_LIFE_DAYS = 30.0
"""An act counts half as much as one that came so much later."""
HALF_LIFE_EVENTS = 30.0
"""The same in events, where only their order is known."""
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Shares:
    """The circles of one level that Q users are at home in, user after user, the largest first."""

    ids: Int64
    """[n]"""
    shares: Float64
    """[n] above 0."""
    counts: Int64
    """[Q] how many of the n belong to each user."""


class CircleMap:
    """The circles and districts of one bundle. Immutable; safe across threads."""

    def __init__(self, bundle: Bundle) -> None:
        self._tables = {"circle": bundle.circles, "district": bundle.districts}
        self._ended = _ended(bundle)
        self._place: dict[int, tuple[Level, int]] = {}
        self.ids: dict[Level, list[int]] = {}
        """By rising id, by level."""
        for level in LEVELS:
            ids = self._tables[level]["circle_id"].to_pylist()
            self.ids[level] = sorted(ids)
            self._place.update({one: (level, row) for row, one in enumerate(ids)})
        self._id_of_row = bundle.circles["circle_id"].to_numpy().astype(np.int64)
        parents = bundle.circles["district_id"].to_pylist()
        self._district_of_row = np.array([-1 if one is None else one for one in parents], np.int64)

    def get(self, circle_id: int) -> Circle:
        """Raises UnknownCircle, which says where its items went if it ended with this bundle."""
        if circle_id not in self._place:
            raise UnknownCircle(self._unknown(circle_id), field="circle_id")
        level, row = self._place[circle_id]
        return _circle(level, self._tables[level].slice(row, 1).to_pylist()[0])

    def level_of(self, circle_id: int) -> Level | None:
        """None where there is no such circle."""
        return self._place[circle_id][0] if circle_id in self._place else None

    def name_of(self, circle_id: int) -> str:
        """Of a circle or district that there is."""
        level, row = self._place[circle_id]
        name: str = self._tables[level]["name"][row].as_py()
        return name

    def members(self, district_id: int) -> list[int]:
        """The circles of a district, by rising id."""
        return sorted(self._id_of_row[self._district_of_row == district_id].tolist())

    def shares(
        self, rows: Sequence[Int64], weights: Sequence[Float64], *, most: int
    ) -> dict[Level, Shares]:
        """Where Q users are at home, at most `most` a level.

        rows: [Q] of [L] rows of circles.parquet, -1 for an item in none, which counts for nothing.
        weights: [Q] of [L], above 0.
        """
        found = {}
        for level in LEVELS:
            ids_of_row = self._id_of_row if level == "circle" else self._district_of_row
            found[level] = _shares(ids_of_row, rows, weights, most=most)
        return found

    def _unknown(self, circle_id: int) -> str:
        if circle_id not in self._ended:
            return f"no circle or district {circle_id}; ListCircles names those there are"
        name, into = self._ended[circle_id]
        where = " and ".join(f"{one} ({self.name_of(one)})" for one in into if one in self._place)
        return f"{circle_id} ({name}) ended with this bundle; " + (
            f"most of its items are in {where} now" if where else "its items are scattered"
        )


def event_weights(schema: Schema, events: Int64, times: Int64) -> Float64:
    """[L] what each event of one history says about where its user is at home, all above 0.

    events: [L] codes from 1. times: [L] UTC µs, or NO_TIME; oldest first.

    What a role is worth, halved for every HALF_LIFE_DAYS before the latest event; where there are
    no times, for every HALF_LIFE_EVENTS after it; where there is no order, not at all.
    """
    roles = [schema.events[name].role for name in schema.history_events]
    worth: Float64 = np.array([0.0, *(ROLE_WEIGHTS[role] for role in roles)])[events]
    if not len(events) or not schema.has_order:
        return worth
    known = times != NO_TIME
    if schema.has_times and known.any():
        latest = times[known].max()
        age = np.where(known, latest - np.where(known, times, latest), 0) / _DAY_US
        aged = worth * np.exp2(-age / HALF_LIFE_DAYS)
    else:
        aged = worth * np.exp2(-np.arange(len(events))[::-1] / HALF_LIFE_EVENTS)
    # What happened ten years ago still is more than nothing.
    return np.maximum(aged, np.finfo(np.float32).tiny)


def _shares(
    ids_of_row: Int64, rows: Sequence[Int64], weights: Sequence[Float64], *, most: int
) -> Shares:
    ids, shares, counts = [], [], []
    for mine, worth in zip(rows, weights, strict=True):
        inside = mine >= 0
        where = ids_of_row[mine[inside]]
        known = where >= 0
        found, place = np.unique(where[known], return_inverse=True)
        sums = np.bincount(place, worth[inside][known], minlength=len(found))
        best = np.argsort(-sums, kind="stable")[:most]
        ids.append(found[best])
        shares.append(sums[best] / max(sums.sum(), np.finfo(np.float64).tiny))
        counts.append(len(best))
    return Shares(np.concatenate(ids), np.concatenate(shares), np.array(counts, np.int64))


def _circle(level: Level, row: dict[str, Any]) -> Circle:
    return Circle(level=level, **{n: v for n, v in row.items() if n != "centroid"})


def _ended(bundle: Bundle) -> dict[int, tuple[str, list[int]]]:
    """Ids that the bundle before had and this one has not: its name, and where its items went."""
    section = bundle.manifest.body.get("circles", {})
    return {
        int(one["circle_id"]): (str(one["name"]), list(one["into"]))
        for level in LEVELS
        for one in section.get(level, {}).get("ended", ())
    }
