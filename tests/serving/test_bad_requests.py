"""What a request may not say: a documented error each, whatever bytes come in."""

# ruff: noqa: E501  (the table of refusals has one line a row)

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interest.v1 import admin_service_pb2, retrieval_service_pb2, types_pb2
from model.bundle import open_bundle
from model.errors import PenchantError
from model.schema import Feature
from serving import errors
from serving.client import Client
from serving.config import Limits
from serving.domain import AnyOf, EmbedRequest, Filter, History, Not, Range, UserQuery
from serving.errors import BadRequest, BadVector, UnknownEvent, UnknownField
from serving.generation import Generation
from serving.status import DETAIL_KEY, TABLE, from_status, to_status
from serving.validate import check_embed
from tests.serving.processes import ROOT, Served
from tests.serving.tiny import DIM, World, item_id

NAN = np.full((1, DIM), np.nan, np.float32)
INFINITE = np.full((2, DIM), np.inf, np.float32)
UNIT = np.ones((1, DIM), np.float32)


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.address, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def call(value_server: Served) -> Iterator[Callable[..., Any]]:
    """Raw bytes to an RPC; the error's status and detail come back, or the bytes of the answer."""
    with grpc.insecure_channel(value_server.address) as channel:

        def send(rpc: str, data: bytes) -> tuple[grpc.StatusCode, types_pb2.ErrorDetail, bytes]:
            service = "Admin" if rpc in ADMIN else "Retrieval"
            method = channel.unary_unary(f"/interest.v1.{service}Service/{rpc}", None, None)
            try:
                answer = method(data, timeout=10)
                return grpc.StatusCode.OK, types_pb2.ErrorDetail(), answer
            except grpc.RpcError as error:
                trailing: dict[str, Any] = dict(error.trailing_metadata())  # type: ignore[arg-type]
                assert DETAIL_KEY in trailing, error
                detail = types_pb2.ErrorDetail.FromString(trailing[DETAIL_KEY])
                return error.code(), detail, b""

        yield send


ADMIN = set(admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name)
RETRIEVAL = set(
    retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].methods_by_name
)


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


def test_messages_of_errors_are_cut() -> None:
    for message in ("x" * 1024, "竹" * 341):
        assert to_status(BadRequest(message))[1].message == message
    for message in ("x" * 20_000, "竹" * 342, "x竹" * 5000):
        cut = to_status(BadRequest(message))[1].message
        assert 1000 < len(cut.encode()) <= 1024
        assert cut.endswith("…") and message.startswith(cut[:-1])


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
    with pytest.raises(BadRequest, match="either item_ids or vectors"):
        client.find_similar([])
    with pytest.raises(BadRequest, match="257 items"):
        client.find_similar([item_id(1)] * 257)
    with pytest.raises(BadRequest, match="EmbedUsers makes vectors"):
        client.embed_users(UserQuery(vectors=UNIT))
    with pytest.raises(BadRequest, match="no objective"):
        client.embed_users("u", objective="fame")


def test_a_message_that_is_none(call: Callable[..., Any]) -> None:
    for data in (b"\xff\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x04\x0a\x02\xff\xfe"):
        status, detail, _ = call("Retrieve", data)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert detail.code == "BAD_REQUEST" and "not a message" in detail.message


def test_filters_and_features_that_say_nothing(call: Callable[..., Any]) -> None:
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


text = st.text(max_size=8) | st.sampled_from(
    ["user-005", item_id(3), "kind", "price", "watch", "x"]
)
vectors = st.builds(
    types_pb2.Vectors,
    data=st.binary(max_size=70) | st.just(UNIT.tobytes()),
    dim=st.integers(0, 9) | st.just(2**32 - 1),
)
any_filter = st.recursive(
    st.builds(
        types_pb2.Filter,
        any_of=st.builds(types_pb2.AnyOf, field=text, values=st.lists(text, max_size=3)),
    )
    | st.builds(
        types_pb2.Filter,
        range=st.builds(
            types_pb2.Range, field=text, min=st.floats() | st.none(), max=st.floats() | st.none()
        ),
    ),
    lambda inner: st.builds(types_pb2.Filter, negation=inner),
    max_leaves=3,
)
query = st.builds(
    retrieval_service_pb2.UserQuery,
    user_id=text,
    history=st.none()
    | st.builds(
        types_pb2.History,
        item_ids=st.lists(text, max_size=4),
        events=st.lists(text, max_size=4),
        timestamps_us=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    ),
    profile=st.lists(
        st.builds(types_pb2.Feature, name=text | st.just("city"), category=text)
        | st.builds(types_pb2.Feature, name=st.just("city"), vector=st.binary(max_size=9)),
        max_size=2,
    ),
    vectors=st.none() | vectors,
    exclude_item_ids=st.lists(text, max_size=3),
)
retrieve_request = st.builds(
    retrieval_service_pb2.RetrieveRequest,
    queries=st.lists(query, max_size=3),
    k=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    filters=st.lists(any_filter, max_size=2),
    objective=st.sampled_from(["", "direct"]) | text,
    exclude_seen=st.booleans(),
    fields=st.lists(text, max_size=3),
    num_history=st.integers(0, 2**32 - 1) | st.just(3),
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
)
similar_request = st.builds(
    retrieval_service_pb2.FindSimilarRequest,
    item_ids=st.lists(text, max_size=3),
    vectors=st.none() | vectors,
    k=st.integers(0, 40),
    filters=st.lists(any_filter, max_size=2),
    exclude_item_ids=st.lists(text, max_size=3),
    fields=st.lists(text, max_size=3),
)
embed_request = st.builds(
    retrieval_service_pb2.EmbedUsersRequest,
    queries=st.lists(query, max_size=3),
    objective=st.sampled_from(["", "direct"]) | text,
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
)
weights = st.lists(
    st.builds(
        retrieval_service_pb2.ValueWeight,
        head=st.sampled_from(["watch", "order"]) | text,
        weight=st.floats(),
    ),
    max_size=3,
)
slate = st.builds(
    retrieval_service_pb2.Slate,
    diversity=st.none() | st.floats() | st.just(0.5),
    caps=st.lists(
        st.builds(
            retrieval_service_pb2.Cap,
            field=st.sampled_from(["circle", "craft", "tags"]) | text,
            most=st.integers(0, 2**32 - 1) | st.just(1),
        ),
        max_size=2,
    ),
    kinds=st.lists(
        st.builds(
            retrieval_service_pb2.KindShare,
            kind=st.sampled_from(["live", "video"]) | text,
            share=st.floats() | st.just(0.2),
        ),
        max_size=2,
    ),
)
recommend_request = st.builds(
    retrieval_service_pb2.RecommendRequest,
    queries=st.lists(query, max_size=3),
    k=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    num_candidates=st.just(0) | st.integers(0, 90) | st.integers(0, 2**32 - 1),
    filters=st.lists(any_filter, max_size=1),
    objective=st.just("") | text,
    include_seen=st.booleans(),
    fields=st.lists(text, max_size=2),
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
    weights=st.just([]) | weights,
    slate=slate,
)
rerank_request = st.builds(
    retrieval_service_pb2.RerankRequest,
    queries=st.lists(query, min_size=1, max_size=2),
    item_ids=st.lists(text | st.sampled_from([item_id(r) for r in range(9)]), max_size=6),
    counts=st.lists(st.integers(0, 6) | st.integers(0, 2**32 - 1), min_size=1, max_size=2),
    k=st.just(0) | st.integers(0, 2**32 - 1),
    fields=st.lists(text, max_size=2),
    weights=st.just([]) | weights,
    slate=slate,
)
feature = st.builds(
    types_pb2.Feature, name=text | st.just("price"), number=st.floats()
) | st.builds(
    types_pb2.Feature, name=st.sampled_from(["craft", "title"]), vector=st.binary(max_size=9)
)
embed_items_request = st.builds(
    retrieval_service_pb2.EmbedItemsRequest,
    item_ids=st.lists(text, max_size=3),
    items=st.lists(
        st.builds(
            retrieval_service_pb2.ItemFeatures,
            kind=st.just("video") | text,
            features=st.lists(feature, max_size=2),
        ),
        max_size=2,
    ),
)
anything = st.one_of(
    st.tuples(st.just("Retrieve"), retrieve_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("FindSimilar"), similar_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("EmbedUsers"), embed_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("Recommend"), recommend_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("Rerank"), rerank_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("EmbedItems"), embed_items_request.map(lambda m: m.SerializeToString())),
    st.tuples(
        st.just("ListUsers"),
        st.builds(
            admin_service_pb2.ListUsersRequest,
            page_size=st.integers(0, 2**32 - 1) | st.just(3),
            page_token=text | st.integers().map(str),
        ).map(lambda m: m.SerializeToString()),
    ),
    st.tuples(st.sampled_from(sorted(ADMIN | RETRIEVAL)), st.binary(max_size=60)),
)


@settings(
    max_examples=800,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(anything)
def test_whatever_comes_in_the_answer_is_documented(
    call: Callable[..., Any], message: tuple[str, bytes]
) -> None:
    status, detail, _ = call(*message)
    if status is not grpc.StatusCode.OK:
        assert detail.code in {name for name, _ in TABLE.values()} - {"INTERNAL"}, detail
        assert status is next(s for name, s in TABLE.values() if name == detail.code)
        assert "Traceback" not in detail.message


def test_nothing_of_it_was_a_defect(value_server: Served) -> None:
    assert value_server.process.poll() is None
    for line in value_server.log_lines():
        assert line["event"] not in ("defect", "worker died, restarting"), line


def test_every_exception_has_a_status_and_is_documented() -> None:
    ours = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PenchantError)
    } - {PenchantError}
    assert ours <= set(TABLE)
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for exception, (name, status) in TABLE.items():
        line = next((line for line in page.splitlines() if f"`{name}`" in line), "")
        assert f"`{exception.__name__}`" in line, name
        assert status.name in line, name


@pytest.mark.parametrize("exception", TABLE)
def test_exceptions_survive_the_wire(exception: type[PenchantError]) -> None:
    error = exception("what happened")
    if isinstance(error, BadRequest):
        error.field = "queries[2]"
    if isinstance(error, errors.Overloaded):
        error.retry_after = 0.25
    status, detail = to_status(error)
    back = from_status(status, str(error), detail.SerializeToString())
    assert type(back) is exception and str(back) == "what happened"
    assert vars(back) == vars(error)


def test_an_exception_of_a_later_version_has_its_parents_status() -> None:
    class Novel(BadVector):
        pass

    status, detail = to_status(Novel("x"))
    assert (status, detail.code) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_VECTOR")


def test_docs_name_only_files_that_exist() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:serving|model|docs|protos)/[\w./]+)`", page):
        assert Path(ROOT / path).exists(), path


def test_every_limit_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for name, value in dataclasses.asdict(Limits()).items():
        assert f"| `{name}` | {value:,} |" in page, name
