"""The items of a dataset: kinds, how events spread over them, when they came, odd titles.

Holds a row for every item. Knows items.parquet and links.parquet; features are in features.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.schema import KINDS
from training.columns import SPLITS, TIME
from training.inspection.day_counts import DayCounts, day_counts
from training.inspection.distribution import Distribution, distribution
from training.inspection.event_scan import EventScan
from training.inspection.findings import Finding, named

MANY_SHARE_A_TITLE = 10
"""So many items with one title are no coincidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFigures:
    """The items of one kind."""

    num_items: int
    num_idle: int
    """Without any event."""
    num_events: int
    num_history_events: int
    """Engagements and conversions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFigures:
    """Items, and the events on them. History events are engagements and conversions."""

    num_items: int
    num_idle: int
    """Without any event."""
    num_cold: int
    """Without a history event: content is all that a model can know them by."""
    num_unavailable: int
    """`available` is false."""
    num_expired: int
    """Expired by the time of the last event."""
    num_gone: int
    """Unavailable or expired."""
    by_kind: dict[str, KindFigures]
    """Kinds that occur, in the contract's order."""
    events_an_item: Distribution
    """Of all items, zeros included."""
    history_an_item: Distribution
    """The same, history events alone."""
    exposures_an_item: Distribution | None
    """The same, exposures alone; None where there are none."""
    new_a_day: DayCounts | None
    """Items that came on each day, by what says so: "created_at" or else "first event"."""
    num_new_in: dict[str, int]
    """Items of each held-out split's history events that have none in train."""
    links: dict[str, int]
    """Links by relation."""


def inspect_items(dataset: Path, scan: EventScan) -> tuple[ItemFigures, list[Finding]]:
    """Count the items and the events on each."""
    items = _items(dataset)
    counted = items.join(_events_by_item(scan), on="item_id", how="left").with_columns(
        pl.col("^n_.*$").fill_null(0)
    )
    exposures = distribution(counted["n_exposure"])
    unavailable, expired = counted.select(
        ~pl.col("available"), (pl.col("expires_at") <= pl.col("last").max()).fill_null(False)
    )
    figures = ItemFigures(
        num_items=counted.height,
        num_idle=int((counted["n_all"] == 0).sum()),
        num_cold=int((counted["n_history"] == 0).sum()),
        num_unavailable=int(unavailable.sum()),
        num_expired=int(expired.sum()),
        num_gone=int((unavailable | expired).sum()),
        by_kind=_by_kind(counted),
        events_an_item=distribution(counted["n_all"]),
        history_an_item=distribution(counted["n_history"]),
        exposures_an_item=exposures if exposures.sum else None,
        new_a_day=_new_a_day(counted),
        num_new_in={
            split: int(((counted[f"n_{split}"] > 0) & (counted[f"n_{SPLITS[0]}"] == 0)).sum())
            for split in SPLITS[1:]
        },
        links=_links(dataset),
    )
    return figures, list(_titles(dataset))


def _items(dataset: Path) -> pl.DataFrame:
    """item_id, kind, available, created_at, expires_at: the latter three made up where absent."""
    scan = pl.scan_parquet(dataset / "items.parquet", glob=False)
    absent = {"available": pl.lit(True), "created_at": None, "expires_at": None}
    present = scan.collect_schema().names()
    return (
        scan.with_columns(
            (pl.lit(None, TIME) if made_up is None else made_up).alias(name)
            for name, made_up in absent.items()
            if name not in present
        )
        .select("item_id", "kind", *absent)
        .collect(engine="streaming")
    )


def _events_by_item(scan: EventScan) -> pl.DataFrame:
    """item_id, first, last, and numbers of events: n_all, n_history, n_exposure, n_SPLIT."""
    roles = {name: event.role for name, event in scan.schema.events.items()}
    history = pl.col("event").is_in(scan.names(scan.schema.history_events))
    shown = pl.col("event").is_in(scan.names(n for n, role in roles.items() if role == "exposure"))
    return (
        scan.rows()
        .group_by("item_id")
        .agg(
            pl.col("timestamp").min().alias("first"),
            pl.col("timestamp").max().alias("last"),
            pl.len().alias("n_all"),
            history.sum().alias("n_history"),
            shown.sum().alias("n_exposure"),
            *((history & (pl.col("split") == split)).sum().alias(f"n_{split}") for split in SPLITS),
        )
        .collect(engine="streaming")
    )


def _by_kind(counted: pl.DataFrame) -> dict[str, KindFigures]:
    sums = counted.group_by("kind").agg(
        num_items=pl.len(),
        num_idle=(pl.col("n_all") == 0).sum(),
        num_events=pl.col("n_all").sum(),
        num_history_events=pl.col("n_history").sum(),
    )
    found = {row.pop("kind"): KindFigures(**row) for row in sums.iter_rows(named=True)}
    return {kind: found[kind] for kind in KINDS if kind in found}


def _new_a_day(counted: pl.DataFrame) -> DayCounts | None:
    created = counted["created_at"].null_count() < counted.height
    column, name = ("created_at", "created_at") if created else ("first", "first event")
    days = counted[column].drop_nulls().dt.date().alias("day").value_counts(name="n")
    return day_counts(days.with_columns(name=pl.lit(name)))


def _links(dataset: Path) -> dict[str, int]:
    path = dataset / "links.parquet"
    if not path.exists():
        return {}
    relations = pl.scan_parquet(path, glob=False).select("relation").collect()["relation"]
    return dict(relations.value_counts(sort=True).iter_rows())


def _titles(dataset: Path) -> Iterator[Finding]:
    """Titles that are empty, and titles that many items share."""
    items = pl.scan_parquet(dataset / "items.parquet", glob=False).select("item_id", "title")
    num_items = items.select(pl.len()).collect().item()
    is_blank = pl.col("title").str.strip_chars() == ""
    blank = items.filter(is_blank).select(pl.len()).collect().item()
    if blank:
        first = items.filter(is_blank).head(3).collect()["item_id"].to_list()
        yield Finding(
            what="Items without a title",
            count=blank,
            total=num_items,
            unit="items",
            example=f"items.parquet: {named(first)}",
            remedy="Nobody can judge such an item by its name, and a new one is found by its other "
            "features alone. Write the title if there is one.",
        )
    shared = (
        items.filter(~is_blank)
        .group_by("title")
        .agg(n=pl.len(), first=pl.col("item_id").first())
        .filter(pl.col("n") >= MANY_SHARE_A_TITLE)
        .sort("n", "title", descending=[True, False])
        .collect(engine="streaming")
    )
    if shared.height:
        title, n, first = shared.row(0)
        yield Finding(
            what=f"Items whose title {MANY_SHARE_A_TITLE - 1} others or more have too",
            count=int(shared["n"].sum()),
            total=num_items,
            unit="items",
            example=f"{title!r:.80} on {n:,} items, one of them {first!r} in items.parquet",
            remedy="If it stands for a missing title, leave the title empty; if these are one item "
            "in many sizes or colours, make them one; otherwise other features must tell them "
            "apart.",
        )
