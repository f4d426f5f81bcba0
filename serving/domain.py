"""What is asked and what is answered, as plain dataclasses over numpy arrays.

The server's pipeline and the client share the questions; protos and item rows stay out of them.
Filters are frozen, since they are keys of caches; the rest is not, since a frozen dataclass takes
four times as long to make and one is made for every request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The column has one of the values; a column of lists has at least one of them."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """min <= number <= max; never holds where the item has no number. One end may be open."""

    field: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """The inner filter does not hold."""

    filter: "Filter"


Filter = AnyOf | Range | Not


@dataclass(slots=True)
class History:
    """What one user did, oldest first.

    item_ids: [n]. events: [n] event names, or empty: all are the first engagement event.
    timestamps_us: [n] microseconds since 1970 UTC, or empty where times are not known.
    """

    item_ids: Sequence[str]
    events: Sequence[str] = ()
    timestamps_us: Sequence[int] | IntArray = ()


FeatureValue = str | float | Sequence[str] | FloatArray
"""category or text: str; number: float; categories: a list of str; vector: [dim] float32."""


@dataclass(slots=True)
class UserQuery:
    """Who is asking: exactly one of `user_id`, `history` and `vectors` is set.

    vectors: [M, D] float32. profile: with `history` only.
    """

    user_id: str = ""
    history: History | None = None
    profile: Mapping[str, FeatureValue] = field(default_factory=dict)
    vectors: FloatArray | None = None
    exclude_item_ids: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class RetrieveRequest:
    """The items nearest to each query's interests; see retrieval_service.proto for each field."""

    queries: Sequence[UserQuery]
    k: int
    filters: tuple[Filter, ...] = ()
    objective: str = ""
    exclude_seen: bool = False
    fields: tuple[str, ...] = ()
    num_history: int = 0
    time_us: int = 0


@dataclass(slots=True, kw_only=True)
class SimilarRequest:
    """The neighbours of items or of vectors [Q, D]; exactly one of the two is set."""

    item_ids: Sequence[str] = ()
    vectors: FloatArray | None = None
    k: int
    filters: tuple[Filter, ...] = ()
    exclude_item_ids: Sequence[str] = ()
    fields: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class EmbedRequest:
    """The interest vectors of each query."""

    queries: Sequence[UserQuery]
    objective: str = ""
    time_us: int = 0


@dataclass(frozen=True, slots=True)
class PartError:
    """One part of a request that was left aside: where, and why. `code` as in docs/errors.md."""

    index: int
    code: str
    field: str
    message: str


@dataclass(slots=True)
class Candidates:
    """Found items, query after query, as rows of one generation.

    rows: [n] int64. scores: [n] float32. interests: [n] int32, which interest found each.
    counts: [Q] int64, how many of the n belong to each query.
    """

    rows: IntArray
    scores: FloatArray
    interests: npt.NDArray[np.int32]
    counts: IntArray
