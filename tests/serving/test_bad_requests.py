"""What a request may not say: a documented error each, which names the field."""

# ruff: noqa: E501  (the table of refusals has one line a row)

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from interest.v1 import retrieval_service_pb2, types_pb2
from model.bundle import open_bundle
from model.schema import Feature
from serving.client import Client
from serving.config import Limits
from serving.domain import AnyOf, EmbedRequest, Filter, History, Not, Range, UserQuery
from serving.errors import BadRequest, BadVector, UnknownEvent, UnknownField
from serving.generation import Generation
from serving.validate import check_embed
from tests.serving.processes import Served
from tests.serving.raw_calls import RawCall
from tests.serving.tiny import DIM, World, item_id

NAN = np.full((1, DIM), np.nan, np.float32)
INFINITE = np.full((2, DIM), np.inf, np.float32)
UNIT = np.ones((1, DIM), np.float32)


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.address, timeout=10) as client:
        yield client


def nested(depth: int) -> Filter:
    filter_: Filter = AnyOf("kind", ("video",))
    for _ in range(depth):
        filter_ = Not(filter_)
    return filter_


def inline(*args: Any, **rest: Any) -> UserQuery:
    return UserQuery(history=History(*args), **rest)


REFUSED: list[tuple[str, Any, dict[str, Any], type[BadRequest], str, str]] = [
    ("k of 0", "u", {"k": 0}, BadRequest, "k", "1 to 1000"),
    ("k of a million", "u", {"k": 1_000_000}, BadRequest, "k", "1 to 1000"),
    ("NaN", UserQuery(vectors=NAN), {}, BadVector, "queries[0].vectors", "NaN"),
    ("infinity", UserQuery(vectors=INFINITE), {}, BadVector, "queries[0].vectors", "infinity"),
    ("wrong dimension", UserQuery(vectors=UNIT[:, :5]), {}, BadVector, "queries[0].vectors", "dimension 5; this bundle's have 8"),
    ("no vectors", UserQuery(vectors=UNIT[:0]), {}, BadVector, "queries[0].vectors", "0 bytes"),
    ("too many vectors", UserQuery(vectors=np.repeat(UNIT, 33, 0)), {}, BadRequest, "queries[0].vectors", "33 vectors are not allowed; allowed: 1 to 32"),
    ("too large a search", [UserQuery(vectors=np.repeat(UNIT, 32, 0))] * 32, {"k": 1000}, BadRequest, "k", "1024 vectors (of all queries together) x k = 1000 are 1024000; allowed: at most 1000000"),
    ("long objective", "u", {"objective": "o" * 20_000}, BadRequest, "objective", "256 bytes"),
    ("long filter column", "u", {"filters": [AnyOf("c" * 20_000, ("x",))]}, BadRequest, "filters[0].any_of.field", "256 bytes"),
    ("long range column", "u", {"filters": [Not(Range("c" * 20_000, 1))]}, BadRequest, "filters[0].negation.range.field", "256 bytes"),
    ("long field", "u", {"fields": ["c" * 20_000]}, BadRequest, "fields[0]", "256 bytes"),
    ("no queries", [], {}, BadRequest, "queries", "1 to 256"),
    ("too many queries", ["u"] * 257, {}, BadRequest, "queries", "257 queries"),
    ("nobody asks", UserQuery(), {}, BadRequest, "queries[0]", "exactly one"),
    ("two ask", UserQuery("u", History(["a"])), {}, BadRequest, "queries[0]", "2 were given"),
    ("long user id", "u" * 257, {}, BadRequest, "queries[0].user_id[0]", "256 bytes"),
    ("long user id in Chinese", "竹" * 90, {}, BadRequest, "queries[0].user_id[0]", "256 bytes"),
    ("long item id", inline(["u" * 257]), {}, BadRequest, "queries[0].history.item_ids[0]", "256"),
    ("empty item id", inline([""]), {}, BadRequest, "queries[0].history.item_ids[0]", "empty"),
    ("long history", inline(["i"] * 10_001), {}, BadRequest, "queries[0].history.item_ids", "10001"),
    ("unknown event", inline(["a"], ["stare"]), {}, UnknownEvent, "queries[0].history.events[0]", "watch"),
    ("ragged events", inline(["a", "b"], ["watch"]), {}, BadRequest, "queries[0].history.events", "1 events for 2"),
    ("ragged times", inline(["a"], [], [1, 2]), {}, BadRequest, "queries[0].history.timestamps_us", "2 timestamps_us for 1"),
    ("times that wrap around", inline(["a"] * 4, [], [0, 2**62, -(2**62) - 1, 5]), {}, BadRequest, "queries[0].history.timestamps_us[2]", "calendar"),
    ("a huge vector", UserQuery(vectors=3e38 * UNIT), {}, BadVector, "queries[0].vectors", "beyond 1e+15"),
    ("too much of the columns", ["u"] * 256, {"k": 1000, "fields": ["title"] * 8}, BadRequest, "fields", "1187840 values"),
    ("newest first", inline(["a", "b"], [], [2, 1]), {}, BadRequest, "queries[0].history.timestamps_us", "oldest first"),
    ("a time no calendar has", inline(["a"], [], [2**62]), {}, BadRequest, "queries[0].history.timestamps_us[0]", "calendar"),
    ("no such moment", "u", {"time_us": -(2**62)}, BadRequest, "time_us", "calendar"),
    ("unknown profile feature", inline(["a"], profile={"age": 3.0}), {}, UnknownField, "queries[0].profile", "city"),
    ("profile of another type", inline(["a"], profile={"city": 3.0}), {}, BadRequest, "queries[0].profile", "category"),
    ("profile of a stored user", UserQuery("u", profile={"city": "x"}), {}, BadRequest, "queries[0].profile", "history"),
    ("unknown objective", "u", {"objective": "fame"}, BadRequest, "objective", "direct"),
    ("unknown column", "u", {"filters": [AnyOf("colour", ("x",))]}, UnknownField, "filters[0].any_of.field", "craft"),
    ("unknown kind", "u", {"filters": [AnyOf("kind", ("vidio",))]}, BadRequest, "filters[0].any_of.values[0]", "video"),
    ("no values", "u", {"filters": [AnyOf("kind", ())]}, BadRequest, "filters[0].any_of.values", "1 to"),
    ("too many values", "u", {"filters": [AnyOf("craft", tuple(map(str, range(1001))))]}, BadRequest, "filters[0].any_of.values", "1001"),
    ("no ends", "u", {"filters": [Range("price")]}, BadRequest, "filters[0].range", "at least one"),
    ("ends crossed", "u", {"filters": [Range("price", 3, 2)]}, BadRequest, "filters[0].range", "min <= max"),
    ("an end that is NaN", "u", {"filters": [Range("price", float("nan"))]}, BadRequest, "filters[0].range", "nan"),
    ("range of a category", "u", {"filters": [Range("craft", 1)]}, UnknownField, "filters[0].range.field", "any_of"),
    ("deep negation", "u", {"filters": [nested(40)]}, BadRequest, "filters", "deeper"),
    ("too many filters", "u", {"filters": [AnyOf("kind", ("video",))] * 33}, BadRequest, "filters", "33"),
    ("unknown field", "u", {"fields": ["colour"]}, UnknownField, "fields[0]", "title"),
    ("too many fields", "u", {"fields": ["title"] * 65}, BadRequest, "fields", "65"),
    ("too much excluded", UserQuery("u", exclude_item_ids=["i"] * 50_001), {}, BadRequest, "queries[0].exclude_item_ids", "50001"),
    ("too much history back", "u", {"num_history": 10_001}, BadRequest, "num_history", "10001"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "options", "error", "field", "message"),
    [pytest.param(*case[1:], id=case[0]) for case in REFUSED],
)
def test_retrieve_refuses(
    client: Client,
    query: Any,
    options: dict[str, Any],
    error: type[BadRequest],
    field: str,
    message: str,
) -> None:
    with pytest.raises(BadRequest, match=re.escape(message)) as caught:
        client.retrieve(query, **options)
    assert type(caught.value) is error
    assert caught.value.field == field


def test_long_texts_of_a_profile_are_refused(world: World) -> None:
    generation = Generation(open_bundle(world.bundle))
    features = {"about": Feature(type="text")}
    generation.schema = generation.schema.model_copy(update={"user_features": features})
    for num, is_allowed in ((1365, True), (1366, False)):
        query = UserQuery(history=History([]), profile={"about": "竹" * num})
        with contextlib.nullcontext() if is_allowed else pytest.raises(BadRequest, match="4096"):
            check_embed(EmbedRequest(queries=[query]), Limits(), generation)


def test_numbers_that_no_message_holds_are_refused_before_they_are_sent() -> None:
    with Client("127.0.0.1:1") as nowhere:
        with pytest.raises(BadRequest):
            nowhere.retrieve("u", k=-1)
        with pytest.raises(BadVector, match="shape"):
            nowhere.find_similar(np.ones(DIM, np.float32))


def test_find_similar_and_embed_users_refuse(client: Client) -> None:
    with pytest.raises(BadVector, match="NaN"):
        client.find_similar(NAN)
    with pytest.raises(BadRequest, match="1 to 1000"):
        client.find_similar(item_id(1), k=0)
    with pytest.raises(BadRequest, match="1178560 values"):
        client.find_similar([item_id(1)] * 254, k=580, fields=["title"] * 8)
    with pytest.raises(BadRequest, match="either item_ids or vectors"):
        client.find_similar([])
    with pytest.raises(BadRequest, match="257 items"):
        client.find_similar([item_id(1)] * 257)
    with pytest.raises(BadRequest, match="EmbedUsers makes vectors"):
        client.embed_users(UserQuery(vectors=UNIT))
    with pytest.raises(BadRequest, match="no objective"):
        client.embed_users("u", objective="fame")


def test_a_message_that_is_none(call: RawCall) -> None:
    for data in (b"\xff\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x04\x0a\x02\xff\xfe"):
        status, detail, _ = call("Retrieve", data)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert detail.code == "BAD_REQUEST" and "not a message" in detail.message


def test_filters_and_features_that_say_nothing(call: RawCall) -> None:
    request = retrieval_service_pb2.RetrieveRequest(
        queries=[retrieval_service_pb2.UserQuery(user_id="u")], k=1, filters=[types_pb2.Filter()]
    )
    assert call("Retrieve", request.SerializeToString())[1].field == "filters[0]"
    silent = retrieval_service_pb2.UserQuery(
        history=types_pb2.History(), profile=[types_pb2.Feature(name="city")]
    )
    request = retrieval_service_pb2.RetrieveRequest(queries=[silent], k=1)
    assert call("Retrieve", request.SerializeToString())[1].field == "queries[0].profile"


def test_a_message_that_is_too_long(server: Served) -> None:
    query = UserQuery("u", exclude_item_ids=["i" * 250] * 70_000)
    with Client(server.address, timeout=10) as client, pytest.raises(BadRequest, match="larger"):
        client.retrieve(query)
