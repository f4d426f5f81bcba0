"""grpc.health.v1: whether this worker serves, by service name, asked once or watched.

Instead of grpcio-health-checking's own servicer, which holds a lock while it sends: a watcher that
leaves in that moment stops the whole server for good (github.com/grpc/grpc/pull/43403), and every
client of ours is a watcher. Here one thread does all sending. Knows nothing of what is served.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

Send = Callable[[health_pb2.HealthCheckResponse | None], None]
"""Sends one message to a watcher and waits until it is sent; None ends the stream."""


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """All services have one state: NOT_SERVING, then SERVING, then NOT_SERVING for good.

    services: their names; the empty name, the whole server, is one of them.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services) | {""}
        self._state = health_pb2.HealthCheckResponse.NOT_SERVING
        self._watchers: dict[Send, str] = {}
        # One thread: a watcher's messages come in order, and no lock is held while one is sent.
        self._sender = ThreadPoolExecutor(1, "health")

        def watch(request: Any, context: Any, send_response_callback: Send) -> None:
            self._watch(request.service, context, send_response_callback)

        # How grpc is told to begin the call on that thread, and not to hold one for the stream.
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        watch.experimental_thread_pool = self._sender  # type: ignore[attr-defined]
        self.Watch = watch

    def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """The state of a service; NOT_FOUND for one that is not here."""
        if request.service not in self._services:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r:.200} here")
        return health_pb2.HealthCheckResponse(status=self._state)

    def serve(self) -> None:
        """Say SERVING."""
        self._set(health_pb2.HealthCheckResponse.SERVING)

    def leave(self) -> None:
        """Say NOT_SERVING."""
        self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    def close(self) -> None:
        """End every watcher's stream, which would otherwise hold up the server's end."""

        def end() -> None:
            for send in list(self._watchers):
                send(None)

        self._sender.submit(end).result()

    def _set(self, state: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        self._state = state

        def tell() -> None:
            for send, service in list(self._watchers.items()):
                send(self._answer(service))

        self._sender.submit(tell)

    def _watch(self, service: str, context: Any, send: Send) -> None:
        """Begin a stream: on the sender's thread, as every other message of it."""
        send(self._answer(service))
        self._watchers[send] = service

        def remove() -> None:
            self._watchers.pop(send, None)

        if not context.add_callback(remove):  # it has ended meanwhile
            remove()

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        known = service in self._services
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        return health_pb2.HealthCheckResponse(status=self._state if known else unknown)
