"""What one worker serves: the active generation, the store, the batcher before the pipeline, and
the ranker behind it.

Opens and warms them up before the first request, and checks every request. Knows no gRPC.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.bundle import open_bundle
from model.errors import BundleRejected
from serving.batching import Batcher
from serving.config import ServerConfig
from serving.cut import cut
from serving.domain import (
    EmbedItemsRequest,
    EmbedRequest,
    RecommendRequest,
    RerankRequest,
    RetrieveRequest,
    SimilarRequest,
    Slates,
    UserQuery,
)
from serving.generation import Generation
from serving.index.choice import require_available
from serving.metrics import BATCH_QUERIES, BUNDLE
from serving.pipeline import Answer, Pipeline, Request, together
from serving.rank.costs import new_costs
from serving.rank.given import given_candidates
from serving.rank.ranker import Ranker, Wish, least_of
from serving.store.base import UserStore, store_path
from serving.store.database import Database
from serving.store.sqlite import SqliteStore
from serving.validate import (
    check_embed,
    check_embed_items,
    check_page,
    check_retrieve,
    check_similar,
)
from serving.validate_ranking import check_recommend, check_rerank

Float32 = npt.NDArray[np.float32]

MAX_BATCH_QUERIES = 64
"""Queries computed together at most; a request with more is answered in parts, between which others
have their turn. A query that brings several times as many vectors as a user has interests counts as
several."""


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
        self.database = Database(store_path(config.state))
        self.store: UserStore = SqliteStore(self.database, most_events=config.max_stored_events)
        costs = new_costs()
        self._pipeline = Pipeline(self.generation, self.store, costs)
        self._ranker = Ranker(self.generation, costs, diversity=config.diversity)
        self._costs, self._candidates = costs, config.candidates
        self._batcher: Batcher[Request, Answer] = Batcher(self._compute, max_size=MAX_BATCH_QUERIES)
        self.generation.warm_up()
        BUNDLE.labels(self.generation.version, self.generation.schema.name).set(1)
        self.ready_at = time.monotonic()

    def retrieve(self, request: RetrieveRequest) -> Answer:
        """Candidates of each query.

        Raises BadRequest, StoreUnavailable, and as the request's budget has it DeadlineExceeded or
        Cancelled.
        """
        check_retrieve(request, self.limits, self.generation)
        return self._submit(request)

    def recommend(self, request: RecommendRequest) -> tuple[Answer, Slates]:
        """What to show to each query's user; raises as `retrieve` does."""
        if not request.num_candidates:
            request.num_candidates = max(self._candidates, request.k)
        check_recommend(request, self.limits, self.generation)
        answer = self._submit(self._retrieval(request))
        return answer, self._ranked(answer, request)

    def rerank(self, request: RerankRequest) -> tuple[Answer, Slates]:
        """The caller's candidates, ranked and arranged; raises as `retrieve` does."""
        check_rerank(request, self.limits, self.generation)
        embed = EmbedRequest(
            queries=request.queries,
            objective=request.objective,
            time_us=request.time_us,
            budget=request.budget,
        )
        answer = self._submit(embed)
        answer.candidates, places, errors = given_candidates(
            request, answer.vectors, answer.readers, self.generation
        )
        slates = self._ranked(answer, request)
        # Ranks count within the caller's list, with what was left aside in it.
        starts = np.repeat(
            np.cumsum(answer.candidates.counts) - answer.candidates.counts,
            slates.candidates.counts,
        )
        slates.retrieval_ranks = places[starts + slates.retrieval_ranks]
        slates.errors = [*errors, *slates.errors]
        return answer, slates

    def rehearse(self, request: RetrieveRequest) -> Answer:
        """As `retrieve`, past the batcher and what it counts: for warming up."""
        check_retrieve(request, self.limits, self.generation)
        (answer,) = self._pipeline.answer([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def embed(self, request: EmbedRequest) -> Answer:
        """Interests of each query; raises as `retrieve` does."""
        check_embed(request, self.limits, self.generation)
        return self._submit(request)

    def embed_items(self, request: EmbedItemsRequest) -> Float32:
        """Vectors [N, D] of the bundle's items, or of others by their features.

        Raises BadRequest, UnknownItem, and as the request's budget has it DeadlineExceeded or
        Cancelled.
        """
        rows = check_embed_items(request, self.limits, self.generation)
        if request.item_ids:
            return self.generation.vectors[rows]
        return self.generation.item_tower.vectors(
            [item.kind for item in request.items],
            [item.features for item in request.items],
            request.budget,
        )

    def similar(self, request: SimilarRequest) -> Answer:
        """Neighbours of items or vectors; raises as `retrieve` does, and UnknownItem."""
        check_similar(request, self.limits, self.generation)
        size = max(len(request.item_ids), 0 if request.vectors is None else len(request.vectors))
        return self._batcher.submit(request, size=size, deadline=request.budget.deadline)

    def answered(self, size: int, seconds: float) -> None:
        """Put down what it took to pack an answer of so many ranked items and slates together."""
        self._costs.answer.observe(size, seconds)

    def list_users(self, page_size: int, page_token: str) -> list[tuple[int, str, int]]:
        """A page of the store's users. Raises BadRequest and StoreUnavailable."""
        after = check_page(page_size, page_token, self.limits)
        return self.store.list_users(after=after, limit=page_size)

    def close(self) -> None:
        """Let go of the store."""
        self.database.close()

    def _submit(self, request: RetrieveRequest | EmbedRequest) -> Answer:
        """The answer to all queries of a request, by as many batches as it takes."""
        sizes = [self._size(query) for query in request.queries]
        deadline = request.budget.deadline
        if sum(sizes) <= MAX_BATCH_QUERIES:
            return self._batcher.submit(request, size=sum(sizes), deadline=deadline)
        answers = []
        for first, last in cut(sizes, most=MAX_BATCH_QUERIES):
            queries = request.queries[first:last]
            part = dataclasses.replace(request, queries=queries, first=first)
            size = sum(sizes[first:last])
            answers.append(self._batcher.submit(part, size=size, deadline=deadline))
        return together(answers)

    def _size(self, query: UserQuery) -> int:
        if query.vectors is None:
            return 1
        return max(-(-len(query.vectors) // self.generation.bundle.num_interests), 1)

    def _retrieval(self, request: RecommendRequest) -> RetrieveRequest:
        """The candidates that a recommendation is made of."""
        num_candidates = request.num_candidates
        return RetrieveRequest(
            queries=request.queries,
            k=num_candidates,
            filters=request.filters,
            objective=request.objective,
            exclude_seen=not request.include_seen,
            time_us=request.time_us,
            kinds=tuple(
                # Of as many candidates as the slate of the kind alone would have.
                (kind.kind, least_of(kind.share, num_candidates))
                for kind in request.slate.kinds
            ),
            budget=request.budget,
        )

    def _ranked(self, answer: Answer, request: RecommendRequest | RerankRequest) -> Slates:
        assert answer.candidates is not None
        return self._ranker.rank(
            answer.candidates,
            answer.readers,
            answer.vectors,
            Wish(k=request.k, weights=request.weights, slate=request.slate),
            now=answer.now,
            budget=request.budget,
            hurries=bool(answer.left_out),
        )

    def _compute(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        answers = self._pipeline.answer(requests)
        users = [r for r in requests if not isinstance(r, SimilarRequest)]
        if users:  # counted when done: a batch that raises is computed again, one by one
            BATCH_QUERIES.observe(sum(len(request.queries) for request in users))
        return answers
