"""What a client gets back: answers as lists and numpy arrays, query after query.

Knows no protos and no network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.domain import PartError

ColumnValues = list[str] | list[list[str]] | npt.NDArray[np.float64]
"""One item column: strings ("" = none), lists of strings, or float64 (NaN = none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an answer came from and what it lacks."""

    bundle_version: str
    """The hash of the bundle that answered."""
    worker: str
    """The worker process that answered."""
    left_out: tuple[str, ...] = ()
    """What was left out to meet the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Candidates of Q queries: the first counts[0] of the n belong to query 0, and so on."""

    item_ids: list[str]
    """[n] ids."""
    scores: npt.NDArray[np.float32]
    """[n] inner product with the interest that found the item."""
    counts: npt.NDArray[np.int64]
    """[Q] how many candidates each query has."""
    interests: npt.NDArray[np.int64]
    """[n] which of the query's interests found the item, from 0."""
    circles: list[str]
    """[n] name of the item's circle, "" for none."""
    origins: list[str] = field(default_factory=list)
    """[n] `known`, `forgotten`, `adjacent` or `exploratory`: how the item's circle stands to what
    the user does; none of `find_similar`."""
    columns: Mapping[str, ColumnValues] = field(default_factory=dict)
    """The item columns asked for, n values each."""
    source: Source

    def query(self, position: int) -> slice:
        """Where the candidates of one query lie in the arrays."""
        end = int(self.counts[: position + 1].sum())
        return slice(end - int(self.counts[position]), end)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownHistory:
    """The latest events of Q queries, oldest first within each."""

    item_ids: list[str]
    events: list[str]
    timestamps_us: npt.NDArray[np.int64]
    """[n] microseconds since 1970 UTC; empty where the dataset has no times."""
    counts: npt.NDArray[np.int64]
    """[Q] how many events each query has here."""
    columns: Mapping[str, ColumnValues] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved(Found):
    """The answer of `retrieve`."""

    cold: npt.NDArray[np.bool_]
    """[Q] True where nothing is known about the user."""
    history_lengths: npt.NDArray[np.int64]
    """[Q] how many of the user's events entered the answer."""
    history: ShownHistory | None = None
    """Present where num_history was asked for."""
    errors: Sequence[PartError] = ()
    """What of the request was left aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended(Found):
    """The answer of `recommend` and `rerank`: slates, best first, and why each item is where it is.

    `scores` are those of retrieval.
    """

    values: npt.NDArray[np.float32]
    """[n] the sum over heads of weight times chance; the score where there are no heads."""
    chances: Mapping[str, npt.NDArray[np.float32]]
    """Head → [n] its predicted chance; empty without a value model."""
    retrieval_ranks: npt.NDArray[np.int64]
    """[n] the item's place as it was retrieved, or in the caller's list, from 0."""
    value_ranks: npt.NDArray[np.int64]
    """[n] its place by value alone."""
    reasons: list[str]
    """[n] why it holds its place: `value`, `diversity`, `kind_share`, `exposure_floor`,
    `origin_share` or `exploration`."""
    explanations: list[str] = field(default_factory=list)
    """[n] why in words, where that was asked for."""
    best_values: npt.NDArray[np.float32]
    """[Q] what the best k candidates by value add up to."""
    costs: Mapping[str, npt.NDArray[np.float32]]
    """Step → [Q] what it gave up of that. Steps: `exploration`, `caps`, `floors`, `shares`,
    `diversity`."""
    paced_shares: list[float] = field(default_factory=list)
    """One a paced floor: what share of the latest places of this worker its group had."""
    cold: npt.NDArray[np.bool_]
    """[Q] True where nothing is known about the user."""
    history_lengths: npt.NDArray[np.int64]
    """[Q] how many of the user's events entered the answer."""
    errors: Sequence[PartError] = ()
    """What of the request was left aside, or could not be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedItems:
    """The answer of `embed_items`."""

    vectors: npt.NDArray[np.float32]
    """[N, D] in the order of the request."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The answer of `embed_users`."""

    interests: npt.NDArray[np.float32]
    """[Q, M, D]."""
    cold: npt.NDArray[np.bool_]
    history_lengths: npt.NDArray[np.int64]
    errors: Sequence[PartError] = ()
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The answer of `record_events`: all that was taken is on disk."""

    num_taken: int
    """Events that were written."""
    num_duplicates: int
    """Events whose event_id had come before."""
    errors: Sequence[PartError] = ()
    """Events that were refused: `index` is the event's place among those given."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The answer of `delete_user`."""

    existed: bool
    """Whether anything was known."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    """The answer of `list_users`."""

    source: Source
    user_ids: Sequence[str]
    num_events: npt.NDArray[np.int64]
    """[n] how many events the store has of each."""
    next_page_token: str
    """Give it to the next call; empty on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """The answer of `status`: what is served; its fields are those of admin_service.proto."""

    source: Source
    server_version: str
    uptime_seconds: float
    bundle: Mapping[str, object]
    store: Mapping[str, object]
    limits: Mapping[str, int]
    live: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write of items did; it is on disk."""

    num_taken: int
    """How many were written, or deleted."""
    sequence: int
    """The last change's place in the feed: a worker whose `applied_sequence` (see `status`) is not
    below it shows the change."""
    errors: Sequence[PartError]
    """What was refused; the rest was taken."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A bundle that was activated, or is to be."""

    number: int
    """Rises with every activation."""
    path: str
    bundle_version: str
    state: str
    """`preparing`, `prepared`, `active`, `failed` or `retired`."""
    message: str
    """Why it failed."""
    created: str
    changed: str
    """ISO 8601, UTC: when it was asked for, and when its state last changed."""
