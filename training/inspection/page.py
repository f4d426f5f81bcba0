"""An inspection as a page with plots.

Knows what is drawn; tables are tables.py's, the page itself is training/html.py's.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from training.html import FAINT, SERIES, Block, Figure, Page, Prose, Section, Table, draw
from training.inspection.dataset import Inspection
from training.inspection.day_counts import DayCounts
from training.inspection.distribution import Distribution
from training.inspection.tables import Grid, grids, percent, share_of

_MOST_BARS = 120


def inspection_page(found: Inspection) -> Page:
    """The whole inspection: what is suspicious first, then table by table."""
    summary = found.summary
    figures = _figures(found)
    sections = [Section("Suspicious", _suspicious(found))]
    for grid in grids(found):
        drawn = [figures[grid.title]] if grid.title in figures else []
        sections.append(Section(grid.title, [_table(grid), *drawn]))
    return Page(
        title=f"Dataset {summary.name}",
        lead=f"{summary.num_users:,} users, {summary.num_items:,} items, {summary.num_events:,} "
        f"events; {percent(found.density)} of the user-item pairs are in a history. The dataset "
        f"keeps its contract; suspicious findings: {len(found.findings)}.",
        sections=sections,
    )


def _suspicious(found: Inspection) -> list[Block]:
    blocks: list[Block] = []
    if found.findings:
        rows = [(f.what, share_of(f), f.example, f.remedy) for f in found.findings]
        blocks.append(Table(("what", "how many", "for example", "what to do"), rows))
    if found.summary.warnings:
        blocks.append(Prose("Notes of the validator:\n" + "\n".join(found.summary.warnings)))
    return blocks or [Prose("Nothing.")]


def _table(grid: Grid) -> Table:
    rows = [["" if cell is None else cell for cell in row] for row in grid.rows]
    return Table(grid.columns, rows, caption=grid.note, align=grid.align)


def _figures(found: Inspection) -> dict[str, Figure]:
    """Drawings by the title of the section that they belong to."""
    figures = {}
    a_day, new = found.times.a_day, found.items.new_a_day
    if a_day is not None:
        figures["Events"] = draw(
            lambda axes: _events_a_day(axes, a_day.bulk()),
            caption="Events a day by role (logarithmic); a gap is a day without any."
            + _left_out(a_day),
            description=_span("Events a day by role", a_day),
        )
    if new is not None:
        (name,) = new.counts
        per_bar = -(-new.bulk().num_days // _MOST_BARS)
        each = "a day" if per_bar == 1 else f"in {per_bar} days"
        figures["Items by kind"] = draw(
            lambda axes: _new_items(axes, new.bulk(), per_bar),
            caption=f"Items that came, {each}, by {name}." + _left_out(new),
            description=_span(f"New items by {name}", new),
            height=2.0,
        )
    history, exposures = found.items.history_an_item, found.items.exposures_an_item
    figures["The long tail"] = draw(
        lambda axes: _tail(axes, history, exposures),
        caption="The share of events that the most frequent items take. On the dashed line, every "
        "item would get the same.",
        height=3.0,
    )
    lengths = found.users.history_a_user
    if lengths.num:
        figures["How much a user does, an item gets"] = draw(
            lambda axes: _histogram(axes, lengths),
            caption="Users by the length of their history.",
            height=2.0,
        )
    return figures


def _span(what: str, days: DayCounts) -> str:
    return f"{what}, {days.first} to {days.last}, at most {days.total.max():,} on one day"


def _left_out(days: DayCounts) -> str:
    few = int(days.total.sum() - days.bulk().total.sum())
    return f" {few:,} outside these days are not shown." if few else ""


def _events_a_day(axes: Axes, days: DayCounts) -> None:
    when = np.datetime64(days.first) + np.arange(days.num_days)
    for name, counts in days.counts.items():
        axes.plot(when, np.where(counts > 0, counts, np.nan), label=name, marker=_marker(counts))
    axes.set_yscale("log")
    _few_days(axes, days)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.01)


def _few_days(axes: Axes, days: DayCounts) -> None:
    """Between few days, hours would be marked, of which nothing is known here."""
    if days.num_days <= 10:
        axes.set_xticks(np.datetime64(days.first) + np.arange(days.num_days))


def _marker(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    """A dot where a line alone would not show: lone days."""
    return "." if len(counts) < 40 or (counts > 0).mean() < 0.5 else ""


def _new_items(axes: Axes, days: DayCounts, per_bar: int) -> None:
    starts = np.arange(0, days.num_days, per_bar)
    when = np.datetime64(days.first) + starts
    axes.bar(when, np.add.reduceat(days.total, starts), width=per_bar, align="edge")
    _few_days(axes, days)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.01)


def _tail(axes: Axes, history: Distribution, exposures: Distribution | None) -> None:
    shares = np.linspace(0, 1, 201)
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--")
    axes.plot(shares, history.share_of_top(shares), label="history events", color=SERIES[0])
    if exposures is not None:
        axes.plot(shares, exposures.share_of_top(shares), label="exposures", color=SERIES[1])
    axes.set_xlabel("share of items, most frequent first")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))


def _histogram(axes: Axes, lengths: Distribution) -> None:
    """Bins that double, from 1 on."""
    bins = np.floor(np.log2(lengths.values)).astype(int)
    counts = np.bincount(bins, weights=lengths.counts)
    names = [f"{2**b:,}" + ("+" if b else "") for b in range(len(counts))]
    axes.bar(names, counts, width=0.8)
    axes.set_xlabel("events in the history, up to the next bar")
    axes.set_ylabel("users")
    axes.yaxis.set_major_formatter("{x:,.0f}")
