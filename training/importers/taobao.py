"""Taobao's UserBehavior log becomes a dataset: views, carts, favourites and purchases with times.

Public release (tianchi.aliyun.com/dataset/649): `UserBehavior.csv`, 100 million lines of user,
item, category, behaviour (pv, cart, fav, buy) and Unix seconds, no header. It covers 2017-11-25 to
2017-12-03 in China; some lines have other times, negative ones among them. Those are dropped, for
no one can say when they were.

Held-out purchases: `interactions.tsv` with `test_buy.tsv`, see training/importers/behaviours.py.
Its views are those of pairs that were bought, and are called so: `view_of_bought`.
"""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl

from model.errors import ConfigError
from model.schema import Event, Feature, Schema
from training.importers.behaviours import (
    INTERACTIONS,
    TEST_BUY,
    BehaviourLog,
    Period,
    import_held_out,
    plain_items,
    write_acts,
)
from training.importers.delimited import DelimitedFile, unknown_layout
from training.importers.grouping import Distinct
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken

LOG = "UserBehavior.csv"
FIRST_DAY, LAST_DAY = date(2017, 11, 25), date(2017, 12, 3)
"""The days that the release says it covers, in China."""

_CHINA = timezone(timedelta(hours=8))
_ORIGIN = (
    f"{LOG} is in UserBehavior.csv.zip of https://tianchi.aliyun.com/dataset/649 (free, with an "
    "account): unpack it."
)
_BEHAVIOURS = {"pv": "view", "cart": "cart", "fav": "fav", "buy": "buy"}
# A purchase is the rarest act and the one that a shop lives by; edit dataset.toml to weigh anew.
_BUY = Event(role="conversion", weight=5.0)
_ENGAGED = Event(role="engagement")


def import_taobao(
    source: Path,
    out: Path,
    *,
    progress: Progress | None = None,
    first_day: date = FIRST_DAY,
    last_day: date = LAST_DAY,
) -> ImportReport:
    """Write Taobao's UserBehavior from the folder `source` as a dataset under `out`.

    first_day, last_day: lines outside these days (both included, in China) are dropped.

    Raises DatasetError if no layout is there, a line is malformed, or `out` is taken; ConfigError
    if last_day is before first_day. `out` appears whole or not at all.
    """
    tell = progress or (lambda fraction, message: None)
    period = _period(first_day, last_day)
    if (source / LOG).is_file():
        return _import_public(source / LOG, out, period=period, tell=tell)
    if (source / INTERACTIONS).is_file():
        return import_held_out(
            source,
            out,
            name="taobao-userbehavior",
            events={
                "view_of_bought": _ENGAGED,
                "cart": _ENGAGED,
                "fav": _ENGAGED,
                "buy": _BUY,
            },
            period=period,
            origin=f"{INTERACTIONS} and {TEST_BUY} belong together.",
            notes=(
                "view_of_bought has only the views of pairs that were bought: a biased sample, "
                "that says nothing of what people looked at and left.",
            ),
            progress=tell,
        )
    raise unknown_layout(
        source, expected=f"{LOG}, or {INTERACTIONS} with {TEST_BUY}.", origin=_ORIGIN
    )


def _import_public(path: Path, out: Path, *, period: Period, tell: Progress) -> ImportReport:
    refuse_taken(out)
    names = ["user", "item", "category", "behaviour", "unix_seconds"]
    log = BehaviourLog(
        DelimitedFile(path, names, header=False, origin=_ORIGIN),
        user="user",
        item="item",
        behaviour="behaviour",
        time="unix_seconds",
        unit="s",
        events=_BEHAVIOURS,
        period=period,
        also=["category"],
    )
    schema = Schema(
        name="taobao-userbehavior",
        time="exact",
        language="zh",
        item_features={"categories": Feature(type="categories", filterable=True)},
        events={
            "view": _ENGAGED,
            "cart": _ENGAGED,
            "fav": _ENGAGED,
            "buy": _BUY,
        },
    )
    pairs = Distinct("item_id", "category")
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.7 + 0.3 * part, f"checking {what}")
    ) as writer:
        num_events = write_acts(
            log, writer, out, items=pairs, progress=lambda part, what: tell(0.65 * part, what)
        )
        tell(0.65, "items")
        # An item that was moved to another category meanwhile has both.
        items = pairs.rows().filter(pl.col("category") != "")
        listed = items.group_by("item_id").agg(categories=pl.col("category").sort())
        ids = pairs.rows().select("item_id").unique()
        items = ids.join(listed, on="item_id", how="left").with_columns(
            pl.col("categories").fill_null([])
        )
        writer.write_items(plain_items(items))
    return ImportReport(
        out=out,
        layout="public release",
        read={path.name: log.num_read},
        written={
            "users": writer.summary.num_users,
            "items": writer.summary.num_items,
            "events": num_events,
        },
        dropped=log.dropped,
        summary=writer.summary,
    )


def _period(first_day: date, last_day: date) -> Period:
    if last_day < first_day:
        raise ConfigError(
            f"last_day is {last_day}, before first_day, {first_day}. Give the earlier day first."
        )
    start = datetime(first_day.year, first_day.month, first_day.day, tzinfo=_CHINA)
    end = datetime(last_day.year, last_day.month, last_day.day, tzinfo=_CHINA) + timedelta(days=1)
    return Period(
        start=start.astimezone(UTC),
        end=end.astimezone(UTC),
        label=f"{first_day} to {last_day} in China",
    )
