"""A published text file of one record a line, with the columns that its importer needs.

Read strictly and batch by batch as strings; a cell that is wrong is a DatasetError that names
file, line and column, shows the cell, and says where to get the file. Knows no public dataset and
no meaning of a column.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from model.errors import DatasetError
from training.columns import first_true
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.source import require_columns

LINE = "line"
"""The column that each batch has beside the file's own: the line number, from 1, Int64; empty lines
are not counted."""


class DelimitedFile:
    """One text file whose header was checked."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        *,
        separator: str = ",",
        header: bool = True,
        quoted: bool = False,
        origin: str,
    ) -> None:
        """Open and check the header.

        columns: those to read. With a header, the file may have more, in any order; without one,
        they are the file's columns in order.
        quoted: whether "…" may hold separators.
        origin: where the file can be had, one sentence; it ends the errors that call for it.

        Raises DatasetError if the file is missing or empty, or lacks a column.
        """
        self.name, self._origin, self._columns = path.name, origin, list(columns)
        if not path.is_file():
            raise DatasetError(
                f"there is no such file in {path.parent}.", file=self.name, remedy=origin
            )
        self.num_bytes = path.stat().st_size
        if not self.num_bytes:
            raise DatasetError("the file is empty.", file=self.name, remedy=origin)
        self._first_line = 2 if header else 1
        self._source = CsvSource(
            path,
            separator=separator,
            quoted=quoted,
            header=None if header else self._columns,
            nulls=(),
        )
        require_columns(self._source, self._columns, remedy=origin)

    def batches(self, progress: Callable[[float], None] | None = None) -> Iterator[pl.DataFrame]:
        """Yield frames of strings, with LINE; an empty cell is the empty string.

        progress: called with the fraction of the file that is read.

        Raises DatasetError for a line with too few or too many cells, or that is not UTF-8.
        """
        for first_row, frame in self._source.batches(self._columns):
            first = first_row + self._first_line
            lines = pl.int_range(first, first + frame.height, dtype=pl.Int64)
            yield frame.with_columns(lines.alias(LINE))
            if progress is not None:
                progress(self._source.fraction)

    def refuse(self, frame: pl.DataFrame, wrong: pl.Expr, *, column: str, allowed: str) -> None:
        """Raise DatasetError for the first row of a batch where `wrong` is true.

        allowed: what the cell has to be, as it follows "must be".
        """
        row = first_true(frame.select(wrong.alias("wrong")).to_series())
        if row is not None:
            raise self._source.error(
                f"{frame[column][row]!r:.100} must be {allowed}.",
                row=frame[LINE][row] - self._first_line,
                column=column,
                remedy="Mend the line, or get the file again. " + self._origin,
            )

    def refuse_empty(self, frame: pl.DataFrame, *columns: str) -> None:
        """Raise DatasetError for the first empty cell of these columns."""
        for column in columns:
            self.refuse(frame, pl.col(column) == "", column=column, allowed="an id, not empty")


def unknown_layout(source: Path, *, expected: str, origin: str) -> DatasetError:
    """The error for a folder that holds none of the layouts an importer reads."""
    if source.is_file():
        return DatasetError("this is a file.", file=str(source), remedy="Name its folder.")
    problem = "there is no such folder."
    if source.is_dir():
        found = ", ".join(sorted(p.name for p in source.iterdir())) or "nothing"
        problem = f"no layout of this dataset is in this folder. It holds: {found:.200}."
    return DatasetError(problem, file=str(source), remedy=f"Expected are {expected} {origin}")


def refuse_nothing_left(file: str, num_kept: int, dropped: Mapping[str, int]) -> None:
    """Raise DatasetError if no line of a log became an event, saying why."""
    if not num_kept:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        raise DatasetError(
            f"nothing is left to write. Dropped were: {reasons or 'no lines, for there are none'}.",
            file=file,
            remedy="Check that this is the right file, and what the importer was told to keep.",
        )
