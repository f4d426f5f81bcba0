"""What a ranker is, and what rankers without towers share: profiles, blocks, the best of a row.

Everything goes block by block over users or items, so that no array ever has a cell for every pair
of them. Knows no particular way of scoring.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.dataset import Interactions

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Excluded = Sequence[Int64] | None

BLOCK = 1 << 24
"""Cells of one block in memory: 64 MB dense, 128 MB sparse (a value and a column each)."""


class Ranker(Protocol):
    """Anything that answers "what next" with a ranked list, whatever it learned from."""

    @property
    def name(self) -> str:
        """What a table of results calls it."""

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """The k best items for each of B users.

        histories: what every user did before the question. users: [B] user rows. excluded: B sorted
        arrays of item rows that the user's list must not hold, or None.

        Returns item rows [B, k] int64, best first, each once; -1 where nothing is left.
        """


def popularity_order(training: Interactions) -> Int64:
    """All V item rows, from the most training events to the fewest; ties to the lower row."""
    return np.argsort(-training.popularity(), kind="stable")


def fill(rows: Int64, order: Int64, *, excluded: Excluded) -> Int64:
    """Give the places of rows [B, k] that are -1 (all at a row's end) to the first items of order
    that are neither excluded nor in the row already. Changes rows, and returns it.
    """
    k = rows.shape[1]
    for i in np.flatnonzero((rows < 0).any(axis=1)).tolist():
        have = int((rows[i] >= 0).sum())
        taken = rows[i, :have] if excluded is None else np.append(rows[i, :have], excluded[i])
        # So many of the order hold what is missing, whichever of them are taken.
        ahead = order[: k - have + len(taken)]
        rest = ahead[~np.isin(ahead, taken)][: k - have]
        rows[i, have : have + len(rest)] = rest
    return rows


def profiles(
    histories: Interactions, users: Int64, *, half_life: float | None, longest: int
) -> Any:
    """Users as sparse rows over items: each of a user's events adds its weight at its item.

    half_life: the number of later events of the same user after which an event weighs half as much
    as the last one, which weighs 1; None, or a dataset without order: all weigh 1. longest: only so
    many of a user's last events are read.

    Returns a CSR matrix [B, V] float32.
    """
    places, starts = last_events(histories, users, longest)
    ages = np.repeat(starts[1:], np.diff(starts)) - 1 - np.arange(len(places))
    items = histories.items[places]
    weights = np.ones(len(items), np.float32)
    if half_life is not None and histories.schema.has_order:
        weights = (0.5 ** (ages / half_life)).astype(np.float32)
    matrix = sp.csr_matrix((weights, items, starts), shape=(len(users), histories.num_items))
    matrix.sum_duplicates()
    return matrix


def last_events(histories: Interactions, users: Int64, most: int) -> tuple[Int64, Int64]:
    """Where the last `most` events of each of B users are, one user after the other, oldest first.

    Returns places [n] int64 into the arrays of histories, and starts [B + 1]: user i has those from
    starts[i] to starts[i + 1].
    """
    stops = histories.starts[users + 1]
    lengths = np.minimum(stops - histories.starts[users], most)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(starts[-1]) + np.repeat(stops - starts[1:], lengths), starts


def blocks(costs: Int64, most: int) -> Iterator[slice]:
    """Cut [n] costs into runs that cost `most` together at most, or are a single one."""
    ends, start = np.cumsum(costs), 0
    while start < len(costs):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + most, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def part(excluded: Excluded, users: slice) -> Excluded:
    """The exclusions of one block of users."""
    return None if excluded is None else excluded[users]


def best_of_sparse(scores: Any, k: int, *, excluded: Excluded) -> tuple[Int64, Float32]:
    """The k largest entries of each row of a CSR matrix [B, V]; ties to the lower column.

    Returns columns [B, k] int64 (-1: none) and scores [B, k] float32 (0: none). What is not stored
    in the matrix is never returned.
    """
    rows = np.full((scores.shape[0], k), -1, np.int64)
    found = np.zeros((scores.shape[0], k), np.float32)
    for i, (start, stop) in enumerate(zip(scores.indptr[:-1], scores.indptr[1:], strict=True)):
        columns, values = scores.indices[start:stop], scores.data[start:stop]
        if excluded is not None and len(excluded[i]):
            left = ~np.isin(columns, excluded[i])
            columns, values = columns[left], values[left]
        best = _largest(values, columns, k)
        rows[i, : len(best)], found[i, : len(best)] = columns[best], values[best]
    return rows, found


def best_of_dense(scores: Float32, k: int, *, excluded: Excluded) -> Int64:
    """The columns [B, k] int64 of the k largest scores above 0 of each row [B, V], -1 where there
    are no more; ties to the lower column. Sets the scores of excluded columns to 0.
    """
    rows = np.full((len(scores), k), -1, np.int64)
    for i, values in enumerate(scores):
        if excluded is not None:
            values[excluded[i]] = 0
        columns = np.flatnonzero(values > 0)
        best = columns[_largest(values[columns], columns, k)]
        rows[i, : len(best)] = best
    return rows


def _largest(values: Float32, columns: Int64, k: int) -> Int64:
    """Where the k largest values [n] are, best first; ties to the lower of columns [n]."""
    if len(values) <= k:
        return np.lexsort((columns, -values))
    # All that tie with the k-th stay, so that the sort settles the tie.
    near = np.flatnonzero(values >= np.partition(values, -k)[-k])
    return near[np.lexsort((columns[near], -values[near]))[:k]]
