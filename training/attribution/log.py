"""A dataset as attribution reads it: orders, episodes, and how items belong together.

An *episode* is one meeting of a user with an item: its exposure, the watch, the like, the visit to
the page of a product that it shows. Events of one exposure_id are one episode; others are joined
where the same user's events on the same item lie less than half an hour apart. Knows nothing of
who deserves credit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import ConfigError, DatasetError
from model.schema import Schema
from training.attribution.config import TASTE, AttributionConfig
from training.dataset import Interactions
from training.taste_circles import taste_circles

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

DAY = 86_400_000_000
"""Microseconds."""
_PAUSE = 1_800_000_000
DEPTHS = ("seen", "opened", "enjoyed", "loved")
"""How deep an episode went: only shown; engaged with; engaged with for long (the upper half of what
users give to this item, by value, or several acts); given more than a watch or click weighs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """O conversions, by user and time."""

    ids: pl.Series
    """[O] event ids."""
    user: Int64
    item: Int64
    """[O] item rows."""
    time: Int64
    """[O] UTC µs."""
    value: Float64
    """[O] what was paid; 0 where the log does not say."""
    direct: Int64
    """[O] the item from which the shopper came straight to the order (docs/attribution.md), -1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """J meetings of a user with an item, by user and time."""

    user: Int64
    item: Int64
    time: Int64
    """[J] UTC µs of the last event."""
    depth: Int8
    """[J] position in DEPTHS."""
    visited: Int64
    """[J] the product whose page was opened from the item, the last one; -1: none."""
    own: Bool
    """[J] True where the log says that nothing led there: no exposure, no source. Such a visit to
    a product's page may belong to the order, and is no cause of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """How V items belong together."""

    creator: Int64
    """[V] a number a creator (their own item has it too), -1: unknown."""
    circle: Int64
    """[V] -1: none."""
    num_circles: int
    shows: Int64
    """[S] sorted codes, item · V + the product that it shows."""
    num_shown: Int64
    """[V] how many products the item shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What attribution reads of a dataset."""

    schema: Schema
    items: pl.DataFrame
    """item_id, kind and title by item row."""
    users: pl.Series
    """The id of each user number."""
    orders: Orders
    episodes: Episodes
    relations: Relations
    began: Int64
    """[U] each user's first event, UTC µs."""
    end: int
    """The last event of the log, UTC µs."""


def read_log(
    dataset: Path,
    config: AttributionConfig,
    *,
    interactions: Interactions,
    until: int | None = None,
) -> Log:
    """Read a dataset. until: only events before this time, UTC µs.

    interactions: what circles of taste are made of, so of the same events.

    Raises DatasetError where it has no times or no conversions, ConfigError where a feature that
    `config` names is no category feature of its items.
    """
    schema = interactions.schema
    if not schema.has_times:
        raise DatasetError(
            f'time = "{schema.time}", and attribution needs to know how long before an order a '
            "touch was.",
            file="dataset.toml",
            column="time",
            remedy='Import the events with their times (time = "exact" or "day").',
        )
    conversions = [name for name, event in schema.events.items() if event.role == "conversion"]
    if not conversions:
        raise DatasetError(
            "no event has the role conversion, so there is nothing to give credit for.",
            file="dataset.toml",
            column="events",
            remedy='Give the event that is an order role = "conversion".',
        )
    _check_features(schema, config)
    columns = ["item_id", "kind", "title"]
    columns += [name for name in (config.creator, config.circle) if name in schema.item_features]
    items = pl.read_parquet(dataset / "items.parquet", columns=columns, glob=False)
    rows = items.select("item_id").with_row_index("item").cast({"item": pl.Int64})
    events = _read_events(dataset, schema, rows)
    if until is not None:
        events = events.filter(pl.col("time") < until)
    if not events["event"].is_in(conversions).any():
        raise DatasetError(
            f"there is no event named {' or '.join(map(repr, conversions))}, so there is nothing "
            "to give credit for.",
            file="events/",
            column="event",
            remedy="Import the orders too.",
        )
    users = events["user_id"].unique(maintain_order=True)
    numbers = pl.DataFrame({"user_id": users}).with_row_index("user").cast({"user": pl.Int64})
    events = events.join(numbers, on="user_id", how="left", maintain_order="left").drop("user_id")
    circle = (
        taste_circles(interactions, seed=config.seed)
        if config.circle == TASTE
        else _codes(items[config.circle])
    )
    orders = _orders(events.filter(pl.col("event").is_in(conversions)), events)
    return Log(
        schema=schema,
        items=items.select("item_id", "kind", "title"),
        users=users,
        orders=orders,
        episodes=_episodes(events.filter(~pl.col("event").is_in(conversions)), schema),
        relations=_relations(dataset, items, rows, circle, config),
        began=events.group_by("user").agg(pl.col("time").min()).sort("user")["time"].to_numpy(),
        end=int(events["time"].to_numpy().max()),
    )


def _check_features(schema: Schema, config: AttributionConfig) -> None:
    found = [name for name, f in schema.item_features.items() if f.type == "category"]
    for field, name in (("circle", config.circle), ("creator", config.creator)):
        if name in found or name == TASTE or (field == "creator" and name == "creator"):
            continue
        allowed = ", ".join([TASTE, *found] if field == "circle" else found)
        raise ConfigError(
            f"{field} = {name!r} is not allowed; allowed: a category feature of the dataset's "
            f"items ({allowed or 'it has none'})."
        )


def _read_events(dataset: Path, schema: Schema, rows: pl.DataFrame) -> pl.DataFrame:
    """Events that are no negatives, by user and time: event_id, user_id, event, value, time,
    item, source (item rows, null: none), exposure_id."""
    parts = sorted((dataset / "events").glob("part-*.parquet"))
    scan = pl.scan_parquet(parts, glob=False, missing_columns="insert")
    present = scan.collect_schema().names()
    kept = [name for name, event in schema.events.items() if event.role != "negative"]
    maybe = {"value": pl.Float64, "exposure_id": pl.String, "source_item_id": pl.String}
    columns = [
        pl.col(name) if name in present else pl.lit(None, kind).alias(name)
        for name, kind in maybe.items()
    ]
    order = ["sequence"] if "sequence" in present else []
    events = (
        scan.filter(pl.col("event").is_in(kept) & pl.col("timestamp").is_not_null())
        .select(
            "event_id",
            "user_id",
            "item_id",
            "event",
            pl.col("timestamp").dt.timestamp("us").alias("time"),
            *columns,
            *order,
        )
        .join(rows.lazy(), on="item_id", how="inner", maintain_order="left")
        .join(
            rows.lazy().rename({"item_id": "source_item_id", "item": "source"}),
            on="source_item_id",
            how="left",
            maintain_order="left",
        )
        .drop("item_id", "source_item_id")
        .collect()
    )
    return events.sort("user_id", "time", *order, maintain_order=True).drop(order)


def _orders(orders: pl.DataFrame, events: pl.DataFrame) -> Orders:
    """The conversions, each with the item that led straight to it: the source of the user's last
    visit to the product's page in the hour before, or the product's own card."""
    hour = DAY // 24
    visits = events.filter(pl.col("source").is_not_null() | pl.col("exposure_id").is_not_null())
    visits = visits.filter(pl.col("event") != orders["event"][0]).select(
        "user",
        "item",
        visited="time",
        by=pl.coalesce("source", "item"),
    )
    led = orders.select("user", "item", "time").with_row_index("order")
    joined = led.join(visits, on=["user", "item"], how="inner", maintain_order="left_right")
    joined = joined.filter(
        (pl.col("visited") < pl.col("time")) & (pl.col("visited") >= pl.col("time") - hour)
    )
    last = joined.group_by("order").agg(pl.col("by").sort_by("visited").last())
    direct = np.full(orders.height, -1, np.int64)
    direct[last["order"].to_numpy()] = last["by"].to_numpy()
    return Orders(
        ids=orders["event_id"],
        user=orders["user"].to_numpy(),
        item=orders["item"].to_numpy(),
        time=orders["time"].to_numpy(),
        value=orders["value"].fill_null(0.0).to_numpy(),
        direct=direct,
    )


def _episodes(events: pl.DataFrame, schema: Schema) -> Episodes:
    """Join events to episodes. The item of an event that has a source is the source: it is where
    the user came from; the event's own item is then what was visited."""
    led = pl.col("source").is_not_null()
    weights = {name: event.weight for name, event in schema.events.items()}
    shown = [name for name, event in schema.events.items() if event.role == "exposure"]
    light = min((e.weight for e in schema.events.values() if e.role == "engagement"), default=0.0)
    # What an item's users usually give to it: the middle of its values, by event.
    usual = pl.col("value").median().over("item", "event")
    marked = events.with_columns(
        visited=pl.when(led).then(pl.col("item")),
        met=pl.when(led).then(pl.col("source")).otherwise(pl.col("item")),
        exposed=pl.col("event").is_in(shown),
        long=(pl.col("value") >= usual).fill_null(False),
        heavy=pl.col("event").replace_strict(weights, return_dtype=pl.Float64) > light,
    ).sort("user", "met", "time", maintain_order=True)
    new = (
        (pl.col("user") != pl.col("user").shift(1))
        | (pl.col("met") != pl.col("met").shift(1))
        | (pl.col("time") - pl.col("time").shift(1) > _PAUSE)
    ).fill_null(True)
    marked = marked.with_columns(run=new.cum_sum())
    # Events of one exposure belong together; so do those around it that name none.
    key = pl.coalesce(pl.col("exposure_id"), pl.format("{}", pl.col("run")))
    engaged = ~pl.col("exposed")
    grouped = (
        marked.group_by(key.alias("episode"), "user", "met", maintain_order=True)
        .agg(
            pl.col("time").max(),
            pl.col("visited").drop_nulls().last(),
            depth=pl.when((pl.col("heavy") & engaged).any())
            .then(3)
            .when((pl.col("long") & engaged).any())
            .then(2)
            .when(engaged.any())
            .then(1)
            .otherwise(0),
            own=(pl.col("exposure_id").is_null() & pl.col("source").is_null() & engaged).all(),
        )
        .sort("user", "time", maintain_order=True)
    )
    return Episodes(
        user=grouped["user"].to_numpy(),
        item=grouped["met"].to_numpy(),
        time=grouped["time"].to_numpy(),
        depth=grouped["depth"].cast(pl.Int8).to_numpy(),
        visited=grouped["visited"].fill_null(-1).to_numpy(),
        own=grouped["own"].to_numpy(),
    )


def _relations(
    dataset: Path,
    items: pl.DataFrame,
    rows: pl.DataFrame,
    circle: Int64,
    config: AttributionConfig,
) -> Relations:
    path, num = dataset / "links.parquet", items.height
    creators = (
        items[config.creator] if config.creator in items.columns else pl.Series([None] * num)
    ).cast(pl.String)
    links = pl.DataFrame(schema={"from": pl.Int64, "to": pl.Int64, "relation": pl.String})
    if path.exists():
        links = (
            pl.read_parquet(path, columns=["from_item", "to_item", "relation"], glob=False)
            .join(rows.rename({"item_id": "from_item", "item": "from"}), on="from_item")
            .join(rows.rename({"item_id": "to_item", "item": "to"}), on="to_item")
            .select("from", "to", "relation")
        )
    by = links.filter(pl.col("relation") == "by").unique("from", keep="first")
    names = creators.to_list()
    ids = items["item_id"]
    for item, maker in zip(by["from"], by["to"], strict=True):
        names[item] = names[item] or ids[maker]
    # A creator's own item has the creator's number.
    is_maker = (items["kind"] == "creator").to_numpy()
    names = [ids[row] if is_maker[row] else name for row, name in enumerate(names)]
    shown = links.filter(pl.col("relation") != "by")
    shows = np.unique(shown["from"].to_numpy() * num + shown["to"].to_numpy())
    return Relations(
        creator=_codes(pl.Series(names, dtype=pl.String)),
        circle=circle,
        num_circles=int(circle.max(initial=-1)) + 1,
        shows=shows,
        num_shown=np.bincount(shows // num, minlength=num),
    )


def _codes(names: pl.Series) -> Int64:
    """A number for each distinct name, in order of appearance; -1 for null."""
    ranks = names.rank("dense").cast(pl.Int64) - 1
    codes: Int64 = ranks.fill_null(-1).to_numpy()
    return codes
