"""What is told about a finished call: its metrics, its log line, its trace.

Knows what a call record holds; not how calls are run, refused or answered.
"""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Protocol

from model.errors import ConfigError
from serving.config import ServerConfig
from serving.logs import logger
from serving.metrics import CALL_SECONDS, CALLS, DEGRADED, STAGE_SECONDS
from serving.rank.costs import DEGRADATIONS
from serving.stages import CallRecord, milliseconds

if TYPE_CHECKING:
    from serving.traces import Traces

OK = "OK"
DEGRADABLE = ("Recommend", "Rerank", "Retrieve")
"""RPCs whose answers may leave something out to meet their deadline."""


# Looking a child up among the labels costs a microsecond each time.
_calls, _call_seconds = cache(CALLS.labels), cache(CALL_SECONDS.labels)


class Refusal(Protocol):
    """Why a call was refused: an interest.v1.ErrorDetail."""

    code: str
    field: str
    message: str


def open_traces(config: ServerConfig, *, worker: str) -> "Traces | None":
    """Where spans go, or None where they are not wanted. Raises ConfigError without [otel]."""
    if not config.trace_endpoint:
        return None
    try:
        from serving.traces import Traces
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"traces need the extra [otel]: pip install 'penchant[otel]' (there is no module "
            f"{error.name!r} in this Python); or leave --trace-endpoint out"
        ) from None
    return Traces(config.trace_endpoint, ratio=config.trace_ratio, worker=worker)


class Telemetry:
    """Told once for each call, when it is done. Safe across threads."""

    def __init__(self, config: ServerConfig, traces: "Traces | None") -> None:
        self._slow_seconds, self._log_requests = config.slow_ms / 1000, config.log_requests
        self._traces = traces
        self._log = logger()
        for rpc in DEGRADABLE:
            for what in DEGRADATIONS:
                DEGRADED.labels(rpc, what)  # a rate needs the 0 before the first

    def finished(
        self,
        call: CallRecord,
        service: str,
        metadata: Iterable[tuple[str, str | bytes]],
        *,
        end: float,
        left_out: Iterable[str] = (),
        refusal: Refusal | None = None,
        status: int = 0,
        is_stream: bool = False,
    ) -> None:
        """A call was answered or refused, or a stream has ended.

        end: seconds of time.perf_counter(). left_out: the answer's own list of that. status: the
        number of the gRPC status. is_stream: how long it took says nothing; what its messages took
        is counted with each.
        """
        took = end - call.start
        code = OK if refusal is None else refusal.code
        _calls(call.rpc, code).inc()
        if not is_stream:
            _call_seconds(call.rpc).observe(took)
        STAGE_SECONDS.add(call.rpc, call.laps)
        for what in left_out:
            DEGRADED.labels(call.rpc, what).inc()
        told: dict[str, object] = {}
        if self._traces is not None:
            carried = {key: value for key, value in metadata if isinstance(value, str)}
            trace = self._traces.record(call, service, carried, end=end, status=status, code=code)
            if trace:
                told["trace_id"] = trace
        is_slow = took > self._slow_seconds and not is_stream
        if refusal is None and not is_slow and not self._log_requests:
            return
        if left_out:
            told["left_out"] = list(left_out)
        if refusal is not None:
            told |= {"code": code, "field": refusal.field, "message": refusal.message[:500]}
        self._log.info(
            "refused" if refusal is not None else "slow call" if is_slow else "call",
            ms=round(took * 1000, 3),
            stages=milliseconds(call.laps),
            **told,
        )
