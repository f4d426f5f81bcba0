"""What a closed loop found: a terminal table, report.json, and report.html with a curve a policy.

Knows measures and policies by name; nothing of how they came about.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from rich import box
from rich.table import Table as TerminalTable

from model.atomic import write_text
from training.html import Page, Prose, Section, Table, draw, write_page
from training.loop_policies import ALONE, SERVED
from training.world.measures import MEASURES, NEW_ITEMS, Measured

SHOWN = (
    "orders", "stirred_orders", "to_come", "card_orders", "good_watches", "return", "discovered",
    "reached", "gini", "entropy", "tail", "new",
)  # fmt: skip
"""Measures of the terminal table."""
PLOTTED = ("stirred_orders", "return", "discovered", "good_watches", "gini", "entropy", "new")
"""Measures that are drawn by the day."""


def loop_table(found: Mapping[str, Measured]) -> TerminalTable:
    """One row a measure, one column a policy: over all days of the loop."""
    table = TerminalTable(box=box.SIMPLE, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for name in found:
        table.add_column(name.replace("+", "\n+"), justify="right", no_wrap=True)
    for measure in (*SHOWN, *NEW_ITEMS):
        table.add_row(measure, *(_shown(one.total[measure]) for one in found.values()))
    for measure, values in regret(found).items():
        table.add_row(f"regret, {measure}", *(_shown(value) for value in values.values()))
    return table


def regret(found: Mapping[str, Measured]) -> dict[str, dict[str, float]]:
    """Measure → policy → how far it is below the oracle, as a share: 0 as good, 1 nothing.

    Of orders that slots caused, due already or not, and of good watches, for an impression, and
    of interests that awoke. Empty where no oracle ran; a measure of which the oracle has nothing is
    left out.
    """
    if "oracle" not in found:
        return {}
    told: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        total = {measure: value or 0.0 for measure, value in one.total.items()}
        slots = max(total["impressions"], 1.0)
        caused = (total["stirred_orders"] + total["to_come"] + total["card_orders"]) / slots
        for measure, value in (
            ("caused orders", caused),
            ("good watches", total["good_watches"]),
            ("discovered", total["discovered"]),
        ):
            told.setdefault(measure, {})[name] = value
    return {
        measure: {name: 1.0 - value / values["oracle"] for name, value in values.items()}
        for measure, values in told.items()
        if values["oracle"] > 0
    }


def write_report(found: Mapping[str, Measured], out: Path, *, title: str) -> None:
    """report.json and report.html in the folder `out`, replacing those that are there."""
    body = {name: asdict(one) for name, one in found.items()}
    write_text(out / "report.json", json.dumps(body, indent=1) + "\n")
    write_page(loop_page(found, title=title), out / "report.html")


def loop_page(found: Mapping[str, Measured], *, title: str) -> Page:
    """The whole loop as one page."""
    meanings = {**MEASURES, **NEW_ITEMS}
    measures = [name for name in meanings if all(name in one.total for one in found.values())]
    rows = [
        [name, *(_shown(one.total[name]) for one in found.values()), meanings[name]]
        for name in measures
    ]
    rows += [
        [f"regret, {measure}", *map(_shown, values.values()), "below the oracle, as a share"]
        for measure, values in regret(found).items()
    ]
    asked = {**ALONE, **{name: policy.summary for name, policy in SERVED.items()}}
    notes = [f"{name}: {note}" for name, one in found.items() for note in one.notes]
    num_days = len(next(iter(found.values())).by_day["orders"])
    return Page(
        title=title,
        lead=f"The same people on the same {num_days} days, once under each policy. Small worlds "
        "are noisy: compare several seeds before you believe a difference.",
        sections=[
            Section("Over all days", [Table(["measure", *found, "meaning"], rows)]),
            Section(
                "Day by day",
                [
                    draw(
                        partial(curves, found=found, measure=measure),
                        caption=f"{measure}: {MEASURES[measure]}",
                        height=2.2,
                    )
                    for measure in PLOTTED
                ],
            ),
            Section(
                "Policies",
                [Table(["policy", "shows"], [[name, asked[name]] for name in found])],
            ),
            *([Section("Notes", [Prose("\n".join(notes))])] if notes else []),
        ],
    )


def curves(axes: Axes, *, found: Mapping[str, Measured], measure: str) -> None:
    """One line a policy over the days of the loop."""
    for name, one in found.items():
        values = one.by_day[measure]
        axes.plot(range(1, len(values) + 1), values, label=name)
    axes.set_xlabel("day of the loop")
    axes.set_ylim(bottom=0 if measure not in ("return", "entropy") else None)


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3f}"
