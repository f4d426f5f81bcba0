"""CSV, TSV and their like, read strictly: a line with too few or too many cells is an error.

Never wholly in memory. Knows quotes, encodings, and on which line a row stands.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NoReturn

import polars as pl
import pyarrow as pa
import pyarrow.csv

from model.errors import DatasetError
from training.importers.sources.source import (
    BROKEN_GZIP,
    Bytes,
    damaged_gzip,
    open_bytes,
    refuse_double_columns,
)

_BLOCK_BYTES = 4 * 2**20
"""What is parsed at once; also the longest row."""
_ROW_NUMBER = re.compile(r"Row #(\d+)")


class CsvSource:
    """A file of lines whose cells are parted by one character. Every cell is read as text."""

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        separator: str = ",",
        quoted: bool = True,
        encoding: str = "utf-8",
        header: Sequence[str] | None = None,
        nulls: Sequence[str] = ("",),
    ) -> None:
        """Read the header.

        quoted: whether "…" may hold separators, line ends and, doubled, quotes.
        header: the columns' names where the first line is already a row.
        nulls: cells that stand for nothing, in quotes or not.
        """
        self.name, self.fraction = name or path.name, 0.0
        self._path, self._separator, self._quoted = path, separator, quoted
        self._encoding, self._header, self._nulls = encoding, header, nulls
        with closing(open_bytes(path, self.name)) as file:
            names = self._names(self._reader(file, None))
        refuse_double_columns(names, self.name, remedy="Rename one of them in the first line.")
        self.columns: tuple[str, ...] = tuple(names)

    def _names(self, reader: Any) -> list[str]:
        try:
            return list(reader.schema.names)
        except UnicodeDecodeError:
            raise DatasetError(
                f"the first line is not text in {self._encoding}.",
                file=self.name,
                remedy='Save the file as UTF-8, or name its encoding, such as "gb18030" or '
                '"latin-1", where the importer takes one.',
            ) from None

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """See SourceFile. Raises DatasetError for a line with too few or too many cells."""
        first_row, last_cell = 0, None
        wanted = list(columns)
        if self._quoted and self.columns[-1] not in wanted:
            wanted.append(self.columns[-1])  # an open quote is seen in the last cell of all
        with closing(open_bytes(self._path, self.name)) as file:
            reader = self._reader(file, wanted)
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    break
                except (pa.ArrowException, UnicodeError, *BROKEN_GZIP) as error:
                    self._refuse(error, wanted)
                self.fraction = file.fraction()
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                if self._quoted and frame.height:
                    last_cell = frame[self.columns[-1]][-1]
                yield first_row, frame.select(columns)
                first_row += frame.height
        if last_cell is not None and "\n" in last_cell and not self._ends_in_quote():
            raise self.error(
                "a quote opens and does not close before the end of the file.",
                row=first_row - 1,
                column=self.columns[-1],
                remedy="Close it, or double it where it is part of the text.",
            )

    def _ends_in_quote(self) -> bool:
        tail = b""
        with closing(open_bytes(self._path, self.name)) as file:
            while block := file.stream.read(_BLOCK_BYTES):
                tail = (tail + block)[-64:]
        return tail.decode(self._encoding, errors="replace").rstrip().endswith('"')

    def error(
        self, problem: str, *, row: int, remedy: str, column: str | None = None
    ) -> DatasetError:
        """See SourceFile. The line is found by reading the file up to it once more."""
        with closing(open_bytes(self._path, self.name)) as file:
            text = io.TextIOWrapper(file.stream, self._encoding, errors="replace", newline="")
            line = self._line(text, row)
        return DatasetError(f"line {line}: {problem}", file=self.name, column=column, remedy=remedy)

    def _line(self, text: IO[str], row: int) -> int:
        rows = csv.reader(
            text,
            delimiter=self._separator,
            quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
        )
        left = row + (self._header is None)
        before = 0
        try:
            for cells in rows:
                if cells and left == 0:
                    break
                left -= bool(cells)
                before = rows.line_num
        except csv.Error:
            return row + 1 + (self._header is None)
        return before + 1

    def _reader(self, file: Bytes, columns: Sequence[str] | None) -> Any:
        wanted = columns if columns is not None else self._header or ()
        try:
            return pa.csv.open_csv(
                file.stream,
                read_options=pa.csv.ReadOptions(
                    use_threads=False,  # otherwise errors do not know their row
                    block_size=_BLOCK_BYTES,
                    column_names=self._header,
                    encoding=self._encoding,
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self._separator,
                    quote_char='"' if self._quoted else False,
                    newlines_in_values=self._quoted,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types={column: pa.string() for column in wanted},
                    include_columns=columns,
                    null_values=list(self._nulls),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except (pa.ArrowException, UnicodeError, LookupError, *BROKEN_GZIP) as error:
            self._refuse(error, wanted)

    def _refuse(self, error: Exception, columns: Sequence[str]) -> NoReturn:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        number = _ROW_NUMBER.search(reason)
        if isinstance(error, BROKEN_GZIP):
            raise damaged_gzip(self.name, error) from None
        if number is None:
            raise DatasetError(
                f"it cannot be read as text in columns ({reason:.200}).",
                file=self.name,
                remedy="Check the separator and the encoding, and that no quote stays open.",
            ) from None
        row = int(number[1]) - (2 if self._header is None else 1)
        said = reason.split(": ", 1)[-1].replace(number[0] + ": ", "")
        raise self.error(
            f"{said:.200}.",
            row=row,
            remedy="Mend the line; cells with separators or line ends in them need quotes, and "
            "the text has to be UTF-8 unless an encoding is named.",
        ) from None
