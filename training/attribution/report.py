"""An attribution for people: the items that stirred most, and how many orders nothing stirred."""

from collections.abc import Iterator

import polars as pl
from rich.table import Table
from rich.text import Text

from training.attribution.attribute import Attribution
from training.attribution.log import DEPTHS
from training.attribution.touches import RELATIONS

_TITLE_WIDTH = 24
_COLUMNS = {
    "direct_orders": "direct",
    "touched_orders": "touched",
    "stirred_orders": "stirred",
    "stirred_value": "value",
}


def top_table(table: pl.DataFrame, top: int) -> Table:
    """The first `top` rows of attribute.item_table."""
    shown = Table(title="Orders by the item that stirred them", title_justify="left")
    for name in ("item", "kind"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("title", no_wrap=True, overflow="ellipsis", max_width=_TITLE_WIDTH)
    for name in _COLUMNS.values():
        shown.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for row in table.head(top).iter_rows(named=True):
        shown.add_row(
            Text(row["item_id"]),
            row["kind"],
            Text(row["title"]),
            f"{row['direct_orders']:,}",
            f"{row['touched_orders']:,}",
            f"{row['stirred_orders']:,.1f}",
            f"{row['stirred_value']:,.0f}",
        )
    return shown


def sentences(found: Attribution) -> Iterator[str]:
    """What the whole comes to."""
    num = len(found.unattributed)
    touched = int((found.touches.starts[1:] > found.touches.starts[:-1]).sum())
    stirred = num - found.unattributed.sum()
    direct = int((found.log.orders.direct >= 0).sum())
    yield (
        f"{num:,} orders: {direct:,} came straight from an item, {touched:,} had a touch in the "
        f"{found.config.days:g} days before."
    )
    yield (
        f"Stirred: {stirred:,.0f} ({stirred / num:.1%}). Unattributed: "
        f"{found.unattributed.sum():,.0f} ({found.unattributed.mean():.1%})"
        + (", which would have come without any." if found.removal else ", which had no touch.")
    )
    if found.removal is None:
        return
    kinds = sorted(
        (
            (rate, f"{DEPTHS[depth]}, {RELATIONS[relation]}")
            for depth, rates in enumerate(found.removal.orders_per_touch)
            for relation, rate in enumerate(rates)
            if rate > 0
        ),
        reverse=True,
    )
    if kinds:
        listed = "; ".join(f"{name} {100 * rate:.2f}" for rate, name in kinds[:5])
        yield f"What a hundred touches add in orders: {listed}."
    else:
        yield "No kind of touch is followed by more orders than would have come anyway."
