"""The client's side of the wire, inwards: messages to lists and numpy arrays.

The server writes them in serving/response_protos.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import Message

from interest.v1 import admin_service_pb2, ingest_service_pb2, retrieval_service_pb2, types_pb2
from serving.domain import PartError
from serving.results import (
    ColumnValues,
    Deleted,
    Embedded,
    EmbeddedItems,
    Recommended,
    Recorded,
    Retrieved,
    ServerStatus,
    ShownHistory,
    Source,
    UserPage,
)


def read_retrieved(response: retrieval_service_pb2.RetrieveResponse) -> Retrieved:
    """Retrieve."""
    history = None
    if response.HasField("history"):
        shown = response.history
        history = ShownHistory(
            item_ids=list(shown.item_ids),
            events=list(shown.events),
            timestamps_us=np.array(shown.timestamps_us, np.int64),
            counts=np.array(shown.counts, np.int64),
            columns=read_columns(shown.columns),
        )
    return Retrieved(
        **read_found(response),
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        history=history,
        errors=part_errors(response.errors),
    )


def read_recommended(response: retrieval_service_pb2.RecommendResponse) -> Recommended:
    """Recommend and Rerank."""
    why = response.provenance
    heads, reasons = list(why.heads), list(why.reason_names)
    chances = np.array(why.chances, np.float32).reshape(-1, max(len(heads), 1))
    costs = np.array(why.costs, np.float32).reshape(-1, max(len(why.cost_names), 1))
    return Recommended(
        **read_found(response),
        values=np.array(why.values, np.float32),
        chances={head: chances[:, i] for i, head in enumerate(heads)},
        retrieval_ranks=np.array(why.retrieval_ranks, np.int64),
        value_ranks=np.array(why.value_ranks, np.int64),
        reasons=[reasons[reason] for reason in why.reasons],
        explanations=[why.explanation_texts[place] for place in why.explanations],
        best_values=np.array(why.best_values, np.float32),
        costs={step: costs[:, i] for i, step in enumerate(why.cost_names)},
        paced_shares=list(why.paced_shares),
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        errors=part_errors(response.errors),
    )


def read_found(
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
        "origins": [candidates.origin_names[origin] for origin in candidates.origins],
        "columns": read_columns(candidates.columns),
        "source": read_source(response.info),
    }


def read_embedded(response: retrieval_service_pb2.EmbedUsersResponse) -> Embedded:
    """EmbedUsers."""
    flat = np.frombuffer(response.interests.data, "<f4")
    return Embedded(
        interests=flat.reshape(-1, response.num_interests, response.interests.dim),
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        errors=part_errors(response.errors),
        source=read_source(response.info),
    )


def read_status(response: admin_service_pb2.GetStatusResponse) -> ServerStatus:
    """GetStatus."""

    def plain(message: Message) -> dict[str, Any]:
        return {
            field.name: list(value) if field.is_repeated else value
            for field in message.DESCRIPTOR.fields
            for value in [getattr(message, field.name)]
        }

    return ServerStatus(
        source=read_source(response.info),
        server_version=response.server_version,
        uptime_seconds=response.uptime_seconds,
        bundle=plain(response.bundle),
        store=plain(response.store),
        limits=plain(response.limits),
        live=plain(response.live),
    )


def read_recorded(response: ingest_service_pb2.RecordEventsResponse) -> Recorded:
    """RecordEvents."""
    return Recorded(
        num_taken=response.num_taken,
        num_duplicates=response.num_duplicates,
        errors=part_errors(response.errors),
        source=read_source(response.info),
    )


def read_deleted(response: ingest_service_pb2.DeleteUserResponse) -> Deleted:
    """DeleteUser."""
    return Deleted(existed=response.existed, source=read_source(response.info))


def read_source(info: types_pb2.AnswerInfo) -> Source:
    """Where an answer came from."""
    return Source(
        bundle_version=info.bundle_version,
        worker=info.worker,
        left_out=tuple(info.left_out),
    )


def part_errors(errors: Sequence[types_pb2.ItemError]) -> tuple[PartError, ...]:
    """What was left aside, or refused."""
    return tuple(PartError(e.index, e.code, e.field, e.message) for e in errors)


def read_columns(columns: Sequence[types_pb2.Column]) -> Mapping[str, ColumnValues]:
    """Item columns by their names."""
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


def read_embedded_items(response: retrieval_service_pb2.EmbedItemsResponse) -> EmbeddedItems:
    """EmbedItems."""
    vectors = np.frombuffer(response.vectors.data, "<f4").reshape(-1, response.vectors.dim)
    return EmbeddedItems(vectors=vectors, source=read_source(response.info))


def read_user_page(response: admin_service_pb2.ListUsersResponse) -> UserPage:
    """ListUsers."""
    return UserPage(
        source=read_source(response.info),
        user_ids=tuple(response.user_ids),
        num_events=np.array(response.num_events, np.int64),
        next_page_token=response.next_page_token,
    )
