"""Circles as tables for a terminal. Knows results, not where they come from."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from serving.circle_results import Circle, CircleShares, FoundCircle, UserCircles


def print_circles(circles: Sequence[Circle], most: int, console: Console) -> None:
    """Those of one level, in the order given, the first `most` of them."""
    console.print(_table(circles[:most]))
    if len(circles) > most:
        console.print(f"[dim]{len(circles) - most:,} more: -n {len(circles)} shows all[/dim]")
    if not circles:
        console.print("There are none: this bundle was exported before there were districts.")


def print_circle(found: FoundCircle, members: Sequence[Circle], console: Console) -> None:
    """One circle or district, and what is around it."""
    one = found.circle
    console.print(Text(f"{one.level} {one.circle_id}: {one.name}", style="bold"))
    facts = {
        "most its own": ", ".join(one.top_features) or "–",
        "items": f"{one.size:,}",
        "growth": _growth(one),
        "district": "–" if one.district_id is None else str(one.district_id),
        "came from": ", ".join(
            f"{before} ({share:.0%})"
            for before, share in zip(one.predecessors, one.predecessor_shares, strict=True)
        )
        or "–",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console.print(table)
    samples = _plain("Items that stand for it", ("id", "title", "kind"))
    columns = [found.sample_columns.get(name, []) for name in ("title", "kind")]
    for row in zip(one.sample_items, *columns, strict=True):
        samples.add_row(*(Text(str(cell)) for cell in row))
    console.print(samples)
    if members:
        console.print(_table(members, title="Its circles"))
    console.print(_table(found.neighbours, title="Neighbours, nearest first"))


def print_shares(found: UserCircles, who: str, console: Console) -> None:
    """Where one user is at home, on both levels."""
    if found.cold[0]:
        console.print(f"[yellow]Nothing is known about {escape(who)} yet (cold).[/yellow]")
        return
    for error in found.errors:
        console.print(f"[yellow]{escape(error.message)}[/yellow]")
    for level, shares in (("districts", found.districts), ("circles", found.circles)):
        console.print(_shares(f"{who}: {level}, of {found.history_lengths[0]} events", shares))


def _shares(title: str, shares: CircleShares) -> Table:
    table = _plain(title, ("id", "name"))
    table.add_column("share", justify="right")
    for one, name, share in zip(shares.ids, shares.names, shares.shares, strict=True):
        table.add_row(str(one), Text(name), f"{share:.0%}")
    return table


def _table(circles: Sequence[Circle], title: str = "") -> Table:
    table = _plain(title, ("id", "name", "most its own"))
    for name in ("items", "growth"):
        table.add_column(name, justify="right")
    for one in circles:
        features = ", ".join(one.top_features)
        cells = (str(one.circle_id), Text(one.name), Text(features))
        table.add_row(*cells, f"{one.size:,}", _growth(one))
    return table


def _plain(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        table.add_column(name, overflow="fold", style="dim" if name == "id" else "")
    return table


def _growth(one: Circle) -> str:
    return "–" if one.growth is None else f"{one.growth:+.0%}"
