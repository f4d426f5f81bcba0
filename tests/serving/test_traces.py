"""Traces: spans that a real collector receives over OTLP, and a server that does without."""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc as rpc
from tests.serving.processes import ROOT, Served

Start = Callable[..., AbstractContextManager[Served]]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RETRIEVE = pb.RetrieveRequest(queries=[pb.UserQuery(user_id="user-005")], k=3)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: queue.Queue[Any] = queue.Queue()
        self.resources: list[dict[str, str]] = []

    def Export(self, request: Any, context: Any) -> Any:
        for group in request.resource_spans:
            attributes = {x.key: x.value.string_value for x in group.resource.attributes}
            self.resources.append(attributes)
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def take(self, num: int) -> list[Any]:
        return [self.spans.get(timeout=20) for _ in range(num)]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    taking = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # it has no types
    add(taking, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield taking, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def ask(served: Served, request: pb.RetrieveRequest, traceparent: str = "") -> None:
    metadata = (("traceparent", traceparent),) if traceparent else ()
    with grpc.insecure_channel(served.address) as channel:
        try:
            rpc.RetrievalServiceStub(channel).Retrieve(request, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def attributes(span: Any) -> dict[str, Any]:
    return {x.key: x.value.string_value or x.value.int_value for x in span.attributes}


def test_a_call_is_a_span_and_its_stages_are_below_it(
    start_server: Start, collector: tuple[Collector, str]
) -> None:
    taking, endpoint = collector
    with start_server("--trace-endpoint", endpoint, "--trace-ratio", "0") as served:
        before = time.time_ns()
        ask(served, RETRIEVE)  # of no trace, and none of the 0 % that is sampled
        ask(served, RETRIEVE, f"00-{TRACE}-{PARENT}-00")  # of a trace that is not sampled
        ask(served, RETRIEVE, f"00-{TRACE}-{PARENT}-01")
        assert served.stop() == 0  # what is not sent yet is sent then
    after = time.time_ns()
    *stages, call = sorted(taking.take(7), key=lambda span: span.parent_span_id.hex() == PARENT)
    assert taking.spans.empty()
    assert call.name == "interest.v1.RetrievalService/Retrieve"
    assert {span.trace_id.hex() for span in (call, *stages)} == {TRACE}
    assert call.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for span in stages} == {call.span_id}
    names = [span.name for span in sorted(stages, key=lambda span: span.start_time_unix_nano)]
    assert names == ["queue", "parse", "read", "encode", "search", "pack"]
    for span in (call, *stages):
        assert before < span.start_time_unix_nano <= span.end_time_unix_nano < after
        assert call.start_time_unix_nano - 1000 <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= call.end_time_unix_nano + 1000
    told = attributes(call)
    assert told["rpc.method"] == "Retrieve" and told["penchant.code"] == "OK"
    assert told["penchant.request_id"]
    assert taking.resources[0]["service.name"] == "penchant"


def test_a_refusal_is_an_error_and_its_log_line_names_the_trace(
    start_server: Start, collector: tuple[Collector, str]
) -> None:
    taking, endpoint = collector
    with start_server("--trace-endpoint", endpoint, "--trace-ratio", "1") as served:
        ask(served, pb.RetrieveRequest())
        assert served.stop() == 0
        (line,) = [line for line in served.log_lines() if line["event"] == "refused"]
    (call,) = [span for span in taking.take(3) if not span.parent_span_id]
    assert call.status.code == 2 and attributes(call)["penchant.code"] == "BAD_REQUEST"
    assert line["trace_id"] == call.trace_id.hex()


def test_a_collector_that_is_not_there_changes_no_answer(start_server: Start) -> None:
    endpoint = "http://127.0.0.1:1"
    with start_server("--trace-endpoint", endpoint, "--trace-ratio", "1") as served:
        threads = [threading.Thread(target=ask, args=(served, RETRIEVE)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert served.stop() == 0
        assert all(line["event"] != "defect" for line in served.log_lines())


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_without_traces_nothing_of_it_is_loaded() -> None:
    done = run("import serving.server, sys; print(*sys.modules)")
    assert "serving.telemetry" in done.stdout.split(), done.stderr
    assert "opentelemetry" not in done.stdout


def test_the_missing_extra_is_named() -> None:
    done = run(
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from pathlib import Path\n"
        "from serving.config import ServerConfig\n"
        "from serving.telemetry import open_traces\n"
        "config = ServerConfig(bundle=Path('b'), state=Path('s'), trace_endpoint='http://x:1')\n"
        "open_traces(config, worker='w')"
    )
    assert "ConfigError: traces need the extra [otel]: pip install 'penchant[otel]'" in done.stderr
