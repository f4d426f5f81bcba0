"""What one worker serves: the active generation with the live items beside it, the store, the
batcher before the pipeline, and the ranker behind it. A request holds one catalogue from beginning
to end.

Opens and warms them up before the first request, and checks every request. Knows no gRPC.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.bundle import CandidateRule
from serving.batching import Batcher
from serving.checks import check_ids, check_length
from serving.config import ServerConfig
from serving.cut import cut
from serving.domain import (
    Budget,
    Candidates,
    EmbedItemsRequest,
    EmbedRequest,
    Event,
    RecommendRequest,
    RerankRequest,
    RetrieveRequest,
    SimilarRequest,
    Slates,
    UserQuery,
)
from serving.errors import BadRequest
from serving.generation import Generation
from serving.index.choice import require_available
from serving.live.activation import Current
from serving.live.catalogue import Catalogue
from serving.live.follower import Follower
from serving.live.ingest import Taken, UpsertRequest, delete_items, upsert_items
from serving.live.replaced import still_shown
from serving.metrics import BATCH_QUERIES, BUNDLE
from serving.pipeline import Answer, Pipeline, Request, together
from serving.rank.costs import new_costs
from serving.rank.given import given_candidates
from serving.rank.ranker import Ranker, Wish
from serving.rank.rules import least_of
from serving.recording import Recorded, Recorder, Recording
from serving.store.base import UserStore, store_path
from serving.store.choice import open_store
from serving.store.database import Database
from serving.store.generations import GenerationLog, StoredGeneration
from serving.streaming import Streams
from serving.validate import (
    check_embed,
    check_embed_items,
    check_page,
    check_retrieve,
    check_similar,
)
from serving.validate_ranking import check_recommend, check_rerank

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

DEFAULT_CANDIDATES = 500
"""Candidates of a slate where neither the request, nor the server's configuration, nor the bundle
says how many."""
MAX_BATCH_QUERIES = 64
"""Queries computed together at most; a request with more is answered in parts, between which others
have their turn. A query that brings several times as many vectors as a user has interests counts as
several."""


class Runtime:
    """Answers checked requests. Safe across threads."""

    def __init__(self, config: ServerConfig, *, worker: str = "") -> None:
        """Verify, open and warm up. worker: its name, where a server runs it.

        Raises BundleRejected, ConfigError and StoreUnavailable.
        """
        self.limits = config.limits
        require_available(config.index, config.device)  # before gigabytes are read
        self.database = Database(store_path(config.state))
        self._opened = open_store(
            config.store,
            lambda: self.database,
            most_events=config.max_stored_events,
            allows_loss=config.store_allows_loss,
        )
        self.store: UserStore = self._opened.users
        self._recorder = Recorder(self.store, config.limits, horizon_days=config.event_horizon_days)
        self.streams = Streams(
            most=config.limits.max_streams,
            most_ahead=4 * config.limits.max_events,
            seconds=config.stream_seconds,
        )
        self.items = self._opened.items
        self.generations = GenerationLog(self.database)
        self._current = Current(
            config, self.database, self.items, self._opened.events, worker=worker
        )
        self._costs, self._candidates = new_costs(), config.candidates
        self._ranker = Ranker(self._costs, diversity=config.diversity)
        self._batcher: Batcher[tuple[Catalogue, Request], Answer] = Batcher(
            self._compute, max_size=MAX_BATCH_QUERIES
        )
        self._current.start(_BundleCounted())
        self.ready_at = time.monotonic()

    @property
    def follower(self) -> Follower:
        """The items of the active generation, kept up to date."""
        return self._current.follower

    @property
    def store_kind(self) -> str:
        """Which kind of store it is."""
        return self._opened.kind

    @property
    def catalogue(self) -> Catalogue:
        """What a call that begins now is answered from."""
        return self._current.follower.catalogue

    @property
    def generation(self) -> Generation:
        """The active generation."""
        return self.catalogue.generation

    def retrieve(self, request: RetrieveRequest) -> Answer:
        """Candidates of each query.

        Raises BadRequest, StoreUnavailable, and as the request's budget has it DeadlineExceeded or
        Cancelled.
        """
        catalogue = self.catalogue
        check_retrieve(request, self.limits, catalogue)
        return _without_gone(self._submit(catalogue, request))

    def recommend(self, request: RecommendRequest) -> tuple[Answer, Slates]:
        """What to show to each query's user; raises as `retrieve` does."""
        catalogue = self.catalogue
        rule = _rule_of(catalogue)
        if not request.num_candidates:
            usual = DEFAULT_CANDIDATES if rule is None else rule.retrieved
            usual = self._candidates or min(usual, self.limits.max_ranked)
            request.num_candidates = max(usual, request.k)
        check_recommend(request, self.limits, catalogue)
        answer = self._submit(catalogue, self._retrieval(request, catalogue))
        slates = self._ranked(answer, request)
        shown = _still_shown(catalogue, slates.candidates)
        return answer, slates if shown.all() else slates.kept(shown)

    def rerank(self, request: RerankRequest) -> tuple[Answer, Slates]:
        """The caller's candidates, ranked and arranged; raises as `retrieve` does."""
        catalogue = self.catalogue
        check_rerank(request, self.limits, catalogue.generation)
        embed = EmbedRequest(
            queries=request.queries,
            objective=request.objective,
            time_us=request.time_us,
            whole_history=True,  # where an item comes from depends on all of it
            budget=request.budget,
        )
        answer = self._submit(catalogue, embed)
        answer.candidates, places, errors = given_candidates(
            request, answer.vectors, answer.readers, catalogue
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
        catalogue = self.catalogue
        check_retrieve(request, self.limits, catalogue)
        (answer,) = Pipeline(catalogue, self.store, self._costs).answer([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def embed(self, request: EmbedRequest) -> Answer:
        """Interests of each query; raises as `retrieve` does."""
        catalogue = self.catalogue
        check_embed(request, self.limits, catalogue.generation)
        return self._submit(catalogue, request)

    def embed_items(self, request: EmbedItemsRequest) -> tuple[Generation, Float32]:
        """Vectors [N, D] of items by their ids or their features, and the generation they are of.

        Raises BadRequest, UnknownItem, and as the request's budget has it DeadlineExceeded or
        Cancelled.
        """
        catalogue = self.catalogue
        rows = check_embed_items(request, self.limits, catalogue)
        if request.item_ids:
            return catalogue.generation, catalogue.vectors_of(rows)
        return catalogue.generation, catalogue.generation.item_tower.vectors(
            [item.kind for item in request.items],
            [item.features for item in request.items],
            request.budget,
        )

    def similar(self, request: SimilarRequest) -> Answer:
        """Neighbours of items or vectors; raises as `retrieve` does, and UnknownItem."""
        catalogue = self.catalogue
        check_similar(request, self.limits, catalogue)
        size = max(len(request.item_ids), 0 if request.vectors is None else len(request.vectors))
        deadline = request.budget.deadline
        answer = self._batcher.submit((catalogue, request), size=size, deadline=deadline)
        return _without_gone(answer)

    def answered(self, size: int, seconds: float) -> None:
        """Put down what it took to pack an answer of so many ranked items and slates together."""
        self._costs.answer.observe(size, seconds)

    def list_users(self, page_size: int, page_token: str) -> list[tuple[int, str, int]]:
        """A page of the store's users. Raises BadRequest and StoreUnavailable."""
        after = check_page(page_size, page_token, self.limits)
        return self.store.list_users(after=after, limit=page_size)

    def record_events(self, events: Sequence[Event], budget: Budget) -> Recorded:
        """Write events; see serving/recording.py."""
        return self._recorder.record(events, self.generation.schema, budget)

    def begin_recording(self, events: Sequence[Event]) -> Recording:
        """As `record_events`, without waiting for the disk."""
        return self._recorder.begin(events, self.generation.schema)

    def delete_user(self, user_id: str) -> bool:
        """Forget all about a user; returns whether anything was known. Raises BadRequest and
        StoreUnavailable."""
        check_ids([user_id], "user_id", self.limits)
        return self.store.delete_user(user_id, now_us=time.time_ns() // 1000)

    def upsert_items(self, request: UpsertRequest) -> Taken:
        """Write new and changed items; see serving/live/ingest.py."""
        return upsert_items(request, self.items, self.follower, self.limits)

    def delete_items(self, item_ids: Sequence[str]) -> Taken:
        """Delete items; see serving/live/ingest.py."""
        return delete_items(item_ids, self.items, self.follower, self.limits)

    def activate(self, path: str, *, skips_gate: bool) -> StoredGeneration:
        """Ask for another bundle to be served. Raises BadRequest and StoreUnavailable."""
        if not path:
            raise BadRequest("name the bundle's folder", field="bundle_path")
        check_length(path, "bundle_path", self.limits.max_text_bytes)
        number = self.generations.request(Path(path).absolute(), skips_gate=skips_gate)
        return self.generations.read(number)

    def roll_back(self) -> StoredGeneration:
        """Ask for the bundle that was served before. Raises BadRequest and StoreUnavailable."""
        before = self.generations.previous()
        if before is None:
            raise BadRequest("no other bundle was served before; activate one by its folder")
        number = self.generations.request(before.path, version=before.version, skips_gate=True)
        return self.generations.read(number)

    def close(self) -> None:
        """Stop following, and let go of the store."""
        self._current.close()
        self._opened.close()
        self.database.close()

    def _submit(self, catalogue: Catalogue, request: RetrieveRequest | EmbedRequest) -> Answer:
        """The answer to all queries of a request, by as many batches as it takes."""
        sizes = [self._size(query) for query in request.queries]
        deadline = request.budget.deadline
        if sum(sizes) <= MAX_BATCH_QUERIES:
            return self._batcher.submit((catalogue, request), size=sum(sizes), deadline=deadline)
        answers = []
        for first, last in cut(sizes, most=MAX_BATCH_QUERIES):
            queries = request.queries[first:last]
            part = dataclasses.replace(request, queries=queries, first=first)
            size = sum(sizes[first:last])
            answers.append(self._batcher.submit((catalogue, part), size=size, deadline=deadline))
        return together(answers)

    def _size(self, query: UserQuery) -> int:
        if query.vectors is None:
            return 1
        return max(-(-len(query.vectors) // self.generation.bundle.num_interests), 1)

    def _retrieval(self, request: RecommendRequest, catalogue: Catalogue) -> RetrieveRequest:
        """The candidates that a recommendation is made of.

        Where the bundle says what its lists leave out of a history, that is left out; else all.
        """
        num_candidates, rule = request.num_candidates, _rule_of(catalogue)
        leaves_out = "filter" if rule is None else rule.seen
        return RetrieveRequest(
            queries=request.queries,
            k=num_candidates,
            filters=request.filters,
            objective=request.objective,
            exclude_seen=leaves_out == "filter" and not request.include_seen,
            exclude_converted=leaves_out == "converted" and not request.include_seen,
            engaged=0 if rule is None or leaves_out == "filter" else rule.engaged,
            whole_history=True,  # where an item comes from depends on all of it
            time_us=request.time_us,
            kinds=tuple(
                # Of as many candidates as the slate of the kind alone would have.
                (kind.kind, least_of(kind.share, num_candidates))
                for kind in request.slate.kinds
            ),
            origins=tuple(
                (one.origin, least_of(one.share, num_candidates)) for one in request.slate.origins
            ),
            floors=tuple(
                (floor, max(least_of(floor.share, num_candidates), floor.least))
                for floor in request.slate.floors
            ),
            budget=request.budget,
        )

    def _ranked(self, answer: Answer, request: RecommendRequest | RerankRequest) -> Slates:
        assert answer.candidates is not None
        return self._ranker.rank(
            answer.catalogue,
            answer.candidates,
            answer.readers,
            answer.vectors,
            Wish(k=request.k, weights=request.weights, slate=request.slate),
            now=answer.now,
            budget=request.budget,
            hurries=bool(answer.left_out),
        )

    def _compute(
        self, requests: Sequence[tuple[Catalogue, Request]]
    ) -> Sequence[Answer | Exception]:
        """Answer a batch, nearly always of one catalogue: two while one takes another's place."""
        catalogues = {id(catalogue): catalogue for catalogue, _ in requests}
        answers: list[Answer | Exception] = [RuntimeError("not answered")] * len(requests)
        for catalogue in catalogues.values():
            mine = [i for i, (held, _) in enumerate(requests) if held is catalogue]
            found = Pipeline(catalogue, self.store, self._costs).answer(
                [requests[i][1] for i in mine]
            )
            for i, answer in zip(mine, found, strict=True):
                answers[i] = answer
        users = [request for _, request in requests if not isinstance(request, SimilarRequest)]
        if users:  # counted when done: a batch that raises is computed again, one by one
            BATCH_QUERIES.observe(sum(len(request.queries) for request in users))
        return answers


def _without_gone(answer: Answer) -> Answer:
    """The answer without what was sold out or deleted while it was made."""
    assert answer.candidates is not None
    shown = _still_shown(answer.catalogue, answer.candidates)
    if not shown.all():
        answer.candidates = answer.candidates.kept(shown)
    return answer


def _still_shown(catalogue: Catalogue, candidates: Candidates) -> Bool:
    """[n] which of the candidates may be shown now that the answer is made."""
    lists = np.repeat(np.arange(len(candidates.counts)), candidates.counts)
    return still_shown(catalogue, candidates.rows, lists)


def _rule_of(catalogue: Catalogue) -> CandidateRule | None:
    """How the lists are made that the bundle's value model learned to rank."""
    value = catalogue.generation.value
    return None if value is None else value.candidates


class _BundleCounted:
    """Says in the metrics which bundle is served, and that the one before is not any more."""

    def __init__(self) -> None:
        self._labels: tuple[str, str] | None = None

    def __call__(self, generation: Generation) -> None:
        if self._labels is not None:
            BUNDLE.labels(*self._labels).set(0)
        self._labels = (generation.version, generation.schema.name)
        BUNDLE.labels(*self._labels).set(1)
