"""The server's side of the wire, inwards: protos to questions. Checks only what protos cannot say.

The client's side is serving/translation.py; every value is checked in serving/validate.py.
"""

from collections.abc import Sequence

import numpy as np

from interest.v1 import retrieval_service_pb2, types_pb2
from serving.domain import (
    AnyOf,
    Budget,
    Cap,
    EmbedItemsRequest,
    EmbedRequest,
    FeatureValue,
    Filter,
    FloatArray,
    History,
    ItemFeatures,
    KindShare,
    Not,
    Range,
    RecommendRequest,
    RerankRequest,
    RetrieveRequest,
    SimilarRequest,
    SlateRules,
    UserQuery,
)
from serving.errors import BadRequest, BadVector


def retrieve_request(
    proto: retrieval_service_pb2.RetrieveRequest, budget: Budget
) -> RetrieveRequest:
    """What a Retrieve asks. Raises BadRequest, as all of these do, for what says nothing."""
    return RetrieveRequest(
        queries=_queries(proto.queries),
        k=proto.k,
        filters=_filters(proto.filters),
        objective=proto.objective,
        exclude_seen=proto.exclude_seen,
        fields=tuple(proto.fields),
        num_history=proto.num_history,
        time_us=proto.time_us,
        budget=budget,
    )


def recommend_request(
    proto: retrieval_service_pb2.RecommendRequest, budget: Budget
) -> RecommendRequest:
    """What a Recommend asks."""
    return RecommendRequest(
        queries=_queries(proto.queries),
        k=proto.k,
        num_candidates=proto.num_candidates,
        filters=_filters(proto.filters),
        objective=proto.objective,
        include_seen=proto.include_seen,
        fields=tuple(proto.fields),
        time_us=proto.time_us,
        weights=_weights(proto.weights),
        slate=_slate(proto.slate),
        budget=budget,
    )


def rerank_request(proto: retrieval_service_pb2.RerankRequest, budget: Budget) -> RerankRequest:
    """What a Rerank asks."""
    return RerankRequest(
        queries=_queries(proto.queries),
        item_ids=list(proto.item_ids),
        counts=list(proto.counts),
        k=proto.k,
        objective=proto.objective,
        fields=tuple(proto.fields),
        time_us=proto.time_us,
        weights=_weights(proto.weights),
        slate=_slate(proto.slate),
        budget=budget,
    )


def similar_request(
    proto: retrieval_service_pb2.FindSimilarRequest, budget: Budget
) -> SimilarRequest:
    """What a FindSimilar asks."""
    return SimilarRequest(
        item_ids=list(proto.item_ids),
        vectors=_vectors(proto.vectors, "vectors") if proto.HasField("vectors") else None,
        k=proto.k,
        filters=_filters(proto.filters),
        exclude_item_ids=list(proto.exclude_item_ids),
        fields=tuple(proto.fields),
        budget=budget,
    )


def embed_request(proto: retrieval_service_pb2.EmbedUsersRequest, budget: Budget) -> EmbedRequest:
    """What an EmbedUsers asks."""
    return EmbedRequest(
        queries=_queries(proto.queries),
        objective=proto.objective,
        time_us=proto.time_us,
        budget=budget,
    )


def embed_items_request(proto: retrieval_service_pb2.EmbedItemsRequest) -> EmbedItemsRequest:
    """What an EmbedItems asks."""
    items = [
        ItemFeatures(
            item.kind, {f.name: _feature(f, f"items[{i}].features") for f in item.features}
        )
        for i, item in enumerate(proto.items)
    ]
    return EmbedItemsRequest(item_ids=list(proto.item_ids), items=items)


def _weights(protos: Sequence[retrieval_service_pb2.ValueWeight]) -> dict[str, float]:
    weights = {proto.head: proto.weight for proto in protos}
    if len(weights) < len(protos):
        raise BadRequest("a head is named twice", field="weights")
    return weights


def _slate(proto: retrieval_service_pb2.Slate) -> SlateRules:
    return SlateRules(
        proto.diversity if proto.HasField("diversity") else None,
        tuple(Cap(cap.field, cap.most) for cap in proto.caps),
        tuple(KindShare(kind.kind, kind.share) for kind in proto.kinds),
    )


def _queries(protos: Sequence[retrieval_service_pb2.UserQuery]) -> list[UserQuery]:
    return [_query(proto, i) for i, proto in enumerate(protos)]


def _query(proto: retrieval_service_pb2.UserQuery, position: int) -> UserQuery:
    history = vectors = None
    where = f"queries[{position}]"
    if proto.HasField("history"):
        history = History(
            list(proto.history.item_ids),
            list(proto.history.events),
            np.array(proto.history.timestamps_us, np.int64),
        )
    if proto.HasField("vectors"):
        vectors = _vectors(proto.vectors, f"{where}.vectors")
    profile = {f.name: _feature(f, f"{where}.profile") for f in proto.profile}
    return UserQuery(proto.user_id, history, profile, vectors, list(proto.exclude_item_ids))


def _vectors(proto: types_pb2.Vectors, where: str) -> FloatArray:
    """[n, dim] float32; the values are checked later, with the rest of the request."""
    if proto.dim == 0 or not proto.data or len(proto.data) % (4 * proto.dim):
        raise BadVector(
            f"{len(proto.data)} bytes are no float32 vectors of dimension {proto.dim}", field=where
        )
    return np.frombuffer(proto.data, "<f4").reshape(-1, proto.dim)


def _feature(proto: types_pb2.Feature, where: str) -> FeatureValue:
    match proto.WhichOneof("value"):
        case "category":
            return proto.category
        case "categories":
            return list(proto.categories.values)
        case "number":
            return proto.number
        case "text":
            return proto.text
        case "vector" if len(proto.vector) % 4 == 0:
            return np.frombuffer(proto.vector, "<f4")
    raise BadRequest(f"feature {proto.name!r:.80} has no value that can be read", field=where)


def _filters(protos: Sequence[types_pb2.Filter]) -> tuple[Filter, ...]:
    return tuple(_filter(proto, f"filters[{i}]") for i, proto in enumerate(protos))


def _filter(proto: types_pb2.Filter, where: str) -> Filter:
    match proto.WhichOneof("condition"):
        case "any_of":
            # Sorted and distinct, so that requests that mean the same share one bitmap.
            return AnyOf(proto.any_of.field, tuple(sorted(set(proto.any_of.values))))
        case "range":
            span = proto.range
            return Range(
                span.field,
                span.min if span.HasField("min") else None,
                span.max if span.HasField("max") else None,
            )
        case "negation":
            return Not(_filter(proto.negation, f"{where}.negation"))
    raise BadRequest("an empty filter; give any_of, range or negation", field=where)
