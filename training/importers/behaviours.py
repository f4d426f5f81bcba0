"""A behaviour log with times: one line says which user did what with which item, and when.

Taobao's UserBehavior and Retailrocket's events are such logs, and so is the layout that papers on
multi-behaviour recommendation pass on: `interactions.tsv` with the held-out purchases beside it in
`test_buy.tsv`, without times. Lines are read, checked, grouped by user and written as events.
Knows no public dataset: which columns, which behaviours and which period is told.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import polars as pl

from model.schema import Event, Schema
from training.columns import EARLIEST, LATEST
from training.importers.delimited import LINE, DelimitedFile, refuse_nothing_left
from training.importers.grouping import (
    SLICE_ROWS,
    Distinct,
    grouped_by_user,
    without_repeats,
)
from training.importers.writer import (
    DatasetWriter,
    ImportReport,
    Progress,
    new_dataset,
    refuse_taken,
)

INTERACTIONS, TEST_BUY = "interactions.tsv", "test_buy.tsv"

WHOLE_NUMBER = r"^-?\d{1,18}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Times from `start` to before `end` are kept; the rest cannot be."""

    start: datetime
    end: datetime
    label: str
    """What the report says of the others: "times outside {label}"."""


POSSIBLE = Period(start=EARLIEST, end=LATEST, label="1970 to 2099")


class BehaviourLog:
    """One log file; counts what it reads and what it drops."""

    def __init__(
        self,
        file: DelimitedFile,
        *,
        user: str,
        item: str,
        behaviour: str,
        time: str,
        unit: Literal["s", "ms"],
        events: Mapping[str, str],
        period: Period = POSSIBLE,
        also: Sequence[str] = (),
    ) -> None:
        """user, item, behaviour, time: the file's names of these columns.

        unit: of the times. events: which event each behaviour of the file is. also: further
        columns to keep.
        """
        self.file, self.num_read = file, 0
        self.dropped: dict[str, int] = {}
        self._names = {user: "user_id", item: "item_id", behaviour: "event", time: "time"}
        self._user, self._item, self._behaviour, self._time = user, item, behaviour, time
        self._micros = 1_000_000 if unit == "s" else 1_000
        self._unit = "seconds" if unit == "s" else "milliseconds"
        self._events, self._period, self._also = dict(events), period, tuple(also)

    def drop(self, reason: str, count: int) -> None:
        """Count lines that are not written."""
        if count:
            key = f"{self.file.name}: {reason}"
            self.dropped[key] = self.dropped.get(key, 0) + count

    def acts(self, progress: Progress | None = None) -> Iterator[pl.DataFrame]:
        """Yield frames of user_id, item_id, event, time (Int64 UTC µs), LINE, and `also`.

        Raises DatasetError for an empty id, a behaviour that has no event, or a time that is no
        number. Lines without a time, or with one outside the period, are dropped and counted.
        """

        def told(fraction: float) -> None:
            if progress is not None:
                progress(fraction, f"reading {self.file.name}")

        start, end = (_micros(t) for t in (self._period.start, self._period.end))
        for frame in self.file.batches(told):
            self.num_read += frame.height
            self._check(frame)
            frame = frame.rename(self._names).with_columns(
                pl.col("event").replace_strict(self._events, return_dtype=pl.String),
                pl.col("time").cast(pl.Int64, strict=False),
            )
            timed = frame.filter(pl.col("time").is_not_null())
            self.drop("lines without a time", frame.height - timed.height)
            low, high = -(-start // self._micros), -(-end // self._micros)  # no product overflows
            kept = timed.filter((pl.col("time") >= low) & (pl.col("time") < high))
            self.drop(f"times outside {self._period.label}", timed.height - kept.height)
            yield kept.with_columns(pl.col("time") * self._micros).select(
                *self._names.values(), LINE, *self._also
            )

    def _check(self, frame: pl.DataFrame) -> None:
        self.file.refuse_empty(frame, self._user, self._item)
        self.file.refuse(
            frame,
            ~pl.col(self._behaviour).is_in(list(self._events)),
            column=self._behaviour,
            allowed="one of " + ", ".join(self._events),
        )
        unclear = ~pl.col(self._time).str.contains(WHOLE_NUMBER) & (pl.col(self._time) != "")
        self.file.refuse(
            frame,
            unclear,
            column=self._time,
            allowed=f"Unix {self._unit}, a whole number of at most 18 digits",
        )


def write_acts(
    log: BehaviourLog,
    writer: DatasetWriter,
    out: Path,
    *,
    items: Distinct,
    split: str | None = None,
    progress: Progress,
) -> int:
    """Append a log's acts as events, user by user, exact repeats once. Returns their number.

    items: takes in every act.
    split: what the events' column `split` says, if they have one.
    """
    num_events = 0
    with grouped_by_user(out, num_bytes=log.file.num_bytes) as groups:
        for acts in log.acts(lambda part, what: progress(0.6 * part, what)):
            groups.add(acts)
            items.add(acts)
        for users in groups.read(lambda part, what: progress(0.6 + 0.4 * part, what)):
            kept = without_repeats(users, [c for c in users.columns if c != LINE])
            log.drop("exact duplicates of an earlier line", users.height - kept.height)
            for rows in kept.iter_slices(SLICE_ROWS):
                writer.append_events(events_frame(rows, prefix="", split=split))
            num_events += kept.height
    refuse_nothing_left(log.file.name, num_events, log.dropped)
    return num_events


def events_frame(acts: pl.DataFrame, *, prefix: str, split: str | None) -> pl.DataFrame:
    """The contract's event columns; ids and sequence are the line numbers of the source file."""
    marked = [] if split is None else [pl.lit(split).alias("split")]
    return acts.select(
        pl.format(f"{prefix}{{}}", LINE).alias("event_id"),
        "user_id",
        "item_id",
        "event",
        pl.from_epoch("time", time_unit="us").dt.replace_time_zone("UTC").alias("timestamp"),
        pl.col(LINE).alias("sequence"),
        *marked,
    )


def import_held_out(
    source: Path,
    out: Path,
    *,
    name: str,
    events: Mapping[str, Event],
    period: Period,
    origin: str,
    notes: tuple[str, ...],
    progress: Progress,
) -> ImportReport:
    """Import `interactions.tsv` (user, item, behaviour, unix_ts) and `test_buy.tsv` (user, item).

    events: by the behaviour's name in the file, which is the event's name too. The purchases of
    test_buy.tsv become events `buy` of the split "test" with no time, for none is known.

    Raises DatasetError for a missing file, a malformed line or a taken `out`.
    """
    refuse_taken(out)
    log = BehaviourLog(
        DelimitedFile(
            source / INTERACTIONS,
            ["user", "item", "behaviour", "unix_ts"],
            separator="\t",
            origin=origin,
        ),
        user="user",
        item="item",
        behaviour="behaviour",
        time="unix_ts",
        unit="s",
        events={behaviour: behaviour for behaviour in events},
        period=period,
    )
    held_out = DelimitedFile(source / TEST_BUY, ["user", "item"], separator="\t", origin=origin)
    schema = Schema(name=name, time="exact", events=dict(events))
    items, num_test, num_repeats = Distinct("item_id"), 0, 0
    with new_dataset(
        out, schema, progress=lambda part, what: progress(0.7 + 0.3 * part, f"checking {what}")
    ) as writer:
        num_events = write_acts(
            log, writer, out, items=items, split="train", progress=lambda p, w: progress(0.6 * p, w)
        )
        pairs = []
        for frame in held_out.batches():
            held_out.refuse_empty(frame, "user", "item")
            num_test += frame.height
            pairs.append(frame.rename({"user": "user_id", "item": "item_id"}))
        if pairs:
            test = without_repeats(pl.concat(pairs), ["user_id", "item_id"])
            num_repeats = num_test - test.height
            items.add(test)
            acts = test.with_columns(event=pl.lit("buy"), time=pl.lit(None, pl.Int64))
            writer.append_events(events_frame(acts, prefix="test-", split="test"))
        writer.write_items(plain_items(items.rows()))
    repeated = {f"{TEST_BUY}: exact duplicates of an earlier line": num_repeats}
    return ImportReport(
        out=out,
        layout="log with held-out purchases",
        read={INTERACTIONS: log.num_read, TEST_BUY: num_test},
        written={
            "users": writer.summary.num_users,
            "items": writer.summary.num_items,
            "events": num_events + num_test - num_repeats,
        },
        dropped=log.dropped | {reason: count for reason, count in repeated.items() if count},
        summary=writer.summary,
        notes=notes,
    )


def plain_items(ids: pl.DataFrame) -> pl.DataFrame:
    """Products of which the source tells nothing: no titles, none invented. In order of id."""
    return ids.sort("item_id").with_columns(kind=pl.lit("product"), title=pl.lit(""))


def _micros(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)
