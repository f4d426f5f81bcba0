"""What is asked and what is answered, as plain dataclasses over numpy arrays.

The server's pipeline and the client share the questions; protos and item rows stay out of them.
Filters are frozen, since they are keys of caches; the rest is not, since a frozen dataclass takes
four times as long to make and one is made for every request.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.errors import Cancelled, DeadlineExceeded

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Budget:
    """How long a call may take, and whether anyone still waits for it."""

    deadline: float = math.inf
    """On time.monotonic()'s clock."""
    is_wanted: Callable[[], bool] = lambda: True
    """False once the caller has gone."""

    def check(self) -> None:
        """Raise DeadlineExceeded or Cancelled where going on is of no use to anyone."""
        if self.deadline < time.monotonic():
            raise DeadlineExceeded("the deadline passed before there was an answer")
        if not self.is_wanted():
            raise Cancelled("the caller has gone")


NO_LIMIT = Budget()


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


@dataclass(slots=True)
class Event:
    """One act of one user on one item; see ingest_service.proto for each field."""

    user_id: str
    item_id: str
    event: str
    event_id: str = ""
    """One user's own; the client makes one up where it is empty."""
    timestamp_us: int = 0
    sequence: int = 0
    value: float | None = None
    exposure_id: str = ""
    source_item_id: str = ""
    position: int | None = None
    propensity: float | None = None


FeatureValue = str | float | Sequence[str] | FloatArray
"""category or text: str; number: float; categories: a list of str; vector: [dim] float32."""


@dataclass(slots=True)
class UserQuery:
    """Who is asking: exactly one of `user_id`, `history` and `vectors` is set.

    vectors: [M, D] float32. profile: with `history` only. moment: with `user_id` only, what the
    user did just now, which the store may not have yet.
    """

    user_id: str = ""
    history: History | None = None
    profile: Mapping[str, FeatureValue] = field(default_factory=dict)
    vectors: FloatArray | None = None
    exclude_item_ids: Sequence[str] = ()
    moment: History | None = None


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
    kinds: tuple[tuple[str, int], ...] = ()
    """Kinds of which so many candidates are wanted beside the k best of all; not in the proto."""
    origins: tuple[tuple[str, int], ...] = ()
    """As kinds; of serving/origins.py's ORIGINS. Not in the proto."""
    floors: tuple[tuple["ExposureFloor", int], ...] = ()
    """As kinds; of the groups of exposure floors. Not in the proto."""
    exclude_converted: bool = False
    """As exclude_seen, of what the user converted on alone; not in the proto."""
    engaged: int = 0
    """So many at most of what the user engaged with and did not convert on are candidates, too; not
    in the proto."""
    whole_history: bool = False
    """Whether what is further back than the tower reads is wanted, too; not in the proto."""
    first: int = 0
    """The number of the first query, where these are a part of a caller's; not in the proto."""
    budget: Budget = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many items of a slate have one value of the column."""

    field: str
    most: int


@dataclass(frozen=True, slots=True)
class KindShare:
    """At least this share of a slate, above 0 and at most 1, is of the kind."""

    kind: str
    share: float


@dataclass(frozen=True, slots=True)
class NewItems:
    """Items of which little is known; both hold where both are given. Where neither is: those that
    have not graduated (serving/rank/graduation.py)."""

    max_age_days: float = 0.0
    """0: any age."""
    max_events: int | None = None
    """Of histories, up to now; None: any number."""


@dataclass(frozen=True, slots=True)
class SmallCreators:
    """Items of the creators who, fewest events first, have `tail` of all events together."""

    field: str = "creator"
    tail: float = 0.0
    """Above 0, below 1; 0: 0.2."""


@dataclass(frozen=True, slots=True)
class ExposureFloor:
    """A group of items that is to get a share of the places, above 0 and at most 1."""

    group: NewItems | SmallCreators | Filter
    share: float
    paced: bool = False
    """False: in each slate. True: over all slates of a worker."""
    least: int = 0
    """With `paced`: at least so many in each slate."""


@dataclass(frozen=True, slots=True)
class OriginShare:
    """At least this share of a slate, above 0 and at most 1, is of one of serving/origins.py's
    ORIGINS."""

    origin: str
    share: float


@dataclass(frozen=True, slots=True)
class SlateRules:
    """What a slate has to keep as a whole; see Slate in retrieval_service.proto."""

    diversity: float | None = None
    """0 to 1; None: the server's default."""
    caps: tuple[Cap, ...] = ()
    kinds: tuple[KindShare, ...] = ()
    method: str = ""
    """`mmr` or `dpp`; empty: `mmr`."""
    window: int = 0
    """With `dpp`: how many of the items right above count; 0: all."""
    floors: tuple[ExposureFloor, ...] = ()
    exploration: float = 0.0
    """0 to 1."""
    seed: int = 0
    """Of exploration; 0: another draw each time."""
    origins: tuple[OriginShare, ...] = ()


@dataclass(slots=True, kw_only=True)
class RecommendRequest:
    """What to show to each query's user; see retrieval_service.proto for each field."""

    queries: Sequence[UserQuery]
    k: int
    num_candidates: int = 0
    filters: tuple[Filter, ...] = ()
    objective: str = ""
    include_seen: bool = False
    fields: tuple[str, ...] = ()
    time_us: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)
    slate: SlateRules = SlateRules()
    explain: bool = False
    language: str = ""
    budget: Budget = NO_LIMIT


@dataclass(slots=True, kw_only=True)
class RerankRequest:
    """The caller's candidates, query after query: the first counts[0] of item_ids are query 0's.

    k: how many each slate shows; 0: all.
    """

    queries: Sequence[UserQuery]
    item_ids: Sequence[str]
    counts: Sequence[int]
    k: int = 0
    objective: str = ""
    fields: tuple[str, ...] = ()
    time_us: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)
    slate: SlateRules = SlateRules()
    explain: bool = False
    language: str = ""
    budget: Budget = NO_LIMIT


@dataclass(slots=True)
class ItemFeatures:
    """An item by what it is like, as dataset.toml declares its features."""

    kind: str
    features: Mapping[str, FeatureValue] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class EmbedItemsRequest:
    """Vectors of items of the bundle, or of any others; exactly one of the two is set."""

    item_ids: Sequence[str] = ()
    items: Sequence[ItemFeatures] = ()
    budget: Budget = NO_LIMIT


@dataclass(slots=True, kw_only=True)
class SimilarRequest:
    """The neighbours of items or of vectors [Q, D]; exactly one of the two is set."""

    item_ids: Sequence[str] = ()
    vectors: FloatArray | None = None
    k: int
    filters: tuple[Filter, ...] = ()
    exclude_item_ids: Sequence[str] = ()
    fields: tuple[str, ...] = ()
    budget: Budget = NO_LIMIT


@dataclass(slots=True, kw_only=True)
class EmbedRequest:
    """The interest vectors of each query."""

    queries: Sequence[UserQuery]
    objective: str = ""
    time_us: int = 0
    first: int = 0
    """As in RetrieveRequest."""
    whole_history: bool = False
    """As in RetrieveRequest."""
    budget: Budget = NO_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChange:
    """A new item, or what is to change of a known one; None: it stays as it is."""

    item_id: str
    kind: str = ""
    """Needed for a new item."""
    features: Mapping[str, FeatureValue | None] = field(default_factory=dict)
    """`title` and the features of dataset.toml by their names; None clears one."""
    available: bool | None = None
    """False: sold out, or off air; kept, and not shown until it is True again."""
    expires_at_us: int | None = None
    """UTC µs from which on it is not shown; 0: never."""
    links: Sequence[tuple[str, str]] | None = None
    """(relation, item_id) of all that it is linked to from now on; its vector follows them."""


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

    def kept(self, keep: npt.NDArray[np.bool_]) -> "Candidates":
        """Those of the n that are to be kept, [n]."""
        ends = np.cumsum(np.concatenate([[0], keep]))[np.cumsum(self.counts)]
        counts = np.diff(ends, prepend=0)
        return Candidates(self.rows[keep], self.scores[keep], self.interests[keep], counts)


@dataclass(slots=True)
class Slates:
    """What to show, slate after slate, and why; arrays parallel to the candidates.

    values: [n] float32. chances: [n, T] float32, T = 0 without a value model. retrieval_ranks,
    value_ranks: [n] int64, from 0 within the slate's candidates. reasons: [n] int64, into
    serving/rank/slate.py's REASONS. best_values: [Q], what the best k of each query's candidates
    add up to. costs: [Q, S], what each of serving/rank/compose.py's STEPS gave up of that.
    paced_shares: what share the group of each paced floor has had lately.
    """

    candidates: Candidates
    values: FloatArray
    chances: FloatArray
    retrieval_ranks: IntArray
    value_ranks: IntArray
    reasons: IntArray
    best_values: FloatArray
    costs: FloatArray
    paced_shares: Sequence[float] = ()
    errors: Sequence[PartError] = ()
    left_out: tuple[str, ...] = ()
    """Of serving/rank/costs.py's DEGRADATIONS, what was skipped to meet the deadline."""

    def kept(self, keep: npt.NDArray[np.bool_]) -> "Slates":
        """The slates with those of the n items alone that are to be kept, [n]."""
        return Slates(
            self.candidates.kept(keep),
            self.values[keep],
            self.chances[keep],
            self.retrieval_ranks[keep],
            self.value_ranks[keep],
            self.reasons[keep],
            self.best_values,
            self.costs,
            self.paced_shares,
            self.errors,
            self.left_out,
        )
