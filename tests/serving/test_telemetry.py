"""What is told about a call: log lines with request ids and stages, metrics by RPC and stage."""

import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from interest.v1 import admin_service_pb2, admin_service_pb2_grpc
from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc as rpc
from serving.client import Client
from serving.config import ServerConfig
from serving.errors import BadRequest
from serving.stages import CallRecord
from serving.telemetry import Telemetry
from tests.serving.processes import Served, serve
from tests.serving.tiny import World

Start = Callable[..., AbstractContextManager[Served]]
RETRIEVE = pb.RetrieveRequest(queries=[pb.UserQuery(user_id="user-005")], k=3)
STAGES = ("queue", "parse", "read", "encode", "search", "pack")


def call(
    served: Served, method: str, request: Any, *, request_id: str | bytes | None = None
) -> tuple[Any, Mapping[str, str]]:
    """The answer or the error, and its trailing metadata."""
    admin = method in ("GetStatus", "ListUsers")
    with grpc.insecure_channel(served.address) as channel:
        stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel) if admin else None
        stub = stub or rpc.RetrievalServiceStub(channel)
        metadata = (("x-request-id", request_id),) if request_id else ()
        try:
            answer, done = getattr(stub, method).with_call(request, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            answer = done = error
        return answer, dict(done.trailing_metadata())


def lines(served: Served, request_id: str) -> list[dict[str, Any]]:
    """The log lines of a call, once there is one."""
    end = time.monotonic() + 10
    while True:
        found = [x for x in served.log_lines() if x.get("request_id") == request_id]
        if found:
            return found
        assert time.monotonic() < end, f"no log line of {request_id}"
        time.sleep(0.02)


def page(served: Served) -> dict[str, float]:
    """The metrics page, sample by sample."""
    text = urllib.request.urlopen(served.metrics, timeout=10).read().decode()
    samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def test_every_answer_and_refusal_says_its_request_id(server: Served) -> None:
    _, trailing = call(server, "Retrieve", RETRIEVE, request_id="mine-1")
    assert trailing["x-request-id"] == "mine-1"
    _, trailing = call(server, "GetStatus", admin_service_pb2.GetStatusRequest())
    made = trailing["x-request-id"]
    _, trailing = call(server, "Retrieve", RETRIEVE)
    assert trailing["x-request-id"] not in ("", made)
    _, trailing = call(server, "Retrieve", pb.RetrieveRequest(), request_id="mine-2")
    assert trailing["x-request-id"] == "mine-2"
    assert trailing["grpc-retry-pushback-ms"] == "-1"


def test_an_id_that_could_forge_a_line_is_mended(server: Served) -> None:
    forged = 'x", "event": "worker stopped'
    _, trailing = call(server, "Retrieve", pb.RetrieveRequest(), request_id=forged)
    assert trailing["x-request-id"] == "xevent:workerstopped"
    (line,) = lines(server, "xevent:workerstopped")
    assert line["event"] == "refused"


def test_a_refused_call_is_logged_with_its_stages(server: Served) -> None:
    call(server, "Retrieve", pb.RetrieveRequest(), request_id="refused-1")
    (line,) = lines(server, "refused-1")
    assert line["event"] == "refused" and line["rpc"] == "Retrieve"
    assert line["code"] == "BAD_REQUEST" and line["field"] == "k"
    assert set(line["stages"]) == {"queue", "parse"}
    assert line["ms"] >= sum(line["stages"].values()) - 0.01


def test_slow_and_wanted_calls_are_logged_with_their_stages(start_server: Start) -> None:
    with start_server("--log-requests") as served:
        call(served, "Retrieve", RETRIEVE, request_id="one")
        (line,) = lines(served, "one")
        assert line["event"] == "call" and tuple(line["stages"]) == STAGES
        assert 0 < sum(line["stages"].values()) <= line["ms"] + 0.01
        call(served, "GetStatus", admin_service_pb2.GetStatusRequest(), request_id="two")
        (line,) = lines(served, "two")
        assert line["rpc"] == "GetStatus"
    with start_server("--slow-ms", "0.001") as served:
        call(served, "Retrieve", RETRIEVE, request_id="three")
        (line,) = lines(served, "three")
        assert line["event"] == "slow call"


def test_the_server_shared_by_tests_logs_no_call_that_is_well(server: Served) -> None:
    call(server, "Retrieve", RETRIEVE, request_id="well")
    call(server, "Retrieve", pb.RetrieveRequest(), request_id="not-well")
    lines(server, "not-well")
    assert [x for x in server.log_lines() if x.get("request_id") == "well"] == []


def test_metrics_by_rpc_and_stage_over_workers(start_server: Start) -> None:
    with start_server("--workers", "2") as served:
        workers: set[str] = set()
        num_calls = 0
        while len(workers) < 2:
            with Client(served.address, timeout=10, num_channels=1) as client:
                workers.add(client.retrieve("user-005", k=3).source.worker)
            num_calls += 1
        with Client(served.address, timeout=10) as client:
            client.find_similar("item-0004", k=3)
        end = time.monotonic() + 10
        while True:  # stages are handed on twice a second
            samples = page(served)
            counts = [
                samples.get(f'penchant_stage_seconds_count{{rpc="Retrieve",stage="{stage}"}}', 0)
                for stage in STAGES
            ]
            if counts == [num_calls] * len(STAGES):
                break
            assert time.monotonic() < end, counts
            time.sleep(0.1)
        spent = samples['penchant_stage_seconds_sum{rpc="Retrieve",stage="search"}']
        assert 0 < spent < samples['penchant_call_seconds_sum{rpc="Retrieve"}']
        below = 'penchant_stage_seconds_bucket{le="%s",rpc="Retrieve",stage="search"}'
        assert samples[below % "+Inf"] == num_calls >= samples[below % "0.001"]
        assert samples['penchant_stage_seconds_count{rpc="FindSimilar",stage="search"}'] == 1
        assert samples["penchant_calls_in_flight"] == samples["penchant_calls_waiting"] == 0
        assert samples["penchant_workers"] == 2
        assert samples["penchant_worker_restarts_total"] == 0
        assert samples["penchant_worker_start_seconds"] > 0
        assert abs(samples["penchant_generation_ready_timestamp_seconds"] - time.time()) < 300


def test_what_was_left_out_is_counted_and_told() -> None:
    config = ServerConfig(bundle=Path("b"), state=Path("s"), slow_ms=0)
    record = CallRecord("Recommend", "r-9", time.perf_counter() - 0.5)
    with capture_logs() as told:
        Telemetry(config, None).finished(
            record, "interest.v1.RetrievalService", (), end=time.perf_counter(), left_out=["probes"]
        )
    labels = {"rpc": "Recommend", "what": "probes"}
    assert REGISTRY.get_sample_value("penchant_degraded_answers_total", labels) == 1
    assert told[0]["event"] == "slow call" and told[0]["left_out"] == ["probes"]


@pytest.mark.parametrize(("option", "value"), [("--trace-ratio", "2"), ("--slow-ms", "-1")])
def test_options_that_are_not_allowed(start_server: Start, option: str, value: str) -> None:
    name = option.removeprefix("--").replace("-", "_")
    with (
        pytest.raises(AssertionError, match=f"{name} = .* is not allowed"),
        start_server(option, value),
    ):
        pass


def test_a_full_disk_costs_log_lines_and_no_calls(world: World, state: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full to write to")
    with (
        serve(world.bundle, state, full, "--drain-pause", "0.1", "--log-requests") as served,
        Client(served.address, timeout=10) as client,
    ):
        for _ in range(3):
            assert client.retrieve("user-005", k=3).item_ids
        with pytest.raises(BadRequest, match="k = 0"):
            client.retrieve("user-005", k=0)
        assert served.stop() == 0
