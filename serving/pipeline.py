"""The hot path: who asks → interests → search → candidates. Arrays from end to end.

Takes checked requests (serving/validate.py) of one batch and answers them together: one call of
the tower, one search for each distinct filter. Ranking comes after it (serving/rank/ranker.py).
Knows no protos and no threads.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.items import distinct
from model.merge import merge_interests
from serving.candidates import flat, join, with_extra
from serving.domain import (
    AnyOf,
    Candidates,
    EmbedRequest,
    Filter,
    RetrieveRequest,
    SimilarRequest,
)
from serving.engaged import engaged
from serving.errors import Cancelled, StoreUnavailable, UnknownItem
from serving.live.catalogue import Catalogue
from serving.rank.costs import Costs, new_costs
from serving.readers import NOTHING, Reader, Readers, times_as_trained
from serving.stages import stage
from serving.store.base import UserStore
from serving.wanted import Wanted

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Request = RetrieveRequest | EmbedRequest | SimilarRequest

_NO_VECTORS: Float32 = np.empty((0, 0), np.float32)


@dataclass(slots=True)
class Answer:
    """What a batch gives one request; `readers` and `vectors` have one entry a query.

    catalogue: what the rows in it are rows of.

    vectors: each [M, D] float32. now: [Q] UTC µs, the moment that is answered for. candidates: None
    for a request that asked for none. left_out: what was skipped to meet the deadline.
    """

    catalogue: Catalogue
    readers: list[Reader]
    vectors: list[Float32]
    now: Int64
    candidates: Candidates | None
    left_out: tuple[str, ...] = ()


class Pipeline:
    """Answers batches from one catalogue and one store. Cheap to make."""

    def __init__(self, catalogue: Catalogue, store: UserStore, costs: Costs | None = None) -> None:
        """costs: where the time that batches take is put down, and read."""
        self._catalogue, self._costs = catalogue, costs or new_costs()
        self._readers = Readers(catalogue, store)
        self._known = catalogue.num_known
        """Of rows that come later, no exclusion knows."""

    def answer(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """One answer a request; StoreUnavailable or UnknownItem for those that have none."""
        began, clock = time.perf_counter(), time.time_ns() // 1000
        answers: list[Answer | Exception] = []
        with stage("read"):
            answers.extend(self._read(request, clock) for request in requests)
        with stage("encode"):
            self._encode(requests, answers)
        with stage("search"):
            self._find(requests, answers)
        num_vectors = sum(
            _num_vectors(request, answer)
            for request, answer in zip(requests, answers, strict=True)
            if isinstance(answer, Answer)
        )
        if num_vectors:
            self._costs.find.observe(num_vectors, time.perf_counter() - began)
        return answers

    def _read(self, request: Request, clock: int) -> Answer | Exception:
        """The users of a request, where it is about users."""
        if not request.budget.is_wanted():
            return Cancelled("the caller has gone")
        if isinstance(request, SimilarRequest):
            return Answer(self._catalogue, [], [], np.empty(0, np.int64), None)
        try:
            readers = [
                self._readers.read(query, i, request, clock=clock)
                for i, query in enumerate(request.queries, request.first)
            ]
        except StoreUnavailable as error:
            return error
        given = [_NO_VECTORS if q.vectors is None else q.vectors for q in request.queries]
        now = np.full(len(readers), request.time_us or clock)
        return Answer(self._catalogue, readers, given, now, None)

    def _find(self, requests: Sequence[Request], answers: list[Answer | Exception]) -> None:
        """Fill in the candidates of every request that asks for some."""
        members: list[tuple[RetrieveRequest, Answer]] = []
        for i, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Exception):
                continue
            if isinstance(request, RetrieveRequest):
                members.append((request, answer))
            elif isinstance(request, SimilarRequest):
                try:
                    answer.candidates = self._similar(request)
                except UnknownItem as error:
                    answers[i] = error
        groups: dict[
            tuple[tuple[Filter, ...], int, bool], list[tuple[RetrieveRequest, Answer]]
        ] = {}
        ends = time.monotonic() + self._costs.find.of(sum(_num_vectors(*one) for one in members))
        for request, answer in members:
            quick = self._catalogue.generation.quick_index
            hurries = quick is not None and request.budget.deadline < ends
            if hurries:
                answer.left_out = ("probes",)
            key = (request.filters, self._width(request.k), hurries)
            groups.setdefault(key, []).append((request, answer))
        for (filters, k, hurries), some in groups.items():
            self._search(some, filters, k, hurries=hurries)
            for request, answer in some:
                for kind, least in request.kinds:
                    self._add_kind(request, answer, kind, least)
                if request.origins or request.floors:
                    self._add_wanted(request, answer)
                if request.engaged and answer.candidates is not None:
                    added = engaged(request, answer.readers, answer.vectors, self._catalogue)
                    answer.candidates = with_extra(answer.candidates, added)

    def _similar(self, request: SimilarRequest) -> Candidates:
        """The neighbours of items or vectors. Raises UnknownItem for an id that there is not."""
        catalogue = self._catalogue
        excluded = _distinct(catalogue.rows_of(request.exclude_item_ids))
        if request.vectors is not None:
            queries, out = request.vectors, [excluded] * len(request.vectors)
        else:
            rows = catalogue.rows_of(request.item_ids)
            for i in np.flatnonzero(rows < 0).tolist():
                raise UnknownItem(
                    f"no item {request.item_ids[i]!r} in the bundle", field=f"item_ids[{i}]"
                )
            queries = catalogue.vectors_of(rows)
            out = [_distinct(np.append(excluded, row)) for row in rows]
        found, scores = catalogue.search(
            queries, self._width(request.k), request.filters, out, known=self._known
        )
        return flat(found, scores, np.zeros(found.shape, np.int32))

    def _width(self, k: int) -> int:
        """k, or fewer where there are fewer items: arrays need not be wider than that."""
        return max(min(k, self._catalogue.num_active), 1)

    def _encode(self, requests: Sequence[Request], answers: Sequence[Answer | Exception]) -> None:
        """Fill in the interests of every query that gave no vectors, by one call of the tower."""
        generation = self._catalogue.generation
        readers: list[Reader] = []
        slots: list[tuple[Answer, int]] = []
        now: list[int] = []
        objectives: list[int] = []
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(request, SimilarRequest) or not isinstance(answer, Answer):
                continue
            objective = generation.objectives[request.objective] if request.objective else 0
            for i, query in enumerate(request.queries):
                if query.vectors is None:
                    readers.append(answer.readers[i])
                    slots.append((answer, i))
                    now.append(int(answer.now[i]))
                    objectives.append(objective)
        if not readers:
            return
        times, moments = times_as_trained(
            readers, np.array(now, np.int64), by_day=generation.schema.time == "day"
        )
        interests = generation.tower.interests(
            [reader.rows for reader in readers],
            [reader.events for reader in readers],
            times,
            [reader.profile for reader in readers],
            now=moments,
            objectives=np.array(objectives, np.int64),
            vectors_of=self._catalogue.vectors_of,
        )
        for vectors, (answer, i) in zip(interests, slots, strict=True):
            answer.vectors[i] = vectors

    def _search(
        self,
        members: Sequence[tuple[RetrieveRequest, Answer]],
        filters: tuple[Filter, ...],
        k: int,
        hurries: bool,
    ) -> None:
        """Search for the requests that share filters and k, and give each its candidates."""
        vectors: list[Float32] = []
        excluded: list[Int64] = []
        for request, answer in members:
            vectors += answer.vectors
            for query, reader in zip(request.queries, answer.readers, strict=True):
                excluded.append(self._excluded(query.exclude_item_ids, request, reader))
        rows, scores, interests = self._nearest(vectors, excluded, filters, k, hurries)
        start = 0
        for request, answer in members:
            end = start + len(request.queries)
            answer.candidates = flat(rows[start:end], scores[start:end], interests[start:end])
            start = end

    def _add_kind(self, request: RetrieveRequest, answer: Answer, kind: str, least: int) -> None:
        """Let every query of a request have `least` candidates of a kind, where there are such.

        Those that the search for all kinds did not find come after it.
        """
        found = answer.candidates
        assert found is not None
        of_kind = self._catalogue.is_kind(kind, found.rows)
        queries = np.repeat(np.arange(len(found.counts)), found.counts)
        if np.bincount(queries[of_kind], minlength=len(found.counts)).min() >= least:
            return
        extra = Answer(self._catalogue, answer.readers, answer.vectors, answer.now, None)
        filters = (*request.filters, AnyOf("kind", (kind,)))
        self._search([(request, extra)], filters, self._width(least), hurries=False)
        assert extra.candidates is not None
        answer.candidates = with_extra(found, extra.candidates)

    def _add_wanted(self, request: RetrieveRequest, answer: Answer) -> None:
        """Let every query of a request have candidates of the origins and groups that it wants."""
        assert answer.candidates is not None
        excluded = [
            self._excluded(query.exclude_item_ids, request, reader)
            for query, reader in zip(request.queries, answer.readers, strict=True)
        ]
        wanted = Wanted(
            self._catalogue,
            request,
            answer.readers,
            answer.vectors,
            answer.now,
            excluded,
            lambda vectors, out, filters, k: self._nearest(vectors, out, filters, k, False)[0],
        )
        if request.origins:
            answer.candidates = wanted.with_origins(answer.candidates)
        if request.floors:
            answer.candidates = wanted.with_groups(answer.candidates)

    def _nearest(
        self,
        vectors: Sequence[Float32],
        excluded: Sequence[Int64],
        filters: tuple[Filter, ...],
        k: int,
        hurries: bool,
    ) -> tuple[Int64, Float32, npt.NDArray[np.int32]]:
        """Rows, scores and interests [Q, k] of Q queries with [M, D] vectors each; M may differ."""
        if len(vectors) == 1:
            return self._nearest_even(vectors[0][np.newaxis], excluded, filters, k, hurries)
        if len({len(one) for one in vectors}) == 1:
            return self._nearest_even(np.stack(vectors), excluded, filters, k, hurries)
        shape = (len(vectors), k)
        rows, scores = np.empty(shape, np.int64), np.empty(shape, np.float32)
        interests = np.zeros(shape, np.int32)
        for num_interests in {len(one) for one in vectors}:
            places = [i for i, one in enumerate(vectors) if len(one) == num_interests]
            rows[places], scores[places], interests[places] = self._nearest_even(
                np.stack([vectors[i] for i in places]),
                [excluded[i] for i in places],
                filters,
                k,
                hurries,
            )
        return rows, scores, interests

    def _nearest_even(
        self,
        vectors: Float32,
        excluded: Sequence[Int64],
        filters: tuple[Filter, ...],
        k: int,
        hurries: bool,
    ) -> tuple[Int64, Float32, npt.NDArray[np.int32]]:
        """As `_nearest`, for vectors [Q, M, D]."""
        num_queries, num_interests, dim = vectors.shape
        out: Sequence[Int64] = ()
        if any(len(rows) for rows in excluded):
            out = [rows for rows in excluded for _ in range(num_interests)]
        rows, scores = self._catalogue.search(
            vectors.reshape(-1, dim), k, filters, out, known=self._known, hurries=hurries
        )
        if num_interests == 1:
            return rows, scores, np.zeros(rows.shape, np.int32)
        shape = (num_queries, num_interests, k)
        return merge_interests(rows.reshape(shape), scores.reshape(shape), k)

    def _excluded(self, item_ids: Sequence[str], request: RetrieveRequest, reader: Reader) -> Int64:
        """Sorted distinct rows that the query must not return."""
        parts = [self._catalogue.rows_of(item_ids), reader.rejected]
        if request.exclude_seen:
            # Every event of the history counts as seen, also those that the tower does not read.
            parts.append(reader.seen)
        elif request.exclude_converted:
            parts.append(reader.rows[self._catalogue.generation.conversions[reader.events]])
        return _distinct(np.concatenate(parts)) if any(map(len, parts)) else NOTHING


def together(answers: Sequence[Answer]) -> Answer:
    """The answers to the parts of a request, as one."""
    found = [answer.candidates for answer in answers if answer.candidates is not None]
    return Answer(
        answers[0].catalogue,
        [reader for answer in answers for reader in answer.readers],
        [vectors for answer in answers for vectors in answer.vectors],
        np.concatenate([answer.now for answer in answers]),
        join(found) if found else None,
        tuple(dict.fromkeys(name for answer in answers for name in answer.left_out)),
    )


def _num_vectors(request: Request, answer: Answer) -> int:
    """How many vectors a request that was read is answered with."""
    if not isinstance(request, SimilarRequest):
        return sum(map(len, answer.vectors))
    return len(request.item_ids) if request.vectors is None else len(request.vectors)


def _distinct(rows: Int64) -> Int64:
    """Sorted distinct rows, without -1."""
    rows = distinct(rows)
    return rows[1:] if len(rows) and rows[0] < 0 else rows
