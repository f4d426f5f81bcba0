"""Protos to questions, answers to protos; nothing else.

The packing of answers is on the hot path: whole Python lists go into repeated fields at once.
"""

import dataclasses
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interest.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
    types_pb2,
)
from model.histories import NO_TIME
from serving.domain import (
    AnyOf,
    Candidates,
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
from serving.errors import BadRequest, BadVector
from serving.generation import Generation
from serving.metrics import CANDIDATES, COLD
from serving.pipeline import Answer
from serving.readers import MAX_ERRORS, Reader
from serving.runtime import Runtime

DEFAULT_DEADLINE = 5.0
"""Seconds that a call without a deadline of its own may take."""


class Context(Protocol):
    """What a servicer needs of a gRPC context."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline."""


class RetrievalServicer(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """interest.v1.RetrievalService over one runtime."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime = runtime
        self._info = types_pb2.AnswerInfo(bundle_version=runtime.generation.version, worker=worker)

    def Retrieve(  # noqa: N802
        self, request: retrieval_service_pb2.RetrieveRequest, context: Context
    ) -> retrieval_service_pb2.RetrieveResponse:
        """The items nearest to each user's interests."""
        answer = self._runtime.retrieve(_retrieve(request), deadline=_deadline(context))
        response = self._retrieved(request, answer)
        CANDIDATES.inc(len(response.candidates.item_ids))
        cold = sum(response.cold)
        if cold:
            COLD.inc(cold)
        return response

    def rehearse(self, request: retrieval_service_pb2.RetrieveRequest) -> None:
        """Do what Retrieve does, and count it nowhere: it warms up the code and the caches."""
        self._retrieved(request, self._runtime.rehearse(_retrieve(request)))

    def _retrieved(
        self, request: retrieval_service_pb2.RetrieveRequest, answer: Answer
    ) -> retrieval_service_pb2.RetrieveResponse:
        assert answer.candidates is not None
        response = retrieval_service_pb2.RetrieveResponse(info=self._info)
        _put_candidates(response.candidates, answer.candidates, answer.generation, request.fields)
        _put_readers(response, answer.readers)
        if request.num_history:
            _put_history(response.history, answer.readers, answer.generation, request.fields)
        return response

    def FindSimilar(  # noqa: N802
        self, request: retrieval_service_pb2.FindSimilarRequest, context: Context
    ) -> retrieval_service_pb2.FindSimilarResponse:
        """The items nearest to given items or vectors."""
        answer = self._runtime.similar(
            SimilarRequest(
                item_ids=list(request.item_ids),
                vectors=_vectors(request.vectors, "vectors")
                if request.HasField("vectors")
                else None,
                k=request.k,
                filters=_filters(request.filters),
                exclude_item_ids=list(request.exclude_item_ids),
                fields=tuple(request.fields),
            ),
            deadline=_deadline(context),
        )
        assert answer.candidates is not None
        response = retrieval_service_pb2.FindSimilarResponse(info=self._info)
        _put_candidates(response.candidates, answer.candidates, answer.generation, request.fields)
        CANDIDATES.inc(len(answer.candidates.rows))
        return response

    def EmbedUsers(  # noqa: N802
        self, request: retrieval_service_pb2.EmbedUsersRequest, context: Context
    ) -> retrieval_service_pb2.EmbedUsersResponse:
        """Each user's interest vectors."""
        answer = self._runtime.embed(
            EmbedRequest(
                queries=_queries(request.queries),
                objective=request.objective,
                time_us=request.time_us,
            ),
            deadline=_deadline(context),
        )
        interests = np.stack(answer.vectors)
        response = retrieval_service_pb2.EmbedUsersResponse(
            info=self._info,
            interests=types_pb2.Vectors(
                data=interests.astype("<f4", copy=False).tobytes(), dim=interests.shape[2]
            ),
            num_interests=interests.shape[1],
        )
        _put_readers(response, answer.readers)
        return response


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """interest.v1.AdminService over one runtime."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime, self._worker = runtime, worker

    def GetStatus(  # noqa: N802
        self, request: admin_service_pb2.GetStatusRequest, context: Context
    ) -> admin_service_pb2.GetStatusResponse:
        """The worker that answers, and the bundle that it serves."""
        generation = self._runtime.generation
        bundle, manifest = generation.bundle, generation.bundle.manifest
        return admin_service_pb2.GetStatusResponse(
            info=types_pb2.AnswerInfo(bundle_version=generation.version, worker=self._worker),
            server_version=_release(),
            uptime_seconds=time.monotonic() - self._runtime.ready_at,
            bundle=admin_service_pb2.BundleStatus(
                version=generation.version,
                name=generation.schema.name,
                created=manifest.created.isoformat(),
                as_of=manifest.as_of.isoformat() if manifest.as_of else "",
                num_items=generation.items.num_items,
                num_active=generation.items.num_active,
                dim=bundle.dim,
                num_interests=bundle.num_interests,
                max_history=bundle.max_history,
                num_circles=bundle.circles.num_rows,
                objectives=bundle.objectives,
                history_events=list(generation.event_codes),
                filterable=list(generation.schema.filterable()),
                columns=generation.columns,
            ),
            store=admin_service_pb2.StoreStatus(
                kind="sqlite", num_users=self._runtime.store.num_users()
            ),
            limits=admin_service_pb2.Limits(**dataclasses.asdict(self._runtime.limits)),
        )

    def ListUsers(  # noqa: N802
        self, request: admin_service_pb2.ListUsersRequest, context: Context
    ) -> admin_service_pb2.ListUsersResponse:
        """The users of the store, page by page."""
        users = self._runtime.list_users(request.page_size, request.page_token)
        return admin_service_pb2.ListUsersResponse(
            info=types_pb2.AnswerInfo(
                bundle_version=self._runtime.generation.version, worker=self._worker
            ),
            user_ids=[user_id for _, user_id, _ in users],
            num_events=[num_events for _, _, num_events in users],
            next_page_token=str(users[-1][0]) if len(users) == request.page_size else "",
        )


def _release() -> str:
    try:
        return version("penchant")
    except PackageNotFoundError:
        return "uninstalled"


def _deadline(context: Context) -> float:
    """The call's deadline on time.monotonic()'s clock."""
    remaining = context.time_remaining()
    return time.monotonic() + (DEFAULT_DEADLINE if remaining is None else remaining)


def _retrieve(request: retrieval_service_pb2.RetrieveRequest) -> RetrieveRequest:
    return RetrieveRequest(
        queries=_queries(request.queries),
        k=request.k,
        filters=_filters(request.filters),
        objective=request.objective,
        exclude_seen=request.exclude_seen,
        fields=tuple(request.fields),
        num_history=request.num_history,
        time_us=request.time_us,
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


def _put_candidates(
    target: types_pb2.Candidates,
    candidates: Candidates,
    generation: Generation,
    fields: Sequence[str],
) -> None:
    circles, names = generation.circles_of(candidates.rows)
    target.item_ids.extend(generation.ids_of(candidates.rows))
    target.scores.extend(candidates.scores.tolist())
    target.counts.extend(candidates.counts.tolist())
    target.interests.extend(candidates.interests.tolist())
    target.circles.extend(circles)
    target.circle_names.extend(names)
    for name in fields:
        _put_column(target.columns.add(field=name), generation.column(name, candidates.rows))


def _put_column(target: types_pb2.Column, values: pa.Array) -> None:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        flat = pc.list_flatten(values)
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        target.lists.values.extend(pc.fill_null(flat.cast(pa.string()), "").to_pylist())
        target.lists.counts.extend(lengths.to_pylist())
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64())
        target.numbers.values.extend(pc.fill_null(numbers, float("nan")).to_pylist())
    else:
        target.strings.values.extend(pc.fill_null(values.cast(pa.string()), "").to_pylist())


def _put_readers(
    target: retrieval_service_pb2.RetrieveResponse | retrieval_service_pb2.EmbedUsersResponse,
    readers: Sequence[Reader],
) -> None:
    """Fill in what is said about each query's user."""
    cold = [not len(reader.rows) and not reader.gave_vectors for reader in readers]
    target.history_lengths.extend(len(reader.rows) for reader in readers)
    target.cold.extend(cold)
    errors = [error for reader in readers for error in reader.errors][:MAX_ERRORS]
    for error in errors:
        target.errors.add(
            index=error.index, code=error.code, field=error.field, message=error.message
        )
    num_more = sum(reader.num_errors for reader in readers) - len(errors)
    if num_more:
        target.errors.add(
            index=errors[-1].index,
            code="MORE_ERRORS",
            field="queries",
            message=f"{num_more} more parts of histories were left aside",
        )


def _put_history(
    target: types_pb2.HistoryItems,
    readers: Sequence[Reader],
    generation: Generation,
    fields: Sequence[str],
) -> None:
    target.counts.extend(len(reader.shown.item_ids) if reader.shown else 0 for reader in readers)
    shown = [reader.shown for reader in readers if reader.shown is not None]
    target.item_ids.extend(item_id for one in shown for item_id in one.item_ids)
    target.events.extend(name for one in shown for name in one.events)
    times = [moment for one in shown for moment in one.timestamps_us.tolist()]
    if any(moment != NO_TIME for moment in times):
        target.timestamps_us.extend(0 if moment == NO_TIME else moment for moment in times)
    rows = generation.rows_of(target.item_ids)
    for name in fields:
        values = generation.column(name, np.maximum(rows, 0))
        unknown = pa.array(rows < 0)
        _put_column(target.columns.add(field=name), pc.if_else(unknown, None, values))
