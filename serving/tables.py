"""Answers as tables for a terminal. Knows results, not where they come from."""

from collections.abc import Mapping
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.results import Recommended, Retrieved, ServerStatus, ShownHistory

_KIND_STYLE = {
    "product": "green",
    "video": "cyan",
    "live": "red",
    "article": "blue",
    "creator": "magenta",
}


def print_found(found: Retrieved, who: str, console: Console) -> None:
    """The candidates of one query, below the user's latest history."""
    if found.history is not None and found.history.item_ids:
        console.print(_history(found.history, who))
    if found.cold[0]:
        console.print(
            f"[yellow]Nothing is known about {escape(who)} yet (cold): "
            "this is what Penchant shows to a stranger.[/yellow]"
        )
    for error in found.errors:
        console.print(f"[yellow]{escape(error.message)}[/yellow]")
    table = Table(title=f"For {escape(who)}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("#", justify="right", style="dim")
    table.add_column("id", style="dim")
    table.add_column("title", overflow="fold", min_width=20)
    table.add_column("kind")
    asked = [name for name in found.columns if name not in ("title", "kind")]
    for name in asked:
        table.add_column(name)
    table.add_column("score", justify="right")
    table.add_column("circle", overflow="fold")
    table.add_column("interest", justify="right")
    titles, kinds = found.columns["title"], found.columns["kind"]
    for i, item_id in enumerate(found.item_ids):
        kind = str(kinds[i])
        table.add_row(
            str(i + 1),
            escape(item_id),
            escape(str(titles[i])),
            f"[{_KIND_STYLE.get(kind, 'default')}]{escape(kind)}[/]",
            *(escape(str(found.columns[name][i])) for name in asked),
            f"{found.scores[i]:.3f}",
            escape(found.circles[i]) or "–",
            str(found.interests[i] + 1),
        )
    console.print(table)
    if not found.item_ids:
        console.print("No item passes these filters.")
    console.print(
        f"[dim]{len(found.item_ids)} items · bundle {found.source.bundle_version[:12]} · "
        f"worker {escape(found.source.worker)}[/dim]"
    )


def print_recommended(shown: Recommended, who: str, console: Console) -> None:
    """One slate: value, chances and places of each item."""
    if shown.cold[0]:
        console.print(f"[yellow]Nothing is known about {escape(who)} yet (cold).[/yellow]")
    for error in shown.errors:
        console.print(f"[yellow]{escape(error.message)}[/yellow]")
    if shown.source.left_out:
        console.print(f"[yellow]Left out in time: {', '.join(shown.source.left_out)}[/yellow]")
    table = Table(title=f"For {escape(who)}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("#", justify="right", style="dim")
    table.add_column("id", style="dim")
    table.add_column("title", overflow="fold", min_width=20)
    table.add_column("kind")
    for name in ("value", *shown.chances):
        table.add_column(escape(name), justify="right")
    table.add_column("by value", justify="right")
    table.add_column("retrieved", justify="right")
    table.add_column("here for")
    table.add_column("circle", overflow="fold")
    titles, kinds = shown.columns["title"], shown.columns["kind"]
    for i, item_id in enumerate(shown.item_ids):
        kind = str(kinds[i])
        table.add_row(
            str(i + 1),
            escape(item_id),
            escape(str(titles[i])),
            f"[{_KIND_STYLE.get(kind, 'default')}]{escape(kind)}[/]",
            f"{shown.values[i]:.3f}",
            *(f"{chances[i]:.1%}" for chances in shown.chances.values()),
            str(shown.value_ranks[i] + 1),
            str(shown.retrieval_ranks[i] + 1),
            shown.reasons[i].replace("_", " "),
            escape(shown.circles[i]) or "–",
        )
    console.print(table)
    if not shown.item_ids:
        console.print("No item passes these filters.")
    if not shown.chances:
        console.print("[dim]This bundle has no value model: the order is that of retrieval.[/dim]")


def print_status(
    status: ServerStatus, health: Mapping[str, str], address: str, console: Console
) -> None:
    """What a server serves, a line each. health: service name → state."""
    bundle, store = status.bundle, status.store
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    rows = {
        "server": f"{address}, up {status.uptime_seconds:,.0f} s",
        "health": ", ".join(f"{name} {state}" for name, state in health.items()),
        "worker": status.source.worker,
        "penchant": status.server_version,
        "bundle": f"{bundle['name']} {str(bundle['version'])[:12]}",
        "created": str(bundle["created"]),
        "data until": str(bundle["as_of"]) or "unknown",
        "items": f"{bundle['num_active']:,} retrievable of {bundle['num_items']:,}",
        "vectors": f"{bundle['dim']} numbers, {bundle['num_interests']} interests a user",
        "history": f"the latest {bundle['max_history']} events",
        "circles": str(bundle["num_circles"]),
        "objectives": _joined(bundle["objectives"]),
        "heads": _joined(bundle["heads"]) or "none: no value model",
        "filters": _joined(bundle["filterable"]),
        "columns": _joined(bundle["columns"]),
        "users": f"{store['num_users']:,} in {store['kind']}",
        "at most": f"k {status.limits['max_k']:,}; {status.limits['max_queries']:,} queries a call",
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)


def _history(history: ShownHistory, who: str) -> Table:
    table = Table(title=f"What {escape(who)} did last", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("when", style="dim")
    table.add_column("event")
    table.add_column("id", style="dim")
    table.add_column("title", overflow="fold", min_width=20)
    table.add_column("kind")
    titles, kinds = history.columns["title"], history.columns["kind"]
    for i, item_id in enumerate(history.item_ids):
        when = "–"
        if len(history.timestamps_us) and history.timestamps_us[i]:
            moment = datetime.fromtimestamp(history.timestamps_us[i] / 1e6, UTC)
            when = moment.strftime("%Y-%m-%d %H:%M")
        cells = (when, history.events[i], item_id, str(titles[i]), str(kinds[i]))
        table.add_row(*map(escape, cells))
    return table


def _joined(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)
