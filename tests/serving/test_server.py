"""Server processes: health, reflection, metrics, logs, drain, restarts, and refusals to start."""

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from interest.v1 import retrieval_service_pb2, retrieval_service_pb2_grpc
from serving.client import Client
from serving.errors import BadRequest
from tests.serving.processes import Served, penchant, serve
from tests.serving.tiny import World, make_world

Start = Callable[..., contextlib.AbstractContextManager[Served]]
SERVICE = "interest.v1.RetrievalService"


def health(address: str, service: str = "") -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return int(answer.status)


def until(holds: Callable[[], bool], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def test_health_by_service_name(server: Served) -> None:
    for service in ("", SERVICE, "interest.v1.AdminService"):
        assert health(server.address, service) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health(server.address, "interest.v1.NoSuchService")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services_and_their_files(server: Served) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed, file = stub.ServerReflectionInfo(iter(requests), timeout=5)
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "interest.v1.AdminService", "grpc.health.v1.Health"} <= names
    assert file.file_descriptor_response.file_descriptor_proto


def test_status(server: Served, world: World) -> None:
    with Client(server.address, timeout=10) as client:
        status = client.status()
    assert status.bundle["name"] == "bamboo"
    assert status.bundle["num_items"] == 600
    assert status.bundle["num_active"] == world.num_active
    assert status.bundle["filterable"] == ["kind", "craft", "tags", "price"]
    assert status.bundle["history_events"] == ["watch", "order"]
    assert status.store == {"kind": "sqlite", "num_users": 120}
    assert status.limits["max_k"] == 1000
    assert status.source.bundle_version == status.bundle["version"]
    assert status.uptime_seconds > 0


def test_metrics_count_calls_of_all_workers(start_server: Start) -> None:
    with start_server("--workers", "2") as served:
        # A connection stays on one worker; many connections meet both.
        workers: set[str] = set()
        num_calls = 0
        while len(workers) < 2:
            with Client(served.address, timeout=10, num_channels=1) as client:
                workers.add(client.retrieve("user-005", k=3).source.worker)
            num_calls += 1
            assert num_calls < 60, "two workers on one port, and one gets every connection"
        with Client(served.address, timeout=10) as client, pytest.raises(BadRequest):
            client.retrieve("u", k=0)
        page = urllib.request.urlopen(served.metrics, timeout=10).read().decode()
        values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        assert float(values['penchant_calls_total{code="OK",rpc="Retrieve"}']) == num_calls
        assert float(values['penchant_calls_total{code="BAD_REQUEST",rpc="Retrieve"}']) == 1
        assert float(values['penchant_call_seconds_count{rpc="Retrieve"}']) == num_calls + 1
        # What the workers did to warm up counts nowhere.
        assert float(values["penchant_candidates_total"]) == 3 * num_calls
        assert float(values["penchant_cold_queries_total"]) == 0
        assert float(values["penchant_batch_queries_count"]) == num_calls
        bundles = [float(v) for name, v in values.items() if name.startswith("penchant_bundle")]
        assert bundles == [1.0]
        assert served.stop() == 0


def test_refusals_are_logged_with_the_callers_request_id(server: Served) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Retrieve(
                retrieval_service_pb2.RetrieveRequest(),
                timeout=10,
                metadata=(("x-request-id", "mine-7"),),
            )
    trailing: dict[str, str] = dict(caught.value.trailing_metadata())  # type: ignore[arg-type]
    assert trailing["x-request-id"] == "mine-7"
    until(lambda: any(line.get("request_id") == "mine-7" for line in server.log_lines()))
    (line,) = [line for line in server.log_lines() if line.get("request_id") == "mine-7"]
    assert (line["event"], line["code"], line["rpc"]) == ("refused", "BAD_REQUEST", "Retrieve")
    assert {"timestamp", "level", "worker", "ms"} <= set(line)


def test_sigterm_drains_without_losing_a_call(start_server: Start) -> None:
    with start_server("--workers", "2") as served:
        answered, failed = [0], []
        stopped = threading.Event()

        def ask() -> None:
            with Client(served.address, timeout=10, num_channels=1) as client:
                while not stopped.is_set():
                    try:
                        client.retrieve("user-005", k=5)
                        answered[0] += 1
                    except Exception as error:
                        failed.append(error)
                        return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: answered[0] > 50)
        seen = threading.Event()

        def watch_health() -> None:
            with grpc.insecure_channel(served.address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                with contextlib.suppress(grpc.RpcError):
                    for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=20):
                        if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                            seen.set()
                            return

        watcher = threading.Thread(target=watch_health)
        watcher.start()
        time.sleep(0.2)
        served.process.send_signal(signal.SIGTERM)
        # Clients look away while the server still answers: that is what the pause is for.
        assert seen.wait(10)
        stopped.set()
        for thread in [*threads, watcher]:
            thread.join()
        assert failed == []
        assert served.process.wait(20) == 0
        events = [line["event"] for line in served.log_lines()]
        assert events.count("worker stopped") == 2


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_a_worker_that_dies_is_started_again(start_server: Start) -> None:
    with start_server("--workers", "2") as served:
        before: set[str] = set()
        while len(before) < 2:
            with Client(served.address, timeout=10, num_channels=1) as client:
                before.add(client.retrieve("user-005", k=1).source.worker)
        victim = sorted(before)[0]
        os.kill(int(victim.split(".")[1]), signal.SIGKILL)
        # The other goes on serving meanwhile; the client asks again where a connection broke.
        workers: set[str] = set()
        end = time.monotonic() + 20
        while not {name for name in workers - before if name.split(".")[0] == victim.split(".")[0]}:
            assert time.monotonic() < end, "the worker never came back"
            with Client(served.address, timeout=10, num_channels=1) as client:
                workers.add(client.retrieve("user-005", k=1).source.worker)
        died = [line for line in served.log_lines() if line["event"] == "worker died, restarting"]
        assert [line["exit_code"] for line in died] == [-signal.SIGKILL]

        def counted(name: str) -> float:
            page = urllib.request.urlopen(served.metrics, timeout=10).read().decode()
            (line,) = [line for line in page.splitlines() if line.startswith(f"{name} ")]
            return float(line.split()[1])

        def counted_retrieves() -> float:
            return counted('penchant_calls_total{code="OK",rpc="Retrieve"}')

        assert counted("penchant_worker_restarts_total") == 1
        # It counts on in the files of the one that died: their number does not grow.
        pids = [int(worker.split(".")[1]) for worker in sorted(workers)]
        folders = {_environment(pid)["PROMETHEUS_MULTIPROC_DIR"] for pid in pids if _lives(pid)}
        (folder,) = map(Path, folders)
        assert {path.stem.rpartition("_")[2] for path in folder.glob("*.db")} == {"w0", "w1"}
        assert counted_retrieves() >= len(before)
        until(lambda: counted("penchant_workers") == 2)
        assert served.stop() == 0


def test_calls_go_on_while_a_worker_stops_and_is_started_again(start_server: Start) -> None:
    with start_server("--workers", "2", "--max-connection-age", "2") as served:
        stopped = threading.Event()
        failed: list[Exception] = []
        workers: set[str] = set()

        def ask() -> None:
            with Client(served.address, timeout=10, num_channels=4) as client:
                while not stopped.is_set():
                    try:
                        workers.add(client.retrieve("user-005", k=5).source.worker)
                    except Exception as error:
                        failed.append(error)
                        return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(workers) == 2 or bool(failed))
            victim = int(min(workers).split(".")[1])
            os.kill(victim, signal.SIGTERM)
            until(lambda: "Z" in _state(victim) or not Path(f"/proc/{victim}").exists())
            until(lambda: served.log_lines()[-1]["event"] == "worker ready")
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        assert failed == []
        assert served.stop() == 0


def test_a_store_without_users_is_told_of(world: World, tmp_path: Path) -> None:
    with serve(world.bundle, tmp_path / "empty", tmp_path / "log") as served:
        (line,) = [line for line in served.log_lines() if line["event"] == "no users"]
        assert line["level"] == "warning" and "penchant load-users" in line["remedy"]
        assert served.stop() == 0


def test_workers_end_when_their_supervisor_is_killed(start_server: Start) -> None:
    with start_server() as served:
        with Client(served.address, timeout=10) as client:
            pid = int(client.status().source.worker.split(".")[1])
        served.process.kill()
        served.process.wait(10)
        until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(world.bundle, tmp_path / "bundle"))


def test_a_worker_that_finds_another_bundle_refuses_to_start(copy: Path, tmp_path: Path) -> None:
    with serve(copy, tmp_path / "state", tmp_path / "log", "--workers", "2") as served:
        workers: dict[str, str] = {}
        while len(workers) < 2:
            with Client(served.address, timeout=10, num_channels=1) as client:
                source = client.retrieve("user-005", k=1).source
                workers[source.worker] = source.bundle_version
        (old,) = set(workers.values())
        shutil.rmtree(copy)
        make_world(tmp_path / "newer").bundle.rename(copy)
        os.kill(int(min(workers).split(".")[1]), signal.SIGKILL)

        def reasons() -> list[str]:
            lines = [line for line in served.log_lines() if line["event"].startswith("worker died")]
            return [line["reason"] for line in lines if line["reason"]]

        until(lambda: bool(reasons()))
        assert f"the other workers serve {old}" in reasons()[0]
        assert "holds version" in reasons()[0]
        with Client(served.address, timeout=10) as client:
            for _ in range(10):
                assert client.retrieve("user-005", k=1).source.bundle_version == old
        assert served.stop() == 0


def refused(bundle: Path, tmp_path: Path, *arguments: str) -> str:
    """What `serve` says when it refuses to start."""
    done = penchant(
        "serve", str(bundle), "--state", str(tmp_path / "state"), "--port", "0", *arguments
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    return done.stderr


def test_a_truncated_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    with (copy / "vectors.npy").open("r+b") as file:
        file.truncate(1000)
    assert "vectors.npy has 1000 bytes instead of" in refused(copy, tmp_path)


def test_a_flipped_bit_is_refused(copy: Path, tmp_path: Path) -> None:
    data = bytearray((copy / "user_tower.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "user_tower.onnx").write_bytes(data)
    assert "user_tower.onnx is damaged" in refused(copy, tmp_path, "--workers", "2")


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such bundle" in refused(tmp_path / "nothing", tmp_path)


def test_a_snapshot_is_no_bundle(world: World, tmp_path: Path) -> None:
    assert "a bundle is needed here" in refused(world.snapshot, tmp_path)


def test_a_state_that_is_no_store_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "store.db").write_text("no database " * 200)
    assert "store.db" in refused(world.bundle, tmp_path)


def test_a_taken_port_is_refused(world: World, server: Served, tmp_path: Path) -> None:
    port = server.address.rsplit(":", 1)[1]
    assert "choose another --port" in refused(world.bundle, tmp_path, "--port", port)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        said = refused(world.bundle, tmp_path, "--metrics-port", number)
    assert "choose another --metrics-port" in said


def test_options_that_are_not_allowed_are_refused(world: World, tmp_path: Path) -> None:
    assert "workers = 0 is not allowed" in refused(world.bundle, tmp_path, "--workers", "0")
    assert "log_level = 'loud'" in refused(world.bundle, tmp_path, "--log-level", "loud")
