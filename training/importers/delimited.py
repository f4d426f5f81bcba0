"""Text files of one record a line (CSV, TSV), read batch by batch as strings.

Every problem is a DatasetError that names file, line and column. A batch is all that memory holds.
Knows no public dataset and no meaning of a column; fields may be quoted, but no record may span
lines, so that line numbers are true.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from model.errors import DatasetError
from training.columns import closest, first_true

LINE = "line"
"""The column that each batch has beside the file's own: the line number, from 1, as Int64."""

_BLOCK_BYTES = 4 * 2**20
_ROW = re.compile(r"Row #(\d+): (.*)")


class DelimitedFile:
    """One text file whose header was checked."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        *,
        separator: str = ",",
        header: bool = True,
        origin: str,
    ) -> None:
        """Open and check the header.

        columns: those to read. With a header, the file may have more, in any order; without one,
        they are the file's columns in order.
        origin: where the file can be had, one sentence; it ends the errors that call for it.

        Raises DatasetError if the file is missing or empty, or lacks a column.
        """
        self.name = path.name
        self._path, self._separator, self._origin = path, separator, origin
        self._columns, self._has_header = list(columns), header
        try:
            with path.open("rb") as file:
                first = file.readline(1 << 20)
        except FileNotFoundError:
            raise DatasetError(
                f"there is no such file in {path.parent}.", file=self.name, remedy=origin
            ) from None
        if not first:
            raise DatasetError("the file is empty.", file=self.name, remedy=origin)
        self.num_bytes = path.stat().st_size
        self._names = self._read_header(first) if header else self._columns

    def batches(self, progress: Callable[[int], None] | None = None) -> Iterator[pl.DataFrame]:
        """Yield frames of strings, with LINE; an empty field is the empty string.

        progress: called with the number of bytes read so far.

        Raises DatasetError for a line with too few or too many fields, or that is not UTF-8.
        """
        line = 2 if self._has_header else 1
        with pa.OSFile(str(self._path)) as source:
            try:
                with self._open(source) as reader:
                    for batch in reader:
                        frame = pl.from_arrow(batch)
                        assert isinstance(frame, pl.DataFrame)
                        yield frame.with_columns(
                            pl.int_range(line, line + frame.height, dtype=pl.Int64).alias(LINE)
                        )
                        line += frame.height
                        if progress is not None:
                            progress(min(source.tell(), self.num_bytes))
            except pa.ArrowInvalid as error:
                raise self._malformed(str(error)) from None

    def refuse(self, frame: pl.DataFrame, wrong: pl.Expr, *, column: str, allowed: str) -> None:
        """Raise DatasetError for the first row of a batch where `wrong` is true.

        allowed: what the cell has to be, as it follows "must be".
        """
        row = first_true(frame.select(wrong.alias("wrong")).to_series())
        if row is not None:
            raise DatasetError(
                f"line {frame[LINE][row]}: {frame[column][row]!r:.100} must be {allowed}.",
                file=self.name,
                column=column,
                remedy="Mend the line, or get the file again. " + self._origin,
            )

    def refuse_empty(self, frame: pl.DataFrame, *columns: str) -> None:
        """Raise DatasetError for the first empty field of these columns."""
        for column in columns:
            self.refuse(frame, pl.col(column) == "", column=column, allowed="an id, not empty")

    def _open(self, source: pa.NativeFile) -> pc.CSVStreamingReader:
        return pc.open_csv(
            source,
            # One thread: only then does an error know its row.
            read_options=pc.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                column_names=self._names,
                skip_rows=int(self._has_header),
            ),
            # An empty line counts as a row, so that line numbers stay true; its cells are refused.
            parse_options=pc.ParseOptions(delimiter=self._separator, ignore_empty_lines=False),
            convert_options=pc.ConvertOptions(
                column_types={name: pa.string() for name in self._names},
                include_columns=self._columns,
                strings_can_be_null=False,
            ),
        )

    def _read_header(self, first: bytes) -> list[str]:
        text = first.decode("utf-8-sig", errors="replace").rstrip("\r\n")
        names = [name.strip().strip('"') for name in text.split(self._separator)]
        for column in self._columns:
            if names.count(column) != 1:
                problem = "comes twice in" if column in names else "is missing from"
                raise DatasetError(
                    f"line 1: the column {problem} the header. {closest(column, names)}"
                    f"The file has: {', '.join(names)!s:.300}.",
                    file=self.name,
                    column=column,
                    remedy=self._origin,
                )
        return names

    def _malformed(self, reason: str) -> DatasetError:
        """pyarrow says `Row #3: Expected 5 columns, got 4: …`; it counts lines from 1."""
        found = _ROW.search(reason)
        where, told = (f"line {found[1]}", found[2]) if found else ("a line", reason)
        shape = self._separator.join(self._names)
        return DatasetError(
            f"{where}: {told.splitlines()[0]:.200}. A line must be {shape!r:.300}.",
            file=self.name,
            remedy="Mend the line, or get the file again. " + self._origin,
        )


def unknown_layout(source: Path, *, expected: str, origin: str) -> DatasetError:
    """The error for a folder that holds none of the layouts an importer reads."""
    if source.is_file():
        return DatasetError("this is a file.", file=str(source), remedy="Name its folder.")
    found = ", ".join(sorted(p.name for p in source.iterdir())) if source.is_dir() else ""
    problem = f"no layout of this dataset is in this folder. It holds: {found or 'nothing'!s:.200}."
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
