"""The delta: live items in memory, searched exactly.

One thread appends; any number read. A row is complete before it is counted, and arrays that have to
grow are replaced, never moved under a reader.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.items import Hashes, ItemTable
from model.schema import Schema
from serving.domain import Filter
from serving.index.filters import FilterIndex
from serving.live.encode import Encoded
from serving.live.living import scan_better

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_FIRST_ROWS = 1024


class Delta:
    """A Part that grows. See serving/live/part.py."""

    def __init__(self, schema: Schema, columns: pa.Schema, *, dim: int, value_dim: int) -> None:
        """columns: those of items.arrow."""
        self._schema, self._columns = schema, columns
        self.num_rows = 0
        self.vectors: Float32 = np.zeros((_FIRST_ROWS, dim), np.float32)
        self.value_vectors: Float32 = np.zeros((_FIRST_ROWS, value_dim), np.float32)
        self.circles: Int32 = np.zeros(_FIRST_ROWS, np.int32)
        self.expires: Int64 = np.zeros(_FIRST_ROWS, np.int64)
        self.alive: Bool = np.zeros(_FIRST_ROWS, bool)
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._chunks: tuple[_Chunk, ...] = ()

    def append(self, table: pa.Table, encoded: Encoded, expires: Int64, alive: Bool) -> None:
        """Add n rows. table: as items.arrow. expires, alive: [n]."""
        start, end = self.num_rows, self.num_rows + table.num_rows
        self._grow(end)
        self.vectors[start:end], self.value_vectors[start:end] = (
            encoded.vectors,
            encoded.value_vectors,
        )
        self.circles[start:end] = table["circle"].to_numpy()
        self.expires[start:end], self.alive[start:end] = expires, alive
        ids = table["item_id"].to_pylist()
        self._ids.extend(ids)
        # Few chunks, each about twice as large as the next: a filter looks at each.
        chunks = [*self._chunks, _Chunk(start, table, self._schema)]
        while len(chunks) > 1 and chunks[-2].num_rows < 2 * chunks[-1].num_rows:
            last, before = chunks.pop(), chunks.pop()
            merged = pa.concat_tables([before.table, last.table])
            chunks.append(_Chunk(before.start, merged, self._schema))
        self._chunks = tuple(chunks)
        self.num_rows = end
        self._rows.update(zip(ids, range(start, end), strict=True))

    def kill(self, rows: Int64) -> None:
        """These rows, distinct, are not to be retrieved any more."""
        self.alive[rows] = False

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """The newest row of each id; -1 where there is none."""
        rows = self._rows
        return np.array([rows.get(item_id, -1) for item_id in ids], np.int64)

    def find(self, ids: Sequence[str]) -> Int64:
        """See Part.find: all are at hand."""
        return self.rows_of(ids)

    def ids_of(self, rows: Int64) -> list[str]:
        """Ids of these rows."""
        ids = self._ids
        return [ids[row] for row in rows.tolist()]

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """All rows, in no order, of the items with these hashes of ids."""
        rows = [chunk.start + chunk.items.rows_of_hashes(hashes) for chunk in self._chunks]
        return np.concatenate([np.empty(0, np.int64), *rows])

    def newest_rows(self) -> Int64:
        """The newest row of every item, rising."""
        return np.sort(np.fromiter(self._rows.values(), np.int64, len(self._rows)))

    def table(self) -> pa.Table:
        """All rows, as items.arrow."""
        return pa.concat_tables(
            [self._columns.empty_table(), *(chunk.table for chunk in self._chunks)]
        )

    def column(self, name: str, rows: Int64) -> pa.Array:
        """One raw column at these rows."""
        return self.table()[name].take(pa.array(rows)).combine_chunks()

    def mask(self, filters: tuple[Filter, ...], num_rows: int) -> Bool:
        """[num_rows] where all of these (checked) filters hold."""
        if not filters:
            return np.ones(num_rows, bool)
        masks = [chunk.mask(filters) for chunk in self._chunks if chunk.start < num_rows]
        return np.concatenate(masks)[:num_rows] if masks else np.ones(0, bool)

    def holds(self, filters: tuple[Filter, ...], rows: Int64) -> Bool:
        """See Part.holds."""
        return self.mask(filters, self.num_rows)[rows]

    def better(
        self,
        queries: Float32,
        floors: Float32,
        k: int,
        filters: tuple[Filter, ...],
        excluded: Sequence[Int64],
    ) -> Sequence[tuple[Int64, Float32]]:
        """Rows that score above the floors; see Part.better."""
        # What lives is copied before rows are counted: of a row that dies after, the newer row of
        # its item may not be among them, so the old one is found.
        alive = self.alive.copy()
        num_rows = min(self.num_rows, len(alive))
        allowed = alive[:num_rows]
        if filters:
            allowed = allowed & self.mask(filters, num_rows)
        return scan_better(self.vectors[:num_rows], allowed, queries, floors, k, excluded)

    def _grow(self, num_rows: int) -> None:
        size = len(self.alive)
        if num_rows <= size:
            return
        while size < num_rows:
            size *= 2
        for name in ("vectors", "value_vectors", "circles", "expires", "alive"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


class _Chunk:
    """Some of the rows, as a table with its filters."""

    def __init__(self, start: int, table: pa.Table, schema: Schema) -> None:
        self.start, self.num_rows = start, table.num_rows
        self.items = ItemTable(table)
        self.table = self.items.table
        self._filters = FilterIndex(self.items, schema)

    def mask(self, filters: tuple[Filter, ...]) -> Bool:
        """[num_rows of the chunk] where all of these filters hold."""
        bitmap = self._filters.bitmap(filters)
        assert bitmap is not None
        return bitmap.mask
