"""OpenTelemetry traces: one span a call, below it one a stage; the optional extra [otel].

Spans are made when a call is finished, from the laps that are measured anyway: without traces a
call costs nothing more, and with them what is not sampled costs one decision. A caller's
`traceparent` (W3C Trace Context) makes the span a child of theirs, and its sampled flag decides.
"""

import time
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.stages import CallRecord

EXPORT_SECONDS = 3.0
"""How long one batch of spans may take; also what an absent collector adds to a server's end."""


class Traces:
    """Sends the spans of finished calls to an OpenTelemetry collector, from a thread of its own."""

    def __init__(self, endpoint: str, *, ratio: float, worker: str) -> None:
        """endpoint: of OTLP over gRPC, http:// or https://. ratio: of calls without a traceparent
        that are sampled, 0 to 1. Where no collector answers, spans are dropped, and calls go on.
        """
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(ratio),
            resource=Resource.create(
                {"service.name": "penchant", "service.instance.id": worker}  # as OTEL_* override
            ),
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("penchant")
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self,
        call: CallRecord,
        service: str,
        metadata: Mapping[str, str],
        *,
        end: float,
        status: int,
        code: str,
    ) -> str:
        """Make the spans of a finished call; returns its trace id, or "" where it is not sampled.

        metadata: what the caller sent; `traceparent` and `tracestate` are read. end: seconds of
        time.perf_counter(). status: the number of the gRPC status; code: as docs/errors.md has it,
        or OK.
        """
        epoch = time.time_ns() - time.perf_counter_ns()
        span = self._tracer.start_span(
            f"{service}/{call.rpc}",
            context=self._propagator.extract(metadata),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": call.rpc,
                "rpc.grpc.status_code": status,
                "penchant.code": code,
                "penchant.request_id": call.request_id,
            },
            start_time=epoch + int(call.start * 1e9),
        )
        known = span.get_span_context()
        if not known.trace_flags.sampled:
            return ""
        inside = set_span_in_context(span)
        for name, lap_start, lap_end in call.laps:
            part = self._tracer.start_span(
                name, context=inside, start_time=epoch + int(lap_start * 1e9)
            )
            part.end(epoch + int(lap_end * 1e9))
        if status:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end(epoch + int(end * 1e9))
        return format(known.trace_id, "032x")

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.shutdown()
