"""What every vector index can do, and the bitmap of rows that a search may return.

Knows rows of one generation and vectors; no item ids, no requests. The suite in
tests/conformance/test_vector_index.py runs on every implementation.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

IndexName = Literal["bundle", "torch"]
"""`bundle`: what export built, exact or inverted lists by size. `torch`: exact, on a GPU."""
DeviceName = Literal["cuda", "cpu"]
"""Where the index `torch` lies; `cpu` is the same code, for tests."""


class Bitmap:
    """A set of rows, in the forms that searches want; made once for a filter, then shared.

    mask: [N] bool, True for rows of the set. Must not be changed afterwards.
    """

    def __init__(self, mask: Bool) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))

    @cached_property
    def rows(self) -> Int64:
        """The rows of the set, rising."""
        return np.flatnonzero(self.mask)

    @cached_property
    def packed(self) -> npt.NDArray[np.uint8]:
        """[ceil(N / 8)] uint8, row r is bit r % 8 of byte r // 8 (what FAISS reads)."""
        return np.packbits(self.mask, bitorder="little")


class VectorIndex(Protocol):
    """The rows nearest to a vector by inner product."""

    @property
    def num_rows(self) -> int:
        """N: rows are 0 … N - 1."""

    @property
    def dim(self) -> int:
        """D: the length of a vector."""

    def search(
        self,
        queries: Float32,
        k: int,
        *,
        allowed: Bitmap | None = None,
        excluded: Sequence[Int64] | None = None,
    ) -> tuple[Int64, Float32]:
        """The k best rows of each query.

        queries: [Q, D] float32, finite. allowed: only these rows, for all queries; its mask is
        [N]. excluded: Q arrays of rows that the query must not return, each sorted and distinct;
        rows beyond N are ignored.

        Returns rows [Q, k] int64 (-1: none) and scores [Q, k] float32 (-inf: none), best first.
        Among equal scores the lower row comes first; which of several rows that tie for the last
        place is returned is up to the implementation, but the same for the same call. May be
        called from several threads at once.
        """
