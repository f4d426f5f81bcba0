"""Around every call: request id, admission, metrics, logs, and exceptions turned into statuses.

Knows the table of statuses and how a call runs; not what any RPC means.
"""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from interest.v1 import retrieval_service_pb2
from model.errors import PenchantError
from serving.calls import CallExecutor
from serving.errors import BadRequest, DeadlineExceeded, InternalError, Overloaded
from serving.logs import logger
from serving.metrics import CALL_SECONDS, CALLS
from serving.status import DETAIL_KEY, to_status

REQUEST_ID = "x-request-id"
RETRY_AFTER = 0.1
"""Seconds after which a shed call may be tried again."""
RETRIEVAL = retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps each RPC at its first call, and hands out the wrapped handler from then on.

    Retrieval runs on the call threads. Health, status and reflection have two threads each: a
    worker whose call threads are all busy still says that it lives.
    """

    def __init__(self, executor: CallExecutor, *, slow_ms: float, log_requests: bool) -> None:
        self._executor = executor
        self._slow_seconds, self._log_requests = slow_ms / 1000, log_requests
        self._handlers: dict[str, Any] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._log = logger()

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call's method, wrapped."""
        method: str = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None  # no such method
            if handler.unary_unary is not None:
                handler = self._wrap(method, handler)
            elif handler.stream_stream is not None:
                handler = self._wrap_stream(method, handler)
            # Health's Watch is left as it is: it holds no thread.
            self._handlers[method] = handler
        return handler

    def _assign(self, method: str, behavior: Any) -> None:
        """Have gRPC run `behavior` on the threads of its service."""
        service = method.split("/")[1]
        if service != RETRIEVAL:
            pool = self._pools.setdefault(service, ThreadPoolExecutor(2, service))
            behavior.experimental_thread_pool = pool

    def _wrap_stream(self, method: str, handler: Any) -> Any:
        def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            yield from handler.stream_stream(requests, context)

        self._assign(method, stream)
        return grpc.stream_stream_rpc_method_handler(
            stream,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _wrap(self, method: str, handler: Any) -> Any:
        rpc = method.rpartition("/")[2]
        answer, parse = handler.unary_unary, handler.request_deserializer
        seconds, answered = CALL_SECONDS.labels(rpc), CALLS.labels(rpc, "OK")

        def call(data: bytes, context: Any) -> Any:
            start = time.perf_counter()
            try:
                if self._executor.is_refusing:
                    raise Overloaded(
                        f"{self._executor.max_waiting} calls are waiting already",
                        retry_after=RETRY_AFTER,
                    )
                remaining = context.time_remaining()
                if remaining is not None and remaining <= 0:
                    raise DeadlineExceeded("the deadline passed before the call was begun")
                try:
                    # gRPC would answer INTERNAL; a message that is none is the caller's mistake.
                    request = parse(data)
                except DecodeError:
                    raise BadRequest("the request is not a message of this RPC") from None
                response = answer(request, context)
            except PenchantError as error:
                self._refuse(rpc, context, error, time.perf_counter() - start)
            except Exception as error:
                if context.code() is not None:  # the handler aborted the call by itself
                    raise
                request_id = _request_id(context)
                self._log.exception("defect", rpc=rpc, request_id=request_id, exc_info=error)
                wrapped = InternalError(f"an internal error; request id {request_id}")
                self._refuse(rpc, context, wrapped, time.perf_counter() - start)
            took = time.perf_counter() - start
            seconds.observe(took)
            answered.inc()
            if self._log_requests or took > self._slow_seconds:
                self._log.info(
                    "call" if took <= self._slow_seconds else "slow call",
                    rpc=rpc,
                    ms=round(took * 1000, 3),
                    request_id=_request_id(context),
                )
            return response

        self._assign(method, call)
        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _refuse(self, rpc: str, context: Any, error: PenchantError, took: float) -> NoReturn:
        """End the call with the error's status."""
        status, detail = to_status(error)
        CALLS.labels(rpc, detail.code).inc()
        CALL_SECONDS.labels(rpc).observe(took)
        request_id = _request_id(context)
        self._log.info(
            "refused",
            rpc=rpc,
            code=detail.code,
            field=detail.field,
            message=detail.message[:500],
            ms=round(took * 1000, 3),
            request_id=request_id,
        )
        context.set_trailing_metadata(
            ((DETAIL_KEY, detail.SerializeToString()), (REQUEST_ID, request_id))
        )
        context.abort(status, detail.message)
        raise AssertionError("abort raises")


def _request_id(context: Any) -> str:
    """The caller's request id, or a new one."""
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID and isinstance(value, str) and len(value) <= 128:
            return value
    return uuid.uuid4().hex
