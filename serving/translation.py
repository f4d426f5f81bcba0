"""The client's calls: which RPC, what it says, and how its response becomes an answer.

Sends nothing itself. Messages are made in serving/client_messages.py and read in
serving/client_answers.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, cast

import numpy as np
from google.protobuf.message import Message

from interest.v1 import admin_service_pb2, ingest_service_pb2, retrieval_service_pb2
from serving.client_answers import (
    read_deleted,
    read_embedded,
    read_embedded_items,
    read_found,
    read_recommended,
    read_recorded,
    read_retrieved,
    read_status,
    read_user_page,
)
from serving.client_messages import (
    Users,
    event_messages,
    feature_message,
    filter_messages,
    message,
    query_messages,
    ranking_messages,
    vectors_message,
)
from serving.domain import Event, Filter, FloatArray, ItemFeatures, SlateRules, UserQuery
from serving.errors import BadRequest
from serving.results import (
    Deleted,
    Embedded,
    EmbeddedItems,
    Found,
    Recommended,
    Recorded,
    Retrieved,
    ServerStatus,
    UserPage,
)

DEFAULT_K = 20

Answer = TypeVar("Answer")


class RetrieveOptions(TypedDict, total=False):
    """What `retrieve` may be told; meanings as in retrieval_service.proto. k: 20 unless given."""

    k: int
    filters: Sequence[Filter]
    objective: str
    exclude_seen: bool
    fields: Sequence[str]
    num_history: int
    time_us: int


class RerankOptions(TypedDict, total=False):
    """What `rerank` may be told; meanings as in retrieval_service.proto. k: all unless given."""

    k: int
    objective: str
    fields: Sequence[str]
    time_us: int
    weights: Mapping[str, float]
    slate: SlateRules
    explain: bool
    language: str


class RecommendOptions(RerankOptions, total=False):
    """What `recommend` may be told; meanings as in retrieval_service.proto. k: 20 unless given."""

    num_candidates: int
    filters: Sequence[Filter]
    include_seen: bool


class SimilarOptions(TypedDict, total=False):
    """What `find_similar` may be told; as in retrieval_service.proto. k: 20 unless given."""

    k: int
    filters: Sequence[Filter]
    exclude_item_ids: Sequence[str]
    fields: Sequence[str]


class EmbedOptions(TypedDict, total=False):
    """What `embed_users` may be told; meanings as in retrieval_service.proto."""

    objective: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One RPC: where it goes, what it says, and how its response becomes an answer."""

    path: str
    request: Message
    response: type[Message]
    translate: Callable[[Any], Answer]


@dataclass(frozen=True, slots=True)
class Stream:
    """An RPC of streams: where it goes, and what it answers with."""

    path: str
    response: type[Message]


def retrieve_call(users: Users, options: RetrieveOptions) -> Call[Retrieved]:
    """Retrieve. Raises BadRequest for what no message can say (k of -1)."""
    rest = dict(options)
    request = message(
        retrieval_service_pb2.RetrieveRequest,
        queries=query_messages(users),
        filters=filter_messages(options.get("filters", ())),
        k=rest.pop("k", DEFAULT_K),
        **{name: value for name, value in rest.items() if name != "filters"},
    )
    return Call(
        "/interest.v1.RetrievalService/Retrieve",
        request,
        retrieval_service_pb2.RetrieveResponse,
        read_retrieved,
    )


def recommend_call(users: Users, options: RecommendOptions) -> Call[Recommended]:
    """Recommend. Raises BadRequest for what no message can say."""
    rest: dict[str, Any] = dict(options)
    request = message(
        retrieval_service_pb2.RecommendRequest,
        queries=query_messages(users),
        filters=filter_messages(rest.pop("filters", ())),
        k=rest.pop("k", DEFAULT_K),
        **ranking_messages(rest),
    )
    return Call(
        "/interest.v1.RetrievalService/Recommend",
        request,
        retrieval_service_pb2.RecommendResponse,
        read_recommended,
    )


def rerank_call(
    users: Users, item_ids: Sequence[str] | Sequence[Sequence[str]], options: RerankOptions
) -> Call[Recommended]:
    """Rerank. Raises BadRequest for what no message can say."""
    one = isinstance(users, str | UserQuery)
    lists = cast("Sequence[Sequence[str]]", [item_ids] if one else item_ids)
    for candidates in lists:
        if isinstance(candidates, str):
            given = "a list of items" if one else "a list of items for each user"
            raise BadRequest(f"{candidates!r:.80} is one string; give {given}", field="item_ids")
    request = message(
        retrieval_service_pb2.RerankRequest,
        queries=query_messages(users),
        item_ids=[item_id for candidates in lists for item_id in candidates],
        counts=[len(candidates) for candidates in lists],
        **ranking_messages(dict(options)),
    )
    return Call(
        "/interest.v1.RetrievalService/Rerank",
        request,
        retrieval_service_pb2.RecommendResponse,
        read_recommended,
    )


def embed_items_call(items: str | Sequence[str | ItemFeatures]) -> Call[EmbeddedItems]:
    """EmbedItems, by ids or by features. Raises BadRequest for what no message can say."""
    batch = [items] if isinstance(items, str) else list(items)
    ids = [item for item in batch if isinstance(item, str)]
    described = [item for item in batch if isinstance(item, ItemFeatures)]
    if len(ids) + len(described) < len(batch):
        raise BadRequest("an item is neither a str nor an ItemFeatures", field="items")
    if ids and described:
        raise BadRequest("give ids or features, not both", field="items")
    request = message(
        retrieval_service_pb2.EmbedItemsRequest,
        item_ids=ids,
        items=[
            message(
                retrieval_service_pb2.ItemFeatures,
                kind=item.kind,
                features=[feature_message(name, value) for name, value in item.features.items()],
            )
            for item in described
        ],
    )
    return Call(
        "/interest.v1.RetrievalService/EmbedItems",
        request,
        retrieval_service_pb2.EmbedItemsResponse,
        read_embedded_items,
    )


def find_similar_call(
    items: str | Sequence[str] | FloatArray, options: SimilarOptions
) -> Call[Found]:
    """FindSimilar. Raises BadRequest for what no message can say."""
    rest = dict(options)
    given: dict[str, Any] = (
        {"vectors": vectors_message(items)}
        if isinstance(items, np.ndarray)
        else {"item_ids": [items] if isinstance(items, str) else items}
    )
    request = message(
        retrieval_service_pb2.FindSimilarRequest,
        filters=filter_messages(options.get("filters", ())),
        k=rest.pop("k", DEFAULT_K),
        **{name: value for name, value in rest.items() if name != "filters"},
        **given,
    )
    return Call(
        "/interest.v1.RetrievalService/FindSimilar",
        request,
        retrieval_service_pb2.FindSimilarResponse,
        lambda response: Found(**read_found(response)),
    )


def embed_users_call(users: Users, options: EmbedOptions) -> Call[Embedded]:
    """EmbedUsers. Raises BadRequest for what no message can say."""
    request = message(
        retrieval_service_pb2.EmbedUsersRequest, queries=query_messages(users), **options
    )
    return Call(
        "/interest.v1.RetrievalService/EmbedUsers",
        request,
        retrieval_service_pb2.EmbedUsersResponse,
        read_embedded,
    )


def record_events_call(events: Event | Sequence[Event]) -> Call[Recorded]:
    """RecordEvents. Raises BadRequest for what no message can say."""
    batch = [events] if isinstance(events, Event) else events
    return Call(
        "/interest.v1.IngestService/RecordEvents",
        ingest_service_pb2.RecordEventsRequest(events=event_messages(batch)),
        ingest_service_pb2.RecordEventsResponse,
        read_recorded,
    )


STREAM_EVENTS = Stream(
    "/interest.v1.IngestService/StreamEvents", ingest_service_pb2.StreamEventsResponse
)


def stream_events_request(sequence: int, events: Sequence[ingest_service_pb2.Event]) -> Message:
    """One message of StreamEvents."""
    return ingest_service_pb2.StreamEventsRequest(sequence=sequence, events=events)


def delete_user_call(user_id: str) -> Call[Deleted]:
    """DeleteUser."""
    return Call(
        "/interest.v1.IngestService/DeleteUser",
        message(ingest_service_pb2.DeleteUserRequest, user_id=user_id),
        ingest_service_pb2.DeleteUserResponse,
        read_deleted,
    )


def status_call() -> Call[ServerStatus]:
    """GetStatus."""
    return Call(
        "/interest.v1.AdminService/GetStatus",
        admin_service_pb2.GetStatusRequest(),
        admin_service_pb2.GetStatusResponse,
        read_status,
    )


def list_users_call(page_size: int, page_token: str) -> Call[UserPage]:
    """ListUsers."""
    return Call(
        "/interest.v1.AdminService/ListUsers",
        message(admin_service_pb2.ListUsersRequest, page_size=page_size, page_token=page_token),
        admin_service_pb2.ListUsersResponse,
        read_user_page,
    )
