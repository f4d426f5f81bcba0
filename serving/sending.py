"""How a client's calls are sent: channels, deadlines, attempts, and statuses turned to exceptions.

`Sender` blocks, `AsyncSender` is awaited; all else they share. Knows no RPC by what it means.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from model.errors import ConfigError, PenchantError
from serving.attempts import Attempts
from serving.channels import addresses, channel_options, positive
from serving.errors import BadRequest, ServerUnavailable
from serving.status import DETAIL_KEY, from_status
from serving.translation import Call, Stream

# ruff: noqa: ASYNC109  (`timeout` is the call's deadline: it travels to the server)

Answer = TypeVar("Answer")
Metadata = Callable[[], Mapping[str, str]]
"""Asked before each call what to send along: `x-request-id`, `traceparent`."""

_KEY = re.compile(r"[a-z0-9_.-]+(?<!-bin)")
_VALUE = re.compile(r"[\x20-\x7e]*")

REPEATABLE = frozenset(
    {"EmbedItems", "EmbedUsers", "FindSimilar", "GetStatus"}
    | {"GetCircle", "GetUserCircles", "ListCircles"}
    | {"ListGenerations", "ListUsers", "Recommend", "Rerank", "Retrieve"}
    | {"DeleteItems", "DeleteUser", "RecordEvents", "UpsertItems"}
)
"""RPCs that only read, or write what may be written twice: asking again does no harm, so they are
tried again where no server answers.
An RPC that is not here is tried once."""


class _Shared:
    """What both senders are: where calls go, how long they may take, and which channel is next."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout: float,
        num_channels: int,
        metadata: Metadata,
    ) -> None:
        self._addresses, self._timeout = addresses(address), positive("timeout", timeout)
        # Neighbours lead to different addresses: the next attempt goes to another replica.
        self._targets = self._addresses * int(positive("num_channels", num_channels))
        self._metadata_of_call = metadata
        self._options = channel_options(len(self._addresses))
        self._turns = itertools.count()
        self._methods: dict[tuple[int, str], Callable[..., Any]] = {}
        self._is_closed = False

    def _attempts(self, call: Call[Any], timeout: float | None) -> Attempts:
        return Attempts(
            next(self._turns),
            num_channels=len(self._targets),
            timeout=self._timeout if timeout is None else positive("timeout", timeout),
            is_repeatable=call.path.rpartition("/")[2] in REPEATABLE,
        )

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """What the caller's function gives. Raises BadRequest for what no HTTP header can say."""
        given = tuple(self._metadata_of_call().items())
        for key, value in given:
            if not (
                _KEY.fullmatch(str(key)) and isinstance(value, str) and _VALUE.fullmatch(value)
            ):
                raise BadRequest(
                    f"metadata {key!r:.80}: {value!r:.80} cannot be sent; give a lower-case name "
                    "and a value of printable ASCII",
                    field="metadata",
                )
        return given

    def _require_open(self) -> None:
        if self._is_closed:
            raise ServerUnavailable("this client was closed; make another one.")

    def _method(
        self,
        channels: Sequence[grpc.Channel] | Sequence[grpc.aio.Channel],
        number: int,
        call: Call[Any],
    ) -> Callable[..., Any]:
        """A channel's callable for an RPC; kept, since making it costs more than calling it."""
        method = self._methods.get((number, call.path))
        if method is None:
            method = self._methods[number, call.path] = cast(
                "Callable[..., Any]",
                channels[number].unary_unary(
                    call.path,
                    request_serializer=type(call.request).SerializeToString,
                    response_deserializer=call.response.FromString,
                ),
            )
        return method

    def _raised(self, error: grpc.RpcError) -> PenchantError:
        """The exception that a refused call stands for. Raises it, if the client is closed."""
        call = cast("grpc.Call", error)
        detail = dict(call.trailing_metadata() or ()).get(DETAIL_KEY)
        raised = from_status(
            call.code(), call.details() or "", detail if isinstance(detail, bytes) else None
        )
        if isinstance(raised, ServerUnavailable):
            where = ", ".join(self._addresses)
            raised = ServerUnavailable(
                f"no server answers at {where} ({raised}). Does `penchant serve` run there?"
            )
        if self._is_closed:
            raise raised from None
        return raised


class Sender(_Shared):
    """Sends calls from any thread. Arguments as for serving/client.py's Client."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout: float,
        num_channels: int,
        metadata: Metadata,
    ) -> None:
        super().__init__(address, timeout=timeout, num_channels=num_channels, metadata=metadata)
        self._channels = [
            grpc.insecure_channel(target, options=self._options) for target in self._targets
        ]

    def send(self, call: Call[Answer], timeout: float | None) -> Answer:
        """The answer, by as many attempts as it takes within timeout seconds."""
        attempts, metadata = self._attempts(call, timeout), self._metadata()
        while True:
            self._require_open()
            method = self._method(self._channels, attempts.channel, call)
            try:
                response = method(call.request, timeout=attempts.remaining, metadata=metadata)
            except grpc.RpcError as error:
                raised = self._raised(error)
            else:
                return call.translate(response)
            time.sleep(attempts.pause(raised))

    def stream(self, stream: Stream, requests: Iterator[Message]) -> Iterator[Any]:
        """The answers of one stream, to its end. requests: asked for on another thread."""
        self._require_open()
        channel = self._channels[next(self._turns) % len(self._channels)]
        open_ = channel.stream_stream(
            stream.path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=stream.response.FromString,
        )
        answers = open_(requests, metadata=self._metadata())
        try:
            yield from answers
        except grpc.RpcError as error:
            raise self._raised(error) from None
        finally:
            answers.cancel()  # type: ignore[no-untyped-call]  # as the stubs have it

    def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        self._is_closed = True
        for channel in self._channels:
            channel.close()


class AsyncSender(_Shared):
    """Sends calls from one event loop, that of its first call."""

    _channels: Sequence[grpc.aio.Channel] = ()
    _loop: asyncio.AbstractEventLoop | None = None

    async def send(self, call: Call[Answer], timeout: float | None) -> Answer:
        """As Sender.send."""
        loop = asyncio.get_running_loop()
        if not self._channels:  # made here, where the loop runs
            self._loop = loop
            self._channels = [
                grpc.aio.insecure_channel(target, options=self._options) for target in self._targets
            ]
        if loop is not self._loop:
            raise ConfigError(
                "this AsyncClient belongs to the event loop of its first call; make one a loop"
            )
        attempts, metadata = self._attempts(call, timeout), self._metadata()
        while True:
            self._require_open()
            method = self._method(self._channels, attempts.channel, call)
            try:
                response = await method(call.request, timeout=attempts.remaining, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raised = self._raised(error)
            else:
                return call.translate(response)
            await asyncio.sleep(attempts.pause(raised))

    async def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        self._is_closed = True
        for channel in self._channels:
            await channel.close(None)
