"""Which columns each Parquet file of a dataset has, and the checks that need one cell at a time.

Knows types, nulls, numbers and times. Knows nothing of how files refer to each other: that is
`training/validate.py`. The importers' writer takes its column types from here too.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DatasetError
from model.schema import Feature, Schema
from training.parquet_text import refuse_broken_metadata, refuse_broken_text

TEXT = pl.String()
TIME = pl.Datetime("us", "UTC")
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""Times outside [EARLIEST, LATEST) are refused: nearly always seconds taken for milliseconds."""

SPLITS = ("train", "validation", "test")
"""What a published split says of an event; a null cell means the first."""

_REFUSED_BY_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_MAX_BATCH_ROWS = 262_144
_MAX_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What one column of one file has to be."""

    dtypes: tuple[pl.DataType, ...]
    """The types allowed; the writer casts to the first."""
    required: bool = True
    """Whether the file must have the column."""
    nullable: bool = False
    """Whether single cells may be null."""
    is_id: bool = False
    """Whether the empty string is refused."""
    dim: int | None = None
    """The length of every vector, for a vector feature."""
    low: float | None = None
    high: float | None = None
    """The least and greatest number allowed, both included."""


_ID = Column(dtypes=(TEXT,), is_id=True)
_MAYBE_TEXT = Column(dtypes=(TEXT,), required=False, nullable=True)
_MAYBE_TIME = Column(dtypes=(TIME,), required=False, nullable=True)


def item_columns(schema: Schema) -> dict[str, Column]:
    """The columns of items.parquet: the fixed ones, then one a declared feature."""
    columns = {
        "item_id": _ID,
        "kind": Column(dtypes=(TEXT,)),
        "title": Column(dtypes=(TEXT,)),
        "created_at": _MAYBE_TIME,
        "expires_at": _MAYBE_TIME,
        "available": Column(dtypes=(pl.Boolean(),), required=False),
    }
    for name, feature in schema.item_features.items():
        if name not in columns:  # `title` may be declared as a feature as well
            columns[name] = _feature_column(feature)
    return columns


def user_columns(schema: Schema) -> dict[str, Column]:
    """The columns of users.parquet."""
    features = {name: _feature_column(f) for name, f in schema.user_features.items()}
    return {"user_id": _ID, **features}


def link_columns() -> dict[str, Column]:
    """The columns of links.parquet."""
    moment = Column(dtypes=(TIME,), nullable=True)
    return {
        "from_item": _ID,
        "to_item": _ID,
        "relation": Column(dtypes=(TEXT,)),
        "start": moment,
        "end": moment,
    }


def event_columns(schema: Schema) -> dict[str, Column]:
    """The columns of events/part-*.parquet; they depend on the dataset's kind of time."""
    timed = schema.has_times
    return {
        "event_id": _ID,
        "user_id": _ID,
        "item_id": _ID,
        "event": Column(dtypes=(TEXT,)),
        # Which cells may be null depends on the split too: training/validate.py.
        "timestamp": Column(dtypes=(TIME,), required=timed, nullable=True),
        "sequence": Column(dtypes=(pl.Int64(),), required=schema.time == "order"),
        "value": Column(dtypes=(pl.Float64(),), required=False, nullable=True),
        "exposure_id": _MAYBE_TEXT,
        "source_item_id": _MAYBE_TEXT,
        "position": Column(dtypes=(pl.Int32(),), required=False, nullable=True, low=0),
        "propensity": Column(
            dtypes=(pl.Float64(), pl.Float32()),
            required=False,
            nullable=True,
            low=0,
            high=1,
        ),
        "split": _MAYBE_TEXT,
    }


def _feature_column(feature: Feature) -> Column:
    match feature.type:
        case "category" | "text":
            return Column(dtypes=(TEXT,), nullable=True)
        case "categories":
            return Column(dtypes=(pl.List(TEXT),))
        case "number":
            return Column(dtypes=(pl.Float64(),), nullable=True)
        case "vector":
            dim = feature.dim or 0  # the schema refuses a vector without one
            floats = pl.Float32()
            return Column(dtypes=(pl.List(floats), pl.Array(floats, dim)), nullable=True, dim=dim)


def closest(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` for the known name most like this one, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {match[0]!r}? " if match else ""


def first_true(mask: pl.Series) -> int | None:
    """The first position where a Boolean series is true (null counts as false), if any."""
    position = mask.fill_null(False).arg_max() if len(mask) else None
    return position if position is not None and mask[position] else None


class ParquetTable:
    """One Parquet file whose columns were checked, read batch by batch.

    Read with pyarrow rather than polars: a damaged file is an exception there, where polars may
    panic, and a batch never needs a whole row group as decoded columns.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column], *, file: str) -> None:
        """Open and check the column names and types. Raises DatasetError naming `file`."""
        self.file = file
        self._columns = columns
        if not path.is_file():
            raise DatasetError(
                "there is no such file.",
                file=file,
                remedy="Write it with the columns that docs/dataset.md lists.",
            )
        try:
            self._parquet = pq.ParquetFile(path)
            self.names: tuple[str, ...] = tuple(self._parquet.schema_arrow.names)
            refuse_broken_metadata(self._parquet, name=file)
            pl.scan_parquet(path, glob=False).collect_schema()  # polars reads it later, or refuses
            empty = pl.from_arrow(self._parquet.schema_arrow.empty_table())
        except (pa.ArrowException, OSError, UnicodeError, *_REFUSED_BY_POLARS) as error:
            raise self._damaged(error) from None
        assert isinstance(empty, pl.DataFrame)
        self.num_rows: int = self._parquet.metadata.num_rows
        self._check_columns(empty.schema)

    def batches(self, names: list[str] | None = None) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield (row of the batch's first row, frame). names: read these columns alone.

        Raises DatasetError where the file's bytes are damaged. Cells are not checked.
        """
        width = 64 + sum(4 * (column.dim or 0) for column in self._columns.values())
        num_rows = min(_MAX_BATCH_ROWS, max(1_024, _MAX_BATCH_BYTES // width))
        first_row = 0
        try:
            for batch in self._parquet.iter_batches(num_rows, columns=names):
                refuse_broken_text(batch, name=self.file, first_row=first_row)
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield first_row, frame
                first_row += frame.height
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None

    def checked_batches(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """As `batches`, with every cell checked against its column. Raises DatasetError."""
        for first_row, frame in self.batches():
            self.check(frame, first_row)
            yield first_row, frame

    def check(self, frame: pl.DataFrame, first_row: int) -> None:
        """Check every cell of some rows, the first of which is `first_row` of the file.

        Raises DatasetError naming the first cell that its column does not allow.
        """
        for name in frame.columns:
            self._check_cells(frame[name], self._columns[name], first_row)

    def error(self, problem: str, *, column: str, row: int, remedy: str) -> DatasetError:
        """A DatasetError that names this file."""
        return DatasetError(problem, file=self.file, column=column, row=row, remedy=remedy)

    def _damaged(self, error: BaseException) -> DatasetError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return DatasetError(
            f"it cannot be read as Parquet ({reason:.200}).",
            file=self.file,
            remedy="The file is damaged or only half written: make it again.",
        )

    def _check_columns(self, found: pl.Schema) -> None:
        for name in found:
            if name not in self._columns:
                missing = [n for n in self._columns if n not in found]
                raise DatasetError(
                    f"unknown column. {closest(name, missing)}"
                    f"This file may have: {', '.join(self._columns)}.",
                    file=self.file,
                    column=name,
                    remedy="Rename or remove it, or declare it as a feature in dataset.toml.",
                )
        for name, column in self._columns.items():
            if name in found:
                self._check_dtype(name, found[name], column)
            elif column.required:
                raise DatasetError(
                    f"the column is missing. The file has: {', '.join(found)}.",
                    file=self.file,
                    column=name,
                    remedy=f"Add it as {_readable(column.dtypes)}.",
                )

    def _check_dtype(self, name: str, dtype: pl.DataType, column: Column) -> None:
        if dtype in column.dtypes:
            return
        if isinstance(dtype, pl.Datetime) and TIME in column.dtypes and dtype.time_zone != "UTC":
            zone = dtype.time_zone or "none"
            problem = f"the timezone is {zone}; it must be UTC."
            remedy = "Convert the times to UTC and store them as timestamp[us, UTC]."
        else:
            problem = f"the type is {dtype}; it must be {_readable(column.dtypes)}."
            remedy = "Cast the column before writing the file."
        raise DatasetError(problem, file=self.file, column=name, remedy=remedy)

    def _check_cells(self, cells: pl.Series, column: Column, first_row: int) -> None:
        def refuse(row: int | None, problem: str, remedy: str) -> None:
            if row is not None:
                raise self.error(problem, column=cells.name, row=first_row + row, remedy=remedy)

        if not column.nullable and cells.null_count():
            empty = "an empty list" if isinstance(cells.dtype, pl.List) else "a value"
            refuse(
                first_true(cells.is_null()),
                "the cell is null.",
                f"Write {empty} there.",
            )
        if column.is_id:
            refuse(
                first_true(cells == ""),
                "the id is empty.",
                "Every id needs a character.",
            )
        if column.dim is not None:
            self._check_vectors(cells, column.dim, first_row)
        elif isinstance(cells.dtype, pl.List):
            has_null = cells.list.drop_nulls().list.len() != cells.list.len()
            refuse(
                first_true(has_null),
                "a null inside the list.",
                "Leave unknown values out.",
            )
        elif cells.dtype == TIME:
            row = first_true((cells < EARLIEST) | (cells >= LATEST))
            problem = f"{None if row is None else cells[row]} is before 1970 or after 2099."
            refuse(
                row,
                problem,
                "Check the unit: times are microseconds since 1970, in UTC.",
            )
        elif cells.dtype.is_float():
            row = first_true(~cells.is_finite())
            refuse(row, "NaN or infinite.", "Write null where the number is unknown.")
        if column.low is not None:
            outside = cells < column.low
            if column.high is not None:
                outside |= cells > column.high
            row = first_true(outside)
            allowed = f"{column.low} or more" if column.high is None else "from 0 to 1"
            problem = f"{None if row is None else cells[row]} is not {allowed}."
            refuse(row, problem, "Write null where it is unknown.")

    def _check_vectors(self, cells: pl.Series, dim: int, first_row: int) -> None:
        lists = cells.arr.to_list() if isinstance(cells.dtype, pl.Array) else cells
        row = first_true(lists.list.len() != dim)
        if row is not None:
            raise self.error(
                f"the vector has {len(lists[row])} numbers; dataset.toml says dim = {dim}.",
                column=cells.name,
                row=first_row + row,
                remedy="Mend the vector, or write null for an item without one.",
            )
        numbers = lists.drop_nulls().explode()
        place = first_true(numbers.is_null() | ~numbers.is_finite())
        if place is not None:
            row = int(lists.is_not_null().arg_true()[place // dim])
            raise self.error(
                f"number {place % dim} of the vector is NaN, infinite or null.",
                column=cells.name,
                row=first_row + row,
                remedy="Mend the vector, or write null for an item without one.",
            )


def _readable(dtypes: tuple[pl.DataType, ...]) -> str:
    return " or ".join(str(dtype) for dtype in dtypes)
