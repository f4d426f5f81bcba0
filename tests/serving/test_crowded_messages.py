"""Lists of far too many empty messages, which take two bytes each: refused before they are read."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from interest.v1 import retrieval_service_pb2, types_pb2
from serving.config import Limits
from serving.domain import NO_LIMIT
from serving.errors import BadRequest
from serving.request_protos import (
    embed_items_request,
    embed_request,
    recommend_request,
    rerank_request,
    retrieve_request,
    similar_request,
)
from tests.serving.raw_calls import RawCall

NUM = 200_000
RECOMMEND = retrieval_service_pb2.RecommendRequest
QUERY = retrieval_service_pb2.UserQuery


def read(message: Any) -> object:
    kinds: dict[type, Callable[..., object]] = {
        retrieval_service_pb2.RetrieveRequest: retrieve_request,
        RECOMMEND: recommend_request,
        retrieval_service_pb2.RerankRequest: rerank_request,
        retrieval_service_pb2.FindSimilarRequest: similar_request,
        retrieval_service_pb2.EmbedUsersRequest: embed_request,
        retrieval_service_pb2.EmbedItemsRequest: embed_items_request,
    }
    return kinds[type(message)](message, NO_LIMIT, Limits())


CROWDED = [
    (retrieval_service_pb2.RetrieveRequest(queries=[QUERY()] * NUM), "queries"),
    (retrieval_service_pb2.EmbedUsersRequest(queries=[QUERY()] * NUM), "queries"),
    (RECOMMEND(queries=[QUERY()] * NUM), "queries"),
    (retrieval_service_pb2.RetrieveRequest(filters=[types_pb2.Filter()] * NUM), "filters"),
    (RECOMMEND(weights=[retrieval_service_pb2.ValueWeight()] * NUM), "weights"),
    (
        RECOMMEND(slate=retrieval_service_pb2.Slate(caps=[retrieval_service_pb2.Cap()] * NUM)),
        "slate.caps",
    ),
    (
        RECOMMEND(
            slate=retrieval_service_pb2.Slate(kinds=[retrieval_service_pb2.KindShare()] * NUM)
        ),
        "slate.kinds",
    ),
    (RECOMMEND(fields=[""] * NUM), "fields"),
    (
        RECOMMEND(queries=[QUERY(), QUERY(profile=[types_pb2.Feature()] * NUM)]),
        "queries[1].profile",
    ),
    (
        RECOMMEND(queries=[QUERY(history=types_pb2.History(item_ids=[""] * NUM))]),
        "queries[0].history.item_ids",
    ),
    (
        RECOMMEND(queries=[QUERY(history=types_pb2.History(timestamps_us=[1] * NUM))]),
        "queries[0].history.timestamps_us",
    ),
    (RECOMMEND(queries=[QUERY(exclude_item_ids=[""] * NUM)]), "queries[0].exclude_item_ids"),
    (
        retrieval_service_pb2.RerankRequest(queries=[QUERY()], item_ids=[""] * 3 * NUM),
        "item_ids",
    ),
    (retrieval_service_pb2.RerankRequest(counts=[0] * NUM), "counts"),
    (retrieval_service_pb2.FindSimilarRequest(item_ids=[""] * NUM), "item_ids"),
    (retrieval_service_pb2.FindSimilarRequest(exclude_item_ids=[""] * NUM), "exclude_item_ids"),
    (
        retrieval_service_pb2.EmbedItemsRequest(items=[retrieval_service_pb2.ItemFeatures()] * NUM),
        "items",
    ),
    (
        retrieval_service_pb2.EmbedItemsRequest(
            items=[retrieval_service_pb2.ItemFeatures(features=[types_pb2.Feature()] * NUM)]
        ),
        "items[0].features",
    ),
]


@pytest.mark.parametrize(
    ("message", "field"), CROWDED, ids=[f"{type(m).__name__}-{field}" for m, field in CROWDED]
)
def test_nothing_is_made_of_what_is_too_long(message: Any, field: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="not allowed") as refused:
            read(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.field == field
    assert peak < 100_000  # bytes: a pointer for each would take more than a megabyte


def test_on_the_wire_it_is_a_refusal_like_any_other(call: RawCall) -> None:
    _, detail, _ = call("Retrieve", b"\x0a\x00" * 500_000)
    assert (detail.code, detail.field) == ("BAD_REQUEST", "queries")
    assert "500000 queries are not allowed" in detail.message
