"""Logs made by hand, and a small shop of hand-written events on disk."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from model.schema import Event, Feature, Schema, write_schema
from training.attribution.log import DAY, Episodes, Log, Orders, Relations

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
SCHEMA = Schema(
    name="shop",
    time="exact",
    item_features={"creator": Feature(type="category"), "craft": Feature(type="category")},
    events={
        "exposure": Event(role="exposure", weight=0.0),
        "watch": Event(role="engagement", weight=1.0, unit="seconds"),
        "click": Event(role="engagement", weight=1.0),
        "like": Event(role="engagement", weight=2.0),
        "order": Event(role="conversion", weight=10.0, unit="CNY"),
        "bored": Event(role="negative"),
    },
)


def shop(
    out: Path,
    events: Sequence[tuple[str, str, str, float, dict[str, object]]],
    *,
    items: Sequence[tuple[str, str, str | None, str | None]],
    links: Sequence[tuple[str, str, str]] = (),
    schema: Schema = SCHEMA,
) -> Path:
    """Write a dataset. events: user, item, event, days after BEGIN, other columns. items: id,
    kind, creator, craft. links: from, to, relation."""
    (out / "events").mkdir(parents=True)
    write_schema(schema, out)
    names = ("item_id", "kind", "creator", "craft")
    columns = dict(zip(names, zip(*items, strict=True), strict=True))
    pl.DataFrame(
        {**columns, "title": columns["item_id"]}, schema_overrides=dict.fromkeys(names, pl.String)
    ).write_parquet(out / "items.parquet")
    if links:
        pl.DataFrame(
            [(*link, None, None) for link in links],
            schema={
                **dict.fromkeys(("from_item", "to_item", "relation"), pl.String),
                **dict.fromkeys(("start", "end"), TIME),
            },
            orient="row",
        ).write_parquet(out / "links.parquet")
    more = {"value": pl.Float64, "exposure_id": pl.String, "source_item_id": pl.String}
    rows = [
        {
            "event_id": f"e{number}",
            "user_id": user,
            "item_id": item,
            "event": event,
            "timestamp": BEGIN + timedelta(days=day),
            **{name: other.get(name) for name in more},
        }
        for number, (user, item, event, day, other) in enumerate(events)
    ]
    pl.DataFrame(
        rows, schema_overrides={"timestamp": TIME, **more}, infer_schema_length=None
    ).write_parquet(out / "events" / "part-0.parquet")
    return out


def log_of(
    *,
    orders: Sequence[tuple[int, int, float]],
    episodes: Sequence[tuple[int, int, float, int]],
    circles: Sequence[int],
    kinds: Sequence[str],
    shows: Sequence[tuple[int, int]] = (),
    num_users: int,
    end: float,
) -> Log:
    """A log without files, from day 0 to `end`.

    orders: user, item, day. episodes: user, item, day, depth. circles, kinds: of each item.
    """
    bought = sorted(orders, key=lambda o: (o[0], o[2]))
    met = sorted(episodes, key=lambda e: (e[0], e[2]))
    num = len(circles)
    codes = np.array(sorted(a * num + b for a, b in shows), np.int64)
    return Log(
        schema=SCHEMA,
        items=pl.DataFrame(
            {
                "item_id": [f"i{row}" for row in range(num)],
                "kind": kinds,
                "title": [f"item {row}" for row in range(num)],
            }
        ),
        users=pl.Series([f"u{row}" for row in range(num_users)]),
        orders=Orders(
            ids=pl.Series([f"o{row}" for row in range(len(bought))]),
            user=np.array([o[0] for o in bought], np.int64),
            item=np.array([o[1] for o in bought], np.int64),
            time=np.array([round(o[2] * DAY) for o in bought], np.int64),
            value=np.full(len(bought), 10.0),
            direct=np.full(len(bought), -1, np.int64),
        ),
        episodes=Episodes(
            user=np.array([e[0] for e in met], np.int64),
            item=np.array([e[1] for e in met], np.int64),
            time=np.array([round(e[2] * DAY) for e in met], np.int64),
            depth=np.array([e[3] for e in met], np.int8),
            visited=np.full(len(met), -1, np.int64),
            own=np.zeros(len(met), bool),
        ),
        relations=Relations(
            creator=np.full(num, -1, np.int64),
            circle=np.array(circles, np.int64),
            num_circles=max(circles) + 1,
            shows=codes,
            num_shown=np.bincount(codes // num, minlength=num),
        ),
        began=np.zeros(num_users, np.int64),
        end=round(end * DAY),
    )
