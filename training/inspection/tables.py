"""An inspection as tables of text, the same for the terminal and for the page.

Knows what each figure is called and how it is written; knows neither rich nor HTML.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.inspection.dataset import Inspection
from training.inspection.distribution import Distribution
from training.inspection.features import FeatureFigures
from training.inspection.findings import Finding, plain
from training.inspection.splits import TRAIN
from training.inspection.users import LEAVE_ONE_OUT_EVENTS

TOP_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""The shares of items, most frequent first, whose share of events is told."""
_QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
_OF_HELD_OUT = ("new users", "new items", "also in train", "seen in train", "also in validation")

_PERCENT = "\N{NO-BREAK SPACE}%"

Cell = str | int | None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; None is an empty cell."""

    title: str
    columns: tuple[str, ...]
    align: str
    """A letter a column, `l` or `r`."""
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """What a reader has to know of it, one sentence or two."""


def grids(found: Inspection) -> Iterator[Grid]:
    """Every table of an inspection that has anything to say, in order."""
    yield holds(found)
    yield Grid(
        "Items by kind",
        ("kind", "items", "without event", "events", "history events"),
        "lrrrr",
        tuple(_kinds(found)),
    )
    yield events(found)
    yield Grid(
        "How much a user does, an item gets",
        ("", "of", "least", *(f"{q * 100:.0f} %" for q in _QUANTILES[1:-1]), "most", "mean"),
        "lrrrrrrrr",
        tuple(_quantiles(found)),
    )
    yield tail(found)
    if found.values:
        yield values(found)
    if found.splits:
        yield splits(found)
    if found.features:
        yield features(found)
    if found.items.links:
        yield Grid(
            "Links",
            ("relation", "links"),
            "lr",
            tuple(found.items.links.items()),
        )


def holds(found: Inspection) -> Grid:
    """How many users, items and events there are, and how densely they fill the matrix."""
    users, items, history = found.users, found.items, found.users.history
    idle = f"{items.num_idle:,} ({percent(items.num_idle / items.num_items)})"
    rows: list[tuple[Cell, ...]] = [
        (
            "users",
            users.num_users,
            f"{users.num_with_history:,} have a history; {users.num_short:,} of them fewer "
            f"than {LEAVE_ONE_OUT_EVENTS} events in it, too few for leave-one-out",
        ),
        (
            "items",
            items.num_items,
            f"{idle} without any event; {items.num_cold:,} without one in a history",
        ),
        ("events", found.summary.num_events, f"{history.num_events:,} in histories"),
        (
            "density",
            percent(found.density),
            f"{history.num_pairs:,} of the user-item pairs are in a history; sparsity "
            f"{percent(1 - found.density)}",
        ),
        (
            "repeats",
            percent(history.share),
            "of history events are on an item that the user's history has already",
        ),
        ("time", found.schema.time, span(found)),
    ]
    if users.num_listed is not None:
        rows.insert(
            1,
            (
                "rows in users.parquet",
                users.num_listed,
                f"{users.num_without_row:,} users have events and no row; "
                f"{users.num_idle:,} have a row and no event",
            ),
        )
    if items.num_gone:
        rows.append(
            (
                "not to be had",
                items.num_gone,
                f"{items.num_unavailable:,} items are unavailable, "
                f"{items.num_expired:,} had expired by the last event",
            )
        )
    return Grid(
        "What it holds",
        ("", "", ""),
        "lrl",
        tuple(rows),
        "A history is a user's engagements and conversions: what is learned from.",
    )


def span(found: Inspection) -> str:
    """From when to when, as far as it is known."""
    summary, times = found.summary, found.times
    if summary.first is None or summary.last is None:
        return (
            "only the order of a user's events is known"
            if found.schema.has_order
            else "neither times nor an order are known"
        )
    pattern = "%Y-%m-%d %H:%M" if found.schema.time == "exact" else "%Y-%m-%d"
    text = f"{summary.first:{pattern}} to {summary.last:{pattern}} UTC"
    if times.a_day is not None:
        text += ", 1 day" if times.a_day.num_days == 1 else f", {times.a_day.num_days:,} days"
    untimed = summary.num_events - times.num_timed
    return text + (f"; {untimed:,} events without a time" if untimed else "")


def events(found: Inspection) -> Grid:
    """Each declared event, and how often users do it again."""
    total = found.summary.num_events
    rows = []
    for name, event in found.schema.events.items():
        repeats, count = found.users.by_event[name], found.summary.events_by_name[name]
        rows.append(
            (
                name,
                event.role,
                count,
                percent(count / total),
                repeats.num_users,
                f"{event.weight:g}",
                percent(repeats.share),
            )
        )
    return Grid(
        "Events",
        ("event", "role", "events", "share", "users", "weight", "repeats"),
        "llrrrrr",
        tuple(rows),
        "Repeats: the share on an item to which the same user did the same before.",
    )


def tail(found: Inspection) -> Grid:
    """Which share of the events the most frequent items take."""
    columns = [("history events", found.items.history_an_item)]
    if found.items.exposures_an_item is not None:
        columns.append(("exposures", found.items.exposures_an_item))
    rows: list[tuple[Cell, ...]] = [
        (
            f"top {share * 100:.0f} % of items",
            *(percent(float(d.share_of_top(np.array([share]))[0])) for _, d in columns),
        )
        for share in TOP_SHARES
    ]
    rows.append(("Gini coefficient", *(f"{d.gini:.3f}" for _, d in columns)))
    return Grid(
        "The long tail",
        ("", *(name for name, _ in columns)),
        "l" + "r" * len(columns),
        tuple(rows),
        "Of all items, those without an event included. Gini: 0 where all "
        "items get the same, near 1 where one gets everything.",
    )


def values(found: Inspection) -> Grid:
    """What the values of events hold."""
    rows: list[tuple[Cell, ...]] = []
    for name, figures in found.values.items():
        quantiles = (plain(figures.values.quantile(q)) for q in (0, 0.5, 0.99, 1))
        rows.append(
            (
                name,
                figures.unit or "",
                figures.values.num,
                figures.num_missing,
                *quantiles,
                plain(figures.values.mean),
            )
        )
    return Grid(
        "Values of events",
        ("event", "unit", "events", "no value", "least", "median", "99 %", "most", "mean"),
        "llrrrrrrr",
        tuple(rows),
    )


def splits(found: Inspection) -> Grid:
    """What the published split holds out, and what of it is known from train."""
    rows = []
    for name, part in found.splits.items():
        if not part.num_events:
            continue
        held_out = name != TRAIN
        rows.append(
            (
                name,
                part.num_events,
                part.num_users,
                part.num_new_users if held_out else None,
                found.items.num_new_in[name] if held_out else None,
                part.num_again[TRAIN] if held_out else None,
                part.num_seen if held_out else None,
                part.num_again["validation"] if name == "test" else None,
            )
        )
    return Grid(
        "The published split",
        ("split", "events", "users", *_OF_HELD_OUT),
        "lrrrrrrr",
        tuple(rows),
        "History events. New: without any in train. Also in train: the same user, item and "
        "event. Seen: the same user and item, by another event only.",
    )


def features(found: Inspection) -> Grid:
    """Each feature column."""
    rows: list[tuple[Cell, ...]] = []
    for figures in found.features:
        owner = "user" if figures.file == "users.parquet" else "item"
        rows.append(
            (
                owner,
                figures.name,
                figures.type,
                percent(figures.num_missing / figures.num_rows) if figures.num_rows else "",
                figures.num_distinct,
                _frequent(figures),
                _kinds_of(found, figures),
            )
        )
    return Grid(
        "Features",
        ("of", "feature", "type", "missing", "distinct", "most frequent", "kinds"),
        "lllrrll",
        tuple(rows),
        "Numbers show their least, median and greatest. Kinds: those of which any item has "
        "it, where not all do.",
    )


def _frequent(figures: FeatureFigures) -> str:
    if figures.low is not None:
        return " … ".join(plain(n or 0) for n in (figures.low, figures.median, figures.high))
    if figures.top is None or (figures.type == "text" and figures.top_share < 0.01):
        return ""
    shown = figures.top if len(figures.top) <= 30 else figures.top[:29] + "…"
    return f"{shown} ({percent(figures.top_share)})"


def _kinds_of(found: Inspection, figures: FeatureFigures) -> str:
    everywhere = len(figures.kinds) in (0, len(found.items.by_kind))
    return "" if everywhere else ", ".join(figures.kinds)


def _kinds(found: Inspection) -> Iterator[tuple[Cell, ...]]:
    for kind, figures in found.items.by_kind.items():
        yield (
            kind,
            figures.num_items,
            figures.num_idle,
            figures.num_events,
            figures.num_history_events,
        )


def _quantiles(found: Inspection) -> Iterator[tuple[Cell, ...]]:
    has_more = found.users.history.num_events < found.summary.num_events
    rows: list[tuple[str, Distribution | None]] = [
        ("history of a user", found.users.history_a_user),
        ("all events of a user", found.users.events_a_user if has_more else None),
        ("history events of an item", found.items.history_an_item),
        ("exposures of an item", found.items.exposures_an_item),
    ]
    for name, numbers in rows:
        if numbers is not None and numbers.num:
            told = (f"{numbers.quantile(share):,.0f}" for share in _QUANTILES)
            yield name, numbers.num, *told, f"{numbers.mean:,.1f}"


def share_of(finding: Finding) -> str:
    """`205,585 of 5,000,000 events (4.11 %)`."""
    share = finding.count / finding.total if finding.total else 0.0
    return f"{finding.count:,} of {finding.total:,} {finding.unit} ({percent(share)})"


def percent(share: float) -> str:
    """`0 %` and `100 %` are exact; what is near them has two digits that count."""
    if share in (0.0, 1.0):
        return f"{share * 100:.0f}{_PERCENT}"
    distance = min(share, 1 - share) * 100
    digits = 1 if distance >= 1 else 1 - math.floor(math.log10(distance))
    return f"{share * 100:.{digits}f}{_PERCENT}"
