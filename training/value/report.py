"""What people see of a value model: one table of heads, beside the order of retrieval."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from training.value.evaluate import RETRIEVAL, VALUE
from training.value.metrics import METRICS


def heads_table(heads: Mapping[str, Mapping[str, Any]], *, title: str) -> Table:
    """heads: HeadRankings.to_json or with_intervals of each. Fits 80 columns."""
    table = Table(title=title, title_justify="left")
    table.add_column("head")
    table.add_column("positives", justify="right", min_width=len("positives"))
    table.add_column("order", no_wrap=True)
    for metric in METRICS:
        table.add_column(metric.replace("_", "\n").upper(), justify="right")
    for name, head in heads.items():
        counts = f"{head['num_positives']:,} of {head['num_exposures']:,}"
        for order in (VALUE, RETRIEVAL):
            first = order == VALUE
            cells = [_figure(head[order][metric]) for metric in METRICS]
            beside = counts if first else _calibration(head)
            table.add_row(name if first else "", beside, order, *cells)
        if "value_above" in head:
            cells = [_difference(head["value_above"][RETRIEVAL][metric]) for metric in METRICS]
            table.add_row("", "", "difference", *cells, end_section=True)
    return table


def _calibration(head: Mapping[str, Any]) -> str:
    """The expected calibration error of the value model."""
    found = head["reliability"]
    return "" if found is None else f"ECE {found['error']:.4f}"


def _figure(found: Any) -> str:
    value = found["value"] if isinstance(found, Mapping) else found
    return "–" if value is None else f"{value:.4f}"


def _difference(found: Mapping[str, float | None]) -> str:
    """The difference and its 95 % interval."""
    value, low, high = found["value"], found["low"], found["high"]
    if value is None or low is None or high is None:
        return "–"
    return f"{value:+.3f}\n{low:+.3f}…\n{high:+.3f}"
