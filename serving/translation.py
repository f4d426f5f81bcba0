"""The client's side of the wire: questions to protos, answers to numpy. Sends nothing itself.

The server's side is serving/servicer.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, cast

import numpy as np
from google.protobuf.message import Message

from interest.v1 import admin_service_pb2, retrieval_service_pb2, types_pb2
from serving.domain import (
    AnyOf,
    FeatureValue,
    Filter,
    FloatArray,
    ItemFeatures,
    Not,
    PartError,
    Range,
    SlateRules,
    UserQuery,
)
from serving.errors import BadRequest, BadVector
from serving.results import (
    ColumnValues,
    Embedded,
    EmbeddedItems,
    Found,
    Recommended,
    Retrieved,
    ServerStatus,
    ShownHistory,
    Source,
    UserPage,
)

DEFAULT_K = 20

Users = str | UserQuery | Sequence[str | UserQuery]
"""Who is asking: a user id, a UserQuery (history or vectors), or a batch of those."""
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


def retrieve_call(users: Users, options: RetrieveOptions) -> Call[Retrieved]:
    """Retrieve. Raises BadRequest for what no message can say (k of -1)."""
    rest = dict(options)
    request = _built(
        retrieval_service_pb2.RetrieveRequest,
        queries=_users(users),
        filters=_filters(options.get("filters", ())),
        k=rest.pop("k", DEFAULT_K),
        **{name: value for name, value in rest.items() if name != "filters"},
    )
    return Call(
        "/interest.v1.RetrievalService/Retrieve",
        request,
        retrieval_service_pb2.RetrieveResponse,
        _retrieved,
    )


def recommend_call(users: Users, options: RecommendOptions) -> Call[Recommended]:
    """Recommend. Raises BadRequest for what no message can say."""
    rest: dict[str, Any] = dict(options)
    request = _built(
        retrieval_service_pb2.RecommendRequest,
        queries=_users(users),
        filters=_filters(rest.pop("filters", ())),
        k=rest.pop("k", DEFAULT_K),
        **_ranking(rest),
    )
    return Call(
        "/interest.v1.RetrievalService/Recommend",
        request,
        retrieval_service_pb2.RecommendResponse,
        _recommended,
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
    request = _built(
        retrieval_service_pb2.RerankRequest,
        queries=_users(users),
        item_ids=[item_id for candidates in lists for item_id in candidates],
        counts=[len(candidates) for candidates in lists],
        **_ranking(dict(options)),
    )
    return Call(
        "/interest.v1.RetrievalService/Rerank",
        request,
        retrieval_service_pb2.RecommendResponse,
        _recommended,
    )


def embed_items_call(items: str | Sequence[str | ItemFeatures]) -> Call[EmbeddedItems]:
    """EmbedItems, by ids or by features. Raises BadRequest for what no message can say."""
    batch = [items] if isinstance(items, str) else list(items)
    ids = [item for item in batch if isinstance(item, str)]
    described = [item for item in batch if isinstance(item, ItemFeatures)]
    if ids and described:
        raise BadRequest("give ids or features, not both", field="items")
    request = _built(
        retrieval_service_pb2.EmbedItemsRequest,
        item_ids=ids,
        items=[
            retrieval_service_pb2.ItemFeatures(
                kind=item.kind,
                features=[_feature(name, value) for name, value in item.features.items()],
            )
            for item in described
        ],
    )
    return Call(
        "/interest.v1.RetrievalService/EmbedItems",
        request,
        retrieval_service_pb2.EmbedItemsResponse,
        lambda response: EmbeddedItems(
            vectors=np.frombuffer(response.vectors.data, "<f4").reshape(-1, response.vectors.dim),
            source=_source(response.info),
        ),
    )


def find_similar_call(
    items: str | Sequence[str] | FloatArray, options: SimilarOptions
) -> Call[Found]:
    """FindSimilar. Raises BadRequest for what no message can say."""
    rest = dict(options)
    given: dict[str, Any] = (
        {"vectors": _vectors(items)}
        if isinstance(items, np.ndarray)
        else {"item_ids": [items] if isinstance(items, str) else items}
    )
    request = _built(
        retrieval_service_pb2.FindSimilarRequest,
        filters=_filters(options.get("filters", ())),
        k=rest.pop("k", DEFAULT_K),
        **{name: value for name, value in rest.items() if name != "filters"},
        **given,
    )
    return Call(
        "/interest.v1.RetrievalService/FindSimilar",
        request,
        retrieval_service_pb2.FindSimilarResponse,
        lambda response: Found(**_found(response)),
    )


def embed_users_call(users: Users, options: EmbedOptions) -> Call[Embedded]:
    """EmbedUsers. Raises BadRequest for what no message can say."""
    request = _built(retrieval_service_pb2.EmbedUsersRequest, queries=_users(users), **options)
    return Call(
        "/interest.v1.RetrievalService/EmbedUsers",
        request,
        retrieval_service_pb2.EmbedUsersResponse,
        _embedded,
    )


def status_call() -> Call[ServerStatus]:
    """GetStatus."""
    return Call(
        "/interest.v1.AdminService/GetStatus",
        admin_service_pb2.GetStatusRequest(),
        admin_service_pb2.GetStatusResponse,
        _status,
    )


def list_users_call(page_size: int, page_token: str) -> Call[UserPage]:
    """ListUsers."""
    return Call(
        "/interest.v1.AdminService/ListUsers",
        _built(admin_service_pb2.ListUsersRequest, page_size=page_size, page_token=page_token),
        admin_service_pb2.ListUsersResponse,
        lambda response: UserPage(
            source=_source(response.info),
            user_ids=tuple(response.user_ids),
            num_events=np.array(response.num_events, np.int64),
            next_page_token=response.next_page_token,
        ),
    )


def _ranking(options: dict[str, Any]) -> dict[str, Any]:
    """Options of ranking as a message has them; the others stay as they are."""
    weights, slate = options.pop("weights", {}), options.pop("slate", SlateRules())
    return {
        **options,
        "weights": [
            _built(retrieval_service_pb2.ValueWeight, head=head, weight=weight)
            for head, weight in weights.items()
        ],
        "slate": _built(
            retrieval_service_pb2.Slate,
            diversity=slate.diversity,
            caps=[
                _built(retrieval_service_pb2.Cap, field=cap.field, most=cap.most)
                for cap in slate.caps
            ],
            kinds=[
                _built(retrieval_service_pb2.KindShare, kind=kind.kind, share=kind.share)
                for kind in slate.kinds
            ],
        ),
    }


_LISTS = ("fields", "item_ids", "exclude_item_ids")
"""What protobuf would take a string's letters for."""


def _built(message: Callable[..., Message], **values: Any) -> Message:
    for name, value in values.items():
        if isinstance(value, str) and name in _LISTS:
            raise BadRequest(f"{value!r:.80} is one string; give a list", field=name)
    try:
        return message(**values)
    except (TypeError, ValueError) as error:  # protobuf's own check of types and ranges
        raise BadRequest(str(error)) from None


def _users(users: Users) -> list[retrieval_service_pb2.UserQuery]:
    batch = [users] if isinstance(users, str | UserQuery) else users
    return [_query(user) for user in batch]


def _query(user: str | UserQuery) -> retrieval_service_pb2.UserQuery:
    if isinstance(user, str):
        return retrieval_service_pb2.UserQuery(user_id=user)
    query = retrieval_service_pb2.UserQuery(
        user_id=user.user_id,
        profile=[_feature(name, value) for name, value in user.profile.items()],
        exclude_item_ids=user.exclude_item_ids,
    )
    if user.history is not None:
        query.history.SetInParent()  # an empty history is one, too
        query.history.item_ids.extend(user.history.item_ids)
        query.history.events.extend(user.history.events)
        query.history.timestamps_us.extend(
            np.asarray(user.history.timestamps_us, np.int64).tolist()
        )
    if user.vectors is not None:
        query.vectors.CopyFrom(_vectors(user.vectors))
    return query


def _vectors(vectors: FloatArray) -> types_pb2.Vectors:
    """[n, D] float32."""
    array = np.asarray(vectors, "<f4")
    if array.ndim != 2:
        raise BadVector(f"vectors of shape {array.shape}; give [number of vectors, dimension]")
    return types_pb2.Vectors(data=array.tobytes(), dim=array.shape[1])


def _feature(name: str, value: FeatureValue) -> types_pb2.Feature:
    if isinstance(value, str):
        return types_pb2.Feature(name=name, category=value)
    if isinstance(value, float | int):
        return types_pb2.Feature(name=name, number=value)
    if isinstance(value, np.ndarray):
        return types_pb2.Feature(name=name, vector=np.asarray(value, "<f4").tobytes())
    return types_pb2.Feature(name=name, categories=types_pb2.StringList(values=value))


def _filters(filters: Sequence[Filter]) -> list[types_pb2.Filter]:
    if isinstance(filters, AnyOf | Range | Not):
        raise BadRequest("one filter; give a list of them", field="filters")
    return [_filter(filter_) for filter_ in filters]


def _filter(filter_: Filter) -> types_pb2.Filter:
    if isinstance(filter_, AnyOf):
        if isinstance(filter_.values, str):
            raise BadRequest(f"{filter_.values!r:.80} is one string; give a tuple", field="filters")
        return types_pb2.Filter(any_of=types_pb2.AnyOf(field=filter_.field, values=filter_.values))
    if isinstance(filter_, Range):
        return types_pb2.Filter(
            range=types_pb2.Range(field=filter_.field, min=filter_.min, max=filter_.max)
        )
    if not isinstance(filter_, Not):
        raise BadRequest(f"{filter_!r:.80} is no filter; give AnyOf, Range or Not", field="filters")
    return types_pb2.Filter(negation=_filter(filter_.filter))


def _retrieved(response: retrieval_service_pb2.RetrieveResponse) -> Retrieved:
    history = None
    if response.HasField("history"):
        shown = response.history
        history = ShownHistory(
            item_ids=list(shown.item_ids),
            events=list(shown.events),
            timestamps_us=np.array(shown.timestamps_us, np.int64),
            counts=np.array(shown.counts, np.int64),
            columns=_columns(shown.columns),
        )
    return Retrieved(
        **_found(response),
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        history=history,
        errors=_errors(response.errors),
    )


def _recommended(response: retrieval_service_pb2.RecommendResponse) -> Recommended:
    why = response.provenance
    heads, reasons = list(why.heads), list(why.reason_names)
    chances = np.array(why.chances, np.float32).reshape(-1, max(len(heads), 1))
    return Recommended(
        **_found(response),
        values=np.array(why.values, np.float32),
        chances={head: chances[:, i] for i, head in enumerate(heads)},
        retrieval_ranks=np.array(why.retrieval_ranks, np.int64),
        value_ranks=np.array(why.value_ranks, np.int64),
        reasons=[reasons[reason] for reason in why.reasons],
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        errors=_errors(response.errors),
    )


def _found(
    response: retrieval_service_pb2.RetrieveResponse
    | retrieval_service_pb2.RecommendResponse
    | retrieval_service_pb2.FindSimilarResponse,
) -> dict[str, Any]:
    """The fields of Found."""
    candidates = response.candidates
    names = list(candidates.circle_names)
    return {
        "item_ids": list(candidates.item_ids),
        "scores": np.array(candidates.scores, np.float32),
        "counts": np.array(candidates.counts, np.int64),
        "interests": np.array(candidates.interests, np.int64),
        "circles": [names[circle] for circle in candidates.circles],
        "columns": _columns(candidates.columns),
        "source": _source(response.info),
    }


def _embedded(response: retrieval_service_pb2.EmbedUsersResponse) -> Embedded:
    flat = np.frombuffer(response.interests.data, "<f4")
    return Embedded(
        interests=flat.reshape(-1, response.num_interests, response.interests.dim),
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        errors=_errors(response.errors),
        source=_source(response.info),
    )


def _status(response: admin_service_pb2.GetStatusResponse) -> ServerStatus:
    def plain(message: Message) -> dict[str, Any]:
        return {
            field.name: list(value) if field.is_repeated else value
            for field in message.DESCRIPTOR.fields
            for value in [getattr(message, field.name)]
        }

    return ServerStatus(
        source=_source(response.info),
        server_version=response.server_version,
        uptime_seconds=response.uptime_seconds,
        bundle=plain(response.bundle),
        store=plain(response.store),
        limits=plain(response.limits),
    )


def _source(info: types_pb2.AnswerInfo) -> Source:
    return Source(
        bundle_version=info.bundle_version,
        worker=info.worker,
        left_out=tuple(info.left_out),
    )


def _errors(errors: Sequence[types_pb2.ItemError]) -> tuple[PartError, ...]:
    return tuple(PartError(e.index, e.code, e.field, e.message) for e in errors)


def _columns(columns: Sequence[types_pb2.Column]) -> Mapping[str, ColumnValues]:
    return {column.field: _values(column) for column in columns}


def _values(column: types_pb2.Column) -> ColumnValues:
    match column.WhichOneof("values"):
        case "numbers":
            return np.array(column.numbers.values, np.float64)
        case "lists":
            ends = np.cumsum(column.lists.counts, dtype=np.int64).tolist()
            starts = [0, *ends[:-1]]
            values = list(column.lists.values)
            return [values[start:end] for start, end in zip(starts, ends, strict=True)]
        case _:
            return list(column.strings.values)
