"""Answers as tables for a terminal. Knows results, not where they come from."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from serving.results import Recommended, Retrieved, ServerStatus, ShownHistory

_NOTHING_LEFT = (
    "Nothing is left to show: every item is filtered out, or in the history, expired or "
    "unavailable. Ask with fewer filters, or with --include-seen."
)
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
    asked = [name for name in found.columns if name not in ("title", "kind")]
    columns = {
        **_places(found.item_ids),
        **{name: list(map(str, found.columns[name])) for name in ("title", "kind", *asked)},
        "score": [f"{score:.3f}" for score in found.scores],
        "circle": [circle or "–" for circle in found.circles],
        "interest": [str(interest + 1) for interest in found.interests],
        "from": found.origins,
    }
    title = f"For {who}"
    # Rich cuts the last columns away where all do not fit.
    if _EDGES + sum(map(_room, columns, columns.values())) <= console.width:
        console.print(_table(title, columns))
    else:
        why = {name: columns.pop(name) for name in ("score", "circle", "interest", "from")}
        console.print(_table(title, columns))
        console.print(_table("Why", {**_places(found.item_ids), **why}))
    if not found.item_ids:
        console.print(_NOTHING_LEFT)
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
    places = _places(shown.item_ids)
    slate = {
        "title": list(map(str, shown.columns["title"])),
        "kind": list(map(str, shown.columns["kind"])),
        "value": [f"{value:.3f}" for value in shown.values],
        "here for": [reason.replace("_", " ") for reason in shown.reasons],
    }
    circles = {
        "circle": [circle or "–" for circle in shown.circles],
        "from": shown.origins,
    }
    why = {"why": shown.explanations} if shown.explanations else {}
    origins = {
        "retrieved": [str(rank + 1) for rank in shown.retrieval_ranks],
        "by value": [str(rank + 1) for rank in shown.value_ranks],
        **{head: [f"{chance:.1%}" for chance in shown.chances[head]] for head in shown.chances},
    }
    title = f"For {who}"
    everything = {**places, **slate, **why, **origins, **circles}
    if _EDGES + sum(map(_room, everything, everything.values())) <= console.width:
        console.print(_table(title, everything))
    else:
        console.print(_table(title, {**places, **slate, **circles}))
        if why:
            console.print(_table("Why", {**places, **why}))
        console.print(_table("Ranks among the candidates, and chances", {**places, **origins}))
    if not shown.item_ids:
        console.print(_NOTHING_LEFT)
    for index, best in enumerate(shown.best_values.tolist()):
        costs = {step: float(cost[index]) for step, cost in shown.costs.items()}
        if any(abs(cost) > 1e-6 for cost in costs.values()):
            given = ", ".join(f"{step} {cost:.3f}" for step, cost in costs.items() if cost)
            console.print(f"[dim]Given up of a value of {best:.3f}: {given}[/dim]")
    if shown.paced_shares:
        shares = ", ".join(f"{share:.1%}" for share in shown.paced_shares)
        console.print(f"[dim]Shares of paced floors lately: {shares}[/dim]")
    if not shown.chances:
        console.print("[dim]This bundle has no value model: the order is that of retrieval.[/dim]")


def print_status(
    status: ServerStatus, health: Mapping[str, str], address: str, console: Console
) -> None:
    """What a server serves, a line each. health: service name → state."""
    bundle, store, live = status.bundle, status.store, status.live
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
        "live items": f"{live['num_sealed'] + live['num_delta']:,} beside them, which replace "
        f"{live['num_replaced']:,}; {_behind(live)}",
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


def _behind(live: Mapping[str, int]) -> str:
    behind = live["newest_sequence"] - live["applied_sequence"]
    return f"{behind:,} changes behind" if behind else "all changes shown"


_FOLDED = {"title": 20, "circle": 12, "why": 24}
"""Columns of texts that may take several lines, and the least width they need."""
_BETWEEN = 2
"""Blanks between two columns."""
_EDGES = 2
"""And before the first and after the last."""


def _places(item_ids: Sequence[str]) -> dict[str, Sequence[str]]:
    return {"#": list(map(str, range(1, len(item_ids) + 1))), "id": item_ids}


def _room(name: str, cells: Sequence[str]) -> int:
    """The least width of a column in a table."""
    return _BETWEEN + (_FOLDED.get(name) or max(map(cell_len, (name, *cells))))


def _table(title: str, columns: Mapping[str, Sequence[str]]) -> Table:
    """Items, a row each: words to the left, numbers to the right."""
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, _BETWEEN - 1, 0, 0),
    )
    for name, cells in columns.items():
        if name in _FOLDED:
            table.add_column(name, overflow="fold", min_width=_FOLDED[name])
        else:
            is_number = all(cell.strip("0123456789.%-–") == "" for cell in cells)
            table.add_column(
                escape(name),
                min_width=_room(name, cells) - _BETWEEN,
                justify="right" if is_number else "left",
                style="dim" if name in ("#", "id", "when") else "",
            )
    for row in zip(*columns.values(), strict=True):
        table.add_row(
            *(
                Text(cell, style=_KIND_STYLE.get(cell, "") if name == "kind" else "")
                for name, cell in zip(columns, row, strict=True)
            )
        )
    return table


def _history(history: ShownHistory, who: str) -> Table:
    moments = [
        datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%d %H:%M") if time else "–"
        for time in history.timestamps_us
    ]
    columns = {
        "when": moments or ["–"] * len(history.item_ids),
        "event": history.events,
        "id": history.item_ids,
        "title": list(map(str, history.columns["title"])),
        "kind": list(map(str, history.columns["kind"])),
    }
    return _table(f"What {who} did last", columns)


def _joined(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)
