"""What the `value` of each event holds: seconds watched, stars, money; and values that look wrong.

Quantiles come from a sketch of bins that grow by 1 % (DDSketch: Masson, Rim and Lee, VLDB 2019),
so memory does not grow with the events; they are exact where a bin holds one number, as with stars.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from training.inspection.distribution import Distribution, Gathering
from training.inspection.event_scan import EventScan
from training.inspection.findings import Finding, abnormal_limit, plain

BIN_GROWTH = math.log(1.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFigures:
    """The values of one event."""

    unit: str | None
    num_missing: int
    """Events of this name without a value."""
    num_negative: int
    values: Distribution
    """Within 0.5 %; of those that have one."""


def inspect_values(scan: EventScan) -> tuple[dict[str, ValueFigures], list[Finding]]:
    """Look at the values of every event name that has any."""
    if "value" not in scan.columns:
        return {}, []
    value = pl.col("value")
    binned = (
        scan.rows()
        .group_by(
            pl.col("event").cast(pl.String),
            value.sign().alias("sign"),
            (value.abs().log() / BIN_GROWTH).floor().alias("bin"),
        )
        .agg(n=pl.len(), value=(value.min() + value.max()) / 2)
        .collect(engine="streaming")
    )
    figures, findings = {}, list[Finding]()
    for name, event in scan.schema.events.items():
        mine = binned.filter(pl.col("event") == name)
        known = mine.drop_nulls("value")
        if known.height:
            gathered = Gathering()
            gathered.add_counted(known)
            figures[name] = ValueFigures(
                unit=event.unit,
                num_missing=int(mine["n"].sum()) - int(known["n"].sum()),
                num_negative=int(known.filter(pl.col("sign") < 0)["n"].sum()),
                values=gathered.distribution(),
            )
            findings += _suspicious(scan, name, figures[name])
    return figures, findings


def _suspicious(scan: EventScan, name: str, figures: ValueFigures) -> Iterator[Finding]:
    values, unit = figures.values, figures.unit or "of no unit"
    mine = pl.col("event") == name
    if figures.num_negative:
        where = mine & (pl.col("value") < 0)
        yield Finding(
            what=f"Negative values of {name!r} ({unit})",
            count=figures.num_negative,
            total=values.num,
            unit="values",
            example=f"{plain(values.values[0])} at the lowest; {scan.example(where)}",
            remedy="If they stand for an unknown value, write null; if they take something back "
            "(a refund), give it an event name of its own.",
        )
    limit = abnormal_limit(values, least=0)
    if limit > 0 and values.num_above(limit):
        where = mine & (pl.col("value") > limit)
        if count := scan.count(where):
            yield Finding(
                what=f"Values of {name!r} above {plain(limit)} ({unit}), 10 times what all but one "
                "in a thousand have",
                count=count,
                total=values.num,
                unit="values",
                example=f"{plain(values.values[-1])} at the highest; {scan.example(where)}",
                remedy="Look for a wrong unit (milliseconds for seconds, cents for yuan) or a "
                "stand-in for infinity; mend it, or write null.",
            )
