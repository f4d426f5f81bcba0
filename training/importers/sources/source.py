"""What every source file can do, and its bytes: opened, unpacked where they are gzip.

Knows no format of tables.
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import polars as pl

from model.errors import DatasetError
from training.columns import closest

BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading a damaged gzip file raises."""


class SourceFile(Protocol):
    """One file whose rows can be read, once or several times."""

    name: str
    """How errors call it."""
    fraction: float
    """How much of the file the current walk has read, 0 to 1, by bytes."""
    columns: tuple[str, ...]
    """The columns there are; of JSON lines, those that were met so far."""

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield (row of the batch's first row, frame of these columns). Raises DatasetError."""

    def error(
        self, problem: str, *, row: int, remedy: str, column: str | None = None
    ) -> DatasetError:
        """A DatasetError that names this file and the place of a row, counted from 0."""


def require_columns(source: SourceFile, columns: Iterable[str], *, remedy: str) -> None:
    """Raise DatasetError for the first of `columns` that the file does not have."""
    for column in columns:
        if column not in source.columns:
            raise DatasetError(
                f"there is no such column. {closest(column, source.columns)}"
                f"The file has: {', '.join(source.columns)!s:.500}.",
                file=source.name,
                column=column,
                remedy=remedy,
            )


def refuse_double_columns(columns: Sequence[str], name: str, *, remedy: str) -> None:
    """Raise DatasetError for the first name that two columns of the file `name` have."""
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise DatasetError("two columns have this name.", file=name, column=twice, remedy=remedy)


@dataclass(slots=True)
class Bytes:
    """An open file: its bytes as they lie on the disk, and unpacked where they are gzip."""

    raw: IO[bytes]
    stream: IO[bytes]
    size: int

    def fraction(self) -> float:
        return min(1.0, self.raw.tell() / self.size) if self.size else 1.0

    def close(self) -> None:
        self.stream.close()
        self.raw.close()


def open_bytes(path: Path, name: str) -> Bytes:
    """Open a file, to be closed by the caller. Raises DatasetError where the system refuses it."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DatasetError(
            f"it cannot be opened ({error.strerror}): {path}.",
            file=name,
            remedy="Check the path.",
        ) from None
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
    return Bytes(raw, stream, path.stat().st_size)


def damaged_gzip(name: str, error: Exception) -> DatasetError:
    """The error of a gzip file that cannot be unpacked to its end."""
    return DatasetError(
        f"the compressed file breaks off or is damaged ({error}).",
        file=name,
        remedy="Download or make it again.",
    )
