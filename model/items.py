"""The items of one bundle generation: row to id, id to row, and their raw columns.

Rows belong to one generation and are never stored or sent. The table is Arrow IPC, memory-mapped,
so that several workers share one copy. Knows nothing of vectors or of requests.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

Int64 = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Scalar = TypeVar("Scalar", bound=np.generic)

_HASHED_TOGETHER = 1 << 16
"""Ids that are Python strings at one time."""
_MANY = 1 << 10
"""More ids than this are looked up in the order of their hashes: half the time among a million."""


class ItemTable:
    """Items in row order; rows `[0, num_active)` are in the index, later rows are retired.

    Columns: item_id, kind, title, the features of the schema, popularity (int64, history events),
    retired (bool), circle (int32).
    """

    def __init__(self, table: pa.Table, index: "IdIndex | None" = None) -> None:
        """index: over the table's ids, where it was made before."""
        self.table = table.combine_chunks()
        self.num_items: int = self.table.num_rows
        retired = self.table["retired"].to_numpy() if self.num_items else np.empty(0, bool)
        self.num_active = int(self.num_items - retired.sum())
        self._ids: pa.Array = _single_chunk(self.table, "item_id")
        self._index = IdIndex(self._ids) if index is None else index

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """Rows of these ids: int64 [n], -1 where the bundle has no such item."""
        return self._index.rows_of(ids)

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """Rows of the items with these hashes of ids (`hash_ids`), in no order: int64."""
        return self._index.rows_of_hashes(hashes)

    def ids_of(self, rows: Int64) -> list[str]:
        """Ids of these rows (each >= 0), in order."""
        names: list[str] = self._ids.take(pa.array(rows)).to_pylist()
        return names

    def column(self, name: str, rows: Int64) -> pa.Array:
        """One raw column at these rows (each >= 0), in order. Raises KeyError if there is none."""
        return _single_chunk(self.table, name).take(pa.array(rows))


class IdIndex:
    """Where each of many distinct ids lies in an Arrow array, at 16 bytes an id beside it."""

    def __init__(
        self, ids: pa.Array, made: tuple[npt.NDArray[np.uint64], Int64] | None = None
    ) -> None:
        """ids: [N] strings, memory-mapped or not; kept, not copied. made: `arrays` of such an index
        over the same ids."""
        self._ids = ids
        self._hashes, self._rows = _hashed(ids) if made is None else made
        self._has_twins = bool((self._hashes[1:] == self._hashes[:-1]).any())

    @property
    def arrays(self) -> tuple[Hashes, Int64]:
        """All that the index has beside the ids: [N] hashes, rising, and the row of each."""
        return self._hashes, self._rows

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """The places of these ids: int64 [n], -1 where there is no such id."""
        if not ids or not len(self._ids):
            return np.full(len(ids), -1, np.int64)
        wanted = hash_ids(ids)
        if len(wanted) > _MANY:
            place, order = np.empty(len(wanted), np.int64), np.argsort(wanted)
            place[order] = np.searchsorted(self._hashes, wanted[order])
        else:
            place = np.searchsorted(self._hashes, wanted)
        inside = np.minimum(place, len(self._ids) - 1)
        rows = np.where(self._hashes[inside] == wanted, self._rows[inside], -1)
        found = np.flatnonzero(rows >= 0)
        names = self._ids.take(pa.array(rows[found])).to_pylist()
        given = ids if len(found) == len(ids) else [ids[i] for i in found.tolist()]
        if names == given:
            return rows
        for position, name in zip(found.tolist(), names, strict=True):
            if name != ids[position]:  # two ids share a 64-bit hash: walk the run of equal hashes
                rows[position] = self._walk(int(place[position]), wanted[position], ids[position])
        return rows

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """The places of the ids with these hashes, in no order; of ids that share one, all."""
        if not len(self._ids) or not len(hashes):
            return np.empty(0, np.int64)
        wanted = distinct(hashes)  # in order, they are found in half the time
        start = np.searchsorted(self._hashes, wanted)
        inside = np.minimum(start, len(self._ids) - 1)
        found = inside[self._hashes[inside] == wanted]
        if self._has_twins:
            ends = np.searchsorted(self._hashes, self._hashes[found], side="right")
            lengths = ends - found
            steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            found = np.repeat(found, lengths) + steps
        rows: Int64 = self._rows[found]
        return rows

    def _walk(self, start: int, wanted: np.uint64, name: str) -> int:
        for place in range(start, len(self._hashes)):
            if self._hashes[place] != wanted:
                break
            if self._ids[int(self._rows[place])].as_py() == name:
                return int(self._rows[place])
        return -1


def _hashed(ids: pa.Array) -> tuple[Hashes, Int64]:
    """The hashes [N] of ids, rising, and the place of each."""
    hashes = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), _HASHED_TOGETHER):
        part = ids.slice(start, _HASHED_TOGETHER)
        hashes[start : start + len(part)] = hash_ids(part.to_pylist())
    order = np.argsort(hashes, kind="stable")
    return hashes[order], order.astype(np.int64)


def hash_ids(ids: Sequence[str]) -> Hashes:
    """64-bit xxh3 of each id's UTF-8 bytes: uint64 [n]; the same on every machine."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(name.encode()) for name in ids), np.uint64, len(ids))


def distinct(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Each of them once, in order: np.unique's answer, for 30,000 in a thirtieth of its time."""
    values = np.sort(values)
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def read_items(path: Path, made: tuple[Hashes, Int64] | None = None) -> ItemTable:
    """Open items.arrow memory-mapped. The caller has verified its checksum.

    made: `IdIndex.arrays` over its ids, where they were kept.
    """
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all().combine_chunks()
    if made is None:
        return ItemTable(table)
    return ItemTable(table, IdIndex(_single_chunk(table, "item_id"), made))


def write_items(table: pa.Table, path: Path) -> None:
    """Write items.arrow in one record batch, so that a row is one offset away."""
    table = table.combine_chunks()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(table.num_rows, 1))


def _single_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
