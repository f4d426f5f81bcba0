"""Candidates that a slate's rules want and that the search by a user's own interests found too few
of: of origins that they do not know yet, of groups with an exposure floor.

They come after those that were found, with scores as if they had been. Knows no slates.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from serving.candidates import flat, with_extra
from serving.domain import (
    Candidates,
    ExposureFloor,
    Filter,
    NewItems,
    RetrieveRequest,
    SmallCreators,
)
from serving.live.catalogue import Catalogue
from serving.origins import ORIGINS, candidate_origins, centroids_to_search, reader_origins
from serving.rank.exposure import members
from serving.readers import Reader

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Search = Callable[[Sequence[Float32], Sequence[Int64], tuple[Filter, ...], int], Int64]
"""Vectors [M, D] and excluded rows of each of Q queries, filters, k → rows [Q, k], -1 for none."""

DEEPER = 4
"""Of an origin so many times what is wanted is looked at; a group that no filter names is looked
for among so many times the candidates."""


class Wanted:
    """Adds candidates to those of one request's queries."""

    def __init__(
        self,
        catalogue: Catalogue,
        request: RetrieveRequest,
        readers: Sequence[Reader],
        vectors: Sequence[Float32],
        now: Int64,
        excluded: Sequence[Int64],
        search: Search,
    ) -> None:
        """readers, vectors, now, excluded: [Q], each query's user, interests [M, D], moment in UTC
        µs, and rows that it must not return."""
        self._catalogue, self._request = catalogue, request
        self._readers, self._vectors, self._now = readers, vectors, now
        self._excluded, self._search = excluded, search

    def with_origins(self, found: Candidates) -> Candidates:
        """Let every query have so many of each origin as the request wants, as far as the circles
        of that origin hold such: those next to the user's interests are searched."""
        catalogue = self._catalogue
        tables = [
            reader_origins(catalogue, reader, moment)
            for reader, moment in zip(self._readers, self._now.tolist(), strict=True)
        ]
        owners = np.repeat(np.arange(len(found.counts)), found.counts)
        origins = candidate_origins(catalogue, self._readers, self._now, found)
        for name, least in self._request.origins:
            origin = ORIGINS.index(name)
            have = np.bincount(owners[origins == origin], minlength=len(tables))
            centroids = [
                centroids_to_search(catalogue.generation, table, origin, wanted)
                for table, wanted in zip(tables, self._vectors, strict=True)
            ]
            short = [i for i in range(len(tables)) if have[i] < least and len(centroids[i])]
            # What is nearest to a circle's centroid may be another's.
            near = self._near(short, centroids, self._request.filters, DEEPER * least)
            rows = np.full((len(tables), max(least, 1)), -1)
            for i, mine in zip(short, near, strict=True):
                mine = mine[tables[i][catalogue.codes_of("circle", mine)] == origin][:least]
                rows[i, : len(mine)] = mine
            found = with_extra(found, self._scored(rows))
        return found

    def with_groups(self, found: Candidates) -> Candidates:
        """Let every query have so many of each exposure floor's group as the request wants, where
        there are such within reach of the user's interests."""
        request, num = self._request, len(self._readers)
        for floor, least in request.floors:
            ends = np.cumsum(found.counts)
            short = [
                i
                for i, (end, count) in enumerate(zip(ends, found.counts, strict=True))
                if np.count_nonzero(self._of(floor, found.rows[end - count : end], i)) < least
            ]
            rows = np.full((num, max(least, 1)), -1)
            if isinstance(floor.group, NewItems | SmallCreators):
                filters, k = request.filters, DEEPER * request.k
            else:
                filters, k = (*request.filters, floor.group), least
            for i, mine in zip(short, self._near(short, self._vectors, filters, k), strict=True):
                mine = mine[self._of(floor, mine, i)][:least]
                rows[i, : len(mine)] = mine
            found = with_extra(found, self._scored(rows))
        return found

    def _of(self, floor: ExposureFloor, rows: Int64, query: int) -> npt.NDArray[np.bool_]:
        return members(self._catalogue, floor, rows, int(self._now[query]))

    def _near(
        self,
        queries: Sequence[int],
        vectors: Sequence[Float32],
        filters: tuple[Filter, ...],
        k: int,
    ) -> list[Int64]:
        """What some of the queries find with these vectors, k rows at most each."""
        if not queries:
            return []
        k = max(min(k, self._catalogue.num_active), 1)
        rows = self._search(
            [vectors[i] for i in queries], [self._excluded[i] for i in queries], filters, k
        )
        return [mine[mine >= 0] for mine in rows]

    def _scored(self, rows: Int64) -> Candidates:
        """Candidates [Q, k], -1 for none, by their best inner product with the interests."""
        scores = np.full(rows.shape, -np.inf, np.float32)
        interests = np.zeros(rows.shape, np.int32)
        for i, wanted in enumerate(self._vectors):
            num = int(np.count_nonzero(rows[i] >= 0))
            if num:
                products = self._catalogue.vectors_of(rows[i, :num]) @ wanted.T
                scores[i, :num], interests[i, :num] = products.max(axis=1), products.argmax(axis=1)
        return flat(rows, scores, interests)
