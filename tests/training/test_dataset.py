"""Events become arrays: grouped by user, ordered by time and sequence, cached until they change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.schema import Event, Schema, TimeKind, write_schema
from training.dataset import (
    Interactions,
    load_event_ids,
    load_interactions,
    load_user_ids,
    read_users_table,
)

START = datetime(2026, 3, 2, tzinfo=UTC)
EVENTS = {
    "exposure": Event(role="exposure"),
    "watch": Event(role="engagement", weight=2.0),
    "order": Event(role="conversion", weight=5.0),
    "hide": Event(role="negative"),
}
Row = tuple[str, str, str, int, int]
"""user, item, event, second, sequence"""

PART_0: list[Row] = [
    ("zoe", "c", "watch", 50, 0),
    ("ann", "b", "watch", 20, 1),
    ("ann", "a", "watch", 20, 0),
    ("bob", "a", "exposure", 1, 0),
]
PART_1: list[Row] = [
    ("ann", "c", "order", 10, 9),
    ("zoe", "a", "hide", 60, 0),
    ("ann", "a", "exposure", 15, 0),
    ("zoe", "b", "order", 40, 0),
]


def write(folder: Path, *parts: list[Row], time: TimeKind = "exact", sequence: bool = True) -> Path:
    (folder / "events").mkdir(parents=True, exist_ok=True)
    write_schema(Schema(name="d", time=time, events=EVENTS), folder)
    items = pl.DataFrame({"item_id": ["c", "b", "a"], "kind": "video", "title": ""})
    items.write_parquet(folder / "items.parquet")
    for number, rows in enumerate(parts):
        columns: dict[str, Any] = {
            "event_id": [f"{number}/{i}" for i in range(len(rows))],
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "event": [row[2] for row in rows],
        }
        if time == "exact":
            moments = [START + timedelta(seconds=row[3]) for row in rows]
            columns["timestamp"] = pl.Series(moments, dtype=pl.Datetime("us", "UTC"))
        else:
            columns["timestamp"] = pl.Series([None] * len(rows), dtype=pl.Datetime("us", "UTC"))
        if sequence:
            columns["sequence"] = [row[4] for row in rows]
        pl.DataFrame(columns).write_parquet(folder / f"events/part-{number:05d}.parquet")
    return folder


def listed(data: Interactions, cache: Path) -> dict[str, list[tuple[int, int, float, str]]]:
    """User id → (item row, event code, weight, event id) of each event."""
    ids = load_event_ids(cache).to_pylist()
    return {
        user: [
            (int(data.items[e]), int(data.events[e]), float(data.weights[e]), ids[e])
            for e in range(data.starts[u], data.starts[u + 1])
        ]
        for u, user in enumerate(load_user_ids(cache))
    }


def test_events_are_grouped_and_ordered(tmp_path: Path) -> None:
    data = load_interactions(write(tmp_path / "d", PART_0, PART_1), tmp_path / "cache")
    # Items c, b, a are rows 0, 1, 2; watch and order have codes 1 and 2. Exposures and negatives
    # enter no history, so bob has none. Ann's two watches of one second go by their sequence.
    assert listed(data, tmp_path / "cache") == {
        "ann": [(0, 2, 5.0, "1/0"), (2, 1, 2.0, "0/2"), (1, 1, 2.0, "0/1")],
        "zoe": [(1, 2, 5.0, "1/3"), (0, 1, 2.0, "0/0")],
    }
    first = int(START.timestamp()) * 1_000_000
    assert (data.times - first).tolist() == [s * 1_000_000 for s in (10, 20, 20, 40, 50)]
    assert (data.num_items, data.num_users, data.lengths.tolist()) == (3, 2, [3, 2])
    assert data.popularity().tolist() == [2, 2, 1]


def test_without_times_the_sequence_orders(tmp_path: Path) -> None:
    rows: list[Row] = [("u", "a", "watch", 0, 5), ("u", "b", "watch", 0, 2)]
    folder = write(tmp_path / "d", rows, [("u", "c", "watch", 0, 3)], time="order")
    data = load_interactions(folder, tmp_path / "cache")
    assert data.items.tolist() == [1, 0, 2] and not data.times.any()


def test_without_order_events_lie_in_no_order_of_the_files(tmp_path: Path) -> None:
    # Files are often sorted by id: a model that saw that order would learn it.
    rows: list[Row] = [("u", "cba"[i % 3], "watch", 0, i) for i in range(60)]
    folder = write(tmp_path / "d", rows, [("v", "a", "watch", 0, 0)], time="none")
    data = load_interactions(folder, tmp_path / "cache")
    ids = load_event_ids(tmp_path / "cache").to_pylist()
    assert sorted(ids[:60]) == sorted(f"0/{i}" for i in range(60)) and ids[60] == "1/0"
    places = [int(name[2:]) for name in ids[:60]]
    rises = sum(one < two for one, two in pairwise(places))
    assert 15 < rises < 44  # about half of 59
    assert load_interactions(folder, tmp_path / "other").items.tolist() == data.items.tolist()


def test_a_published_split_and_events_without_a_time(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("u", item, "watch", second, 0) for item, second in zip("cba", (1, 9, 5), strict=True)
    ]
    folder = write(tmp_path / "d", rows)
    part = folder / "events/part-00000.parquet"
    frame = pl.read_parquet(part).with_columns(
        pl.when(pl.col("item_id") != "c").then("timestamp"),
        split=pl.Series(["test", None, "validation"]),
    )
    frame.write_parquet(part)
    data = load_interactions(folder, tmp_path / "cache")
    # What has no time comes last.
    assert data.items.tolist() == [2, 1, 0] and data.published.tolist() == [1, 0, 2]
    assert data.times[2] == -1 and (data.times[:2] > 0).all()
    kept = data.keep(data.published == 0)
    assert (kept.items.tolist(), kept.starts.tolist(), kept.num_items) == ([1], [0, 1], 3)


def test_without_a_sequence_ties_keep_the_order_of_the_files(tmp_path: Path) -> None:
    first: list[Row] = [("u", item, "watch", 7, 0) for item in "bca"]
    second: list[Row] = [("u", item, "watch", 7, 0) for item in "ab"]
    data = load_interactions(
        write(tmp_path / "d", first, second, sequence=False), tmp_path / "cache"
    )
    assert data.items.tolist() == [1, 0, 2, 2, 1]


def test_the_cache_is_used_until_a_file_changes(tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "d", PART_0), tmp_path / "cache"
    assert len(load_interactions(folder, cache).items) == 3
    built = (cache / "items.npy").stat().st_ino
    again = load_interactions(folder, cache)
    assert (cache / "items.npy").stat().st_ino == built and isinstance(again.items, np.memmap)
    write(folder, PART_0, PART_1)
    assert len(load_interactions(folder, cache).items) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "d"]


@pytest.mark.parametrize("name", ["items.npy", "starts.npy", "built_from.json"])
def test_a_damaged_cache_is_built_anew(tmp_path: Path, name: str) -> None:
    folder, cache = write(tmp_path / "d", PART_0), tmp_path / "cache"
    whole = load_interactions(folder, cache).items.tolist()
    (cache / name).write_bytes((cache / name).read_bytes()[:20])
    assert load_interactions(folder, cache).items.tolist() == whole


def test_users_parquet_is_optional(tmp_path: Path) -> None:
    assert read_users_table(write(tmp_path / "d", PART_0)) is None
