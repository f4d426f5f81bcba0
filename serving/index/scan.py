"""Scoring a few rows one and all: what every index does where a filter leaves little."""

from collections.abc import Sequence

import numpy as np

from model.ann import exact_search
from serving.index.base import Bool, Float32, Int64


def scan_rows(
    vectors: Float32, rows: Int64, queries: Float32, k: int, excluded: Sequence[Int64] | None
) -> tuple[Int64, Float32]:
    """Exact search among `rows` (rising) of `vectors` only; as VectorIndex.search answers."""
    places = None
    if excluded is not None:
        places = [np.flatnonzero(members(rows, out)) for out in excluded]
    found, scores = exact_search(queries, vectors.take(rows, axis=0), k, excluded=places)
    return np.where(found >= 0, rows[found], -1), scores


def inside(sorted_rows: Int64, num_rows: int) -> Int64:
    """Those of the rows that exist."""
    return sorted_rows[: np.searchsorted(sorted_rows, num_rows)]


def members(rows: Int64, sorted_rows: Int64) -> Bool:
    """[n] bool: which of `rows` are in `sorted_rows`."""
    if not len(sorted_rows):
        return np.zeros(rows.shape, bool)
    place = np.minimum(np.searchsorted(sorted_rows, rows), len(sorted_rows) - 1)
    found: Bool = sorted_rows[place] == rows
    return found


def nothing(num_queries: int, k: int) -> tuple[Int64, Float32]:
    """The answer of no rows: [Q, k] of -1 and -inf."""
    return np.full((num_queries, k), -1, np.int64), np.full((num_queries, k), -np.inf, np.float32)
