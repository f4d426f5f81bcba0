"""Reads the events of a valid dataset in bounded memory: streamed, or whole users at a time.

What it reads always has the same columns, null where the files lack one. Knows nothing of what the
events are read for.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from model.schema import Schema
from training.columns import SPLITS, TIME

PARTITION_EVENTS = 2_000_000
"""About so many events are held at a time: 50 bytes each, and as much again to group them."""

_OPTIONAL = {"timestamp": TIME, "sequence": pl.Int64(), "value": pl.Float64(), "split": pl.String()}
_ACT = ("user_id", "item_id", "event")


class EventScan:
    """Every event of a dataset that was validated before."""

    def __init__(
        self, dataset: Path, schema: Schema, *, partition_events: int = PARTITION_EVENTS
    ) -> None:
        self.schema = schema
        self._dataset = dataset
        self._partition_events = partition_events
        self._files = sorted((dataset / "events").glob("part-*.parquet"))
        sizes = [pq.read_metadata(file) for file in self._files]
        self._first_rows = [sum(s.num_rows for s in sizes[:n]) for n in range(len(sizes))]
        self.num_events: int = sum(size.num_rows for size in sizes)
        self.columns = frozenset(pq.read_schema(self._files[0]).names)
        """The columns that the files have."""

    def rows(self) -> pl.LazyFrame:
        """user_id, item_id, event, timestamp, sequence, value, split.

        `event` is an Enum of the declared names; `split` says "train" where the cell is null.
        """
        missing = {n: t for n, t in _OPTIONAL.items() if n not in self.columns}
        scan = pl.scan_parquet(self._files, glob=False, hive_partitioning=False)
        return scan.with_columns(pl.lit(None, t).alias(n) for n, t in missing.items()).select(
            "user_id",
            "item_id",
            pl.col("event").cast(pl.Enum(list(self.schema.events))),
            "timestamp",
            "sequence",
            "value",
            pl.col("split").fill_null(SPLITS[0]).cast(pl.Enum(SPLITS)),
        )

    def names(self, names: Iterable[str]) -> pl.Series:
        """Some event names, for `is_in`."""
        declared = pl.Enum(list(self.schema.events))
        return pl.Series(list(names), dtype=declared).implode()

    def by_user(self) -> Iterator[pl.DataFrame]:
        """Frames of whole users: user, item, event, history, timestamp, sequence, value, split.

        user, item: u64 hashes. Two ids of a billion share one with a chance of 3 %, which is good
        enough to count with. history: bool, whether the event enters a history.

        Reads the files once for every frame.
        """
        num_frames = -(-self.num_events // self._partition_events)
        history = self.names(self.schema.history_events)
        columns = self.rows().select(
            pl.col("user_id").hash().alias("user"),
            pl.col("item_id").hash().alias("item"),
            "event",
            pl.col("event").is_in(history).alias("history"),
            "timestamp",
            "sequence",
            "value",
            "split",
        )
        for number in range(num_frames):
            mine = columns.filter(pl.col("user") % num_frames == number)
            yield mine.collect(engine="streaming")

    def by_time(self) -> Iterator[pl.DataFrame]:
        """Frames of distinct times: timestamp, n (events that have it); few million at a time."""
        num_frames = -(-self.num_events // self._partition_events)
        times = self.rows().select("timestamp").drop_nulls()
        for number in range(num_frames):
            mine = times.filter(pl.col("timestamp").hash() % num_frames == number)
            yield mine.group_by("timestamp").agg(n=pl.len()).collect(engine="streaming")

    def count(self, where: pl.Expr) -> int:
        """How many events fulfil a condition on the columns of `rows`."""
        return int(self.rows().select(where.sum()).collect(engine="streaming").item())

    def example(self, *wheres: pl.Expr, most: int = 1) -> str:
        """Where the first events are that fulfil each condition, and who did what, in words.

        most: so many events of each. At least one event must fulfil the first condition.
        """
        rows = self.rows().with_row_index("row").select("row", *_ACT, *_OPTIONAL)
        parts = [rows.filter(where).head(most).collect(engine="streaming") for where in wheres]
        found = pl.concat(parts)
        places = []
        for row in found["row"]:
            part = max(n for n, first in enumerate(self._first_rows) if first <= row)
            file = self._files[part].relative_to(self._dataset).as_posix()
            places.append(f"{file}, row {row - self._first_rows[part]}")
        user, item, event = found.select(_ACT).row(0)
        return f"{' and '.join(places)} (user {user!r}, item {item!r}, {event})"


def by_hash(user: int, item: int | None = None) -> pl.Expr:
    """The condition that finds a user, or a user with an item, of `by_user` again."""
    found = pl.col("user_id").hash() == pl.lit(user, pl.UInt64)
    if item is not None:
        found &= pl.col("item_id").hash() == pl.lit(item, pl.UInt64)
    return found
