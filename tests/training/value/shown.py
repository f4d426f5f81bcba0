"""Datasets with exposures: event by event, and one to learn a value model from."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from model.schema import Event, Feature, Head, Schema, TimeKind, write_schema
from training.validate import validate_dataset

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS = {
    "show": Event(role="exposure"),
    "click": Event(role="engagement"),
    "watch": Event(role="engagement", unit="seconds"),
    "order": Event(role="conversion", weight=5.0),
    "hide": Event(role="negative"),
}
COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "item_id": pl.String,
    "event": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "sequence": pl.Int64,
    "value": pl.Float64,
    "exposure_id": pl.String,
    "split": pl.String,
}


def at(days: float) -> datetime:
    """So many days after the log begins."""
    return BEGIN + timedelta(days=days)


def act(
    user: str,
    item: str,
    event: str,
    days: float | None,
    *,
    exposure: str | None = None,
    value: float | None = None,
    sequence: int = 0,
    split: str | None = None,
) -> tuple[object, ...]:
    """One event, in the order of COLUMNS."""
    when = None if days is None else at(days)
    return (user, item, event, when, sequence, value, exposure, split)


def write_shown(
    folder: Path,
    events: Sequence[tuple[object, ...]],
    *,
    heads: Sequence[Head] = (),
    time: TimeKind = "exact",
    declared: dict[str, Event] = EVENTS,
    groups: dict[str, str] | None = None,
) -> Path:
    """Write a dataset of these events; groups: item id → its category `group`."""
    (folder / "events").mkdir(parents=True)
    write_schema(
        Schema(
            name="shown",
            time=time,
            item_features={"group": Feature(type="category"), "title": Feature(type="text")},
            user_features={"city": Feature(type="category")},
            events=declared,
            heads=list(heads),
        ),
        folder,
    )
    frame = pl.DataFrame(list(events), schema=COLUMNS, orient="row")
    frame = frame.with_columns(event_id=pl.format("e{}", pl.int_range(pl.len())))
    if frame["split"].is_null().all():
        frame = frame.drop("split")
    frame.write_parquet(folder / "events/part-00000.parquet")
    items = sorted({*(groups or {}), *frame["item_id"]})
    pl.DataFrame(
        {
            "item_id": items,
            "kind": "video",
            "title": [f"film {name}" for name in items],
            "group": [(groups or {}).get(name) for name in items],
        },
        schema_overrides={"group": pl.String},
    ).write_parquet(folder / "items.parquet")
    users = sorted(set(frame["user_id"]))
    cities = [("north", "south")[i % 2] for i in range(len(users))]
    pl.DataFrame({"user_id": users, "city": cities}).write_parquet(folder / "users.parquet")
    validate_dataset(folder)
    return folder


NUM_GROUPS = 4


def write_taste(folder: Path, *, num_users: int = 120, num_days: int = 12, seed: int = 0) -> Path:
    """Users who click what is of their group, four times in five, and else one time in ten; they
    watch half of what they click for 40 seconds, the rest for 5."""
    rng = np.random.default_rng(seed)
    items = [f"i{i:02d}" for i in range(40)]
    groups = {name: f"g{i % NUM_GROUPS}" for i, name in enumerate(items)}
    events = []
    for u in range(num_users):
        user, number = f"u{u:03d}", 0
        for day in range(num_days):
            for slot, i in enumerate(rng.choice(len(items), 5, replace=False)):
                days, exposure = day + 0.3 + slot / 1000 + u / 1e6, f"x-{u}-{day}-{slot}"
                likes = i % NUM_GROUPS == u % NUM_GROUPS
                events.append(act(user, items[i], "show", days, exposure=exposure, sequence=number))
                if rng.random() < (0.8 if likes else 0.1):
                    later = days + 1 / 86_400
                    seconds = 40.0 if rng.random() < 0.5 else 5.0
                    number += 2
                    events += [
                        act(user, items[i], "click", later, exposure=exposure, sequence=number - 1),
                        act(
                            user,
                            items[i],
                            "watch",
                            later,
                            exposure=exposure,
                            value=seconds,
                            sequence=number,
                        ),
                    ]
                number += 1
    heads = [
        Head(name="click", event="click"),
        Head(name="long_watch", event="watch", threshold=30.0),
    ]
    return write_shown(folder, events, heads=heads, groups=groups)
