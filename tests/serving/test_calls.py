"""The call threads: who runs next, waits or is refused; and a worker whose threads are busy."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from interest.v1 import admin_service_pb2, admin_service_pb2_grpc
from serving import errors
from serving.calls import CallExecutor
from serving.client import Client
from serving.config import Limits, ServerConfig
from serving.runtime import Runtime
from serving.server import WorkerServer
from tests.serving.tiny import World, item_id


def test_the_thread_that_finished_last_takes_the_next_call() -> None:
    executor = CallExecutor(4, max_waiting=4)
    together = threading.Barrier(4)
    started = [executor.submit(together.wait, 10) for _ in range(4)]
    for future in started:
        future.result(10)
    last = executor.submit(threading.get_ident).result(10)
    for _ in range(20):
        time.sleep(0.001)  # until it has put itself back
        assert executor.submit(threading.get_ident).result(10) == last


def test_calls_wait_in_order_and_those_beyond_are_refused() -> None:
    executor = CallExecutor(1, max_waiting=2)
    go, done = threading.Event(), list[int]()
    first = executor.submit(go.wait, 10)
    waiting = [executor.submit(done.append, i) for i in range(2)]
    refused = executor.submit(lambda: executor.is_refusing)
    assert refused.result(10) and not done
    go.set()
    assert first.result(10)
    for future in waiting:
        future.result(10)
    assert done == [0, 1]
    assert executor.submit(lambda: executor.is_refusing).result(10) is False


def test_an_exception_is_the_futures() -> None:
    executor = CallExecutor(1, max_waiting=0)
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 / 0).result(10)


@pytest.fixture
def busy(world: World, state: Path) -> Iterator[tuple[Runtime, str]]:
    """A worker with two call threads and room for one waiting call, whose batcher is held."""
    config = ServerConfig(
        bundle=world.bundle,
        state=state,
        port=0,
        threads=2,
        drain_pause=0,
        limits=Limits(max_pending=1),
    )
    runtime = Runtime(config)
    server = WorkerServer(config, runtime, worker="w")
    address = f"127.0.0.1:{server.start()}"
    runtime._batcher._computing = True  # as while a long batch computes
    yield runtime, address
    server.drain(threading.Event())
    runtime.close()


def test_a_busy_worker_sheds_at_once_and_says_that_it_lives(busy: tuple[Runtime, str]) -> None:
    runtime, address = busy
    with Client(address, timeout=3) as client, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(client.find_similar, item_id(1)) for _ in range(3)]
        while len(runtime._batcher._waiting) < 2:
            time.sleep(0.01)
        time.sleep(0.2)  # the third waits for a thread
        started = time.monotonic()
        with pytest.raises(errors.Overloaded, match="1 calls are waiting"):
            client.retrieve("nobody")
        with grpc.insecure_channel(address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            answer = check(health_pb2.HealthCheckRequest(), timeout=1)
            status = admin_service_pb2_grpc.AdminServiceStub(channel).GetStatus
            status(admin_service_pb2.GetStatusRequest(), timeout=1)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert time.monotonic() - started < 2, "it waited for the held calls"
        for future in held:
            with pytest.raises(errors.DeadlineExceeded):
                future.result(10)
