"""The hot path: who asks → interests → search → candidates. Arrays from end to end.

Takes checked requests (serving/validate.py) of one batch and answers them together: one call of
the tower, one search for each distinct filter. Knows no protos, threads or deadlines.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.histories import known_times, whole_days
from model.merge import merge_interests
from serving.domain import Candidates, EmbedRequest, Filter, RetrieveRequest, SimilarRequest
from serving.errors import StoreUnavailable, UnknownItem
from serving.generation import Generation
from serving.index.base import Bitmap
from serving.readers import NOTHING, Reader, Readers
from serving.store.base import UserStore

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Request = RetrieveRequest | EmbedRequest | SimilarRequest

_NO_VECTORS: Float32 = np.empty((0, 0), np.float32)


@dataclass(slots=True)
class Answer:
    """What a batch gives one request; `readers` and `vectors` have one entry a query.

    vectors: each [M, D] float32. candidates: None for a request that asked for none.
    """

    generation: Generation
    readers: list[Reader]
    vectors: list[Float32]
    candidates: Candidates | None


class Pipeline:
    """Answers batches from one generation and one store."""

    def __init__(self, generation: Generation, store: UserStore) -> None:
        self.generation = generation
        self._readers = Readers(generation, store)

    def answer(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """One answer a request; StoreUnavailable or UnknownItem for those that have none."""
        answers: list[Answer | Exception] = []
        for request in requests:
            try:
                if isinstance(request, SimilarRequest):
                    answers.append(Answer(self.generation, [], [], self._similar(request)))
                    continue
                readers = [
                    self._readers.read(query, i, request) for i, query in enumerate(request.queries)
                ]
            except (StoreUnavailable, UnknownItem) as error:
                answers.append(error)
                continue
            given = [_NO_VECTORS if q.vectors is None else q.vectors for q in request.queries]
            answers.append(Answer(self.generation, readers, given, None))
        self._encode(requests, answers)
        groups: dict[tuple[tuple[Filter, ...], int], list[tuple[RetrieveRequest, Answer]]] = {}
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(request, RetrieveRequest) and isinstance(answer, Answer):
                key = (request.filters, self._width(request.k))
                groups.setdefault(key, []).append((request, answer))
        for (filters, k), members in groups.items():
            self._search(members, filters, k)
        return answers

    def _similar(self, request: SimilarRequest) -> Candidates:
        """The neighbours of items or vectors. Raises UnknownItem for an id the bundle lacks."""
        generation = self.generation
        excluded = _distinct(generation.rows_of(request.exclude_item_ids))
        if request.vectors is not None:
            queries, out = request.vectors, [excluded] * len(request.vectors)
        else:
            rows = generation.rows_of(request.item_ids)
            for i in np.flatnonzero(rows < 0).tolist():
                raise UnknownItem(
                    f"no item {request.item_ids[i]!r} in the bundle", field=f"item_ids[{i}]"
                )
            queries = generation.vectors[rows]
            out = [_distinct(np.append(excluded, row)) for row in rows]
        found, scores = generation.index.search(
            queries,
            self._width(request.k),
            allowed=generation.filters.bitmap(request.filters),
            excluded=out,
        )
        return _flat(found, scores, np.zeros(found.shape, np.int32))

    def _width(self, k: int) -> int:
        """k, or fewer where the bundle has fewer items: arrays need not be wider than that."""
        return max(min(k, self.generation.items.num_active), 1)

    def _encode(self, requests: Sequence[Request], answers: Sequence[Answer | Exception]) -> None:
        """Fill in the interests of every query that gave no vectors, by one call of the tower."""
        readers: list[Reader] = []
        slots: list[tuple[Answer, int]] = []
        times: list[Int64] = []
        now: list[int] = []
        objectives: list[int] = []
        clock = time.time_ns() // 1000
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(request, SimilarRequest) or not isinstance(answer, Answer):
                continue
            objective = self.generation.objectives[request.objective] if request.objective else 0
            for i, query in enumerate(request.queries):
                if query.vectors is None:
                    readers.append(answer.readers[i])
                    slots.append((answer, i))
                    now.append(request.time_us or clock)
                    times.append(known_times(answer.readers[i].times, now[-1]))
                    objectives.append(objective)
        if not readers:
            return
        moments = np.array(now, np.int64)
        if self.generation.schema.time == "day":
            # As in training, where all that is known of an event is its day: midnight to midnight.
            moments = whole_days(moments)
            times = [whole_days(moment) for moment in times]
        interests = self.generation.tower.interests(
            [reader.rows for reader in readers],
            [reader.events for reader in readers],
            times,
            [reader.profile for reader in readers],
            now=moments,
            objectives=np.array(objectives, np.int64),
        )
        for vectors, (answer, i) in zip(interests, slots, strict=True):
            answer.vectors[i] = vectors

    def _search(
        self,
        members: Sequence[tuple[RetrieveRequest, Answer]],
        filters: tuple[Filter, ...],
        k: int,
    ) -> None:
        """Search for the requests that share filters and k, and give each its candidates."""
        vectors: list[Float32] = []
        excluded: list[Int64] = []
        for request, answer in members:
            vectors += answer.vectors
            for query, reader in zip(request.queries, answer.readers, strict=True):
                excluded.append(self._excluded(query.exclude_item_ids, request, reader))
        rows, scores, interests = self._nearest(vectors, excluded, filters, k)
        start = 0
        for request, answer in members:
            end = start + len(request.queries)
            answer.candidates = _flat(rows[start:end], scores[start:end], interests[start:end])
            start = end

    def _nearest(
        self,
        vectors: Sequence[Float32],
        excluded: Sequence[Int64],
        filters: tuple[Filter, ...],
        k: int,
    ) -> tuple[Int64, Float32, npt.NDArray[np.int32]]:
        """Rows, scores and interests [Q, k] of Q queries with [M, D] vectors each; M may differ."""
        allowed = self.generation.filters.bitmap(filters)
        if len(vectors) == 1:
            return self._nearest_even(vectors[0][np.newaxis], excluded, allowed, k)
        if len({len(one) for one in vectors}) == 1:
            return self._nearest_even(np.stack(vectors), excluded, allowed, k)
        shape = (len(vectors), k)
        rows, scores = np.empty(shape, np.int64), np.empty(shape, np.float32)
        interests = np.zeros(shape, np.int32)
        for num_interests in {len(one) for one in vectors}:
            places = [i for i, one in enumerate(vectors) if len(one) == num_interests]
            rows[places], scores[places], interests[places] = self._nearest_even(
                np.stack([vectors[i] for i in places]), [excluded[i] for i in places], allowed, k
            )
        return rows, scores, interests

    def _nearest_even(
        self, vectors: Float32, excluded: Sequence[Int64], allowed: Bitmap | None, k: int
    ) -> tuple[Int64, Float32, npt.NDArray[np.int32]]:
        """As `_nearest`, for vectors [Q, M, D]."""
        num_queries, num_interests, dim = vectors.shape
        out = None
        if any(len(rows) for rows in excluded):
            out = [rows for rows in excluded for _ in range(num_interests)]
        rows, scores = self.generation.index.search(
            vectors.reshape(-1, dim), k, allowed=allowed, excluded=out
        )
        if num_interests == 1:
            return rows, scores, np.zeros(rows.shape, np.int32)
        shape = (num_queries, num_interests, k)
        return merge_interests(rows.reshape(shape), scores.reshape(shape), k)

    def _excluded(self, item_ids: Sequence[str], request: RetrieveRequest, reader: Reader) -> Int64:
        """Sorted distinct rows that the query must not return."""
        if not item_ids and not request.exclude_seen:
            return NOTHING
        rows = self.generation.rows_of(item_ids)
        # Every event of the history counts as seen, also those that the tower does not read.
        return _distinct(np.concatenate([rows, reader.seen]) if request.exclude_seen else rows)


def _distinct(rows: Int64) -> Int64:
    """Sorted distinct rows, without -1."""
    rows = np.unique(rows)
    return rows[1:] if len(rows) and rows[0] < 0 else rows


def _flat(rows: Int64, scores: Float32, interests: npt.NDArray[np.int32]) -> Candidates:
    """[Q, k] arrays with -1 for none → the candidates alone, query after query."""
    if rows[:, -1].min() >= 0:  # nones come last, so there are none
        counts = np.full(rows.shape[0], rows.shape[1])
        return Candidates(rows.ravel(), scores.ravel(), interests.ravel(), counts)
    found = rows >= 0
    return Candidates(rows[found], scores[found], interests[found], found.sum(axis=1))
