"""The typed client, sync and async: numpy in and out, the server's exceptions raised here again.

    with Client("127.0.0.1:50051") as client:
        found = client.retrieve("user-7", k=20, filters=[AnyOf("kind", ("product",))])
        print(found.item_ids, found.scores)

Both clients share all of the translation (serving/translation.py); they differ only in how a call
is sent.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

import grpc

from model.errors import ConfigError, PenchantError
from serving.domain import FloatArray
from serving.errors import ServerUnavailable
from serving.results import Embedded, Found, Retrieved, ServerStatus, UserPage
from serving.status import DETAIL_KEY, from_status
from serving.translation import (
    Call,
    EmbedOptions,
    RetrieveOptions,
    SimilarOptions,
    Users,
    embed_users_call,
    find_similar_call,
    list_users_call,
    retrieve_call,
    status_call,
)

# ruff: noqa: ASYNC109  (`timeout` is the call's deadline: it travels to the server)

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 2.0
"""Seconds that a call may take, unless it is told otherwise."""

Answer = TypeVar("Answer")

_RETRY = {
    "methodConfig": [
        {
            "name": [
                {"service": "interest.v1.RetrievalService"},
                {"service": "interest.v1.AdminService"},
            ],
            # Every RPC so far reads only, so that asking again is safe.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                # CANCELLED is how calls end that arrive in the moment in which a server stops;
                # a call that the caller cancels is never tried again.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.service_config", json.dumps(_RETRY)),
    # A connection that broke is tried again before the retries of the calls on it run out.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Without it, channels to one address share one connection, and with it one worker.
    ("grpc.use_local_subchannel_pool", 1),
]


class Client:
    """Talks to a Penchant server. Safe across threads.

    address: host:port. timeout: seconds, the default deadline of a call. num_channels: connections;
    each stays on one of the server's workers, so give at least as many as there are workers.

    Every call raises the exceptions of serving/errors.py: BadRequest and its kinds for what cannot
    be answered, Overloaded, StoreUnavailable, DeadlineExceeded, ServerUnavailable, InternalError.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        num_channels: int = 2,
    ) -> None:
        self._address, self._timeout = _with_port(address), _positive("timeout", timeout)
        self._channels = [
            grpc.insecure_channel(address, options=_OPTIONS)
            for _ in range(int(_positive("num_channels", num_channels)))
        ]
        self._turns = itertools.cycle(range(len(self._channels)))
        self._methods: dict[tuple[int, str], Any] = {}

    def retrieve(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[RetrieveOptions]
    ) -> Retrieved:
        """The items nearest to each user's interests."""
        return self._send(retrieve_call(users, options), timeout)

    def find_similar(
        self,
        items: str | Sequence[str] | FloatArray,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Found:
        """The items nearest to given items, or to vectors [Q, D] float32."""
        return self._send(find_similar_call(items, options), timeout)

    def embed_users(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[EmbedOptions]
    ) -> Embedded:
        """Each user's interest vectors."""
        return self._send(embed_users_call(users, options), timeout)

    def status(self, *, timeout: float | None = None) -> ServerStatus:
        """The worker that answers, and what it serves."""
        return self._send(status_call(), timeout)

    def list_users(
        self, *, page_size: int = 100, page_token: str = "", timeout: float | None = None
    ) -> UserPage:
        """A page of the store's users, in the order in which they came."""
        return self._send(list_users_call(page_size, page_token), timeout)

    def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: Call[Answer], timeout: float | None) -> Answer:
        turn = next(self._turns)
        method = self._methods.get((turn, call.path))
        if method is None:
            method = self._methods[turn, call.path] = _method(self._channels[turn], call)
        try:
            response = method(call.request, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            raise _raised(error, self._address) from None
        return call.translate(response)


class AsyncClient:
    """Client for asyncio: the same calls, awaited. Belongs to the loop of its first call."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        num_channels: int = 2,
    ) -> None:
        self._address, self._timeout = _with_port(address), _positive("timeout", timeout)
        self._num_channels = int(_positive("num_channels", num_channels))
        self._channels: list[grpc.aio.Channel] = []
        self._turns = itertools.cycle(range(self._num_channels))
        self._methods: dict[tuple[int, str], Any] = {}

    async def retrieve(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[RetrieveOptions]
    ) -> Retrieved:
        """The items nearest to each user's interests."""
        return await self._send(retrieve_call(users, options), timeout)

    async def find_similar(
        self,
        items: str | Sequence[str] | FloatArray,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Found:
        """The items nearest to given items, or to vectors [Q, D] float32."""
        return await self._send(find_similar_call(items, options), timeout)

    async def embed_users(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[EmbedOptions]
    ) -> Embedded:
        """Each user's interest vectors."""
        return await self._send(embed_users_call(users, options), timeout)

    async def status(self, *, timeout: float | None = None) -> ServerStatus:
        """The worker that answers, and what it serves."""
        return await self._send(status_call(), timeout)

    async def list_users(
        self, *, page_size: int = 100, page_token: str = "", timeout: float | None = None
    ) -> UserPage:
        """A page of the store's users, in the order in which they came."""
        return await self._send(list_users_call(page_size, page_token), timeout)

    async def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        for channel in self._channels:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, call: Call[Answer], timeout: float | None) -> Answer:
        if not self._channels:  # made here, where the loop runs
            self._channels = [
                grpc.aio.insecure_channel(self._address, options=_OPTIONS)
                for _ in range(self._num_channels)
            ]
        turn = next(self._turns)
        method = self._methods.get((turn, call.path))
        if method is None:
            method = self._methods[turn, call.path] = _method(self._channels[turn], call)
        try:
            response = await method(call.request, timeout=timeout or self._timeout)
        except grpc.aio.AioRpcError as error:
            raise _raised(error, self._address) from None
        return call.translate(response)


def _method(channel: grpc.Channel | grpc.aio.Channel, call: Call[Any]) -> Callable[..., Any]:
    """The channel's callable for an RPC; kept, since making it costs more than calling it."""
    method = channel.unary_unary(
        call.path,
        request_serializer=type(call.request).SerializeToString,
        response_deserializer=call.response.FromString,
    )
    return cast("Callable[..., Any]", method)


def _raised(error: grpc.RpcError, address: str) -> PenchantError:
    """The exception that a refused call stands for."""
    call = cast("grpc.Call", error)
    trailing = dict(call.trailing_metadata() or ())
    detail = trailing.get(DETAIL_KEY)
    raised = from_status(
        call.code(), call.details() or "", detail if isinstance(detail, bytes) else None
    )
    if isinstance(raised, ServerUnavailable):
        return ServerUnavailable(f"no server answers at {address} ({raised}).")
    return raised


def _with_port(address: str) -> str:
    """The address; gRPC would take one without a port for port 443 and wait there."""
    if ":" not in address.rpartition("]")[2]:
        raise ConfigError(f"address {address!r} has no port; write it as HOST:PORT")
    return address


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise ConfigError(f"{name} = {value!r} is not allowed; allowed: above 0")
    return value
