"""Draining: callers that heed nothing, that retry nothing, lose no call when a worker stops."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc
import pytest

from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc
from serving.drain import QUIET_SECONDS, stop_listening, wait_until_quiet
from tests.serving.processes import Served

Start = Callable[..., AbstractContextManager[Served]]
REQUEST = pb.RetrieveRequest(queries=[pb.UserQuery(user_id="user-005")], k=5)


def listener() -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return found


def test_a_port_is_left_to_the_others_that_share_it() -> None:
    with listener() as leaving, listener() as staying:
        leaving.bind(("127.0.0.1", 0))
        port = leaving.getsockname()[1]
        staying.bind(("127.0.0.1", port))
        leaving.listen()
        with socket.create_connection(("127.0.0.1", port)) as before, leaving.accept()[0] as served:
            assert stop_listening(port)
            staying.listen()  # only now: stop_listening shuts all that listen in this process
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    staying.accept()[0].close()
            served.sendall(b"still here")
            assert before.recv(10) == b"still here"
        assert not stop_listening(1)


def test_quiet_is_when_nothing_runs_and_nothing_comes() -> None:
    never = threading.Event()
    started = time.monotonic()
    assert wait_until_quiet(lambda: 0, lambda: 7, patience=10, hurry=never)
    assert time.monotonic() - started >= QUIET_SECONDS
    until = time.monotonic() + 0.3
    assert wait_until_quiet(lambda: time.monotonic() < until, lambda: 7, patience=10, hurry=never)
    assert time.monotonic() >= until + QUIET_SECONDS - 0.05
    calls = iter(range(1000))
    assert not wait_until_quiet(lambda: 0, lambda: next(calls), patience=0.5, hurry=never)
    hurry = threading.Event()
    hurry.set()
    assert not wait_until_quiet(lambda: 1, lambda: 7, patience=60, hurry=hurry)


@contextmanager
def stubborn_callers(address: str, num: int) -> Iterator[tuple[list[str], list[str]]]:
    """Callers on a connection each that watch no health and have no policy of retries; yields the
    workers that answered and the errors, both still growing.

    What gRPC retries by itself, it does: a call that a connection's end overtook on its way, which
    the server has never seen.
    """
    workers: list[str] = []
    failed: list[str] = []
    stopped = threading.Event()

    def ask() -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(address, options=options) as channel:
            stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
            while not stopped.is_set():
                try:
                    workers.append(stub.Retrieve(REQUEST, timeout=10).info.worker)
                except grpc.RpcError as error:
                    failed.append(f"{error.code()}: {error.details()}")

    threads = [threading.Thread(target=ask) for _ in range(num)]
    for thread in threads:
        thread.start()
    try:
        yield workers, failed
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def wait_for(holds: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="listening sockets: on Linux only")
def test_a_worker_that_stops_loses_no_call_of_callers_who_heed_nothing(
    start_server: Start,
) -> None:
    with start_server("--workers", "2", "--max-connection-age", "1") as served:
        with stubborn_callers(served.address, 6) as (workers, failed):
            wait_for(lambda: len(set(workers)) == 2 or bool(failed))
            victim = min(set(workers))
            os.kill(int(victim.split(".")[1]), signal.SIGTERM)

            def stopped() -> bool:
                lines = [x for x in served.log_lines() if x.get("worker") == victim]
                return any(line["event"] == "worker stopped" for line in lines)

            wait_for(stopped)
            # Its callers went on at the other one, or at its successor.
            num_before = len(workers)
            wait_for(lambda: len(workers) > num_before + 20 or bool(failed))
            assert victim not in set(workers[num_before + 20 :])
        assert failed == []
        lines = [line for line in served.log_lines() if line["event"] == "worker stopping"]
        assert [(line["worker"], line["quiet"]) for line in lines] == [(victim, True)]
        assert served.stop() == 0


def test_calls_under_way_are_answered_before_the_end(start_server: Start) -> None:
    # A big batch takes a while; everything but it is over when it is answered.
    queries = [pb.UserQuery(user_id=f"user-{i % 120:03d}") for i in range(256)]
    batch = pb.RetrieveRequest(queries=queries, k=500, num_history=40)
    with start_server("--max-connection-age", "1") as served:
        with grpc.insecure_channel(served.address) as channel:
            stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
            stub.Retrieve(REQUEST, timeout=10)
            calls = [stub.Retrieve.future(batch, timeout=30) for _ in range(6)]
            wait_for(lambda: calls[0].done())
            served.process.send_signal(signal.SIGTERM)
            for call in calls:
                assert len(call.result().candidates.counts) == 256
        assert served.process.wait(30) == 0


def test_a_second_ctrl_c_does_not_wait_for_callers(start_server: Start) -> None:
    with start_server("--max-connection-age", "600") as served:
        with stubborn_callers(served.address, 1) as (workers, _):
            wait_for(lambda: bool(workers))
            served.process.send_signal(signal.SIGINT)
            time.sleep(1.0)
            assert served.process.poll() is None, "it did not wait for its caller"
            served.process.send_signal(signal.SIGINT)
            assert served.process.wait(20) == 0
        (line,) = [line for line in served.log_lines() if line["event"] == "worker stopping"]
        assert line["quiet"] is False
