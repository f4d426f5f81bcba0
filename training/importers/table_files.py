"""The files of one table of a column map: found, checked for their columns, read in batches.

Knows which columns the map names and says what is wrong with a name; knows no meaning of a cell.
"""

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.errors import ConfigError
from training.columns import closest
from training.importers.cells import Cells
from training.importers.column_map import Table
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.json_source import JsonSource
from training.importers.sources.opening import format_of
from training.importers.sources.parquet_source import ParquetSource
from training.importers.sources.source import SourceFile


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one file; `rows` are their places, counted from `first_row`."""

    source: SourceFile
    first_row: int
    frame: pl.DataFrame
    rows: pl.Series

    def cells(self, column: str) -> Cells:
        """One column, as cells that know where they stand."""
        return Cells(self.source, self.first_row, self.frame[column], self.rows)

    def place(self, row: int) -> str:
        """The file and the row, counted from 0, of one row of the batch."""
        return f"{self.source.name}, row {self.first_row + int(self.rows[row])}"

    def filter(self, kept: pl.Series) -> "Batch":
        """The rows where `kept` is true."""
        if kept.all():
            return self
        return Batch(self.source, self.first_row, self.frame.filter(kept), self.rows.filter(kept))


class TableFiles:
    """All files of one table."""

    def __init__(self, table: Table, base: Path, *, place: str, columns: Mapping[str, str]) -> None:
        """Find the files and check their columns.

        base: the folder that paths start from. place: the table as errors name it, such as
        "shop.toml, field 'events". columns: field of the map → column that it names.

        Raises ConfigError for a pattern without a file or a column that is not there.
        """
        self._table, self._base, self._place, self._columns = table, base, place, columns
        patterns = [table.files] if isinstance(table.files, str) else table.files
        self.paths = [path for pattern in patterns for path in self._found(pattern)]
        if len(set(self.paths)) < len(self.paths):
            raise ConfigError(f"{place}.files': a file is named twice. Name each once.")
        self._sizes = [path.stat().st_size for path in self.paths]
        self._done = 0.0
        self.num_read: dict[str, int] = {}
        """Rows read, by file, in the latest walk."""
        self.columns: tuple[str, ...] = ()
        """Those of the first file, named by the map or not."""
        for path in self.paths:
            source = self._open(path)
            self._check(source, [source.columns])
            self.columns = self.columns or source.columns

    @property
    def unnamed(self) -> list[str]:
        """Columns of the first file that the map does not name."""
        named = set(self._columns.values())
        return [column for column in self.columns if column not in named]

    @property
    def num_bytes(self) -> int:
        """Of all files, as they lie on the disk."""
        return sum(self._sizes)

    @property
    def fraction(self) -> float:
        """How much of all files the current walk has read, 0 to 1."""
        return self._done / self.num_bytes if self.num_bytes else 1.0

    def batches(self) -> Iterator[Batch]:
        """Yield all rows, file by file. Raises DatasetError for a malformed line."""
        wanted = list(dict.fromkeys(self._columns.values()))
        met: list[tuple[str, ...]] = []
        last: SourceFile | None = None
        before = 0
        self.num_read = {}
        for path, size in zip(self.paths, self._sizes, strict=True):
            last = source = self._open(path)
            self.num_read[source.name] = 0
            for first_row, frame in source.batches(wanted):
                self.num_read[source.name] += frame.height
                rows = pl.int_range(frame.height, eager=True)
                yield Batch(source, first_row, frame, rows)
                self._done = before + size * source.fraction
            before += size
            self._done = before
            met.append(source.columns)
        if isinstance(last, JsonSource):
            self._check(last, met, final=True)

    def _found(self, pattern: str) -> list[Path]:
        path = self._base / pattern
        if path.is_file():
            return [path]
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        found = [path for path in found if path.is_file()]
        if not found:
            raise ConfigError(
                f"{self._place}.files': there is no file {pattern!r} in {self._base.resolve()}. "
                "Paths start from the folder of the map; * stands for any part of a name."
            )
        return found

    def _open(self, path: Path) -> SourceFile:
        table = self._table
        try:
            name = path.relative_to(self._base).as_posix()
        except ValueError:
            name = str(path)
        form = table.format or format_of(path)
        if form in ("csv", "tsv"):
            default = ("\t", False) if form == "tsv" else (",", True)
            return CsvSource(
                path,
                name=name,
                separator=table.separator or default[0],
                quoted=default[1] if table.quotes is None else table.quotes,
                encoding=table.encoding or "utf-8",
                nulls=table.nulls,
            )
        for field in ("separator", "quotes", "encoding"):
            if getattr(table, field) is not None:
                raise ConfigError(
                    f"{self._place}.{field}': it is for csv and tsv, and {name} is {form}. "
                    "Leave it out."
                )
        return ParquetSource(path, name=name) if form == "parquet" else JsonSource(path, name=name)

    def _check(
        self, source: SourceFile, met: list[tuple[str, ...]], *, final: bool = False
    ) -> None:
        """Raise ConfigError for a named column that no file has.

        A key of JSON lines may be absent from the first lines of a file, if it is not one that
        every row needs; so such are only missed at the end.
        """
        present = {column for columns in met for column in columns}
        for field, column in self._columns.items():
            if column in present:
                continue
            may_come_later = field not in REQUIRED or not source.columns
            if isinstance(source, JsonSource) and not final and may_come_later:
                continue
            there = list(dict.fromkeys(column for columns in met for column in columns))
            raise ConfigError(
                f"{self._place}.{field}': {source.name} has no column {column!r}. "
                f"{closest(column, there)}It has: {', '.join(there)!s:.500}."
            )


REQUIRED = ("user_id", "item_id", "event", "kind", "from_item", "to_item", "relation")
"""Fields whose column every row of the table has to fill."""
