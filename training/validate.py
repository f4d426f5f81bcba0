"""Check a dataset folder against the contract of docs/dataset.md, and count what it holds.

Files are read batch by batch, so memory holds one batch, the item ids, the distinct user ids and
eight bytes an event, however many events there are. Knows how the files refer to each other;
what one column may hold is in `training/columns.py`, ids that come twice are found by
`training/repeats.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from model.errors import DatasetError
from model.schema import KINDS, Schema, read_schema
from training.columns import (
    SPLITS,
    Column,
    ParquetTable,
    closest,
    event_columns,
    first_true,
    item_columns,
    link_columns,
    user_columns,
)
from training.id_sets import DistinctIds, KnownIds
from training.repeats import Repeats, refuse_repeated

RELATIONS = ("shows", "on_air", "by")
_TABLES = ("items.parquet", "users.parquet", "links.parquet")
_UNIT_SUSPECT_YEAR = 1990


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What a valid dataset holds."""

    name: str
    time: str
    num_items: int
    num_users: int
    """Users with events or with a row in users.parquet."""
    num_events: int
    num_links: int
    events_by_name: dict[str, int]
    """Events of each declared name, in declared order; 0 where there is none."""
    first: datetime | None
    last: datetime | None
    """The times of the earliest and latest event, UTC; none where the dataset has no times."""
    warnings: tuple[str, ...]
    """What is allowed but looks like a mistake, one sentence each."""


def validate_dataset(
    path: Path, *, progress: Callable[[float, str], None] | None = None
) -> DatasetSummary:
    """Check every rule of the dataset contract.

    progress: called with the fraction of bytes checked, 0 to 1, and the file in hand.

    Raises DatasetError at the first broken rule, naming file, column, row (from 0 within that
    file) and what to do.
    """
    return _Validation(path, read_schema(path), progress).run()


class _Validation:
    """One walk over one dataset; the fields are what later files are checked against."""

    def __init__(
        self, path: Path, schema: Schema, progress: Callable[[float, str], None] | None
    ) -> None:
        self.path, self.schema, self.progress = path, schema, progress
        self.parts = _event_parts(path)
        self.done_bytes = 0
        names = [name for name in (*_TABLES, *self.parts) if (path / name).is_file()]
        self.all_bytes = sum((path / name).stat().st_size for name in names) or 1
        self.item_ids = pl.Series("item_id", [], dtype=pl.String)
        self.listed_users: pl.Series | None = None
        self.known_items = KnownIds(self.item_ids)
        self.seen_users, self.seen_items = DistinctIds(), DistinctIds()
        self.counts = dict.fromkeys(schema.events, 0)
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.has_time_of_day = False

    def run(self) -> DatasetSummary:
        self._check_items()
        self._check_users()
        num_links = self._check_links()
        self._check_events()
        self._tell(1.0, "checked")
        users = self.seen_users.ids()
        if self.listed_users is not None:
            users = pl.concat([users, self.listed_users.alias("")]).unique()
        return DatasetSummary(
            name=self.schema.name,
            time=self.schema.time,
            num_items=len(self.item_ids),
            num_users=len(users),
            num_events=sum(self.counts.values()),
            num_links=num_links,
            events_by_name=self.counts,
            first=self.first,
            last=self.last,
            warnings=tuple(self._warnings()),
        )

    def _check_items(self) -> None:
        table = self._open("items.parquet", item_columns(self.schema))
        ids = []
        for first_row, frame in self._walk(table):
            _refuse_unlisted(table, frame["kind"], KINDS, first_row, "kind")
            if {"created_at", "expires_at"} <= set(frame.columns):
                _refuse_backwards(table, frame, "created_at", "expires_at", first_row)
            ids.append(frame["item_id"])
        if not ids:
            raise DatasetError(
                "there are no items.", file=table.file, remedy="Write one row an item."
            )
        self.item_ids = pl.concat(ids)
        refuse_repeated(table, self.item_ids)
        self.known_items = KnownIds(self.item_ids)

    def _check_users(self) -> None:
        if not (self.path / "users.parquet").exists():
            return
        table = self._open("users.parquet", user_columns(self.schema))
        ids = [frame["user_id"] for _, frame in self._walk(table)]
        if ids:
            self.listed_users = pl.concat(ids)
            refuse_repeated(table, self.listed_users)

    def _check_links(self) -> int:
        if not (self.path / "links.parquet").exists():
            return 0
        table = self._open("links.parquet", link_columns())
        for first_row, frame in self._walk(table):
            _refuse_unlisted(table, frame["relation"], RELATIONS, first_row, "relation")
            self._refuse_unknown_items(table, frame["from_item"], first_row)
            self._refuse_unknown_items(table, frame["to_item"], first_row)
            _refuse_backwards(table, frame, "start", "end", first_row)
        return table.num_rows

    def _check_events(self) -> None:
        columns = event_columns(self.schema)
        ids, places = Repeats(["event_id"]), Repeats(["user_id", "sequence"])
        expected: tuple[str, ...] = ()
        for part in self.parts:
            table = self._open(part, columns)
            expected = expected or table.names
            self._refuse_different_columns(table, expected)
            for first_row, frame in self._walk(table):
                self._check_event_batch(table, frame, first_row)
                ids.add(frame)
                if self.schema.time == "order":
                    places.add(frame)
        if not any(self.counts.values()):
            raise DatasetError(
                "there are no events in any part.",
                file="events",
                remedy="Write some events.",
            )
        tables = [self._open(part, columns) for part in self.parts]
        ids.refuse(tables, remedy="Give every event its own id, across all parts.")
        places.refuse(tables, remedy="Number each user's events upwards, oldest first.")

    def _check_event_batch(self, table: ParquetTable, frame: pl.DataFrame, first_row: int) -> None:
        _refuse_unlisted(table, frame["event"], self.schema.events, first_row, "event name")
        self._refuse_unknown_items(table, frame["item_id"], first_row)
        if "source_item_id" in frame.columns:
            self._refuse_unknown_items(table, frame["source_item_id"], first_row)
        if "split" in frame.columns:
            given = frame["split"].fill_null(SPLITS[0])
            _refuse_unlisted(table, given, SPLITS, first_row, "split")
        if "timestamp" in frame.columns:
            self._check_times(table, frame, first_row)
        for name, count in frame["event"].value_counts().iter_rows():
            self.counts[name] += count
        self.seen_users.add(frame["user_id"])
        self.seen_items.add(frame["item_id"])

    def _check_times(self, table: ParquetTable, frame: pl.DataFrame, first_row: int) -> None:
        times = frame["timestamp"]
        if self.schema.time == "none":
            row = first_true(times.is_not_null())
            if row is not None:
                raise table.error(
                    'there is a time, but dataset.toml says time = "none".',
                    column="timestamp",
                    row=first_row + row,
                    remedy='Remove the column, or declare time = "exact" or "day" if it is real.',
                )
        if self.schema.has_times:
            unknown = times.is_null()
            if "split" in frame.columns:
                unknown &= frame["split"].fill_null(SPLITS[0]) == SPLITS[0]
            row = first_true(unknown)
            if row is not None:
                raise table.error(
                    "the cell is null.",
                    column="timestamp",
                    row=first_row + row,
                    remedy='Write the time. Only events of the split "validation" or "test" may '
                    'lack it; where others do, declare time = "order".',
                )
        low, high = times.min(), times.max()
        if isinstance(low, datetime) and isinstance(high, datetime):
            self.first = low if self.first is None else min(self.first, low)
            self.last = high if self.last is None else max(self.last, high)
        self.has_time_of_day |= bool((times.dt.truncate("1d") != times).any())

    def _refuse_unknown_items(self, table: ParquetTable, ids: pl.Series, first_row: int) -> None:
        row = first_true(self.known_items.lacks(ids))
        if row is not None:
            raise table.error(
                f"item {ids[row]!r:.100} is not in items.parquet.",
                column=ids.name,
                row=first_row + row,
                remedy="Add the item to items.parquet, or leave this row out.",
            )

    def _refuse_different_columns(self, table: ParquetTable, expected: tuple[str, ...]) -> None:
        different = sorted(set(table.names) ^ set(expected))
        if different:
            verb = "is here but not" if different[0] in table.names else "is missing here but is"
            raise DatasetError(
                f"the column {verb} in {self.parts[0]}.",
                file=table.file,
                column=different[0],
                remedy="Write all parts with the same columns; null where a value is unknown.",
            )

    def _warnings(self) -> list[str]:
        warnings = []
        for name, count in self.counts.items():
            if not count:
                warnings.append(f"Event {name!r} is declared but never happens.")
        idle = len(self.item_ids) - len(self.seen_items.ids())
        if idle:
            warnings.append(f"{idle:,} of {len(self.item_ids):,} items have no event.")
        if self.listed_users is not None:
            absent = int(KnownIds(self.listed_users).lacks(self.seen_users.ids()).sum())
            if absent:
                warnings.append(f"{absent:,} users have events but no row in users.parquet.")
        if self.last is not None and self.last.year < _UNIT_SUSPECT_YEAR:
            warnings.append(
                f"The latest event is of {self.last:%Y-%m-%d}: was the unit of the times mistaken?"
            )
        if self.schema.time == "exact" and not self.has_time_of_day:
            warnings.append(
                'Every time is midnight UTC: declare time = "day" if days are all it is.'
            )
        if self.schema.time == "day" and self.has_time_of_day:
            warnings.append(
                'Times have hours and minutes: declare time = "exact" if they are real.'
            )
        return warnings

    def _open(self, name: str, columns: dict[str, Column]) -> ParquetTable:
        return ParquetTable(self.path / name, columns, file=name)

    def _walk(self, table: ParquetTable) -> Iterator[tuple[int, pl.DataFrame]]:
        size = (self.path / table.file).stat().st_size
        for first_row, frame in table.checked_batches():
            share = (first_row + frame.height) / table.num_rows
            self._tell((self.done_bytes + size * share) / self.all_bytes, table.file)
            yield first_row, frame
        self.done_bytes += size

    def _tell(self, fraction: float, message: str) -> None:
        if self.progress is not None:
            self.progress(fraction, message)


def _event_parts(path: Path) -> list[str]:
    """The part files in order. Raises DatasetError for Parquet files that nothing would read."""
    for folder, known in ((path, _TABLES), (path / "events", ())):
        for found in sorted(folder.glob("*.parquet")):
            if found.name not in known and not found.match("events/part-*.parquet"):
                allowed = ", ".join(known) or "part-*.parquet"
                raise DatasetError(
                    f"nothing reads this file. {closest(found.name, known)}Here may be: {allowed}.",
                    file=str(found.relative_to(path)),
                    remedy="Rename it, or move it out of the dataset.",
                )
    parts = sorted((path / "events").glob("part-*.parquet"))
    if not parts:
        raise DatasetError(
            "there is no such file.",
            file="events/part-*.parquet",
            remedy="Write the events as events/part-00000.parquet and so on.",
        )
    return [f"events/{part.name}" for part in parts]


def _refuse_unlisted(
    table: ParquetTable,
    cells: pl.Series,
    listed: Iterable[str],
    first_row: int,
    what: str,
) -> None:
    known = list(listed)
    row = first_true(~cells.is_in(known))
    if row is not None:
        raise table.error(
            f"unknown {what} {cells[row]!r:.100}. {closest(cells[row], known)}"
            f"Allowed are: {', '.join(known)}.",
            column=cells.name,
            row=first_row + row,
            remedy="Mend the cell"
            + (", or declare the event in dataset.toml." if cells.name == "event" else "."),
        )


def _refuse_backwards(
    table: ParquetTable, frame: pl.DataFrame, start: str, end: str, first_row: int
) -> None:
    row = first_true(frame[start] > frame[end])
    if row is not None:
        raise table.error(
            f"{end} ({frame[end][row]}) is before {start} ({frame[start][row]}).",
            column=end,
            row=first_row + row,
            remedy="Swap or mend the two times.",
        )
