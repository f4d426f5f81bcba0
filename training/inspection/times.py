"""When the events of a dataset happened, and times that cannot be right.

Knows events and the times in which an item could be had. Nothing here needs every event to have a
time: those without are passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.inspection.day_counts import DayCounts, day_counts
from training.inspection.distribution import Gathering
from training.inspection.event_scan import EventScan
from training.inspection.findings import Finding, abnormal_limit

MANY_AT_ONE_TIME = 100
"""So few events at exactly one time are never a burst."""
BUSY_DAY = 20
"""Where a usual day has fewer events, a day without any tells nothing."""

_MINUTE = "%Y-%m-%d %H:%M"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeFigures:
    """When events happened, as far as it is known."""

    num_timed: int
    """Events with a time."""
    a_day: DayCounts | None
    """Events a day by role; None where no time is known."""


def inspect_times(dataset: Path, scan: EventScan) -> tuple[TimeFigures, list[Finding]]:
    """Count events by day, and look for times that cannot be right."""
    roles = {name: event.role for name, event in scan.schema.events.items()}
    counted = (
        scan.rows()
        .drop_nulls("timestamp")
        .group_by(pl.col("timestamp").dt.date().alias("day"), "event")
        .agg(n=pl.len())
        .sort("event", "day")
        .with_columns(name=pl.col("event").cast(pl.String).replace_strict(roles))
        .collect(engine="streaming")
    )
    figures = TimeFigures(num_timed=int(counted["n"].sum()), a_day=day_counts(counted))
    if figures.a_day is None:
        return figures, []
    findings = [
        *_epoch(scan, figures.a_day),
        *_empty_days(figures.a_day),
        *(_bursts(scan, figures) if scan.schema.time == "exact" else ()),
        *_outside_life(dataset, scan, figures),
    ]
    return figures, findings


def _epoch(scan: EventScan, a_day: DayCounts) -> Iterator[Finding]:
    """Times that are 0: an unknown time that something turned into a number."""
    where = pl.col("timestamp") == _EPOCH
    if a_day.first == _EPOCH.date() and (count := scan.count(where)):
        yield Finding(
            what="Events at 1970-01-01 00:00, which is a time of 0",
            count=count,
            total=int(a_day.total.sum()),
            unit="events",
            example=scan.example(where),
            remedy="The time was not known when the row was written. Leave these events out, "
            'or declare time = "order" if their order is known.',
        )


def _empty_days(a_day: DayCounts) -> Iterator[Finding]:
    """Days on which nobody did what people usually do: parts of the log that are missing."""
    days = a_day.bulk()
    for role, every in days.counts.items():
        held = np.flatnonzero(every)
        if not len(held):
            continue
        counts = every[held[0] : held[-1] + 1]
        empty = np.flatnonzero(counts == 0) + held[0]
        usual = int(np.median(counts[counts > 0]))
        # A few days of a log that lie years apart are a sample, and no day of it is missing.
        if len(empty) and usual >= BUSY_DAY and len(empty) < len(counts) / 2:
            gaps = np.split(empty, np.flatnonzero(np.diff(empty) > 1) + 1)
            longest = max(gaps, key=len)
            begin, end = days.day(int(longest[0])), days.day(int(longest[-1]))
            yield Finding(
                what=f"Days without any event of the role {role!r}, between the first and the last",
                count=len(empty),
                total=len(counts),
                unit="days",
                example=f"{begin}" + (f" to {end}" if end > begin else ""),
                remedy=f"A usual day has {usual:,}: look whether files of the log are missing.",
            )


def _bursts(scan: EventScan, figures: TimeFigures) -> Iterator[Finding]:
    """Many events at exactly one time."""
    gathered, worst, most = Gathering(), None, 0
    for frame in scan.by_time():
        gathered.add(frame["n"])
        for time, n in frame.sort("n", "timestamp", descending=[True, False]).head(1).iter_rows():
            if n > most:
                worst, most = time, n
    shared = gathered.distribution()
    limit = abnormal_limit(shared, least=MANY_AT_ONE_TIME)
    if worst is not None and shared.num_above(limit):
        many = shared.values > limit
        yield Finding(
            what=f"Events that share their time with more than {limit:,.0f} others, to the "
            "microsecond",
            count=int(shared.values[many] @ shared.counts[many]),
            total=figures.num_timed,
            unit="events",
            example=f"{most:,} at {worst:%Y-%m-%d %H:%M:%S.%f} UTC, the first in "
            f"{scan.example(pl.col('timestamp') == worst)}",
            remedy="This is the time of a batch, of a default or of a machine rather than of an "
            "act. Write the time of the act, or leave these events out.",
        )


_BEFORE = (
    "Events before their item's created_at",
    "Find out which of the two times is wrong (a timezone, or an item that was created again); a "
    "time split would let the model meet items that were not there yet.",
)
_AFTER = (
    "Events after their item's expires_at",
    "Find out which of the two times is wrong; if people really get at items that expired, "
    "write a later expires_at.",
)


def _outside_life(dataset: Path, scan: EventScan, figures: TimeFigures) -> Iterator[Finding]:
    """Events before their item was there, or after it was gone."""
    items = pl.scan_parquet(dataset / "items.parquet", glob=False)
    present = items.collect_schema().names()
    unit = "1d" if scan.schema.time == "day" else "1us"  # a day begins before what happens in it
    moment = pl.col("timestamp").dt.truncate(unit)
    for column, (what, remedy), outside in (
        ("created_at", _BEFORE, moment < pl.col("created_at").dt.truncate(unit)),
        ("expires_at", _AFTER, moment > pl.col("expires_at")),
    ):
        if column not in present:
            continue
        limits = items.select("item_id", column).drop_nulls()
        found = scan.rows().join(limits, on="item_id", maintain_order="left").filter(outside)
        count = found.select(pl.len()).collect(engine="streaming").item()
        if count:
            first: dict[str, Any] = found.head(1).collect(engine="streaming").row(0, named=True)
            same = [pl.col(name) == first[name] for name in ("user_id", "item_id", "timestamp")]
            yield Finding(
                what=what,
                count=count,
                total=figures.num_timed,
                unit="events",
                example=f"{scan.example(pl.all_horizontal(same))}: {first['timestamp']:{_MINUTE}}, "
                f"{column} is {first[column]:{_MINUTE}}",
                remedy=remedy,
            )
