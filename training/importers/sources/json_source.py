"""JSON lines: one object a line; every cell comes as text, or as a list of text.

Never wholly in memory. `records` is for layouts with objects inside objects.
"""

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from model.errors import DatasetError
from training.columns import first_true
from training.importers.sources.source import BROKEN_GZIP, damaged_gzip, open_bytes

_BATCH_ROWS = 65_536
_FIRST_LINES = 100
"""Lines that are read at once, so that `columns` says something from the start."""


class JsonSource:
    """A file with one object a line; numbers and truth values come as text."""

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        parse: Callable[[str], object] | None = None,
    ) -> None:
        """Read the first lines for their keys.

        parse: reads one line; JSON where it is left out. Raises ValueError or SyntaxError.
        """
        self.name, self.fraction = name or path.name, 0.0
        self.columns: tuple[str, ...] = ()
        self._met: set[str] = set()
        self._path, self._parse = path, parse or _DECODER.decode
        for _, record in islice(self.records(), _FIRST_LINES):
            self._meet(record)
        self.fraction = 0.0

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row, object) of each line that is not blank."""
        row = 0
        with closing(open_bytes(self._path, self.name)) as file:
            try:
                for line in file.stream:
                    if line.isspace():
                        continue
                    try:
                        record = self._parse(line.decode("utf-8" if row else "utf-8-sig"))
                        if b"\\ud" in line or b"\\uD" in line:
                            _refuse_half_characters(record)
                    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                        said = getattr(error, "msg", None) or getattr(error, "reason", error)
                        raise self.error(
                            f"it cannot be read ({said}).",
                            row=row,
                            remedy="Every line has to be one whole object, in UTF-8.",
                        ) from None
                    if not isinstance(record, dict):
                        raise self.error(
                            f"it holds a {type(record).__name__}, not an object.",
                            row=row,
                            remedy='Write one object a line: {"user": "ann", …}.',
                        )
                    yield row, record
                    row += 1
                    if row % 1024 == 0:
                        self.fraction = file.fraction()
            except BROKEN_GZIP as error:
                raise damaged_gzip(self.name, error) from None
        self.fraction = 1.0

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """See SourceFile. A key that a line lacks is null there."""
        first_row = 0
        records: list[dict[str, Any]] = []
        for row, record in self.records():
            records.append(record)
            if not self._met.issuperset(record):
                self._meet(record)
            if len(records) == _BATCH_ROWS:
                yield first_row, self._frame(columns, records, first_row)
                first_row, records = row + 1, []
        if records:
            yield first_row, self._frame(columns, records, first_row)

    def error(
        self, problem: str, *, row: int, remedy: str, column: str | None = None
    ) -> DatasetError:
        """See SourceFile."""
        with closing(open_bytes(self._path, self.name)) as file:
            lines = (n for n, line in enumerate(file.stream, 1) if not line.isspace())
            line = next(islice(lines, row, None), row + 1)
        return DatasetError(f"line {line}: {problem}", file=self.name, column=column, remedy=remedy)

    def _meet(self, record: dict[str, Any]) -> None:
        self.columns += tuple(key for key in record if key not in self._met)
        self._met.update(record)

    def _frame(
        self, columns: Sequence[str], records: list[dict[str, Any]], first_row: int
    ) -> pl.DataFrame:
        series = [
            self._series(column, [record.get(column) for record in records], first_row)
            for column in columns
        ]
        return pl.DataFrame(series)

    def _series(self, column: str, values: list[object], first_row: int) -> pl.Series:
        kinds = set(map(type, values)) - {type(None)}
        if kinds <= {str}:  # most columns; the rest of this method is slow
            return pl.Series(column, values, dtype=pl.String)
        try:
            texts = [_as_text(value) for value in values]
            if list in kinds and kinds != {list}:
                raise TypeError
            dtype = pl.List(pl.String) if list in kinds else pl.String()
            return pl.Series(column, texts, dtype=dtype)
        except TypeError:
            pass
        shapes = pl.Series([_shape(value) for value in values])
        first = shapes.drop_nulls()[0]
        row = first_true(shapes.is_in(["an object", "a nested list"]) | (shapes != first)) or 0
        raise self.error(
            f"{json.dumps(values[row])[:100]} is {shapes[row]}"
            + (f", where earlier lines have {first}." if shapes[row] != first else "."),
            column=column,
            row=first_row + row,
            remedy="A column holds text, numbers, true or false, or flat lists of them.",
        )


def json_or_python(line: str) -> object:
    """Read a line that is JSON, or a Python literal: Amazon's 2014 metadata is. Nothing is run."""
    try:
        return _DECODER.decode(line)
    except ValueError:
        return ast.literal_eval(line.strip())


def _refuse_half_characters(record: object) -> None:
    """Raise ValueError where one surrogate stands without the other: that is no text."""
    try:
        json.dumps(record, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character: {error.object[error.start]!r}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _as_text(value: object) -> str | list[str | None] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        texts = [_as_text(part) for part in value]
        if not any(isinstance(text, list) for text in texts):
            return texts  # type: ignore[return-value] # no list is in it
    raise TypeError


def _shape(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a nested list" if any(isinstance(p, list | dict) for p in value) else "a list"
    return "a single value"
