"""Every request is checked once, here, before anything is computed for it.

Each check raises BadRequest (or a kind of it) that names the field, says what was given and what is
allowed. Knows limits and the schema of the active generation; no protos.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from model.schema import KINDS, Feature
from serving.config import Limits
from serving.domain import (
    AnyOf,
    EmbedItemsRequest,
    EmbedRequest,
    FeatureValue,
    Filter,
    FloatArray,
    History,
    Not,
    Range,
    RetrieveRequest,
    SimilarRequest,
    UserQuery,
)
from serving.errors import BadRequest, BadVector, UnknownEvent, UnknownField, UnknownItem
from serving.generation import Generation

Features = Mapping[str, FeatureValue]
LARGEST = 1e15
"""Of a vector's numbers and of a weight, either way: squares and sums of such are float32 still."""


def check_retrieve(request: RetrieveRequest, limits: Limits, generation: Generation) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered."""
    check_k(request.k, limits)
    check_objective(request.objective, limits, generation)
    check_queries(request.queries, limits, generation)
    check_search(num_vectors(request.queries, generation), request.k, limits)
    if request.filters:
        check_filters(request.filters, limits, generation)
    between("num_history", request.num_history, 0, limits.max_history)
    if request.fields:
        num_rows = len(request.queries) * (most_rows(request.k, generation) + request.num_history)
        check_fields(request.fields, num_rows, limits, generation)
    check_time(request.time_us)


def check_embed_items(
    request: EmbedItemsRequest, limits: Limits, generation: Generation
) -> npt.NDArray[np.int64]:
    """The rows of the request's item_ids. Raises BadRequest, naming the field, and UnknownItem."""
    if bool(len(request.item_ids)) == bool(len(request.items)):
        raise BadRequest("give either item_ids or items", field="item_ids")
    between("item_ids", len(request.item_ids), 0, limits.max_items, unit="items")
    check_ids(request.item_ids, "item_ids", limits)
    rows = generation.rows_of(request.item_ids)
    for i in np.flatnonzero(rows < 0).tolist():
        raise UnknownItem(f"no item {request.item_ids[i]!r} in the bundle", field=f"item_ids[{i}]")
    between("items", len(request.items), 0, limits.max_items, unit="items")
    for i, item in enumerate(request.items):
        if item.kind not in KINDS:
            raise BadRequest(
                f"no kind {item.kind!r:.80}; kinds: {', '.join(KINDS)}", field=f"items[{i}].kind"
            )
        declared = generation.schema.item_features
        _check_features(item.features, declared, f"items[{i}].features", limits, of="item")
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


def check_similar(request: SimilarRequest, limits: Limits, generation: Generation) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered."""
    check_k(request.k, limits)
    if bool(len(request.item_ids)) == (request.vectors is not None):
        raise BadRequest("give either item_ids or vectors", field="item_ids")
    if request.vectors is not None:
        _check_vectors(request.vectors, "vectors", limits.max_queries, generation)
    num_queries = max(len(request.item_ids), 0 if request.vectors is None else len(request.vectors))
    check_search(num_queries, request.k, limits)
    between("item_ids", len(request.item_ids), 0, limits.max_queries, unit="items")
    check_ids(request.item_ids, "item_ids", limits)
    between("exclude_item_ids", len(request.exclude_item_ids), 0, limits.max_excluded, "items")
    check_ids(request.exclude_item_ids, "exclude_item_ids", limits)
    check_filters(request.filters, limits, generation)
    num_rows = num_queries * most_rows(request.k, generation)
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


def most_rows(k: int, generation: Generation) -> int:
    """How many of k candidates there can be."""
    return min(k, generation.items.num_active)


def num_vectors(queries: Sequence[UserQuery], generation: Generation) -> int:
    """How many vectors a search for these queries has."""
    each = generation.bundle.num_interests
    return sum(each if query.vectors is None else len(query.vectors) for query in queries)


def check_objective(objective: str, limits: Limits, generation: Generation) -> None:
    """Raise BadRequest for an objective that the bundle lacks."""
    _check_length(objective, "objective", limits.max_id_bytes)
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
            _check_vectors(query.vectors, f"{where}.vectors", limits.max_vectors, generation)
        if query.profile:
            _check_profile(query, f"{where}.profile", limits, generation)
        if query.exclude_item_ids:
            where = f"{where}.exclude_item_ids"
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


def _check_vectors(vectors: FloatArray, where: str, most: int, generation: Generation) -> None:
    """vectors: [M, D] float32."""
    if vectors.ndim != 2 or vectors.shape[1] != generation.bundle.dim:
        dim = vectors.shape[1] if vectors.ndim == 2 else 0
        raise BadVector(
            f"vectors of dimension {dim}; this bundle's have {generation.bundle.dim}", field=where
        )
    between(where, len(vectors), 1, most, unit="vectors")
    check_numbers(vectors, where)


def check_numbers(vectors: FloatArray, where: str) -> None:
    """Raise BadVector for numbers [n, D] that cannot be reckoned with."""
    broken = np.flatnonzero(~(np.abs(vectors) <= LARGEST).all(axis=1))  # NaN is not, either
    if len(broken):
        raise BadVector(
            f"vector {broken[0]} holds NaN, infinity or a number beyond {LARGEST:g}", field=where
        )


def _check_profile(query: UserQuery, where: str, limits: Limits, generation: Generation) -> None:
    if query.history is None:
        raise BadRequest("a profile goes with a history given in the request", field=where)
    declared = generation.schema.user_features
    _check_features(query.profile, declared, where, limits, of="user")


def _check_features(
    features: Features, declared: Mapping[str, Feature], where: str, limits: Limits, *, of: str
) -> None:
    for name, value in features.items():
        feature = declared.get(name)
        if feature is None:
            raise UnknownField(
                f"no {of} feature {name!r:.80}; declared: {', '.join(declared) or 'none'}",
                field=where,
            )
        if isinstance(value, np.ndarray):
            given = "vector"
            if feature.type == "vector" and value.shape != (feature.dim,):
                raise BadVector(
                    f"{name!r} has dimension {value.size}, not {feature.dim}", field=where
                )
            check_numbers(value[np.newaxis], where)
        elif isinstance(value, str):
            given = "text" if feature.type == "text" else "category"
            if given == "category" and value:
                check_ids([value], where, limits)
            elif given == "text":
                _check_length(value, where, limits.max_text_bytes)
        elif isinstance(value, float | int):
            given = "number"
            if not math.isfinite(value):
                raise BadRequest(f"{name!r} is {value}; leave out what is not known", field=where)
        else:
            given = "categories"
            between(where, len(value), 0, limits.max_values, unit="values")
            check_ids(list(map(str, value)), where, limits)
        if given != feature.type:
            raise BadRequest(f"{name!r} is of type {feature.type}, not {given}", field=where)


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
    _check_length(filter_.field, f"{where}.{part}.field", limits.max_id_bytes)
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
        _check_length(name, f"fields[{i}]", limits.max_id_bytes)
        if name not in generation.columns:
            raise UnknownField(
                f"no item column {name!r:.80}; columns: {', '.join(generation.columns)}",
                field=f"fields[{i}]",
            )


def check_ids(ids: Sequence[str], where: str, limits: Limits) -> None:
    """Raise BadRequest for empty or too long ids."""
    most = limits.max_id_bytes
    for i, name in enumerate(ids):
        if not name:
            raise BadRequest("an empty string is no id and no value", field=f"{where}[{i}]")
        if 4 * len(name) > most:
            _check_length(name, f"{where}[{i}]", most)


def _check_length(text: str, where: str, most: int) -> None:
    # A character has at most 4 bytes, so most texts need no encoding to be known short enough.
    if 4 * len(text) > most and len(text.encode()) > most:
        raise BadRequest(f"longer than {most} bytes: {text[:40]!r}…", field=where)


def check_time(time_us: int, where: str = "time_us") -> None:
    """Raise BadRequest for a moment that no calendar has."""
    most = 253_402_300_800_000_000  # the year 10000, beyond which Arrow and Python have no dates
    if not -most <= time_us <= most:
        raise BadRequest(f"{time_us} µs since 1970 is no time that a calendar has", field=where)


def between(where: str, number: int, least: int, most: int, unit: str = "") -> None:
    """Raise BadRequest for a number outside its limits."""
    if not least <= number <= most:
        unit = f" {unit}" if unit else ""
        raise BadRequest(f"{number}{unit} are not allowed; allowed: {least} to {most}", field=where)
