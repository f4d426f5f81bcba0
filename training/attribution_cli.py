"""`penchant attribute`: which content stirred the orders, beside what led straight to them.

Only arguments, progress and printing; what is credited and how is in training/attribution/.
"""

from pathlib import Path
from typing import Annotated

import typer

from training.attribution.config import AttributionConfig, Model
from training.terminal import progress_bar, say

_DEFAULT = AttributionConfig()


def attribute(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder (docs/dataset.md).")],
    out: Annotated[Path, typer.Option(help="The table to write, one row an item, as Parquet.")],
    days: Annotated[
        float, typer.Option(help="How many days before an order a touch may lie.")
    ] = _DEFAULT.days,
    model: Annotated[
        Model,
        typer.Option(
            help="removal: what the order's rate would lose without the touch, with a share for "
            "orders that would have come anyway; the others are rules, which credit every order "
            "that anything touched."
        ),
    ] = _DEFAULT.model,
    circle: Annotated[
        str,
        typer.Option(
            help="What makes a circle of items: a category feature of the dataset, or taste (who "
            "engages with what)."
        ),
    ] = _DEFAULT.circle,
    creator: Annotated[
        str,
        typer.Option(help="The category feature that names the creator; `by` links say it too."),
    ] = _DEFAULT.creator,
    credits: Annotated[
        Path | None,
        typer.Option(help="Write each order's credits, touch by touch, to this Parquet too."),
    ] = None,
    top: Annotated[int, typer.Option(help="How many items to print.")] = 15,
) -> None:
    """Credit orders to the content that stirred them; say how many would have come anyway.

    A touch is an earlier meeting of the same user with the product, with content that shows it, or
    with something of its creator or circle. docs/attribution.md says what the figures mean.

    Example: penchant attribute demo-data/world --out stirred.parquet --days 7
    """
    from training.attribution.attribute import attribute_dataset, credit_table, item_table
    from training.attribution.report import sentences, top_table

    config = AttributionConfig(model=model, days=days, circle=circle, creator=creator)
    for path in (out, credits):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)  # now rather than after the work
    with progress_bar("attribute") as progress:
        found = attribute_dataset(dataset, config, progress=progress)
    table = item_table(found)
    table.write_parquet(out)
    if credits is not None:
        credit_table(found).write_parquet(credits)
    if top > 0:
        say(top_table(table, top))
    for line in sentences(found):
        say(line)
    say(f"Table: {out}" + (f"   credits: {credits}" if credits is not None else ""))
