"""Structured logs: one JSON object a line on stderr.

A line that is written while a thread works for a call has that call's request id and RPC, whoever
writes it.
"""

import contextlib
import logging
import sys

import structlog

from serving.stages import current


def configure_logs(level: str, **bound: object) -> None:
    """Set up structlog for this process; `bound` goes into every line (worker, process)."""
    structlog.configure(
        processors=[
            _add_call,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_: _Writer(),
        cache_logger_on_first_use=True,
    )
    _BOUND.clear()
    _BOUND.update(bound)


class _Writer:
    """Writes lines to stderr. One that cannot be written (a full disk, a reader that is gone) is
    lost: no call is refused for it, and no worker ends."""

    def msg(self, line: str) -> None:
        """A line and its end in one write: lines of several workers must not mix."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


_BOUND: dict[str, object] = {}


def logger() -> structlog.typing.FilteringBoundLogger:
    """A logger with what this process bound; call it where it is used, after configure_logs."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger(**_BOUND)
    return log


def _add_call(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What this thread's call is called."""
    call = current()
    if call is not None:
        event["rpc"], event["request_id"] = call.rpc, call.request_id
    return event
