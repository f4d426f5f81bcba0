"""What one worker serves: the active generation, the store, and the batcher before the pipeline.

Opens and warms them up before the first request, and checks every request. Knows no gRPC.
"""

import time
from collections.abc import Sequence

from model.bundle import open_bundle
from model.errors import BundleRejected
from serving.batching import Batcher
from serving.config import ServerConfig
from serving.domain import EmbedRequest, RetrieveRequest, SimilarRequest
from serving.generation import Generation
from serving.index.choice import require_available
from serving.metrics import BATCH_QUERIES, BUNDLE
from serving.pipeline import Answer, Pipeline, Request
from serving.store.base import UserStore, store_path
from serving.store.sqlite import SqliteStore
from serving.validate import check_embed, check_page, check_retrieve, check_similar

MAX_BATCH_QUERIES = 64
"""Queries computed together at most; a request with more is a batch of its own."""


class Runtime:
    """Answers checked requests. Safe across threads."""

    def __init__(self, config: ServerConfig) -> None:
        """Verify, open and warm up. Raises BundleRejected, ConfigError and StoreUnavailable."""
        self.limits = config.limits
        require_available(config.index, config.device)  # before gigabytes are read
        bundle = open_bundle(config.bundle)
        version = bundle.manifest.version
        if config.bundle_version not in ("", version):
            raise BundleRejected(
                f"{config.bundle} holds version {version} now; the other workers serve "
                f"{config.bundle_version}. Restart the server to serve the new one."
            )
        self.generation = Generation(
            bundle,
            index=config.index,
            device=config.device,
            onnx_threads=config.onnx_threads,
        )
        self.store: UserStore = SqliteStore(store_path(config.state))
        self._pipeline = Pipeline(self.generation, self.store)
        self._batcher: Batcher[Request, Answer] = Batcher(self._compute, max_size=MAX_BATCH_QUERIES)
        self.generation.warm_up()
        BUNDLE.labels(self.generation.version, self.generation.schema.name).set(1)
        self.ready_at = time.monotonic()

    def retrieve(self, request: RetrieveRequest, *, deadline: float) -> Answer:
        """Candidates of each query; deadline on time.monotonic()'s clock.

        Raises BadRequest, StoreUnavailable and DeadlineExceeded.
        """
        check_retrieve(request, self.limits, self.generation)
        return self._batcher.submit(request, size=len(request.queries), deadline=deadline)

    def rehearse(self, request: RetrieveRequest) -> Answer:
        """As `retrieve`, past the batcher and what it counts: for warming up."""
        check_retrieve(request, self.limits, self.generation)
        (answer,) = self._pipeline.answer([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def embed(self, request: EmbedRequest, *, deadline: float) -> Answer:
        """Interests of each query; raises as `retrieve` does."""
        check_embed(request, self.limits, self.generation)
        return self._batcher.submit(request, size=len(request.queries), deadline=deadline)

    def similar(self, request: SimilarRequest, *, deadline: float) -> Answer:
        """Neighbours of items or vectors; raises as `retrieve` does, and UnknownItem."""
        check_similar(request, self.limits, self.generation)
        size = max(len(request.item_ids), 0 if request.vectors is None else len(request.vectors))
        return self._batcher.submit(request, size=size, deadline=deadline)

    def list_users(self, page_size: int, page_token: str) -> list[tuple[int, str, int]]:
        """A page of the store's users. Raises BadRequest and StoreUnavailable."""
        after = check_page(page_size, page_token, self.limits)
        return self.store.list_users(after=after, limit=page_size)

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def _compute(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        answers = self._pipeline.answer(requests)
        users = [r for r in requests if not isinstance(r, SimilarRequest)]
        if users:  # counted when done: a batch that raises is computed again, one by one
            BATCH_QUERIES.observe(sum(len(request.queries) for request in users))
        return answers
