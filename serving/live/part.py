"""A run of live items, in the forms that searches, filters and answers read.

Two kinds: a sealed segment, whose files all workers share, and the delta, which grows in memory.
Rows count from 0 within the part. A row is written once and never changes, but that it dies: it was
replaced, deleted, sold out, or its time is over. Knows no requests.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.items import Hashes
from serving.domain import Filter

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Part(Protocol):
    """Rows 0 … num_rows - 1. Read from any thread; rows die while others read."""

    @property
    def num_rows(self) -> int:
        """How many rows there are; may grow."""

    @property
    def vectors(self) -> Float32:
        """[num_rows or more, D]."""

    @property
    def value_vectors(self) -> Float32:
        """[num_rows or more, E]."""

    @property
    def circles(self) -> Int32:
        """[num_rows or more] the circle of each row, -1 for none."""

    @property
    def alive(self) -> Bool:
        """[num_rows or more] whether the row may be retrieved; turns to False and never back."""

    @property
    def expires(self) -> Int64:
        """[num_rows or more] UTC µs; item_log.NEVER where the item does not expire."""

    def kill(self, rows: Int64) -> None:
        """These rows, distinct, are not to be retrieved any more."""

    def ids_of(self, rows: Int64) -> list[str]:
        """Ids of these rows."""

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """The newest row of each id; -1 where the part has none."""

    def find(self, ids: Sequence[str]) -> Int64:
        """As `rows_of`, for ids that may never be asked for again: none is kept at hand."""

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """All rows, in no order, of the items with these hashes of ids."""

    def table(self) -> pa.Table:
        """All rows, as items.arrow."""

    def column(self, name: str, rows: Int64) -> pa.Array:
        """One raw column at these rows."""

    def holds(self, filters: tuple[Filter, ...], rows: Int64) -> Bool:
        """[n] of which of these rows all (checked, at least one) filters hold."""

    def better(
        self,
        queries: Float32,
        floors: Float32,
        k: int,
        filters: tuple[Filter, ...],
        excluded: Sequence[Int64],
    ) -> Sequence[tuple[Int64, Float32]]:
        """Of each query [Q, D] the living rows, in no order, that score above its floor [Q], and
        their scores: the k best where there are more.

        filters: those that must hold, checked. excluded: Q sorted arrays of rows, or none at all.
        """
