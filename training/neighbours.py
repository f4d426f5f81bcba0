"""Two baselines of nearest neighbours: items of the same users, and items with like titles.

Both score an item by how near it is to the events of a user's history, the late ones counting
most; what they cannot score follows in order of popularity. The defaults did best, or nearly so,
on the validation parts of five public datasets. Knows no towers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from model.errors import ConfigError
from model.text import text_tokens
from training.dataset import Interactions
from training.ranking import (
    BLOCK,
    best_of_dense,
    best_of_sparse,
    blocks,
    fill,
    part,
    popularity_order,
    profiles,
)

Int64 = npt.NDArray[np.int64]

_LONGEST = 500
"""Events of one user that are read at most: an item-kNN costs the square of it."""


@dataclass(frozen=True, slots=True)
class ItemKNN:
    """Items that the same users had: cosine of co-occurrence (Sarwar et al., WWW 2001), shrunk.

    similarity(i, j) = |users of both| / (sqrt(|users of i| · |users of j|) + shrinkage), kept for
    the num_neighbours items j nearest to each i. An item's score is the sum of its similarities to
    the history's events, each weighted by 0.5 ** (later events / half_life).
    """

    similarity: Any
    """[V, V] CSR float32, at most num_neighbours a row."""
    order: Int64
    """[V] item rows by popularity."""
    num_neighbours: int
    half_life: float | None
    name: str = "item-knn"

    @classmethod
    def fit(
        cls,
        training: Interactions,
        items: pa.Table,
        *,
        seed: int,
        num_neighbours: int = 100,
        shrinkage: float = 20.0,
        half_life: float | None = 2.0,
    ) -> "ItemKNN":
        """Learn the neighbours, a block of items at a time. items, seed: not needed."""
        had = profiles(training, np.arange(training.num_users), half_life=None, longest=_LONGEST)
        had.data[:] = 1
        had_by = had.T.tocsr()
        norms = np.sqrt(np.diff(had_by.indptr), dtype=np.float32)
        # No row of the product has more cells than its users have events, or than there are items;
        # and the best of a row take num_neighbours cells, however few there are.
        costs = np.minimum(had_by @ np.diff(had.indptr), training.num_items)
        columns, values, counts = [], [], []
        for block in blocks(np.maximum(costs, num_neighbours), BLOCK):
            near = had_by[block] @ had
            own = np.repeat(norms[block], np.diff(near.indptr))
            near.data /= own * norms[near.indices] + np.float32(shrinkage)
            itself = [np.array([i]) for i in range(block.start, block.stop)]
            rows, scores = best_of_sparse(near, num_neighbours, excluded=itself)
            columns.append(rows[rows >= 0].astype(np.int32))
            values.append(scores[rows >= 0])
            counts.append((rows >= 0).sum(axis=1))
        starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        similarity = sp.csr_matrix(
            (np.concatenate(values), np.concatenate(columns), starts),
            shape=(training.num_items, training.num_items),
        )
        return cls(similarity, popularity_order(training), num_neighbours, half_life)

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker."""
        rows = np.full((len(users), k), -1, np.int64)
        costs = np.minimum(histories.lengths[users], _LONGEST) * self.num_neighbours
        for block in blocks(costs, BLOCK):
            profile = profiles(histories, users[block], half_life=self.half_life, longest=_LONGEST)
            scores = profile @ self.similarity
            rows[block] = best_of_sparse(scores, k, excluded=part(excluded, block))[0]
        return fill(rows, self.order, excluded=excluded)


@dataclass(frozen=True, slots=True)
class TitleKNN:
    """Items whose titles are like those of the history; finds new items as well as old ones.

    A title is the TF-IDF vector of its `text_tokens`, of length 1; a user is the sum of the titles
    of the history, each weighted by 0.5 ** (later events / half_life); the score is the cosine.
    """

    titles: Any
    """[V, tokens] CSR float32, rows of length 1, or 0 for a title without a token."""
    order: Int64
    """[V] item rows by popularity."""
    half_life: float | None
    name: str = "title-knn"

    @classmethod
    def fit(
        cls, training: Interactions, items: pa.Table, *, seed: int, half_life: float | None = 2.0
    ) -> "TitleKNN":
        """Read every title of items. seed: not needed. Raises ConfigError if none has a token."""
        vectorizer = TfidfVectorizer(analyzer=text_tokens, dtype=np.float32)
        titles = items["title"].to_pylist()
        if not any(text_tokens(title) for title in titles):
            raise ConfigError(
                "title-knn needs titles; items.parquet has none that holds a letter or a digit. "
                "Leave it out of the table."
            )
        return cls(vectorizer.fit_transform(titles), popularity_order(training), half_life)

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker."""
        rows = np.full((len(users), k), -1, np.int64)
        costs = np.full(len(users), max(self.titles.shape))
        for block in blocks(costs, BLOCK):
            profile = profiles(histories, users[block], half_life=self.half_life, longest=_LONGEST)
            likes = (profile @ self.titles).toarray()
            scores = np.ascontiguousarray((self.titles @ likes.T).T)
            rows[block] = best_of_dense(scores, k, excluded=part(excluded, block))
        return fill(rows, self.order, excluded=excluded)
