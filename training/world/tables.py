"""The files of a simulated dataset: what everybody may read, and the truth that nothing may learn.

Turns the world's arrays into Arrow tables and writes them. Knows the dataset's layout
(docs/dataset.md), not how the world works.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.schema import KINDS, Feature, Head, Schema, write_schema
from training.world.catalogue import Catalogue
from training.world.columns import event_table, numbered, take, times
from training.world.config import NEVER, WorldConfig
from training.world.crafts import adjacency, crafts
from training.world.life import Life, Wishes
from training.world.log import EVENTS, EventLog, Ints
from training.world.people import AGE_BANDS, CHANNELS, CITY_TIERS, People

_ROWS_PER_PART = 1_000_000
_README = """\
The hidden truth of a simulated world: what people really love, what items are really about, and
what really caused each order. It is here to judge what was learned. Nothing that learns may read
it: not training, not validation, not a feature. Files are keyed by the ids of the dataset beside.

world.json              the config; the same config gives the same files
interests.parquet       the true interests and their districts (the true circles)
adjacency.parquet       how near two interests are, 0.15 to 1; pairs that are not listed: 0
users.parquet           when each user joined, how ready they are to buy, their taste
user_interests.parquet  expressed (awake from the start) and latent; awakened_at null: still asleep
items.parquet           appeal (of the cover), quality, stirring power, reach, taste
item_interests.parquet  each item's true mixture of interests; weights add up to 1
orders.parquet          each order's cause: "stirred" by content_item_id, seen in
                        content_exposure_id and watched in content_event_id; "card": the card of
                        the product itself was clicked; "need": nothing that was shown
visits.parquet          for each user and day since they joined: the probability that they come,
                        their satisfaction that morning, the sessions that followed
"""


def schema(config: WorldConfig) -> Schema:
    """The dataset.toml of a simulated world."""
    category = Feature(type="category", filterable=True)
    return Schema(
        name=f"simulated-{config.seed}",
        time="exact",
        language="zh",
        item_features={
            "title": Feature(type="text"),
            "title_en": Feature(type="text"),
            "category": category,
            "craft": category,
            "culture": category,
            "creator": category,
            "price": Feature(type="number", filterable=True),
            "price_band": category,
            "tags": Feature(type="categories", filterable=True),
            "duration": Feature(type="number", filterable=True),
        },
        user_features={
            "age_band": Feature(type="category"),
            "city_tier": Feature(type="category"),
            "channel": Feature(type="category"),
        },
        events=EVENTS,
        heads=[
            Head(name="click", event="click"),
            Head(name="long_watch", event="watch", threshold=30.0),
            Head(name="like", event="like"),
            Head(name="follow", event="follow"),
            Head(name="cart", event="cart"),
            Head(name="order", event="order", window_days=7.0),
            Head(name="stirred_order", event="order", of="linked", window_days=7.0),
            Head(name="return", event="exposure", of="any", after_days=0.5, window_days=3.0),
        ],
    )


def write_dataset(
    config: WorldConfig,
    folder: Path,
    *,
    catalogue: Catalogue,
    people: People,
    log: EventLog,
    until: int | None = None,
) -> NDArray[np.int64]:
    """Write everything but the truth into an existing empty folder.

    until: as of when, UTC microseconds: items that come later are left out, and their links; the
    end of the period unless given. Events are sorted by time. Returns [num_rows]: the number in
    the event_id of each log row.
    """
    until = config.end if until is None else until
    write_schema(schema(config), folder)
    _write(item_table(catalogue, until=until), folder / "items.parquet")
    users = {
        "user_id": pa.array(people.ids, pa.string()),
        "age_band": take(AGE_BANDS, people.age),
        "city_tier": take(CITY_TIERS, people.city),
        "channel": take(CHANNELS, people.channel),
    }
    _write(pa.table(users), folder / "users.parquet")
    _write(link_table(catalogue, until=until), folder / "links.parquet")
    (folder / "events").mkdir()
    events, number = event_table(catalogue, people, log)
    for part, begin in enumerate(range(0, events.num_rows, _ROWS_PER_PART)):
        rows = events.slice(begin, _ROWS_PER_PART)
        _write(rows, folder / "events" / f"part-{part:05d}.parquet")
    return number


def write_truth(
    config: WorldConfig,
    folder: Path,
    *,
    catalogue: Catalogue,
    people: People,
    life: Life,
    orders: Wishes,
    order_number: Ints,
    watch_number: Ints,
) -> None:
    """Write the truth into an existing empty folder.

    order_number, watch_number: [n], the numbers in the event_ids of the orders and of the watches
    that stirred them (any number where nothing did).
    """
    (folder / "README").write_text(_README, encoding="utf-8")
    (folder / "world.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    all_crafts = crafts()
    keys = [craft.key for craft in all_crafts]
    interests = {
        "interest": pa.array(keys, pa.string()),
        "name": pa.array([craft.name[0] for craft in all_crafts], pa.string()),
        "name_en": pa.array([craft.name[1] for craft in all_crafts], pa.string()),
        "district": pa.array([craft.district for craft in all_crafts], pa.string()),
    }
    _write(pa.table(interests), folder / "interests.parquet")
    left, right = np.nonzero(adjacency())
    near = {
        "interest": take(keys, left),
        "neighbour": take(keys, right),
        "weight": pa.array(adjacency()[left, right]),
    }
    _write(pa.table(near), folder / "adjacency.parquet")

    users = {
        "user_id": pa.array(people.ids, pa.string()),
        "joined_at": times(people.joined),
        "spend": pa.array(people.spend),
        "taste": pa.array(list(people.taste), pa.list_(pa.float64())),
    }
    _write(pa.table(users), folder / "users.parquet")
    user, interest = np.nonzero(people.strength)
    awakened = np.where(people.expressed, NEVER, life.awakened_at)[user, interest]
    loves = {
        "user_id": take(people.ids, user),
        "interest": take(keys, interest),
        "state": take(("latent", "expressed"), people.expressed[user, interest].astype(np.int64)),
        "strength": pa.array(people.strength[user, interest]),
        "awakened_at": times(awakened),
    }
    _write(pa.table(loves), folder / "user_interests.parquet")

    items = {
        "item_id": pa.array(catalogue.ids, pa.string()),
        "appeal": pa.array(catalogue.appeal),
        "quality": pa.array(catalogue.quality),
        "stirring_power": pa.array(catalogue.power),
        "reach": pa.array(catalogue.reach),
        "taste": pa.array(list(catalogue.taste), pa.list_(pa.float64())),
    }
    _write(pa.table(items), folder / "items.parquet")
    two = np.flatnonzero(catalogue.share < 1)
    row = np.concatenate([np.arange(len(catalogue.ids)), two])
    mixture = {
        "item_id": take(catalogue.ids, row),
        "interest": take(keys, np.concatenate([catalogue.craft, catalogue.second[two]])),
        "weight": pa.array(np.concatenate([catalogue.share, 1.0 - catalogue.share[two]])),
    }
    _write(pa.table(mixture), folder / "item_interests.parquet")

    stirred = orders.content >= 0
    causes = {
        "event_id": numbered("e", order_number),
        "cause": take(("need", "stirred", "card"), np.where(stirred, 1, orders.at_once)),
        "interest": take(keys, orders.interest),
        "content_item_id": take(catalogue.ids, orders.content),
        "content_exposure_id": numbered("x", np.where(stirred, orders.exposure, -1)),
        "content_event_id": numbered("e", np.where(stirred, watch_number, -1)),
    }
    _write(pa.table(causes), folder / "orders.parquet")
    day = np.repeat(np.arange(len(life.visits)), [len(visit[0]) for visit in life.visits])
    who, chance, satisfaction, sessions = (
        np.concatenate([visit[column] for visit in life.visits]) for column in range(4)
    )
    visits = {
        "user_id": take(people.ids, who),
        "day": pa.array(day.astype(np.int32)),
        "return_probability": pa.array(chance),
        "satisfaction": pa.array(satisfaction),
        "sessions": pa.array(sessions.astype(np.int32)),
    }
    _write(pa.table(visits), folder / "visits.parquet")


def item_table(catalogue: Catalogue, *, until: int, since: int | None = None) -> pa.Table:
    """The rows of items.parquet as of `until` (UTC microseconds): items that were there by then,
    rooms once they are on air; with `since`, only those that came after it."""
    all_crafts, timed = crafts(), catalogue.duration > 0
    live = catalogue.air != catalogue.created
    keys = [craft.key for craft in all_crafts]
    departments = [craft.department for craft in all_crafts]
    expires = np.where(live, catalogue.gone, NEVER)
    columns = {
        "item_id": pa.array(catalogue.ids, pa.string()),
        "kind": take(KINDS, catalogue.kind.astype(np.int64)),
        "title": pa.array([title[0] for title in catalogue.titles], pa.string()),
        "created_at": times(catalogue.created),
        "expires_at": times(expires),
        "available": pa.array(live | (catalogue.gone >= until)),
        "title_en": pa.array([title[1] for title in catalogue.titles], pa.string()),
        "category": take(departments, catalogue.craft),
        "craft": take(keys, np.where(catalogue.labelled, catalogue.craft, -1)),
        "culture": pa.array(catalogue.cultures, pa.string()),
        "creator": take(catalogue.ids, catalogue.creator),
        "price": pa.array(catalogue.price, pa.float64(), mask=np.isnan(catalogue.price)),
        "price_band": pa.array(catalogue.price_bands(), pa.string()),
        "tags": pa.array(catalogue.tags, pa.list_(pa.string())),
        "duration": pa.array(catalogue.duration, pa.float64(), mask=~timed),
    }
    here = catalogue.air < until
    if since is not None:
        here &= catalogue.air >= since
    return pa.table(columns).filter(pa.array(here))


def link_table(catalogue: Catalogue, *, until: int, since: int | None = None) -> pa.Table:
    """The rows of links.parquet, of the items that `item_table` has for the same times."""
    links = catalogue.links
    owner = np.repeat(np.arange(len(catalogue.ids)), np.diff(links.first))
    made = np.flatnonzero(catalogue.creator >= 0)
    maker, none = catalogue.creator[made], np.full(len(made), NEVER)
    on_air = links.start > 0
    relation = np.concatenate([on_air.astype(np.int64), np.full(len(made), 2)])
    columns = {
        "from_item": take(catalogue.ids, np.concatenate([owner, made])),
        "to_item": take(catalogue.ids, np.concatenate([links.product, maker])),
        "relation": take(("shows", "on_air", "by"), relation),
        "start": times(np.concatenate([np.where(on_air, links.start, NEVER), none])),
        "end": times(np.concatenate([np.where(on_air, links.end, NEVER), none])),
    }
    owner, target = np.concatenate([owner, made]), np.concatenate([links.product, maker])
    here = (catalogue.air[owner] < until) & (catalogue.air[target] < until)
    if since is not None:
        here &= catalogue.air[owner] >= since
    return pa.table(columns).filter(pa.array(here))


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")
