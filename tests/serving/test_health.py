"""grpc.health.v1 by a servicer of our own: watchers that come and go, states that change."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.health import HealthServicer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def health() -> Iterator[tuple[HealthServicer, str]]:
    """A servicer on a server whose only call thread is never needed for a stream."""
    servicer = HealthServicer(["penchant"])
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    servicer.close()
    server.stop(5).wait()


def test_it_serves_when_it_says_so_and_not_before_or_after(
    health: tuple[HealthServicer, str],
) -> None:
    servicer, address = health
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check

        def states() -> list[int]:
            asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", "penchant")]
            return [check(request, timeout=5).status for request in asked]

        assert states() == [NOT_SERVING] * 2
        servicer.serve()
        assert states() == [SERVING] * 2
        servicer.leave()
        assert states() == [NOT_SERVING] * 2
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watchers_are_told_of_every_change_and_of_the_end(
    health: tuple[HealthServicer, str],
) -> None:
    servicer, address = health
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [
            stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20)
            for name in ("", "penchant", "other")
        ]
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert [next(watch).status for watch in watches] == [NOT_SERVING, NOT_SERVING, unknown]
        servicer.serve()
        assert [next(watch).status for watch in watches] == [SERVING, SERVING, unknown]
        servicer.leave()
        servicer.close()
        for watch in watches[:2]:
            assert [answer.status for answer in watch] == [NOT_SERVING]
            assert watch.code() is grpc.StatusCode.OK


def test_watchers_that_leave_while_it_changes_stop_nothing(
    health: tuple[HealthServicer, str],
) -> None:
    # With grpcio-health-checking's servicer this stops the server for good within a few rounds.
    servicer, address = health
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            with grpc.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch(
                    health_pb2.HealthCheckRequest(), timeout=20
                )
                next(watch)
                watch.cancel()

    with ThreadPoolExecutor(4) as pool:
        watchers = [pool.submit(come_and_go) for _ in range(4)]
        for _ in range(100):
            servicer.serve()
            servicer.leave()
            with grpc.insecure_channel(address) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=10
                )
            assert answer.status == NOT_SERVING
        over.set()
        for watcher in watchers:
            watcher.result(30)
