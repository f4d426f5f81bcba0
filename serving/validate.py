"""Every request is checked once, here, before anything is computed for it.

Each check raises BadRequest (or a kind of it) that names the field, says what was given and what is
allowed. Knows limits and the schema of the active generation; no protos.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.schema import KINDS
from serving.checks import (
    between,
    check_features,
    check_ids,
    check_length,
    check_time,
    check_vectors,
)
from serving.config import Limits
from serving.domain import (
    AnyOf,
    EmbedItemsRequest,
    EmbedRequest,
    Filter,
    History,
    Not,
    Range,
    RetrieveRequest,
    SimilarRequest,
    UserQuery,
)
from serving.errors import BadRequest, UnknownEvent, UnknownField, UnknownItem
from serving.generation import Generation
from serving.live.catalogue import Catalogue


def check_retrieve(request: RetrieveRequest, limits: Limits, catalogue: Catalogue) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered."""
    generation = catalogue.generation
    check_k(request.k, limits)
    check_objective(request.objective, limits, generation)
    check_queries(request.queries, limits, generation)
    check_search(num_vectors(request.queries, generation), request.k, limits)
    if request.filters:
        check_filters(request.filters, limits, generation)
    between("num_history", request.num_history, 0, limits.max_history)
    if request.fields:
        num_rows = len(request.queries) * (most_rows(request.k, catalogue) + request.num_history)
        check_fields(request.fields, num_rows, limits, generation)
    check_time(request.time_us)


def check_embed_items(
    request: EmbedItemsRequest, limits: Limits, catalogue: Catalogue
) -> npt.NDArray[np.int64]:
    """The rows of the request's item_ids. Raises BadRequest, naming the field, and UnknownItem."""
    if bool(len(request.item_ids)) == bool(len(request.items)):
        raise BadRequest("give either item_ids or items", field="item_ids")
    between("item_ids", len(request.item_ids), 0, limits.max_items, unit="items")
    check_ids(request.item_ids, "item_ids", limits)
    rows = catalogue.rows_of(request.item_ids)
    for i in np.flatnonzero(rows < 0).tolist():
        raise UnknownItem(f"no item {request.item_ids[i]!r}", field=f"item_ids[{i}]")
    between("items", len(request.items), 0, limits.max_items, unit="items")
    for i, item in enumerate(request.items):
        if item.kind not in KINDS:
            raise BadRequest(
                f"no kind {item.kind!r:.80}; kinds: {', '.join(KINDS)}", field=f"items[{i}].kind"
            )
        declared = catalogue.generation.schema.item_features
        check_features(item.features, declared, f"items[{i}].features", limits, of="item")
    return rows


def check_page(page_size: int, page_token: str, limits: Limits) -> int:
    """The user number that a page begins after. Raises BadRequest, naming the field."""
    between("page_size", page_size, 1, limits.max_page, unit="users")
    if page_token and not (page_token.isascii() and page_token.isdigit() and len(page_token) < 19):
        raise BadRequest(
            "not a token of this server; give the next_page_token of the page before",
            field="page_token",
        )
    return int(page_token or 0)


def check_embed(request: EmbedRequest, limits: Limits, generation: Generation) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered."""
    check_objective(request.objective, limits, generation)
    check_queries(request.queries, limits, generation)
    for i, query in enumerate(request.queries):
        if query.vectors is not None:
            raise BadRequest(
                "EmbedUsers makes vectors; give user_id or history", field=f"queries[{i}].vectors"
            )
    check_time(request.time_us)


def check_similar(request: SimilarRequest, limits: Limits, catalogue: Catalogue) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered."""
    generation = catalogue.generation
    check_k(request.k, limits)
    if bool(len(request.item_ids)) == (request.vectors is not None):
        raise BadRequest("give either item_ids or vectors", field="item_ids")
    if request.vectors is not None:
        check_vectors(request.vectors, "vectors", limits.max_queries, generation)
    num_queries = max(len(request.item_ids), 0 if request.vectors is None else len(request.vectors))
    check_search(num_queries, request.k, limits)
    between("item_ids", len(request.item_ids), 0, limits.max_queries, unit="items")
    check_ids(request.item_ids, "item_ids", limits)
    between("exclude_item_ids", len(request.exclude_item_ids), 0, limits.max_excluded, "items")
    check_ids(request.exclude_item_ids, "exclude_item_ids", limits)
    check_filters(request.filters, limits, generation)
    num_rows = num_queries * most_rows(request.k, catalogue)
    check_fields(request.fields, num_rows, limits, generation)


def check_k(k: int, limits: Limits) -> None:
    """Raise BadRequest for how many items are asked for."""
    if not 1 <= k <= limits.max_k:
        raise BadRequest(f"k = {k} is not allowed; allowed: 1 to {limits.max_k}", field="k")


def check_search(num_vectors: int, k: int, limits: Limits) -> None:
    """The rows that a search makes, [num_vectors, k], are what a request costs in memory."""
    if num_vectors * k > limits.max_search:
        raise BadRequest(
            f"{num_vectors} vectors (of all queries together) x k = {k} are {num_vectors * k}; "
            f"allowed: at most {limits.max_search}; ask for fewer queries or a smaller k",
            field="k",
        )


def most_rows(k: int, catalogue: Catalogue) -> int:
    """How many of k candidates there can be."""
    return min(k, catalogue.num_active)


def num_vectors(queries: Sequence[UserQuery], generation: Generation) -> int:
    """How many vectors a search for these queries has."""
    each = generation.bundle.num_interests
    return sum(each if query.vectors is None else len(query.vectors) for query in queries)


def check_objective(objective: str, limits: Limits, generation: Generation) -> None:
    """Raise BadRequest for an objective that the bundle lacks."""
    check_length(objective, "objective", limits.max_id_bytes)
    if objective and objective not in generation.objectives:
        raise BadRequest(
            f"no objective {objective!r:.80}; this bundle has: {', '.join(generation.objectives)}",
            field="objective",
        )


def check_queries(queries: Sequence[UserQuery], limits: Limits, generation: Generation) -> None:
    """Raise BadRequest for queries that say nothing, or two things."""
    between("queries", len(queries), 1, limits.max_queries, unit="queries")
    for i, query in enumerate(queries):
        where = f"queries[{i}]"
        given = bool(query.user_id) + (query.history is not None) + (query.vectors is not None)
        if given != 1:
            raise BadRequest(
                f"give exactly one of user_id, history and vectors; {given} were given", field=where
            )
        if query.user_id:
            if len(query.user_id) > limits.max_id_bytes // 4:
                check_ids([query.user_id], f"{where}.user_id", limits)
        elif query.history is not None:
            _check_history(query.history, f"{where}.history", limits, generation)
        elif query.vectors is not None:
            check_vectors(query.vectors, f"{where}.vectors", limits.max_vectors, generation)
        if query.moment is not None:
            where = f"queries[{i}].moment"
            if not query.user_id:
                raise BadRequest("a moment goes with a user_id", field=where)
            _check_history(query.moment, where, limits, generation)
        if query.profile:
            _check_profile(query, f"queries[{i}].profile", limits, generation)
        if query.exclude_item_ids:
            where = f"queries[{i}].exclude_item_ids"
            between(where, len(query.exclude_item_ids), 0, limits.max_excluded, unit="items")
            check_ids(query.exclude_item_ids, where, limits)


def _check_history(history: History, where: str, limits: Limits, generation: Generation) -> None:
    num_events = len(history.item_ids)
    between(f"{where}.item_ids", num_events, 0, limits.max_history, unit="events")
    check_ids(history.item_ids, f"{where}.item_ids", limits)
    for name, values in (("events", history.events), ("timestamps_us", history.timestamps_us)):
        if len(values) not in (0, num_events):
            raise BadRequest(
                f"{len(values)} {name} for {num_events} items; give one an item, or none",
                field=f"{where}.{name}",
            )
    for i, event in enumerate(history.events):
        if event not in generation.schema.events:
            raise UnknownEvent(
                f"no event {event!r:.80}; the dataset declares: "
                f"{', '.join(generation.schema.events)}",
                field=f"{where}.events[{i}]",
            )
    times = np.asarray(history.timestamps_us, np.int64)
    if len(times):
        for i in (int(times.argmin()), int(times.argmax())):
            check_time(int(times[i]), f"{where}.timestamps_us[{i}]")
        if bool((np.diff(times) < 0).any()):
            raise BadRequest("give the history oldest first", field=f"{where}.timestamps_us")


def _check_profile(query: UserQuery, where: str, limits: Limits, generation: Generation) -> None:
    if query.history is None:
        raise BadRequest("a profile goes with a history given in the request", field=where)
    declared = generation.schema.user_features
    check_features(query.profile, declared, where, limits, of="user")


def check_filters(filters: Sequence[Filter], limits: Limits, generation: Generation) -> None:
    """Raise BadRequest for filters that no column answers."""
    between("filters", len(filters), 0, limits.max_filters, unit="filters")
    for i, filter_ in enumerate(filters):
        _check_filter(filter_, f"filters[{i}]", limits)
    generation.filters.check(filters)


def _check_filter(filter_: Filter, where: str, limits: Limits) -> None:
    depth = 0
    while isinstance(filter_, Not):
        filter_, where, depth = filter_.filter, f"{where}.negation", depth + 1
        if depth > limits.max_filters:
            raise BadRequest(f"negations nest deeper than {limits.max_filters}", field="filters")
    part = "any_of" if isinstance(filter_, AnyOf) else "range"
    check_length(filter_.field, f"{where}.{part}.field", limits.max_id_bytes)
    if isinstance(filter_, AnyOf):
        where = f"{where}.any_of.values"
        between(where, len(filter_.values), 1, limits.max_values, unit="values")
        check_ids(filter_.values, where, limits)
    elif isinstance(filter_, Range):
        ends = [end for end in (filter_.min, filter_.max) if end is not None]
        if not ends or np.isnan(ends).any() or (len(ends) == 2 and ends[0] > ends[1]):
            raise BadRequest(
                f"min {filter_.min}, max {filter_.max}; give at least one of them, min <= max",
                field=f"{where}.range",
            )


def check_fields(
    fields: Sequence[str], num_rows: int, limits: Limits, generation: Generation
) -> None:
    """Raise BadRequest for columns that no item has, and for too much of them.

    num_rows: the most items that the answer can hold.
    """
    between("fields", len(fields), 0, limits.max_fields, unit="fields")
    if num_rows * len(fields) > limits.max_cells:
        raise BadRequest(
            f"{num_rows} items (of all queries together) x {len(fields)} fields are "
            f"{num_rows * len(fields)} values; allowed: at most {limits.max_cells}; ask for fewer "
            "queries, items or fields",
            field="fields",
        )
    for i, name in enumerate(fields):
        check_length(name, f"fields[{i}]", limits.max_id_bytes)
        if name not in generation.columns:
            raise UnknownField(
                f"no item column {name!r:.80}; columns: {', '.join(generation.columns)}",
                field=f"fields[{i}]",
            )
