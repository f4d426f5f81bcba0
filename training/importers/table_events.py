"""The events of a column map, as a stream: every row is kept, dropped and counted, or refused.

What happens to a row is the map's choice, never a guess. Knows no other table than the items' ids.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import polars as pl

from training.columns import SPLITS
from training.id_sets import KnownIds
from training.importers.column_map import ColumnMap
from training.importers.duplicates import Duplicates
from training.importers.table_columns import Target, converted
from training.importers.table_files import Batch, TableFiles


class EventRows:
    """The rows of [events]; `dropped` and `added` are whole when `frames` has ended."""

    def __init__(
        self,
        mapped: ColumnMap,
        targets: list[Target],
        files: TableFiles,
        items: pl.Series,
        *,
        tell: Callable[[float], None],
    ) -> None:
        """items: the ids that have a row. tell: called with the part that is done, 0 to 1."""
        self._mapped, self._table, self._targets = mapped, mapped.events, targets
        self._files, self._items, self._tell = files, KnownIds(items), tell
        self.dropped: Counter[str] = Counter()
        """Rows left out, by reason."""
        self.added = pl.Series("item_id", [], dtype=pl.String)
        """Ids that events name and that have no row, where the map adds those."""

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the columns of the contract. Raises DatasetError for a row that is not allowed."""
        for frame in self._distinct():
            if self._table.unknown_items == "add":
                self._add_items(frame)
            yield frame

    def _distinct(self) -> Iterator[pl.DataFrame]:
        """Rows that the map keeps, of each event_id one."""
        if self._table.event_id.column is None:
            for _, frame in self._kept(0.0, 1.0):
                yield frame
            return
        duplicates = Duplicates()
        drop = self._table.on_duplicate == "drop"
        for _, frame in self._kept(0.0, 0.5 if drop else 1.0):
            duplicates.add(frame["event_id"])
            if not drop:
                yield frame
        repeats = duplicates.any_suspects()
        if not drop and not repeats:
            return
        for batch, frame in self._kept(0.5, 1.0):
            if repeats:
                again = duplicates.repeated(frame["event_id"], batch.place)
                if not drop:
                    self._refuse_repeated(batch, again, duplicates)
                self._count(again, "with the event_id of an earlier row")
                frame = frame.filter(~again)
            if drop:
                yield frame

    def _kept(self, start: float, end: float) -> Iterator[tuple[Batch, pl.DataFrame]]:
        """One walk: rows that the map keeps, as they are in the file and in the contract."""
        self.dropped.clear()
        number = 0
        for whole in self._files.batches():
            batch = self._without_missing(self._without_dropped(whole))
            if batch.frame.height:
                frame = self._numbered(batch, number)
                batch, frame = self._timed(batch, frame)
                for column in ("item_id", "source_item_id"):
                    batch, frame = self._of_known_items(batch, frame, column)
                yield batch, frame
            number += whole.frame.height
            self._tell(start + (end - start) * self._files.fraction)

    def _without_dropped(self, batch: Batch) -> Batch:
        column = self._table.event.column
        if not self._table.drop or column is None:
            return batch
        names = batch.cells(column).texts()
        unwanted = names.is_in(self._table.drop).fill_null(False)
        for name, count in names.filter(unwanted).value_counts().iter_rows():
            self.dropped[f"events whose {column} is {name!r}, as the map says"] += count
        return batch.filter(~unwanted)

    def _without_missing(self, batch: Batch) -> Batch:
        table = self._table
        for field, column in (
            ("user_id", table.user_id),
            ("item_id", table.item_id),
            ("event", table.event.column),
        ):
            if column is not None:
                texts = batch.cells(column).texts()
                batch = batch.filter(
                    ~self._missing(batch, texts.fill_null("") == "", field, column)
                )
        return batch

    def _numbered(self, batch: Batch, number: int) -> pl.DataFrame:
        """The contract's columns. number: the first row's place among all rows of all files."""
        frame = converted(batch, self._targets)
        if self._table.event_id.column is None:
            rows = batch.rows + batch.first_row
            ids = pl.select(pl.format("{}#{}", pl.lit(batch.source.name), rows)).to_series()
            frame = frame.with_columns(ids.alias("event_id"))
        if self._table.sequence is not None and self._table.sequence.column is None:
            frame = frame.with_columns((batch.rows + number).alias("sequence"))
        return frame

    def _timed(self, batch: Batch, frame: pl.DataFrame) -> tuple[Batch, pl.DataFrame]:
        """Rows with the time and the sequence that the dataset's kind of time wants."""
        table = self._table
        if table.timestamp is not None and self._mapped.time != "order":
            unknown = frame["timestamp"].is_null()
            if "split" in frame.columns:  # an event that is held out may lack its time
                unknown &= frame["split"].fill_null(SPLITS[0]) == SPLITS[0]
            kept = ~self._missing(batch, unknown, "timestamp", table.timestamp.column)
            batch, frame = batch.filter(kept), frame.filter(kept)
        if table.sequence is not None and table.sequence.column is not None:
            unknown = frame["sequence"].is_null()
            kept = ~self._missing(batch, unknown, "sequence", table.sequence.column)
            batch, frame = batch.filter(kept), frame.filter(kept)
        return batch, frame

    def _missing(self, batch: Batch, absent: pl.Series, field: str, column: str) -> pl.Series:
        if self._table.missing == "error":
            batch.cells(column).refuse(
                absent,
                f"there is no {field}.",
                'Mend the row; or say in [events] missing = "drop", or add its act to `drop`.',
            )
        self._count(absent, f"without {field}")
        return absent

    def _of_known_items(
        self, batch: Batch, frame: pl.DataFrame, column: str
    ) -> tuple[Batch, pl.DataFrame]:
        if column not in frame.columns or self._table.unknown_items == "add":
            return batch, frame
        unknown = self._items.lacks(frame[column])
        if not unknown.any():
            return batch, frame
        if self._table.unknown_items == "error":
            source = self._table.item_id
            if column == "source_item_id":
                source = self._table.source_item_id or source
            batch.cells(source).refuse(
                unknown,
                "the item {} has no row in [items].",
                'Add its row, or say unknown_items = "drop" or "add" in [events].',
            )
        self._count(unknown, f"whose {column} has no row in [items]")
        return batch.filter(~unknown), frame.filter(~unknown)

    def _add_items(self, frame: pl.DataFrame) -> None:
        """Take in the items that only events name."""
        for column in ("item_id", "source_item_id"):
            if column in frame.columns:
                new = frame[column].filter(self._items.lacks(frame[column])).alias("item_id")
                if len(new):
                    self.added = pl.concat([self.added, new]).unique(maintain_order=True)

    def _refuse_repeated(self, batch: Batch, again: pl.Series, duplicates: Duplicates) -> None:
        cells = batch.cells(self._table.event_id.column or "")
        first = cells.texts().filter(again)
        if len(first):
            cells.refuse(
                again,
                f"{{}} was already used in {duplicates.first_place(first[0])}.",
                'Give every event its own id; or say in [events] on_duplicate = "drop", which '
                'keeps the first row of each, or event_id = "row".',
            )

    def _count(self, unwanted: pl.Series, reason: str) -> None:
        count = int(unwanted.sum())
        if count:
            self.dropped[f"events {reason}"] += count
