"""Around every call: request id, admission, exceptions turned into statuses, and who is in flight.

Knows the table of statuses and how a call runs; not what any RPC means, nor what is told about a
call when it is done (serving/telemetry.py).
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from interest.v1 import (
    admin_service_pb2,
    circle_service_pb2,
    ingest_service_pb2,
    retrieval_service_pb2,
    types_pb2,
)
from model.errors import PenchantError
from serving import stages
from serving.calls import CallExecutor
from serving.errors import BadRequest, Cancelled, DeadlineExceeded, InternalError, Overloaded
from serving.logs import logger
from serving.pace import Pace
from serving.request_id import REQUEST_ID, request_id
from serving.stages import CallRecord
from serving.status import DETAIL_KEY, retry_pushback, to_status
from serving.telemetry import Telemetry

RETRY_AFTER = 0.1
"""Seconds after which a shed call may be tried again."""
RETRIEVAL = retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name
ADMIN = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
INGEST = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
CIRCLES = circle_service_pb2.DESCRIPTOR.services_by_name["CircleService"].full_name
OURS = frozenset({RETRIEVAL, INGEST, ADMIN, CIRCLES})
"""The services whose calls are told of, and waited for by a drain. Load balancers ask for health
every second, to the end."""

_unary = grpc.unary_unary_rpc_method_handler


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps each RPC at its first call, and hands out the wrapped handler from then on.

    Retrieval and ingest have their call threads: writes that wait for the disk hold up no answers.
    Circles, status, health and reflection have two threads each: a worker whose call threads are
    all busy still says that it lives.
    """

    def __init__(self, executors: Mapping[str, CallExecutor], telemetry: Telemetry) -> None:
        """executors: by service; RETRIEVAL's is the server's own."""
        self._executors, self._telemetry = executors, telemetry
        self._handlers: dict[str, Any] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._paces: dict[str, Pace] = {}
        self._log = logger()
        self._in_flight: set[CallRecord] = set()
        self.num_begun = 0
        """Calls so far, health and reflection left out; two that come at once may count as one."""

    @property
    def in_flight(self) -> list[CallRecord]:
        """The calls that are being answered, health and reflection left out."""
        return list(self._in_flight)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call's method, wrapped."""
        method: str = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None  # no such method
            service = method.split("/")[1]
            if service in OURS and handler.stream_stream is not None:
                handler = self._wrap_stream(method, handler)
            elif service in OURS:
                handler = self._wrap(method, handler)
            elif handler.unary_unary is not None or handler.stream_stream is not None:
                handler = self._apart(service, handler)
            # Health's Watch is left as it is: it has a thread of its own to begin on.
            self._handlers[method] = handler
        return handler

    def _pool(self, service: str) -> ThreadPoolExecutor:
        return self._pools.setdefault(service, ThreadPoolExecutor(2, service))

    def _apart(self, service: str, handler: Any) -> Any:
        """Health and reflection: on threads of their own, and not told of."""

        def answer(request: Any, context: Any) -> Any:
            return handler.unary_unary(request, context)

        def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            yield from handler.stream_stream(requests, context)

        is_stream = handler.stream_stream is not None
        behavior: Any = stream if is_stream else answer
        behavior.experimental_thread_pool = self._pool(service)
        make = grpc.stream_stream_rpc_method_handler if is_stream else _unary
        return make(
            behavior,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _wrap(self, method: str, handler: Any) -> Any:
        service, rpc = method.split("/")[1:]
        pace = self._paces.setdefault(service, Pace())
        answer, parse = handler.unary_unary, handler.request_deserializer
        executor = self._executors.get(service)
        threads = self._pool(service) if executor is None else executor

        def call(data: bytes, context: Any) -> Any:
            begun = time.perf_counter()
            metadata = context.invocation_metadata()
            came = (executor.submitted if executor is not None else 0) or begun
            record = CallRecord(rpc, request_id(metadata), came)
            self.num_begun += 1
            self._in_flight.add(record)
            stages.begin(record)
            stages.add_lap("queue", came, begun)
            try:
                try:
                    _admit(context, pace, executor)
                    with pace.begun():
                        with stages.stage("parse"):
                            request = _parsed(parse, data)
                        response = answer(request, context)
                except PenchantError as error:
                    self._refuse(record, service, metadata, context, error)
                except Exception as error:
                    if context.code() is not None:  # the handler aborted the call by itself
                        raise
                    self._log.exception("defect", exc_info=error)
                    wrapped = InternalError(f"an internal error; request id {record.request_id}")
                    self._refuse(record, service, metadata, context, wrapped)
                context.set_trailing_metadata(_trailing(record, None))
                self._telemetry.finished(
                    record,
                    service,
                    metadata,
                    end=time.perf_counter(),
                    left_out=response.info.left_out if hasattr(response, "info") else (),
                )
                return response
            finally:
                stages.end()
                self._in_flight.discard(record)

        if service != RETRIEVAL:
            call.experimental_thread_pool = threads  # type: ignore[attr-defined]
        return _unary(
            call, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _wrap_stream(self, method: str, handler: Any) -> Any:
        """A stream has a thread of its own: it may live long, and call threads are few."""
        service, rpc = method.split("/")[1:]
        parse = handler.request_deserializer

        def begin(requests: Iterator[bytes], context: Any, send: Callable[[Any], None]) -> None:
            came = time.perf_counter()
            record = CallRecord(rpc, request_id(context.invocation_metadata()), came)
            self.num_begun += 1
            self._in_flight.add(record)
            answers = handler.stream_stream((_parsed(parse, one) for one in requests), context)
            threading.Thread(
                target=self._stream,
                args=(record, service, answers, context, send),
                name=rpc,
                daemon=True,
            ).start()

        # How grpc is told that the call ends with send(None), not with this function.
        begin.experimental_non_blocking = True  # type: ignore[attr-defined]
        begin.experimental_thread_pool = self._executors[service]  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(
            begin, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _stream(
        self,
        record: CallRecord,
        service: str,
        answers: "Generator[Any]",
        context: Any,
        send: Callable[[Any], None],
    ) -> None:
        """Send the answers of a stream to its end, and tell of it."""
        stages.begin(record)
        detail, status = None, grpc.StatusCode.OK
        try:
            try:
                for answer in answers:
                    send(answer)
                    if not context.is_active():
                        raise Cancelled("the caller has gone")
            except Exception as error:
                status, detail = to_status(self._told(error, record, context))
            finally:
                answers.close()
            self._telemetry.finished(
                record,
                service,
                context.invocation_metadata(),
                end=time.perf_counter(),
                refusal=detail,
                status=status.value[0],
                is_stream=True,
            )
            if detail is not None:
                context.set_code(status)
                context.set_details(detail.message)
            context.set_trailing_metadata(_trailing(record, detail))
            send(None)
        finally:
            stages.end()
            self._in_flight.discard(record)

    def _told(self, error: Exception, record: CallRecord, context: Any) -> PenchantError:
        """What a stream's caller is told of an exception."""
        if not context.is_active():
            return Cancelled("the caller has gone")
        if isinstance(error, PenchantError):
            return error
        self._log.exception("defect", exc_info=error)
        return InternalError(f"an internal error; request id {record.request_id}")

    def _refuse(
        self, record: CallRecord, service: str, metadata: Any, context: Any, error: PenchantError
    ) -> NoReturn:
        """End the call with the error's status."""
        status, detail = to_status(error)
        self._telemetry.finished(
            record,
            service,
            metadata,
            end=time.perf_counter(),
            refusal=detail,
            status=status.value[0],
        )
        context.set_trailing_metadata(_trailing(record, detail))
        context.abort(status, detail.message)
        raise AssertionError("abort raises")


def _admit(context: Any, pace: Pace, executor: CallExecutor | None) -> None:
    """Raise Overloaded or DeadlineExceeded for a call that is not to be begun."""
    if executor is not None and executor.is_refusing:
        raise Overloaded(
            f"{executor.max_waiting} calls are waiting already", retry_after=RETRY_AFTER
        )
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        raise DeadlineExceeded("the deadline passed before the call was begun")
    if remaining is not None and remaining < (expected := pace.expected()):
        raise Overloaded(
            f"the {pace.num_begun} calls before this one take about {expected * 1000:.0f} ms "
            f"yet, and {remaining * 1000:.0f} ms are left until its deadline",
            retry_after=expected,
        )


def _trailing(
    record: CallRecord, refusal: types_pb2.ErrorDetail | None
) -> tuple[tuple[str, str | bytes], ...]:
    """What every answer ends with, and what a refused one adds."""
    if refusal is None:
        return ((REQUEST_ID, record.request_id),)
    return (
        (DETAIL_KEY, refusal.SerializeToString()),
        (REQUEST_ID, record.request_id),
        retry_pushback(refusal),
    )


def _parsed(parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError:
        # gRPC would answer INTERNAL; a message that is none is the caller's mistake.
        raise BadRequest("the request is not a message of this RPC") from None
