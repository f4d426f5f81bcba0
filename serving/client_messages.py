"""The client's side of the wire, outwards: questions to messages. Sends nothing itself.

The server reads them in serving/request_protos.py.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from google.protobuf.message import Message

from interest.v1 import ingest_service_pb2, retrieval_service_pb2, types_pb2
from serving.domain import (
    AnyOf,
    Event,
    ExposureFloor,
    FeatureValue,
    Filter,
    FloatArray,
    History,
    NewItems,
    Not,
    Range,
    SlateRules,
    SmallCreators,
    UserQuery,
)
from serving.errors import BadRequest, BadVector

Users = str | UserQuery | Sequence[str | UserQuery]
"""Who is asking: a user id, a UserQuery (history or vectors), or a batch of those."""


def ranking_messages(options: dict[str, Any]) -> dict[str, Any]:
    """Options of ranking as a message has them; the others stay as they are."""
    weights, slate = options.pop("weights", {}), options.pop("slate", SlateRules())
    return {
        **options,
        "weights": [
            message(retrieval_service_pb2.ValueWeight, head=head, weight=weight)
            for head, weight in weights.items()
        ],
        "slate": message(
            retrieval_service_pb2.Slate,
            diversity=slate.diversity,
            caps=[
                message(retrieval_service_pb2.Cap, field=cap.field, most=cap.most)
                for cap in slate.caps
            ],
            kinds=[
                message(retrieval_service_pb2.KindShare, kind=kind.kind, share=kind.share)
                for kind in slate.kinds
            ],
            method=slate.method,
            window=slate.window,
            floors=[_floor(floor) for floor in slate.floors],
            exploration=slate.exploration,
            seed=slate.seed,
            origins=[
                message(retrieval_service_pb2.OriginShare, origin=one.origin, share=one.share)
                for one in slate.origins
            ],
        ),
    }


def _floor(floor: ExposureFloor) -> Message:
    group = floor.group
    given: dict[str, Message]
    if isinstance(group, NewItems):
        given = {
            "new_items": message(
                retrieval_service_pb2.NewItems,
                max_age_days=group.max_age_days,
                max_events=group.max_events,
            )
        }
    elif isinstance(group, SmallCreators):
        given = {
            "small_creators": message(
                retrieval_service_pb2.SmallCreators, field=group.field, tail=group.tail
            )
        }
    else:
        given = {"filter": _filter(group)}
    return message(
        retrieval_service_pb2.ExposureFloor,
        share=floor.share,
        paced=floor.paced,
        least=floor.least,
        **given,
    )


_LISTS = ("fields", "item_ids", "exclude_item_ids", "events", "timestamps_us")
"""What protobuf would take a string's letters for."""


def message(kind: Callable[..., Message], /, **values: Any) -> Message:
    """A message of these fields. Raises BadRequest for values that it cannot hold."""
    for name, value in values.items():
        if isinstance(value, str) and name in _LISTS:
            raise BadRequest(f"{value!r:.80} is one string; give a list", field=name)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:  # protobuf's own check of types and ranges
        raise BadRequest(str(error)) from None


def query_messages(users: Users) -> list[Message]:
    """Who is asking, a message each."""
    batch = [users] if isinstance(users, str | UserQuery) else users
    return [_query(user) for user in batch]


def _query(user: str | UserQuery) -> Message:
    if isinstance(user, str):
        return message(retrieval_service_pb2.UserQuery, user_id=user)
    if not isinstance(user, UserQuery):
        raise BadRequest(f"{user!r:.80} is no user; give a user id or a UserQuery", field="queries")
    vectors = user.vectors
    return message(
        retrieval_service_pb2.UserQuery,
        user_id=user.user_id,
        profile=[feature_message(name, value) for name, value in user.profile.items()],
        exclude_item_ids=user.exclude_item_ids,
        # An empty history is one, too.
        history=None if user.history is None else _history(user.history),
        moment=None if user.moment is None else _history(user.moment),
        vectors=None if vectors is None else vectors_message(vectors),
    )


def _history(history: History) -> Message:
    return message(
        types_pb2.History,
        item_ids=history.item_ids,
        events=history.events,
        timestamps_us=np.asarray(history.timestamps_us, np.int64).tolist(),
    )


def event_messages(events: Sequence[Event]) -> list[ingest_service_pb2.Event]:
    """Events, each with an id: one that has none is given one, by which it is taken once however
    often it is sent."""
    return [
        cast(
            "ingest_service_pb2.Event",
            message(
                ingest_service_pb2.Event,
                event_id=event.event_id or uuid.uuid4().hex,
                user_id=event.user_id,
                item_id=event.item_id,
                event=event.event,
                timestamp_us=event.timestamp_us,
                sequence=event.sequence,
                value=event.value,
                exposure_id=event.exposure_id,
                source_item_id=event.source_item_id,
                position=event.position,
                propensity=event.propensity,
            ),
        )
        for event in events
    ]


def vectors_message(vectors: FloatArray) -> types_pb2.Vectors:
    """[n, D] float32."""
    array = np.asarray(vectors, "<f4")
    if array.ndim != 2:
        raise BadVector(f"vectors of shape {array.shape}; give [number of vectors, dimension]")
    return types_pb2.Vectors(data=array.tobytes(), dim=array.shape[1])


def feature_message(name: str, value: FeatureValue | None) -> Message:
    """One feature; the server knows whether a text is a category. None: it has no value."""
    if value is None:
        return message(types_pb2.Feature, name=name)
    if isinstance(value, str):
        return message(types_pb2.Feature, name=name, category=value)
    if isinstance(value, float | int):
        return message(types_pb2.Feature, name=name, number=value)
    if isinstance(value, np.ndarray):
        return message(types_pb2.Feature, name=name, vector=np.asarray(value, "<f4").tobytes())
    values = message(types_pb2.StringList, values=value)
    return message(types_pb2.Feature, name=name, categories=values)


def filter_messages(filters: Sequence[Filter]) -> list[Message]:
    """The filters, which must all hold. Raises BadRequest for what is none."""
    if isinstance(filters, AnyOf | Range | Not):
        raise BadRequest("one filter; give a list of them", field="filters")
    return [_filter(filter_) for filter_ in filters]


def _filter(filter_: Filter) -> Message:
    if isinstance(filter_, AnyOf):
        if isinstance(filter_.values, str):
            raise BadRequest(f"{filter_.values!r:.80} is one string; give a tuple", field="filters")
        any_of = message(types_pb2.AnyOf, field=filter_.field, values=filter_.values)
        return message(types_pb2.Filter, any_of=any_of)
    if isinstance(filter_, Range):
        span = message(types_pb2.Range, field=filter_.field, min=filter_.min, max=filter_.max)
        return message(types_pb2.Filter, range=span)
    if not isinstance(filter_, Not):
        raise BadRequest(f"{filter_!r:.80} is no filter; give AnyOf, Range or Not", field="filters")
    return message(types_pb2.Filter, negation=_filter(filter_.filter))
