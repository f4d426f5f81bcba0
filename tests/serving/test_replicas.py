"""One client, several servers: one that stops, is gone or is silent costs its callers nothing."""

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import pytest

from interest.v1 import admin_service_pb2, admin_service_pb2_grpc, types_pb2
from model.errors import ConfigError
from serving.client import AsyncClient, Client
from serving.errors import Overloaded, ServerUnavailable, StoreUnavailable
from serving.health import HealthServicer
from serving.status import DETAIL_KEY
from tests.serving.processes import Served

Start = Callable[..., AbstractContextManager[Served]]


def free_port() -> int:
    """None that the system gives to outgoing connections: one that tries to reach a replica that is
    not there yet would take its port."""
    for port in random.sample(range(20_000, 30_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Replica(admin_service_pb2_grpc.AdminServiceServicer):
    """A server of status alone: counts its calls, and refuses them all if told to."""

    def __init__(self, name: str) -> None:
        self.name, self.num_calls = name, 0
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.health = HealthServicer(["interest.v1.RetrievalService"])
        self.health.serve()

    def GetStatus(self, request: Any, context: Any) -> Any:
        self.num_calls += 1
        if self.refusal is not None:
            status, code = self.refusal
            detail = types_pb2.ErrorDetail(code=code, message="no", retry_after_ms=50)
            context.set_trailing_metadata(((DETAIL_KEY, detail.SerializeToString()),))
            context.abort(status, "no")
        return admin_service_pb2.GetStatusResponse(server_version=self.name)

    def ListUsers(self, request: Any, context: Any) -> Any:
        return admin_service_pb2.ListUsersResponse()

    def Activate(self, request: Any, context: Any) -> Any:
        return admin_service_pb2.ActivateResponse()

    def Rollback(self, request: Any, context: Any) -> Any:
        return admin_service_pb2.RollbackResponse()

    def ListGenerations(self, request: Any, context: Any) -> Any:
        return admin_service_pb2.ListGenerationsResponse()


@contextmanager
def served(*replicas: Replica) -> Iterator[list[str]]:
    """Their addresses."""
    from grpc_health.v1 import health_pb2_grpc

    servers, found = [], []
    for replica in replicas:
        server = grpc.server(ThreadPoolExecutor(4))
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(replica, server)
        health_pb2_grpc.add_HealthServicer_to_server(replica.health, server)
        found.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        servers.append(server)
    try:
        yield found
    finally:
        for replica, server in zip(replicas, servers, strict=True):
            replica.health.close()
            server.stop(None).wait()


def names(client: Client, num: int) -> list[str]:
    return [client.status().server_version for _ in range(num)]


def test_replicas_take_turns() -> None:
    with served(Replica("a"), Replica("b")) as found:
        for address in (",".join(found), found, f" {found[0]} , {found[1]} "):
            with Client(address, timeout=5) as client:
                assert sorted(names(client, 8)) == ["a"] * 4 + ["b"] * 4


def test_one_that_says_not_serving_is_not_asked() -> None:
    a, b = Replica("a"), Replica("b")
    with served(a, b) as found, Client(found, timeout=5) as client:
        assert set(names(client, 8)) == {"a", "b"}
        a.health.leave()
        end = time.monotonic() + 10
        while set(names(client, 8)) != {"b"}:
            assert time.monotonic() < end, "it was asked on and on"
        num_calls = a.num_calls
        assert names(client, 20) == ["b"] * 20
        assert a.num_calls == num_calls
        a.health.serve()
        end = time.monotonic() + 10
        while set(names(client, 8)) != {"a", "b"}:
            assert time.monotonic() < end, "it was never asked again"


def test_one_that_is_not_there_costs_nothing() -> None:
    with served(Replica("a")) as found:
        addresses = [f"127.0.0.1:{free_port()}", *found, f"127.0.0.1:{free_port()}"]
        with Client(addresses, timeout=5, num_channels=1) as client:
            assert names(client, 9) == ["a"] * 9


def test_one_that_is_silent_costs_the_first_calls_a_second() -> None:
    # It takes connections and says nothing: no health, no answer.
    with socket.create_server(("127.0.0.1", 0), backlog=16) as mute, served(Replica("a")) as found:
        addresses = [f"127.0.0.1:{mute.getsockname()[1]}", *found]
        with Client(addresses, timeout=10, num_channels=1) as client:
            assert names(client, 6) == ["a"] * 6


async def test_the_same_for_the_async_client() -> None:
    a, b = Replica("a"), Replica("b")
    with served(a, b) as found:
        addresses = [f"127.0.0.1:{free_port()}", *found]
        async with AsyncClient(addresses, timeout=5) as client:
            answers = await asyncio.gather(*(client.status() for _ in range(12)))
            assert {answer.server_version for answer in answers} == {"a", "b"}
            b.health.leave()
            await asyncio.sleep(0.2)
            answers = await asyncio.gather(*(client.status() for _ in range(12)))
            assert {answer.server_version for answer in answers} == {"a"}


@pytest.mark.parametrize(
    ("status", "code", "exception"),
    [
        (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", StoreUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", Overloaded),
    ],
)
def test_what_a_server_refused_is_not_asked_of_the_next(
    status: grpc.StatusCode, code: str, exception: type[Exception]
) -> None:
    a, b = Replica("a"), Replica("b")
    a.refusal = b.refusal = (status, code)
    with served(a, b) as found, Client(found, timeout=5) as client, pytest.raises(exception):
        client.status()
    assert a.num_calls + b.num_calls == 1


def test_nobody_there_names_them_all() -> None:
    found = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    with (
        Client(found, timeout=5) as client,
        pytest.raises(ServerUnavailable, match=f"no server answers at {found[0]}, {found[1]} "),
    ):
        client.status()


@pytest.mark.parametrize("address", ["", "a:1,", ",", [], "a:1,b", ["a:1", "b"]])
def test_addresses_that_are_none(address: Any) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            kind(address)


def test_what_is_sent_along_is_asked_for_each_call() -> None:
    seen: list[str] = []

    class Telling(Replica):
        def GetStatus(self, request: Any, context: Any) -> Any:
            seen.extend(v for k, v in context.invocation_metadata() if k == "x-request-id")
            return super().GetStatus(request, context)

    ids = iter(["one", "two"])
    with (
        served(Telling("a")) as found,
        Client(found, timeout=5, metadata=lambda: {"x-request-id": next(ids)}) as client,
    ):
        names(client, 2)
    assert seen == ["one", "two"]


def test_one_of_two_stops_and_starts_under_load(start_server: Start) -> None:
    port = free_port()
    with start_server() as lasting:
        failed: list[Exception] = []
        workers: list[str] = []
        over = threading.Event()

        def ask(client: Client) -> None:
            while not over.is_set():
                try:
                    workers.append(client.retrieve("user-005", k=5).source.worker)
                except Exception as error:
                    failed.append(error)
                    return
                time.sleep(0.002)  # or it would take the cores from the server that starts

        with Client([lasting.address, f"127.0.0.1:{port}"], timeout=5) as client:
            threads = [threading.Thread(target=ask, args=(client,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(2):
                    before = set(workers)
                    with start_server("--port", str(port)) as served:
                        end = time.monotonic() + 30
                        while set(workers) <= before or len(set(workers)) < 2:
                            assert time.monotonic() < end and not failed, failed
                            time.sleep(0.02)
                        assert served.stop() == 0
                        (line,) = [x for x in served.log_lines() if x["event"] == "worker stopping"]
                        assert line["quiet"] is True
            finally:
                over.set()
                for thread in threads:
                    thread.join()
        assert failed == []
