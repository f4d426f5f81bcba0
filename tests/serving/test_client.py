"""Client and AsyncClient beyond the answers themselves: deadlines, absence, several channels."""

import asyncio
import inspect
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from interest.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    circle_service_pb2,
    ingest_service_pb2,
    retrieval_service_pb2,
)
from model.errors import ConfigError
from serving.client import AsyncClient, Client
from serving.domain import AnyOf, History, UserQuery
from serving.errors import BadRequest, DeadlineExceeded, ServerUnavailable
from serving.sending import REPEATABLE
from tests.serving.processes import Served
from tests.serving.tiny import item_id


async def test_async_answers_equal_sync_ones(server: Served) -> None:
    history = UserQuery(history=History([item_id(1), "x"]))
    with Client(server.address, timeout=10) as client:
        async with AsyncClient(server.address, timeout=10) as asynchronous:
            users: list[str | UserQuery] = ["user-005", "nobody", history]
            filters = [AnyOf("kind", ("video",))]
            options = {"k": 7, "filters": filters, "fields": ["title"], "num_history": 2}
            one = client.retrieve(users, **options)  # type: ignore[arg-type]
            two = await asynchronous.retrieve(users, **options)  # type: ignore[arg-type]
            assert one.item_ids == two.item_ids and one.errors == two.errors
            assert one.columns == two.columns and one.history is not None
            np.testing.assert_array_equal(one.scores, two.scores)
            similar = await asynchronous.find_similar(item_id(4), k=5)
            assert similar.item_ids == client.find_similar(item_id(4), k=5).item_ids
            embedded = await asynchronous.embed_users(users[:2])
            np.testing.assert_array_equal(
                embedded.interests, client.embed_users(users[:2]).interests
            )
            assert (await asynchronous.status()).bundle == client.status().bundle
            with pytest.raises(BadRequest, match="k = 0"):
                await asynchronous.retrieve("user-005", k=0)


async def test_async_calls_run_at_once(server: Served) -> None:
    async with AsyncClient(server.address, timeout=10, num_channels=3) as client:
        answers = await asyncio.gather(
            *(client.retrieve(f"user-{u:03d}", k=1 + u % 5) for u in range(60))
        )
    assert [len(found.item_ids) for found in answers] == [1 + u % 5 for u in range(60)]


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in vars(kind).items()
            if callable(value) and not name.startswith("_")
        }

    assert calls(Client) == calls(AsyncClient)
    assert {"retrieve", "find_similar", "embed_users", "status", "close"} <= set(calls(Client))


def test_every_rpc_is_one_that_may_be_tried_again_or_is_known_to_be_none() -> None:
    # A new RPC that must not be done twice goes here; any other into REPEATABLE.
    writes = {"Activate", "Rollback", "StreamEvents"}
    files = (retrieval_service_pb2, admin_service_pb2, circle_service_pb2, ingest_service_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    methods = {name for service in services for name in service.methods_by_name}
    assert methods - writes == REPEATABLE


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Client(f"127.0.0.1:{port}", timeout=5) as client,
        pytest.raises(ServerUnavailable, match=f"no server answers at 127.0.0.1:{port}"),
    ):
        client.status()


def test_a_deadline_that_passes() -> None:
    # It listens, and never says a word.
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        Client(f"127.0.0.1:{mute.getsockname()[1]}", timeout=0.2) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.status()


async def test_a_deadline_that_passes_async() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with AsyncClient(f"127.0.0.1:{mute.getsockname()[1]}") as client:
            with pytest.raises(DeadlineExceeded):
                await client.status(timeout=0.2)


def test_calls_that_a_stopping_server_cancels_are_asked_again() -> None:
    num_calls = 0

    class Stopping(admin_service_pb2_grpc.AdminServiceServicer):
        def GetStatus(self, request: Any, context: Any) -> Any:
            nonlocal num_calls
            num_calls += 1
            if num_calls < 3:
                context.abort(grpc.StatusCode.CANCELLED, "the server stops")
            return admin_service_pb2.GetStatusResponse(server_version="of the next one")

        def ListUsers(self, request: Any, context: Any) -> Any:
            return admin_service_pb2.ListUsersResponse()

        def Activate(self, request: Any, context: Any) -> Any:
            return admin_service_pb2.ActivateResponse()

        def Rollback(self, request: Any, context: Any) -> Any:
            return admin_service_pb2.RollbackResponse()

        def ListGenerations(self, request: Any, context: Any) -> Any:
            return admin_service_pb2.ListGenerationsResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(Stopping(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", timeout=10) as client:
            assert client.status().server_version == "of the next one"
    finally:
        server.stop(None).wait()
    assert num_calls == 3


def test_channels_are_connections_of_their_own(server: Served) -> None:
    with Client(server.address, timeout=10, num_channels=3) as client:
        for _ in range(3):
            client.status()
        port = int(server.address.rsplit(":", 1)[1])
        assert _established(port) >= 3


def _established(port: int) -> int:
    """Connections of any process to a local port, as /proc has them."""
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    return sum(
        int(remote.rsplit(":", 1)[1], 16) == port and state == "01"
        for _, _, remote, state, *_ in lines
    )


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"num_channels": 0}])
def test_options_that_are_not_allowed(options: dict[str, Any]) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="is not allowed"):
            kind("127.0.0.1:1", **options)


@pytest.mark.parametrize("address", ["localhost", "10.0.0.7", "[::1]"])
def test_an_address_needs_a_port(address: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="has no port"):
            kind(address)


@pytest.mark.parametrize(
    "options",
    [
        {"fields": "title"},
        {"filters": AnyOf("kind", ("video",))},
        {"filters": [AnyOf("kind", "video")]},  # type: ignore[arg-type]
        {"filters": ["kind"]},
    ],
)
def test_what_python_would_take_apart_letter_by_letter(options: dict[str, Any]) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(BadRequest):
        client.retrieve("u", **options)


def test_users_are_listed_page_by_page(server: Served) -> None:
    with Client(server.address, timeout=10) as client:
        everyone = client.list_users(page_size=1000)
        assert everyone.next_page_token == "" and "user-005" in everyone.user_ids
        listed: list[str] = []
        page = client.list_users(page_size=7)
        while page.next_page_token:
            listed += page.user_ids
            page = client.list_users(page_size=7, page_token=page.next_page_token)
        assert [*listed, *page.user_ids] == list(everyone.user_ids)
        counts = dict(zip(everyone.user_ids, everyone.num_events.tolist(), strict=True))
        found = client.retrieve("user-005", k=1, num_history=1)
        assert counts["user-005"] >= found.history_lengths[0] > 0
        with pytest.raises(BadRequest, match="0 users are not allowed"):
            client.list_users(page_size=0)
        with pytest.raises(BadRequest, match="page_token"):
            client.list_users(page_token="-1")


def test_a_closed_client_says_so(server: Served) -> None:
    client = Client(server.address)
    client.status()
    client.close()
    with pytest.raises(ServerUnavailable, match="was closed"):
        client.status()


async def test_a_closed_async_client_says_so(server: Served) -> None:
    client = AsyncClient(server.address)
    await client.status()
    await client.close()
    with pytest.raises(ServerUnavailable, match="was closed"):
        await client.status()


def test_an_async_client_belongs_to_one_loop(server: Served) -> None:
    client = AsyncClient(server.address, timeout=10)

    async def ask() -> None:
        await client.status()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(ask())
        with pytest.raises(ConfigError, match="event loop of its first call"):
            second.run(ask())
        first.run(client.close())


@pytest.mark.parametrize("timeout", [float("inf"), 1e18])
def test_a_deadline_far_away_is_one(server: Served, timeout: float) -> None:
    with Client(server.address, timeout=timeout) as client:
        assert client.status().server_version


@pytest.mark.parametrize(
    "metadata",
    [{"x-request-id": "竹"}, {"X-Upper": "a"}, {"x": 5}, {"x": "a\nb"}, {"": "a"}],
    ids=str,
)
def test_metadata_that_no_header_can_say(server: Served, metadata: dict[str, Any]) -> None:
    with (
        Client(server.address, metadata=lambda: metadata) as client,
        pytest.raises(BadRequest, match="cannot be sent") as refused,
    ):
        client.status()
    assert refused.value.field == "metadata"


@pytest.mark.parametrize(
    "user",
    [
        "\ud800",  # half of a pair, which no UTF-8 can say
        UserQuery("\ud800"),
        UserQuery(user_id=5),  # type: ignore[arg-type]
        UserQuery(history=History("item-0001")),
        UserQuery(history=History(["item-0001"], "watch")),
        UserQuery(history=History([1])),  # type: ignore[list-item]
        UserQuery("user-005", exclude_item_ids="item-0001"),
        UserQuery(history=History([]), profile={"city": [5]}),  # type: ignore[list-item]
        [5],
    ],
    ids=str,
)
def test_users_that_no_message_can_say(user: Any) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(BadRequest):
        client.retrieve(user)


def test_no_item_is_left_out_in_silence() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(BadRequest, match="neither"):
        client.embed_items(["item-0001", 5])  # type: ignore[list-item]
