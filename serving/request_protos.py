"""The server's side of the wire, inwards: protos to questions. Checks only what protos cannot say,
and how long lists are: a megabyte holds half a million empty messages, and an object for each would
cost seconds before anything is refused.

The client's side is serving/translation.py; every value is checked in serving/validate.py.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from interest.v1 import (
    circle_service_pb2,
    ingest_service_pb2,
    retrieval_service_pb2,
    types_pb2,
)
from serving.checks import between
from serving.config import Limits
from serving.domain import (
    AnyOf,
    Budget,
    Cap,
    EmbedItemsRequest,
    EmbedRequest,
    Event,
    ExposureFloor,
    FeatureValue,
    Filter,
    FloatArray,
    History,
    ItemChange,
    ItemFeatures,
    KindShare,
    NewItems,
    Not,
    OriginShare,
    Range,
    RecommendRequest,
    RerankRequest,
    RetrieveRequest,
    SimilarRequest,
    SlateRules,
    SmallCreators,
    UserQuery,
)
from serving.errors import BadRequest, BadVector
from serving.live.ingest import UpsertRequest

Value = TypeVar("Value")


def retrieve_request(
    proto: retrieval_service_pb2.RetrieveRequest, budget: Budget, limits: Limits
) -> RetrieveRequest:
    """What a Retrieve asks. Raises BadRequest, as all of these do, for what says nothing."""
    return RetrieveRequest(
        queries=_queries(proto.queries, limits),
        k=proto.k,
        filters=_filters(proto.filters, limits),
        objective=proto.objective,
        exclude_seen=proto.exclude_seen,
        fields=tuple(_bounded(proto.fields, "fields", limits.max_fields)),
        num_history=proto.num_history,
        time_us=proto.time_us,
        budget=budget,
    )


def recommend_request(
    proto: retrieval_service_pb2.RecommendRequest, budget: Budget, limits: Limits
) -> RecommendRequest:
    """What a Recommend asks."""
    return RecommendRequest(
        queries=_queries(proto.queries, limits),
        k=proto.k,
        num_candidates=proto.num_candidates,
        filters=_filters(proto.filters, limits),
        objective=proto.objective,
        include_seen=proto.include_seen,
        fields=tuple(_bounded(proto.fields, "fields", limits.max_fields)),
        time_us=proto.time_us,
        weights=_weights(proto.weights, limits),
        slate=_slate(proto.slate, limits),
        explain=proto.explain,
        language=proto.language,
        budget=budget,
    )


def rerank_request(
    proto: retrieval_service_pb2.RerankRequest, budget: Budget, limits: Limits
) -> RerankRequest:
    """What a Rerank asks."""
    return RerankRequest(
        queries=_queries(proto.queries, limits),
        item_ids=_bounded(proto.item_ids, "item_ids", limits.max_ranked * limits.max_queries),
        counts=_bounded(proto.counts, "counts", limits.max_queries),
        k=proto.k,
        objective=proto.objective,
        fields=tuple(_bounded(proto.fields, "fields", limits.max_fields)),
        time_us=proto.time_us,
        weights=_weights(proto.weights, limits),
        slate=_slate(proto.slate, limits),
        explain=proto.explain,
        language=proto.language,
        budget=budget,
    )


def similar_request(
    proto: retrieval_service_pb2.FindSimilarRequest, budget: Budget, limits: Limits
) -> SimilarRequest:
    """What a FindSimilar asks."""
    return SimilarRequest(
        item_ids=_bounded(proto.item_ids, "item_ids", limits.max_queries),
        vectors=_vectors(proto.vectors, "vectors") if proto.HasField("vectors") else None,
        k=proto.k,
        filters=_filters(proto.filters, limits),
        exclude_item_ids=_bounded(proto.exclude_item_ids, "exclude_item_ids", limits.max_excluded),
        fields=tuple(_bounded(proto.fields, "fields", limits.max_fields)),
        budget=budget,
    )


def embed_request(
    proto: retrieval_service_pb2.EmbedUsersRequest, budget: Budget, limits: Limits
) -> EmbedRequest:
    """What an EmbedUsers asks."""
    return EmbedRequest(
        queries=_queries(proto.queries, limits),
        objective=proto.objective,
        time_us=proto.time_us,
        budget=budget,
    )


def circle_queries(
    proto: circle_service_pb2.GetUserCirclesRequest, limits: Limits
) -> list[UserQuery]:
    """Whom a GetUserCircles asks about."""
    return _queries(proto.queries, limits)


def embed_items_request(
    proto: retrieval_service_pb2.EmbedItemsRequest, budget: Budget, limits: Limits
) -> EmbedItemsRequest:
    """What an EmbedItems asks."""
    items = [
        ItemFeatures(item.kind, _features(item.features, f"items[{i}].features", limits))
        for i, item in enumerate(_bounded(proto.items, "items", limits.max_items))
    ]
    return EmbedItemsRequest(
        item_ids=_bounded(proto.item_ids, "item_ids", limits.max_items), items=items, budget=budget
    )


def upsert_request(
    proto: ingest_service_pb2.UpsertItemsRequest, budget: Budget, limits: Limits
) -> UpsertRequest:
    """What an UpsertItems asks."""
    items = _bounded(proto.items, "items", limits.max_items)
    return UpsertRequest(
        changes=[_change(item, f"items[{i}]", limits) for i, item in enumerate(items)],
        budget=budget,
    )


def _change(proto: ingest_service_pb2.ItemUpsert, where: str, limits: Limits) -> ItemChange:
    features = _bounded(proto.features, f"{where}.features", limits.max_values)
    links = _bounded(proto.links, f"{where}.links", limits.max_values)
    return ItemChange(
        item_id=proto.item_id,
        kind=proto.kind,
        features={
            one.name: None
            if one.WhichOneof("value") is None
            else _feature(one, f"{where}.features", limits)
            for one in features
        },
        available=proto.available if proto.HasField("available") else None,
        expires_at_us=proto.expires_at_us if proto.HasField("expires_at_us") else None,
        links=[(link.relation, link.to_item_id) for link in links]
        if proto.replaces_links
        else None,
    )


def events_of(protos: Sequence[ingest_service_pb2.Event], limits: Limits) -> list[Event]:
    """The events of a RecordEvents, or of a message of StreamEvents."""
    return [
        Event(
            proto.user_id,
            proto.item_id,
            proto.event,
            proto.event_id,
            proto.timestamp_us,
            proto.sequence,
            proto.value if proto.HasField("value") else None,
            proto.exposure_id,
            proto.source_item_id,
            proto.position if proto.HasField("position") else None,
            proto.propensity if proto.HasField("propensity") else None,
        )
        for proto in _bounded(protos, "events", limits.max_events)
    ]


def _bounded(values: Sequence[Value], where: str, most: int) -> list[Value]:
    """The values of a repeated field. Raises BadRequest, before one is looked at, for too many."""
    between(where, len(values), 0, most, unit=where.rpartition(".")[2].replace("item_ids", "items"))
    return list(values)


def _weights(
    protos: Sequence[retrieval_service_pb2.ValueWeight], limits: Limits
) -> dict[str, float]:
    _bounded(protos, "weights", limits.max_filters)
    weights = {proto.head: proto.weight for proto in protos}
    if len(weights) < len(protos):
        raise BadRequest("a head is named twice", field="weights")
    return weights


def _slate(proto: retrieval_service_pb2.Slate, limits: Limits) -> SlateRules:
    caps = _bounded(proto.caps, "slate.caps", limits.max_filters)
    kinds = _bounded(proto.kinds, "slate.kinds", limits.max_filters)
    floors = _bounded(proto.floors, "slate.floors", limits.max_filters)
    origins = _bounded(proto.origins, "slate.origins", limits.max_filters)
    return SlateRules(
        diversity=proto.diversity if proto.HasField("diversity") else None,
        caps=tuple(Cap(cap.field, cap.most) for cap in caps),
        kinds=tuple(KindShare(kind.kind, kind.share) for kind in kinds),
        method=proto.method,
        window=proto.window,
        floors=tuple(_floor(floor, f"slate.floors[{i}]", limits) for i, floor in enumerate(floors)),
        exploration=proto.exploration,
        seed=proto.seed,
        origins=tuple(OriginShare(one.origin, one.share) for one in origins),
    )


def _floor(proto: retrieval_service_pb2.ExposureFloor, where: str, limits: Limits) -> ExposureFloor:
    group: NewItems | SmallCreators | Filter
    match proto.WhichOneof("group"):
        case "new_items":
            new = proto.new_items
            most = new.max_events if new.HasField("max_events") else None
            group = NewItems(new.max_age_days, most)
        case "small_creators":
            small = proto.small_creators
            group = SmallCreators(small.field or "creator", small.tail)
        case "filter":
            group = _filter(proto.filter, f"{where}.filter", limits)
        case _:
            raise BadRequest(
                "a floor for nobody; give new_items, small_creators or filter", field=where
            )
    return ExposureFloor(group, proto.share, proto.paced, proto.least)


def _queries(protos: Sequence[retrieval_service_pb2.UserQuery], limits: Limits) -> list[UserQuery]:
    queries = _bounded(protos, "queries", limits.max_queries)
    return [_query(proto, i, limits) for i, proto in enumerate(queries)]


def _query(proto: retrieval_service_pb2.UserQuery, position: int, limits: Limits) -> UserQuery:
    history = moment = vectors = None
    where = f"queries[{position}]"
    if proto.HasField("history"):
        history = _history(proto.history, f"{where}.history", limits.max_history)
    if proto.HasField("moment"):
        moment = _history(proto.moment, f"{where}.moment", limits.max_history)
    if proto.HasField("vectors"):
        vectors = _vectors(proto.vectors, f"{where}.vectors")
    return UserQuery(
        proto.user_id,
        history,
        _features(proto.profile, f"{where}.profile", limits) if proto.profile else {},
        vectors,
        _bounded(proto.exclude_item_ids, f"{where}.exclude_item_ids", limits.max_excluded),
        moment,
    )


def _history(proto: types_pb2.History, where: str, most: int) -> History:
    return History(
        _bounded(proto.item_ids, f"{where}.item_ids", most),
        _bounded(proto.events, f"{where}.events", most),
        np.array(_bounded(proto.timestamps_us, f"{where}.timestamps_us", most), np.int64),
    )


def _vectors(proto: types_pb2.Vectors, where: str) -> FloatArray:
    """[n, dim] float32; the values are checked later, with the rest of the request."""
    if proto.dim == 0 or not proto.data or len(proto.data) % (4 * proto.dim):
        raise BadVector(
            f"{len(proto.data)} bytes are no float32 vectors of dimension {proto.dim}", field=where
        )
    return np.frombuffer(proto.data, "<f4").reshape(-1, proto.dim)


def _features(
    protos: Sequence[types_pb2.Feature], where: str, limits: Limits
) -> dict[str, FeatureValue]:
    features = _bounded(protos, where, limits.max_values)
    return {feature.name: _feature(feature, where, limits) for feature in features}


def _feature(proto: types_pb2.Feature, where: str, limits: Limits) -> FeatureValue:
    match proto.WhichOneof("value"):
        case "category":
            return proto.category
        case "categories":
            return _bounded(proto.categories.values, where, limits.max_values)
        case "number":
            return proto.number
        case "text":
            return proto.text
        case "vector" if len(proto.vector) % 4 == 0:
            return np.frombuffer(proto.vector, "<f4")
    raise BadRequest(f"feature {proto.name!r:.80} has no value that can be read", field=where)


def _filters(protos: Sequence[types_pb2.Filter], limits: Limits) -> tuple[Filter, ...]:
    filters = _bounded(protos, "filters", limits.max_filters)
    return tuple(_filter(proto, f"filters[{i}]", limits) for i, proto in enumerate(filters))


def _filter(proto: types_pb2.Filter, where: str, limits: Limits) -> Filter:
    match proto.WhichOneof("condition"):
        case "any_of":
            values = _bounded(proto.any_of.values, f"{where}.any_of.values", limits.max_values)
            # Sorted and distinct, so that requests that mean the same share one bitmap.
            return AnyOf(proto.any_of.field, tuple(sorted(set(values))))
        case "range":
            span = proto.range
            return Range(
                span.field,
                span.min if span.HasField("min") else None,
                span.max if span.HasField("max") else None,
            )
        case "negation":
            return Not(_filter(proto.negation, f"{where}.negation", limits))
    raise BadRequest("an empty filter; give any_of, range or negation", field=where)
