"""The one table between exceptions and gRPC statuses, used by server and client alike.

A refused call carries an ErrorDetail in its trailing metadata, from which the client raises the
exception that the server raised. Knows no servicer and no channel.
"""

import grpc

from interest.v1 import types_pb2
from model.errors import BundleRejected, PenchantError
from serving.errors import (
    BadRequest,
    BadVector,
    Cancelled,
    ClockSkew,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    ServerUnavailable,
    StoreUnavailable,
    TooOld,
    UnknownCircle,
    UnknownEvent,
    UnknownField,
    UnknownItem,
)

DETAIL_KEY = "penchant-error-bin"
MAX_MESSAGE_BYTES = 1024
"""Of an exception's text: it travels twice in the trailing metadata, which gRPC bounds at 8 KB."""

TABLE: dict[type[PenchantError], tuple[str, grpc.StatusCode]] = {
    BadRequest: (BadRequest.code, grpc.StatusCode.INVALID_ARGUMENT),
    UnknownItem: (UnknownItem.code, grpc.StatusCode.NOT_FOUND),
    UnknownCircle: (UnknownCircle.code, grpc.StatusCode.NOT_FOUND),
    UnknownField: (UnknownField.code, grpc.StatusCode.INVALID_ARGUMENT),
    UnknownEvent: (UnknownEvent.code, grpc.StatusCode.INVALID_ARGUMENT),
    TooOld: (TooOld.code, grpc.StatusCode.INVALID_ARGUMENT),
    ClockSkew: (ClockSkew.code, grpc.StatusCode.INVALID_ARGUMENT),
    BadVector: (BadVector.code, grpc.StatusCode.INVALID_ARGUMENT),
    Overloaded: ("OVERLOADED", grpc.StatusCode.RESOURCE_EXHAUSTED),
    DeadlineExceeded: ("DEADLINE_EXCEEDED", grpc.StatusCode.DEADLINE_EXCEEDED),
    Cancelled: ("CANCELLED", grpc.StatusCode.CANCELLED),
    StoreUnavailable: ("STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE),
    ServerUnavailable: ("SERVER_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE),
    BundleRejected: ("BUNDLE_REJECTED", grpc.StatusCode.FAILED_PRECONDITION),
    InternalError: ("INTERNAL", grpc.StatusCode.INTERNAL),
}
"""Exception → its documented name and status. A subclass that is not here has its parent's."""

_EXCEPTIONS = {name: exception for exception, (name, _) in TABLE.items()}

_BARE: dict[grpc.StatusCode, type[PenchantError]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.CANCELLED: ServerUnavailable,
    # gRPC's own refusal of a message that is longer than the server allows.
    grpc.StatusCode.RESOURCE_EXHAUSTED: BadRequest,
}
"""Statuses that gRPC itself gives, without our detail."""


def to_status(error: PenchantError) -> tuple[grpc.StatusCode, types_pb2.ErrorDetail]:
    """The status and the detail that stand for an exception."""
    known = next(kind for kind in (*type(error).__mro__, InternalError) if kind in TABLE)
    name, status = TABLE[known]
    return status, types_pb2.ErrorDetail(
        code=name,
        field=error.field if isinstance(error, BadRequest) else "",
        message=_cut(str(error)),
        retry_after_ms=int(error.retry_after * 1000) if isinstance(error, Overloaded) else 0,
    )


def retry_pushback(detail: types_pb2.ErrorDetail) -> tuple[str, str]:
    """The trailing metadata that tells any gRPC client when to try a refused call again by itself:
    after that time where there is one, otherwise not at all, as the answer would be the same."""
    return ("grpc-retry-pushback-ms", str(detail.retry_after_ms or -1))


def _cut(message: str) -> str:
    """At most MAX_MESSAGE_BYTES of UTF-8."""
    data = message.encode(errors="replace")
    if len(data) <= MAX_MESSAGE_BYTES:
        return message
    return data[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"


def from_status(status: grpc.StatusCode, message: str, detail: bytes | None) -> PenchantError:
    """The exception that a refused call stands for.

    detail: the trailing metadata DETAIL_KEY, None where the answer had none.
    """
    if detail is None:
        return _BARE.get(status, InternalError)(f"{status.name}: {message}")
    parsed = types_pb2.ErrorDetail.FromString(detail)
    exception = _EXCEPTIONS.get(parsed.code, InternalError)
    if issubclass(exception, BadRequest):
        return exception(parsed.message, field=parsed.field)
    if issubclass(exception, Overloaded):
        return exception(parsed.message, retry_after=parsed.retry_after_ms / 1000)
    return exception(parsed.message)
