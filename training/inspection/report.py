"""An inspection in the terminal: tables, bars of text, and what is suspicious, with its remedy.

Knows rich; the words and figures of the tables are tables.py's.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from training.inspection.dataset import Inspection
from training.inspection.day_counts import DayCounts
from training.inspection.findings import Finding
from training.inspection.tables import Grid, grids, share_of

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 50


def report(found: Inspection) -> Iterator[RenderableType]:
    """What to print, one after the other."""
    for grid in grids(found):
        yield Text(grid.title, style="bold")
        yield Padding(_table(grid), (0, 0, 0, 2))
        yield Text(f"  {grid.note}\n" if grid.note else "", style="dim")
    if found.times.a_day is not None:
        yield from _days("Events a day", found.times.a_day)
    if found.items.new_a_day is not None:
        yield from _days("New items a day", found.items.new_a_day)
    yield from _suspicious(found)


def _table(grid: Grid) -> Table:
    headed = any(grid.columns)
    table = Table(box=box.SIMPLE_HEAD if headed else None, show_header=headed, show_edge=False)
    for name, side in zip(grid.columns, grid.align, strict=True):
        table.add_column(name, justify="right" if side == "r" else "left", overflow="fold")
    for row in grid.rows:
        # As Text: an item's title may look like the markup of rich.
        table.add_row(*(Text(_shown(cell)) for cell in row))
    return table


def _shown(cell: str | int | None) -> str:
    return "" if cell is None else cell if isinstance(cell, str) else f"{cell:,}"


def _days(title: str, every: DayCounts) -> Iterator[RenderableType]:
    """A line of bars for each name."""
    days = every.bulk()
    yield Text(title, style="bold")
    for name, counts in days.counts.items():
        bars, most = sparkline(counts, width=_WIDTH)
        yield Text(f"  {name:12s}{bars}  at most {most:,.0f}")
    per_bar = days.num_days / _WIDTH
    bars_are = f", a bar for {per_bar:.1f} days, their mean" if per_bar > 1 else ""
    few = int(every.total.sum() - days.total.sum())
    left_out = f"; {few:,} outside these days are not shown" if few else ""
    yield Text(f"  {days.first} to {days.last}{bars_are}{left_out}\n", style="dim")


def sparkline(counts: npt.NDArray[np.int64], *, width: int) -> tuple[str, float]:
    """Bars of text, and what the highest stands for: the mean count of the days it covers.

    counts: [N] 0 or more. At most `width` bars, each of as many days as the others, or nearly.
    A space means none at all.
    """
    parts = [part.mean() for part in np.array_split(counts, min(width, len(counts)))]
    most = max(parts)
    steps = len(_BARS) - 1
    return "".join(_BARS[int(np.ceil(steps * part / (most or 1)))] for part in parts), most


def _suspicious(found: Inspection) -> Iterator[RenderableType]:
    yield Text("Suspicious", style="bold")
    for warning in found.summary.warnings:
        yield Text(f"  note: {warning}", style="yellow")
    if not found.findings:
        yield Text("  Nothing else looks wrong." if found.summary.warnings else "  Nothing.")
    for number, finding in enumerate(found.findings, start=1):
        yield Padding(_finding(number, finding), (0, 0, 1, 2))


def _finding(number: int, finding: Finding) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    table.add_row(Text(f"{number}."), Text(finding.what, style="yellow"))
    table.add_row("", Text(share_of(finding)))
    table.add_row("", Text(f"for example {finding.example}", style="dim"))
    table.add_row("", Text(finding.remedy))
    return table
