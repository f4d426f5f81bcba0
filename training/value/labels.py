"""What an exposure led to: the label of every head, and whether it can be told yet.

A head without a window came true where an event of its name has the exposure's `exposure_id`,
which is one user's own. With `window_days`, or where an exposure has no id, it came true where the
same user did it to the same item from the exposure on, until the window was over; or to an item
that the shown one links to, or to any, as the head's `of` says, and not before `after_days`.

A window that is not over is unknown, and not a negative: an order that has not happened yet would
teach that what was shown last sells least (Chapelle, KDD 2014, calls it delayed feedback).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import ConfigError
from model.schema import Head, Schema

Bool = npt.NDArray[np.bool_]

SESSION_DAYS = 0.5 / 24
"""The window of a head that declares none, at an exposure without id: half an hour."""
_DAY = 86_400_000_000


def label(
    shown: pl.DataFrame,
    events: pl.DataFrame,
    heads: Sequence[Head],
    schema: Schema,
    *,
    links: pl.DataFrame,
    horizon: int,
) -> tuple[Bool, Bool]:
    """Labels [N, T] of the N exposures `shown`, and which of them are known, [N, T].

    shown, events: rows with user_id, item_id, exposure_id, time (UTC µs); events also with event
    and value, shown with shared: whether its user has other exposures of that id. links: from_item,
    to_item. horizon: UTC µs; a window that ends later is not over, and its label not known.

    Raises ConfigError where a head needs times, or links, and the dataset has none.
    """
    shape = (shown.height, len(heads))
    labels, known = np.zeros(shape, bool), np.ones(shape, bool)
    has_id = shown["exposure_id"].is_not_null().to_numpy()
    shown = shown.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    for place, head in enumerate(heads):
        done = events.filter(pl.col("event") == head.event)
        if head.threshold is not None:
            done = done.filter(pl.col("value") >= head.threshold)
        by_id = has_id & (head.window_days is None)
        if by_id.any():
            labels[by_id, place] = _of_the_same_showing(shown.filter(pl.Series(by_id)), done)
        if not by_id.all():
            if not schema.has_times:
                raise ConfigError(_needs_times(head, schema, shown))
            window = round((head.window_days or SESSION_DAYS) * _DAY)
            after = round((head.after_days or 0.0) * _DAY)
            rest = shown.filter(pl.Series(~by_id))
            known[~by_id, place] = (rest["time"] + window < horizon).to_numpy()
            by = ["user_id"] if head.of == "any" else ["user_id", "item_id"]
            if head.of == "linked":
                done = _by_what_links_to_it(head, done, links)
            labels[~by_id, place] = _within(rest, done, by, after, window) & known[~by_id, place]
    return labels, known


def _of_the_same_showing(shown: pl.DataFrame, done: pl.DataFrame) -> Bool:
    """[N] whether the user did any of `done` with the exposure's id; where a slate shares it, to
    the item, too."""
    alone = _has(shown, done, ["user_id", "exposure_id"])
    if not shown["shared"].any():
        return alone
    both = _has(shown, done, ["user_id", "exposure_id", "item_id"])
    return np.where(shown["shared"].to_numpy(), both, alone)


def _has(shown: pl.DataFrame, done: pl.DataFrame, columns: list[str]) -> Bool:
    """[N] whether some row of `done` has the same values in these columns; null equals nothing."""
    found = done.select(columns).unique().with_columns(hit=True)
    joined = shown.join(found, on=columns, how="left", maintain_order="left")
    return joined["hit"].fill_null(False).to_numpy()


def _by_what_links_to_it(head: Head, done: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """`done` with the items that link to each one in its place."""
    if links.is_empty():
        raise ConfigError(
            f"head {head.name!r} has of = 'linked', and the dataset has no links. Write them to "
            "links.parquet, or leave the head out of dataset.toml (docs/dataset.md)."
        )
    pairs = links.select("from_item", "to_item").unique()
    found = done.join(pairs, left_on="item_id", right_on="to_item", how="inner")
    return found.with_columns(item_id=pl.col("from_item"))


def _within(
    shown: pl.DataFrame, done: pl.DataFrame, by: list[str], after: int, window: int
) -> Bool:
    """[N] whether the same `by` did it from `after` to `window` µs after the exposure."""
    first = done.select(*by, "time", at="time").drop_nulls("time").sort("time")
    dated = shown.drop_nulls("time").select(*by, pl.col("time") + after, "row").sort("time")
    joined = dated.join_asof(
        first,
        on="time",
        by=by,
        strategy="forward",
        tolerance=window - after,
        check_sortedness=False,  # both are sorted above; with `by` it cannot be checked
    )
    hits = joined.filter(pl.col("at").is_not_null())["row"]
    return shown["row"].is_in(hits.implode()).to_numpy()


def _needs_times(head: Head, schema: Schema, shown: pl.DataFrame) -> str:
    why = (
        f"window_days = {head.window_days:g}"
        if head.window_days is not None
        else f"no exposure_id at {shown['exposure_id'].null_count():,} exposures"
    )
    return (
        f"head {head.name!r} has {why}, and the dataset has time = {schema.time!r}: what came of "
        "an exposure cannot be told. Write the column `exposure_id` of exposures and of what they "
        "led to, and leave out window_days (docs/dataset.md)."
    )
