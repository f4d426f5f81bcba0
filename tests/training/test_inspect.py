"""What `penchant inspect` counts, against numbers worked by hand on a dataset of four events."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.errors import DatasetError
from tests.training.contract import START, Dataset, events_of, put, without_times
from training.inspection.dataset import Inspection, inspect_dataset

Row = tuple[str, str, str, float | None]


def inspect(dataset: Dataset) -> Inspection:
    dataset.write()
    return inspect_dataset(dataset.folder)


def test_users_and_density(good: Dataset) -> None:
    # ann: film, flute; bo: room; cy: film, and no row in users.parquet.
    found = inspect(good)
    users = found.users
    assert (users.num_users, users.num_with_history, users.num_short) == (3, 3, 3)
    assert (users.num_listed, users.num_without_row, users.num_idle) == (2, 1, 0)
    assert users.history_a_user.values.tolist() == [1, 2]
    assert users.history_a_user.counts.tolist() == [2, 1]
    assert found.density == pytest.approx(4 / (3 * 3))


def test_repeats_are_counted_by_event_and_over_all(good: Dataset) -> None:
    # ann watches film twice and then orders it: of 3 history events, 2 are on an item she had.
    good.parts = [
        events_of(
            0,
            [
                ("ann", "film", "watch", 1.0),
                ("ann", "film", "watch", 2.0),
                ("ann", "film", "order", 3.0),
                ("bo", "room", "watch", 4.0),
            ],
        )
    ]
    users = inspect(good).users
    assert (users.history.num_events, users.history.num_pairs) == (4, 2)
    assert users.history.share == 0.5
    watch, order = users.by_event["watch"], users.by_event["order"]
    assert (watch.num_events, watch.num_users, watch.num_pairs) == (3, 2, 2)
    assert (order.num_events, order.num_users, order.share) == (1, 1, 0)


def test_exposures_are_in_no_history(good: Dataset) -> None:
    good.toml += 'show = { role = "exposure" }\n'
    good.parts.append(events_of(4, [("dan", "film", "show", None), ("ann", "film", "show", None)]))
    found = inspect(good)
    assert (found.users.num_users, found.users.num_with_history) == (4, 3)
    assert found.users.history.num_events == 4
    assert found.users.events_a_user.sum == 6
    exposures = found.items.exposures_an_item
    assert exposures is not None
    assert (exposures.values.tolist(), exposures.counts.tolist()) == ([0, 2], [2, 1])
    assert found.times.a_day is not None
    counts = {role: c.tolist() for role, c in found.times.a_day.counts.items()}
    assert counts == {"engagement": [3], "conversion": [1], "exposure": [2]}


def test_items(good: Dataset) -> None:
    idle = good.items.tail(1).with_columns(item_id=pl.lit("idle"), kind=pl.lit("product"))
    good.items = pl.concat([good.items, idle])
    good.items = put(good.items, "expires_at", 1, START + timedelta(minutes=3))
    items = inspect(good).items
    assert (items.num_items, items.num_idle, items.num_cold) == (4, 1, 1)
    assert list(items.by_kind) == ["product", "video", "live"]
    product = items.by_kind["product"]
    assert (product.num_items, product.num_idle, product.num_history_events) == (2, 1, 1)
    # room and idle are unavailable; film had expired by the last event, which is at minute 3.
    assert (items.num_unavailable, items.num_expired, items.num_gone) == (2, 1, 3)
    assert items.history_an_item.values.tolist() == [0, 1, 2]
    assert items.history_an_item.counts.tolist() == [1, 2, 1]
    assert items.links == {"shows": 1, "on_air": 1}
    assert items.new_a_day is not None
    assert items.new_a_day.first == START.date()
    assert {name: c.tolist() for name, c in items.new_a_day.counts.items()} == {"created_at": [3]}


def test_without_created_at_the_first_event_says_when_an_item_came(good: Dataset) -> None:
    good.items = good.items.drop("created_at")
    late = good.parts[1].with_columns(pl.col("timestamp") + timedelta(days=2))
    good.parts[1] = late
    new = inspect(good).items.new_a_day
    assert new is not None
    # flute and film on the first day, room on the third.
    assert {name: c.tolist() for name, c in new.counts.items()} == {"first event": [2, 0, 1]}


def test_days(good: Dataset) -> None:
    good.parts[1] = good.parts[1].with_columns(pl.col("timestamp") + timedelta(days=2))
    times = inspect(good).times
    assert times.a_day is not None
    assert (times.num_timed, times.a_day.first, times.a_day.num_days) == (4, START.date(), 3)
    assert times.a_day.last == START.date() + timedelta(days=2)
    counts = {role: c.tolist() for role, c in times.a_day.counts.items()}
    assert counts == {"engagement": [1, 0, 2], "conversion": [1, 0, 0]}
    assert times.a_day.total.tolist() == [2, 0, 2]


@pytest.mark.parametrize("time", ["order", "none"])
def test_without_times(good: Dataset, time: str) -> None:
    found = inspect(without_times(good, time))
    assert (found.times.num_timed, found.times.a_day) == (0, None)
    assert found.users.num_users == 3
    assert found.density == pytest.approx(4 / 9)
    assert [f.what for f in found.findings] == ["Items without a title"]


def test_values(good: Dataset) -> None:
    # watch: 61.5, 5 and 9; order: none at all.
    values = inspect(good).values
    assert list(values) == ["watch"]
    watch = values["watch"]
    assert (watch.unit, watch.num_missing, watch.num_negative) == ("seconds", 0, 0)
    assert watch.values.values.tolist() == [5, 9, 61.5]
    assert watch.values.mean == pytest.approx(75.5 / 3)


def test_quantiles_of_values_are_within_a_percent(good: Dataset) -> None:
    rng = np.random.default_rng(3)
    numbers = np.concatenate([rng.lognormal(3, 2, 5_000), -rng.lognormal(1, 1, 500), np.zeros(9)])
    good.parts = [events_of(0, [("ann", "film", "watch", float(n)) for n in numbers])]
    found = inspect(good).values["watch"]
    assert (found.values.num, found.num_negative) == (5_509, 500)
    for share in (0.01, 0.05, 0.0907, 0.5, 0.9, 0.99):
        exact = np.quantile(numbers, share, method="lower")
        assert found.values.quantile(share) == pytest.approx(exact, rel=0.01)
    assert len(found.values.values) < 2_500


def test_the_published_split(good: Dataset) -> None:
    good.toml += 'show = { role = "exposure" }\n'
    parts: dict[str, list[Row]] = {
        "train": [
            ("ann", "film", "watch", None),
            ("ann", "flute", "watch", None),
            ("bo", "room", "watch", None),
            ("ann", "film", "show", None),
        ],
        "validation": [("ann", "film", "watch", None), ("cy", "room", "watch", None)],
        "test": [
            ("ann", "flute", "order", None),  # seen by another event
            ("ann", "film", "watch", None),  # in train, and in validation
            ("cy", "film", "order", None),  # a new user
            ("ann", "film", "show", None),  # in no history
        ],
    }
    good.parts = [
        events_of(10 * n, rows).with_columns(split=pl.lit(name))
        for n, (name, rows) in enumerate(parts.items())
    ]
    good.parts[0] = good.parts[0].with_columns(split=pl.lit(None, pl.String))  # means train
    splits = inspect(good).splits
    counts = {name: (s.num_events, s.num_users, s.num_new_users) for name, s in splits.items()}
    assert counts == {"train": (3, 2, 0), "validation": (2, 2, 1), "test": (3, 2, 1)}
    assert splits["validation"].num_again == {"train": 1}
    assert splits["test"].num_again == {"train": 1, "validation": 1}
    assert {name: s.num_seen for name, s in splits.items()} == {
        **{"train": 0, "validation": 0, "test": 1}
    }


def test_items_that_only_a_held_out_part_has_are_new(good: Dataset) -> None:
    good.parts[1] = good.parts[1].with_columns(split=pl.lit("test"))
    # room is in test alone; film, of cy's test event, is in train too.
    assert inspect(good).items.num_new_in == {"validation": 0, "test": 1}


def test_no_split_is_no_figures(good: Dataset) -> None:
    good.parts = [part.drop("split") for part in good.parts]
    assert inspect(good).splits == {}


def test_features(good: Dataset) -> None:
    good.items = put(good.items, "tags", 0, ["music", "wood", "wood", "wood"])  # two have music
    found = {(f.file, f.name): f for f in inspect(good).features}
    craft = found["items.parquet", "craft"]
    assert (craft.num_rows, craft.num_missing, craft.num_distinct) == (3, 1, 1)
    assert (craft.top, craft.top_share, craft.kinds) == ("bamboo", 1.0, ("live", "product"))
    tags = found["items.parquet", "tags"]
    assert (tags.num_missing, tags.num_distinct, tags.top, tags.top_share) == (1, 2, "music", 1.0)
    price = found["items.parquet", "price"]
    assert (price.num_missing, price.low, price.median, price.high) == (2, 88, 88, 88)
    assert (price.kinds, price.num_rows_of_kinds) == (("product",), 1)
    assert found["items.parquet", "picture"].num_missing == 1
    assert found["items.parquet", "title"].num_missing == 1
    city = found["users.parquet", "city"]
    assert (city.num_rows, city.num_missing, city.kinds) == (2, 1, ())


def test_it_makes_no_difference_how_many_events_are_held_at_a_time(world: Path) -> None:
    whole = inspect_dataset(world)
    parts = inspect_dataset(world, partition_events=whole.summary.num_events // 5)
    assert _plain(parts) == _plain(whole)


def _plain(value: object) -> object:
    """Dataclasses and arrays as what == compares."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(cell) for key, cell in value.items()}
    if isinstance(value, tuple):
        return [_plain(cell) for cell in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_the_simulated_world_agrees_with_plain_counting(world: Path) -> None:
    events = pl.concat([pl.read_parquet(part) for part in sorted(world.glob("events/part-*"))])
    items = pl.read_parquet(world / "items.parquet")
    found = inspect_dataset(world)
    history = events.filter(pl.col("event").is_in(list(found.schema.history_events)))
    pairs = history.select("user_id", "item_id").n_unique()
    assert found.users.num_users == events["user_id"].n_unique()
    assert found.users.num_with_history == history["user_id"].n_unique()
    assert found.users.history.num_pairs == pairs
    assert found.density == pytest.approx(pairs / history["user_id"].n_unique() / items.height)
    touched = events["item_id"].n_unique()
    assert found.items.num_idle == items.height - touched > 0
    assert found.times.num_timed == events.height
    days = events["timestamp"].dt.date()
    assert found.times.a_day is not None
    assert (
        found.times.a_day.total.tolist() == days.value_counts().sort("timestamp")["count"].to_list()
    )
    assert found.findings == ()


def test_a_broken_dataset_is_refused_before_anything_is_counted(good: Dataset) -> None:
    good.parts[1] = put(good.parts[1], "item_id", 0, "nothing")
    with pytest.raises(DatasetError, match=r"part-00001\.parquet, column 'item_id', row 0"):
        inspect(good)


def test_progress_rises_to_one(good: Dataset) -> None:
    good.write()
    told: list[float] = []
    inspect_dataset(good.folder, progress=lambda share, what: told.append(share))
    assert told == sorted(told) and told[-1] == 1.0


def test_a_folder_whose_name_looks_like_a_pattern(good: Dataset) -> None:
    good.folder = good.folder.with_name("shop[1]*")
    assert inspect(good).users.num_users == 3
