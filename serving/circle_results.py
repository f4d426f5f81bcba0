"""Circles as a server holds them and as a client gets them back.

Knows no protos and no network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.circles import Level
from serving.domain import PartError
from serving.results import ColumnValues, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """A circle or a district; see circle_service.proto for each field."""

    circle_id: int
    level: Level
    name: str
    top_features: Sequence[str]
    size: int
    district_id: int | None
    recent_events: int | None
    growth: float | None
    neighbours: Sequence[int]
    sample_items: Sequence[str]
    predecessors: Sequence[int]
    predecessor_shares: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CirclePage:
    """The answer of `list_circles`."""

    circles: Sequence[Circle]
    next_page_token: str
    """Give it to the next call; empty on the last page."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCircle:
    """The answer of `get_circle`."""

    circle: Circle
    neighbours: Sequence[Circle]
    """Nearest first."""
    sample_columns: Mapping[str, ColumnValues]
    """The item columns asked for, parallel to the circle's sample_items."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class CircleShares:
    """The circles of one level that Q users are at home in, user after user, the largest first."""

    ids: npt.NDArray[np.int64]
    """[n]"""
    names: list[str]
    """[n]"""
    shares: npt.NDArray[np.float32]
    """[n] above 0; of one user at most 1 together."""
    counts: npt.NDArray[np.int64]
    """[Q] how many of the n belong to each user."""

    def query(self, position: int) -> slice:
        """Where the circles of one user lie in the arrays."""
        end = int(self.counts[: position + 1].sum())
        return slice(end - int(self.counts[position]), end)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCircles:
    """The answer of `get_user_circles`."""

    circles: CircleShares
    districts: CircleShares
    cold: npt.NDArray[np.bool_]
    """[Q] True where nothing is known about the user."""
    history_lengths: npt.NDArray[np.int64]
    """[Q] how many of the user's events were counted."""
    errors: Sequence[PartError] = ()
    """What of the request was left aside."""
    source: Source
