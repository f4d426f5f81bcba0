"""Around every call: request id, admission, metrics, logs, and exceptions turned into statuses.

Knows the table of statuses and how a call runs; not what any RPC means.
"""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from model.errors import PenchantError
from serving.errors import BadRequest, DeadlineExceeded, InternalError, Overloaded
from serving.logs import logger
from serving.metrics import CALL_SECONDS, CALLS
from serving.status import DETAIL_KEY, to_status

REQUEST_ID = "x-request-id"
RETRY_AFTER = 0.1
"""Seconds after which a shed call may be tried again."""

Result = TypeVar("Result")


class CallExecutor(ThreadPoolExecutor):
    """The threads that calls run on; counts the calls that wait for one."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="call")
        self.num_waiting = 0

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> "Future[Result]":
        """Run `fn` on the next free thread."""
        # Only gRPC's own thread adds and only += 1 / -= 1 happen: a count that is off by one for a
        # moment sheds one call more or less, which a lock would not be worth.
        self.num_waiting += 1
        return super().submit(self._begin, fn, *args, **kwargs)

    def _begin(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
        self.num_waiting -= 1
        return fn(*args, **kwargs)


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps each unary RPC at its first call, and hands out the wrapped handler from then on."""

    def __init__(
        self, executor: CallExecutor, *, max_pending: int, slow_ms: float, log_requests: bool
    ) -> None:
        self._executor, self._max_pending = executor, max_pending
        self._slow_seconds, self._log_requests = slow_ms / 1000, log_requests
        self._handlers: dict[str, Any] = {}
        self._log = logger()

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call's method, wrapped."""
        method: str = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = continuation(handler_call_details)
            if handler is None or handler.unary_unary is None:
                return handler  # no such method, or a stream (health's Watch, reflection)
            handler = self._wrap(method, handler)
            self._handlers[method] = handler
        return handler

    def _wrap(self, method: str, handler: Any) -> Any:
        rpc = method.rpartition("/")[2]
        answer, parse = handler.unary_unary, handler.request_deserializer
        seconds, answered = CALL_SECONDS.labels(rpc), CALLS.labels(rpc, "OK")
        internal = method.startswith("/grpc.")

        def call(data: bytes, context: Any) -> Any:
            start = time.perf_counter()
            try:
                if not internal and self._executor.num_waiting > self._max_pending:
                    raise Overloaded(
                        f"{self._max_pending} calls are waiting already", retry_after=RETRY_AFTER
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
