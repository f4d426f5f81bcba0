"""The typed client, sync and async: numpy in and out, the server's exceptions raised here again.

    with Client("10.0.0.7:50051,10.0.0.8:50051") as client:
        found = client.retrieve("user-7", k=20, filters=[AnyOf("kind", ("product",))])
        print(found.item_ids, found.scores)

Both clients share all of the translation (serving/translation.py); they differ only in how a call
is sent (serving/sending.py).
"""

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from serving.channels import DEFAULT_ADDRESS, positive
from serving.circle_client import AsyncCircleCalls, CircleCalls
from serving.client_messages import Users
from serving.domain import Event, FloatArray, ItemChange, ItemFeatures
from serving.event_stream import AsyncEventStream, EventStream
from serving.item_calls import (
    activate_call,
    delete_items_call,
    list_generations_call,
    rollback_call,
    upsert_items_call,
)
from serving.results import (
    Activation,
    Deleted,
    Embedded,
    EmbeddedItems,
    Found,
    Recommended,
    Recorded,
    Retrieved,
    ServerStatus,
    UserPage,
    Written,
)
from serving.sending import AsyncSender, Metadata, Sender
from serving.translation import (
    EmbedOptions,
    RecommendOptions,
    RerankOptions,
    RetrieveOptions,
    SimilarOptions,
    delete_user_call,
    embed_items_call,
    embed_users_call,
    find_similar_call,
    list_users_call,
    recommend_call,
    record_events_call,
    rerank_call,
    retrieve_call,
    status_call,
)

# ruff: noqa: ASYNC109  (`timeout` is the call's deadline: it travels to the server)

DEFAULT_PATIENCE = 30.0
"""Seconds for which a stream of events goes on trying without any progress."""
DEFAULT_TIMEOUT = 2.0
"""Seconds that a call may take, unless it is told otherwise."""


class Client(CircleCalls):
    """Talks to one Penchant server, or to several that serve the same. Safe across threads.

    address: host:port; several, with commas between them or as a list: replicas, which take turns,
    and of which one that stops or is gone is left out. timeout: seconds, the default deadline of a
    call, all its attempts together. num_channels: connections to each address; each stays on one of
    that server's workers, so give at least as many as there are workers. metadata: see Metadata.

    Every call raises the exceptions of serving/errors.py: BadRequest and its kinds for what cannot
    be answered, Overloaded, StoreUnavailable, DeadlineExceeded, ServerUnavailable, InternalError.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        num_channels: int = 2,
        metadata: Metadata = dict,
    ) -> None:
        self._sender = Sender(
            address, timeout=timeout, num_channels=num_channels, metadata=metadata
        )

    def recommend(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[RecommendOptions]
    ) -> Recommended:
        """What to show to each user: candidates, ranked by value and arranged in a slate."""
        return self._sender.send(recommend_call(users, options), timeout)

    def rerank(
        self,
        users: Users,
        item_ids: Sequence[str] | Sequence[Sequence[str]],
        *,
        timeout: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> Recommended:
        """Your own candidates, ranked and arranged: a list of ids, or one a user of a batch."""
        return self._sender.send(rerank_call(users, item_ids, options), timeout)

    def embed_items(
        self, items: str | Sequence[str | ItemFeatures], *, timeout: float | None = None
    ) -> EmbeddedItems:
        """Vectors of items: of the bundle's by id, or of any others by their features."""
        return self._sender.send(embed_items_call(items), timeout)

    def retrieve(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[RetrieveOptions]
    ) -> Retrieved:
        """The items nearest to each user's interests."""
        return self._sender.send(retrieve_call(users, options), timeout)

    def find_similar(
        self,
        items: str | Sequence[str] | FloatArray,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Found:
        """The items nearest to given items, or to vectors [Q, D] float32."""
        return self._sender.send(find_similar_call(items, options), timeout)

    def embed_users(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[EmbedOptions]
    ) -> Embedded:
        """Each user's interest vectors."""
        return self._sender.send(embed_users_call(users, options), timeout)

    def record_events(
        self, events: Event | Sequence[Event], *, timeout: float | None = None
    ) -> Recorded:
        """What users did; on disk when this returns. An event without an event_id is given one, so
        that it is taken once however often it has to be sent."""
        return self._sender.send(record_events_call(events), timeout)

    def stream_events(self, *, patience: float = DEFAULT_PATIENCE) -> EventStream:
        """A stream of events, for a `with` block: many events a second over one connection.

        patience: seconds for which it goes on trying where nothing is acknowledged.
        """
        return EventStream(self._sender, patience=positive("patience", patience))

    def delete_user(self, user_id: str, *, timeout: float | None = None) -> Deleted:
        """Forget everything that is known of a person."""
        return self._sender.send(delete_user_call(user_id), timeout)

    def status(self, *, timeout: float | None = None) -> ServerStatus:
        """The worker that answers, and what it serves."""
        return self._sender.send(status_call(), timeout)

    def list_users(
        self, *, page_size: int = 100, page_token: str = "", timeout: float | None = None
    ) -> UserPage:
        """A page of the store's users, in the order in which they came."""
        return self._sender.send(list_users_call(page_size, page_token), timeout)

    def upsert_items(
        self, items: ItemChange | Sequence[ItemChange], *, timeout: float | None = None
    ) -> Written:
        """Write new items, and changes to known ones; every worker shows them within a second."""
        return self._sender.send(upsert_items_call(items), timeout)

    def delete_items(
        self, item_ids: str | Sequence[str], *, timeout: float | None = None
    ) -> Written:
        """Delete items for good; no worker shows them a second later."""
        return self._sender.send(delete_items_call(item_ids), timeout)

    def activate(
        self, bundle_path: str, *, skips_gate: bool = False, timeout: float | None = None
    ) -> Activation:
        """Ask for another bundle to be served; `generations` says how it goes."""
        call = activate_call(bundle_path, skips_gate=skips_gate)
        return self._sender.send(call, timeout)

    def roll_back(self, *, timeout: float | None = None) -> Activation:
        """Ask for the bundle that was served before; `generations` says how it goes."""
        return self._sender.send(rollback_call(), timeout)

    def generations(self, *, most: int = 20, timeout: float | None = None) -> list[Activation]:
        """The bundles that were activated, or are to be, the newest first."""
        return self._sender.send(list_generations_call(most), timeout)

    def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(AsyncCircleCalls):
    """Client for asyncio: the same calls, awaited. Belongs to the loop of its first call."""

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        num_channels: int = 2,
        metadata: Metadata = dict,
    ) -> None:
        self._make_sender = partial(
            Sender, address, timeout=timeout, num_channels=num_channels, metadata=metadata
        )
        self._sender = AsyncSender(
            address, timeout=timeout, num_channels=num_channels, metadata=metadata
        )

    async def recommend(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[RecommendOptions]
    ) -> Recommended:
        """What to show to each user: candidates, ranked by value and arranged in a slate."""
        return await self._sender.send(recommend_call(users, options), timeout)

    async def rerank(
        self,
        users: Users,
        item_ids: Sequence[str] | Sequence[Sequence[str]],
        *,
        timeout: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> Recommended:
        """Your own candidates, ranked and arranged: a list of ids, or one a user of a batch."""
        return await self._sender.send(rerank_call(users, item_ids, options), timeout)

    async def embed_items(
        self, items: str | Sequence[str | ItemFeatures], *, timeout: float | None = None
    ) -> EmbeddedItems:
        """Vectors of items: of the bundle's by id, or of any others by their features."""
        return await self._sender.send(embed_items_call(items), timeout)

    async def retrieve(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[RetrieveOptions]
    ) -> Retrieved:
        """The items nearest to each user's interests."""
        return await self._sender.send(retrieve_call(users, options), timeout)

    async def find_similar(
        self,
        items: str | Sequence[str] | FloatArray,
        *,
        timeout: float | None = None,
        **options: Unpack[SimilarOptions],
    ) -> Found:
        """The items nearest to given items, or to vectors [Q, D] float32."""
        return await self._sender.send(find_similar_call(items, options), timeout)

    async def embed_users(
        self, users: Users, *, timeout: float | None = None, **options: Unpack[EmbedOptions]
    ) -> Embedded:
        """Each user's interest vectors."""
        return await self._sender.send(embed_users_call(users, options), timeout)

    async def record_events(
        self, events: Event | Sequence[Event], *, timeout: float | None = None
    ) -> Recorded:
        """What users did; on disk when this returns. An event without an event_id is given one, so
        that it is taken once however often it has to be sent."""
        return await self._sender.send(record_events_call(events), timeout)

    def stream_events(self, *, patience: float = DEFAULT_PATIENCE) -> AsyncEventStream:
        """A stream of events, for an `async with` block; see Client.stream_events."""
        return AsyncEventStream(self._make_sender(), patience=positive("patience", patience))

    async def delete_user(self, user_id: str, *, timeout: float | None = None) -> Deleted:
        """Forget everything that is known of a person."""
        return await self._sender.send(delete_user_call(user_id), timeout)

    async def status(self, *, timeout: float | None = None) -> ServerStatus:
        """The worker that answers, and what it serves."""
        return await self._sender.send(status_call(), timeout)

    async def list_users(
        self, *, page_size: int = 100, page_token: str = "", timeout: float | None = None
    ) -> UserPage:
        """A page of the store's users, in the order in which they came."""
        return await self._sender.send(list_users_call(page_size, page_token), timeout)

    async def upsert_items(
        self, items: ItemChange | Sequence[ItemChange], *, timeout: float | None = None
    ) -> Written:
        """Write new items, and changes to known ones; every worker shows them within a second."""
        return await self._sender.send(upsert_items_call(items), timeout)

    async def delete_items(
        self, item_ids: str | Sequence[str], *, timeout: float | None = None
    ) -> Written:
        """Delete items for good; no worker shows them a second later."""
        return await self._sender.send(delete_items_call(item_ids), timeout)

    async def activate(
        self, bundle_path: str, *, skips_gate: bool = False, timeout: float | None = None
    ) -> Activation:
        """Ask for another bundle to be served; `generations` says how it goes."""
        call = activate_call(bundle_path, skips_gate=skips_gate)
        return await self._sender.send(call, timeout)

    async def roll_back(self, *, timeout: float | None = None) -> Activation:
        """Ask for the bundle that was served before; `generations` says how it goes."""
        return await self._sender.send(rollback_call(), timeout)

    async def generations(
        self, *, most: int = 20, timeout: float | None = None
    ) -> list[Activation]:
        """The bundles that were activated, or are to be, the newest first."""
        return await self._sender.send(list_generations_call(most), timeout)

    async def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
