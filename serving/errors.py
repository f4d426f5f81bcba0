"""The exceptions that serving can raise, on the server and, the same ones, in its client.

PenchantError
 ├─ BadRequest             what the caller sent cannot be answered       INVALID_ARGUMENT
 │   ├─ UnknownItem        no such item                                  NOT_FOUND
 │   ├─ UnknownCircle      no such circle, or none any more              NOT_FOUND
 │   ├─ UnknownField       no such column, or one that cannot be used so INVALID_ARGUMENT
 │   ├─ UnknownEvent       the dataset declares no such event            INVALID_ARGUMENT
 │   ├─ TooOld             an event from before the horizon              INVALID_ARGUMENT
 │   ├─ ClockSkew          an event from the future                      INVALID_ARGUMENT
 │   └─ BadVector          wrong dimension, NaN or Inf                   INVALID_ARGUMENT
 ├─ Overloaded             shed; safe to retry after `retry_after`       RESOURCE_EXHAUSTED
 ├─ DeadlineExceeded       the caller's deadline passed                  DEADLINE_EXCEEDED
 ├─ Cancelled              the caller has gone                           CANCELLED
 ├─ StoreUnavailable       the store cannot be read or written           UNAVAILABLE
 ├─ ServerUnavailable      no server answers (raised by the client only) UNAVAILABLE
 ├─ BundleRejected         (model/errors.py)                             FAILED_PRECONDITION
 └─ InternalError          a defect of ours; the log has the details     INTERNAL

The table from exception to status is serving/status.py. Imports only the root of the tree.
"""

from model.errors import PenchantError


class BadRequest(PenchantError):
    """What the caller sent cannot be answered.

    field: where in the request, such as `k` or `queries[2].vectors`; empty where it is the whole.
    The message says what was given and what is allowed.
    """

    code = "BAD_REQUEST"

    def __init__(self, message: str, *, field: str = "") -> None:
        self.field = field
        super().__init__(message)


class UnknownItem(BadRequest):
    """The request is about an item that the bundle does not have."""

    code = "UNKNOWN_ITEM"


class UnknownCircle(BadRequest):
    """The bundle has no circle or district of that id; the message says what became of it."""

    code = "UNKNOWN_CIRCLE"


class UnknownField(BadRequest):
    """The request names a column that does not exist or cannot be used that way."""

    code = "UNKNOWN_FIELD"


class UnknownEvent(BadRequest):
    """The request names an event that the dataset does not declare."""

    code = "UNKNOWN_EVENT"


class TooOld(BadRequest):
    """An event happened so long ago that it is not known whether it came before."""

    code = "TOO_OLD"


class ClockSkew(BadRequest):
    """An event is to have happened in the future."""

    code = "CLOCK_SKEW"


class BadVector(BadRequest):
    """A vector has the wrong dimension, or is not finite."""

    code = "BAD_VECTOR"


class Overloaded(PenchantError):
    """The server is at its limit and refused the request unread; safe to retry.

    retry_after: seconds to wait before that.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeadlineExceeded(PenchantError):
    """The caller's deadline passed before there was an answer."""


class Cancelled(PenchantError):
    """The caller has gone, and with it the need of an answer."""


class StoreUnavailable(PenchantError):
    """The store cannot be read or written; nothing was changed."""


class ServerUnavailable(PenchantError):
    """No server answers at that address. Raised by the client only."""


class InternalError(PenchantError):
    """A defect of Penchant's. The message carries the request id; the server's log the rest."""
