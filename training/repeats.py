"""Finds keys that come twice, within a file or across many, without holding the keys.

Knows nothing of what a key means.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from training.columns import ParquetTable, first_true


class Repeats:
    """Gathers one 64-bit hash a row: eight bytes, however long the ids are.

    Equal hashes are only suspects: `refuse` reads their real keys again before it says anything.
    """

    MAX_SUSPECTS = 1_000
    """One repeat is enough for an error; a million more are mostly the same mistake."""

    def __init__(self, key: list[str]) -> None:
        self._key = key
        self._hashes: list[npt.NDArray[np.uint64]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take in the key columns of more rows."""
        self._hashes.append(frame.select(_hashed(self._key)).to_series().to_numpy())

    def refuse(self, tables: Sequence[ParquetTable], *, remedy: str) -> None:
        """Raise DatasetError for a key that comes twice, naming the second row.

        tables: those whose rows were added, in that order.
        """
        suspects = self._suspects()
        if not len(suspects):
            return
        wanted = pl.Series(suspects).implode()
        seen: dict[tuple[object, ...], str] = {}
        for table in tables:
            for first_row, frame in table.batches(self._key):
                is_suspect = frame.select(_hashed(self._key).is_in(wanted)).to_series()
                for row in is_suspect.arg_true():
                    key = frame.select(self._key).row(row)
                    if key in seen:
                        shown = " and ".join(f"{part!r:.100}" for part in key)
                        raise table.error(
                            f"{shown} was already used in {seen[key]}.",
                            column=self._key[-1],
                            row=first_row + row,
                            remedy=remedy,
                        )
                    seen[key] = f"{table.file}, row {first_row + row}"

    def _suspects(self) -> npt.NDArray[np.uint64]:
        if not self._hashes:
            return np.zeros(0, np.uint64)
        hashes = np.concatenate(self._hashes)
        hashes.sort()
        return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])[: self.MAX_SUSPECTS]


def _hashed(key: list[str]) -> pl.Expr:
    return pl.struct(key).hash()


def refuse_repeated(table: ParquetTable, ids: pl.Series) -> None:
    """Raise DatasetError for an id that comes twice among all ids of one file."""
    row = first_true(~ids.is_first_distinct())
    if row is not None:
        raise table.error(
            f"{ids[row]!r:.100} was already used in row {ids.index_of(ids[row])}.",
            column=ids.name,
            row=row,
            remedy="Keep one row an id.",
        )
