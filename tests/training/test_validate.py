"""Every rule of the dataset contract, each broken alone in one place of a small good dataset."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tests.training.contract import START, UTC_TIME, Dataset, put, without_times
from training.validate import DatasetSummary, validate_dataset


def test_a_good_dataset_is_counted(good: Dataset) -> None:
    told: list[tuple[float, str]] = []
    good.write()
    summary = validate_dataset(good.folder, progress=lambda part, what: told.append((part, what)))
    assert summary == DatasetSummary(
        name="tiny",
        time="exact",
        num_items=3,
        num_users=3,  # ann, bo, and cy who has no row in users.parquet
        num_events=4,
        num_links=2,
        events_by_name={"watch": 3, "order": 1},
        first=START,
        last=START + timedelta(minutes=3),
        warnings=("1 users have events but no row in users.parquet.",),
    )
    assert [part for part, _ in told] == sorted(part for part, _ in told)
    assert told[-1][0] == 1.0
    assert "events/part-00001.parquet" in [what for _, what in told]


def test_users_and_links_may_be_absent(good: Dataset) -> None:
    good.users = good.links = None
    summary = good.check()
    assert (summary.num_users, summary.num_links, summary.warnings) == (3, 0, ())


@pytest.mark.parametrize("time", ["order", "none"])
def test_a_dataset_without_times_is_good(good: Dataset, time: str) -> None:
    summary = without_times(good, time).check()
    assert (summary.time, summary.first, summary.last) == (time, None, None)


def test_an_all_null_timestamp_column_counts_as_no_times(good: Dataset) -> None:
    empty = pl.lit(None, dtype=UTC_TIME).alias("timestamp")
    without_times(good, "order")
    good.parts = [part.with_columns(empty) for part in good.parts]
    assert good.check().first is None


def test_vectors_of_fixed_size_are_good(good: Dataset) -> None:
    good.items = good.items.with_columns(pl.col("picture").cast(pl.Array(pl.Float32, 2)))
    assert good.check().num_items == 3


# One line a rule: what is broken, and what the error has to name.
ITEM_RULES: list[tuple[str, int, object, str]] = [
    ("item_id", 1, None, "null"),
    ("item_id", 1, "", "empty"),
    ("item_id", 2, "flute", "'flute' was already used in row 0"),
    ("kind", 2, "vidoe", "Did you mean 'video'"),
    ("kind", 0, None, "null"),
    ("title", 0, None, "null"),
    ("available", 1, None, "null"),
    ("created_at", 2, datetime(1969, 12, 31, tzinfo=UTC), "before 1970"),
    ("expires_at", 2, datetime(2100, 1, 1, tzinfo=UTC), "after 2099"),
    ("expires_at", 2, START - timedelta(hours=1), "before created_at"),
    ("price", 1, float("nan"), "NaN"),
    ("price", 2, float("inf"), "infinite"),
    ("tags", 1, None, "empty list"),
    ("tags", 2, ["music", None], "null inside the list"),
    ("picture", 2, [1.0], "1 numbers; dataset.toml says dim = 2"),
    ("picture", 2, [1.0, 2.0, 3.0], "3 numbers"),
    ("picture", 2, [1.0, float("nan")], "number 1 of the vector"),
    ("picture", 2, [float("-inf"), 0.0], "number 0 of the vector"),
    ("picture", 0, [None, 0.0], "number 0 of the vector"),
]


@pytest.mark.parametrize(("column", "row", "value", "says"), ITEM_RULES)
def test_item_rule(good: Dataset, column: str, row: int, value: object, says: str) -> None:
    good.items = put(good.items, column, row, value)
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("items.parquet", column, row)
    assert says in str(error)
    assert error.remedy


def test_a_bad_number_in_a_fixed_size_vector_is_named(good: Dataset) -> None:
    good.items = put(good.items, "picture", 2, [1.0, float("nan")]).with_columns(
        pl.col("picture").cast(pl.Array(pl.Float32, 2))
    )
    error = good.refusal()
    assert (error.column, error.row) == ("picture", 2)


EVENT_RULES: list[tuple[str, int, object, str]] = [
    ("event_id", 0, None, "null"),
    ("event_id", 1, "", "empty"),
    ("user_id", 0, None, "null"),
    ("item_id", 1, "drum", "'drum' is not in items.parquet"),
    ("event", 1, "wacth", "Did you mean 'watch'? Allowed are: watch, order"),
    ("event", 1, None, "null"),
    ("timestamp", 1, None, "null"),
    ("timestamp", 0, datetime(1969, 7, 20, tzinfo=UTC), "before 1970"),
    ("timestamp", 0, datetime(2400, 1, 1, tzinfo=UTC), "after 2099"),
    ("sequence", 1, None, "null"),
    ("value", 0, float("nan"), "NaN"),
    ("value", 1, float("-inf"), "infinite"),
    ("source_item_id", 1, "drum", "'drum' is not in items.parquet"),
    ("position", 0, -1, "-1 is not 0 or more"),
    ("propensity", 1, 1.5, "1.5 is not from 0 to 1"),
    ("propensity", 1, float("nan"), "NaN"),
    ("split", 1, "valid", "Did you mean 'validation'? Allowed are: train, validation, test"),
]


@pytest.mark.parametrize(("column", "row", "value", "says"), EVENT_RULES)
def test_event_rule(good: Dataset, column: str, row: int, value: object, says: str) -> None:
    good.parts[1] = put(good.parts[1], column, row, value)
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("events/part-00001.parquet", column, row)
    assert says in str(error)
    assert error.remedy


LINK_RULES: list[tuple[str, int, object, str]] = [
    ("from_item", 0, "drum", "'drum' is not in items.parquet"),
    ("to_item", 1, "drum", "'drum' is not in items.parquet"),
    ("to_item", 1, None, "null"),
    ("relation", 0, "show", "Did you mean 'shows'"),
    ("start", 0, datetime(1950, 1, 1, tzinfo=UTC), "before 1970"),
    ("end", 1, START - timedelta(seconds=1), "is before start"),
]


@pytest.mark.parametrize(("column", "row", "value", "says"), LINK_RULES)
def test_link_rule(good: Dataset, column: str, row: int, value: object, says: str) -> None:
    assert good.links is not None
    good.links = put(good.links, column, row, value)
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("links.parquet", column, row)
    assert says in str(error)


def test_users_are_unique(good: Dataset) -> None:
    assert good.users is not None
    good.users = put(good.users, "user_id", 1, "ann")
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("users.parquet", "user_id", 1)


@pytest.mark.parametrize("in_part", [0, 1])
def test_event_ids_are_unique_within_and_across_parts(good: Dataset, in_part: int) -> None:
    good.parts[in_part] = put(good.parts[in_part], "event_id", 1, "e0")
    error = good.refusal()
    assert (error.file, error.row) == (f"events/part-0000{in_part}.parquet", 1)
    assert "'e0' was already used in events/part-00000.parquet, row 0" in str(error)


def test_equal_hashes_of_different_ids_are_no_repeat(
    good: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.repeats._hashed", lambda key: pl.struct(key).hash() * 0)
    assert good.check().num_events == 4
    good.folder = good.folder.with_name("repeated")
    good.parts[1] = put(good.parts[1], "event_id", 1, "e1")
    assert "'e1' was already used" in str(good.refusal())


def test_two_events_of_a_user_may_not_share_a_place_in_the_order(good: Dataset) -> None:
    without_times(good, "order")
    good.parts[0] = put(good.parts[0], "sequence", 1, 0)
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("events/part-00000.parquet", "sequence", 1)


def test_two_users_may_share_a_sequence_number(good: Dataset) -> None:
    without_times(good, "order")
    good.parts[1] = put(good.parts[1], "sequence", 1, 0)
    assert good.check().num_events == 4


def test_order_needs_a_sequence(good: Dataset) -> None:
    without_times(good, "order")
    good.parts = [part.drop("sequence") for part in good.parts]
    error = good.refusal()
    assert (error.file, error.column) == ("events/part-00000.parquet", "sequence")
    assert "missing" in str(error)


@pytest.mark.parametrize("time", ["exact", "day"])
def test_real_time_needs_timestamps(good: Dataset, time: str) -> None:
    good.toml = good.toml.replace('"exact"', f'"{time}"')
    good.parts = [part.drop("timestamp") for part in good.parts]
    error = good.refusal()
    assert (error.column, "missing" in str(error)) == ("timestamp", True)


def test_timestamps_are_refused_where_there_is_no_time(good: Dataset) -> None:
    good.toml = good.toml.replace('"exact"', '"none"')
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("events/part-00000.parquet", "timestamp", 0)
    assert 'time = "none"' in str(error)


def test_where_order_is_all_that_is_known_of_every_event_some_may_have_times(good: Dataset) -> None:
    good.toml = good.toml.replace('"exact"', '"order"')
    good.parts[0] = put(good.parts[0], "timestamp", 0, None)
    assert good.check().time == "order"


@pytest.mark.parametrize(("split", "allowed"), [("test", True), ("train", False), (None, False)])
def test_only_what_a_split_holds_out_may_have_no_time(
    good: Dataset, split: str | None, allowed: bool
) -> None:
    good.parts[0] = put(put(good.parts[0], "timestamp", 0, None), "split", 0, split)
    if allowed:
        good.check()
        return
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("events/part-00000.parquet", "timestamp", 0)
    assert "validation" in str(error) and "null" in str(error)


@pytest.mark.parametrize(
    ("timezone", "says"), [(None, "timezone is none"), ("Asia/Shanghai", "is Asia/Shanghai")]
)
def test_times_are_utc(good: Dataset, timezone: str | None, says: str) -> None:
    local = pl.col("timestamp").dt.replace_time_zone(timezone)
    good.parts[0] = good.parts[0].with_columns(local)
    error = good.refusal()
    assert (error.file, error.column) == ("events/part-00000.parquet", "timestamp")
    assert says in str(error)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [("item_id", pl.Categorical), ("price", pl.Float32), ("created_at", pl.Datetime("ms", "UTC"))],
)
def test_a_wrong_type_is_named(good: Dataset, column: str, dtype: Any) -> None:
    good.items = good.items.with_columns(pl.col(column).cast(dtype))
    error = good.refusal()
    assert (error.file, error.column) == ("items.parquet", column)
    assert "the type is" in str(error)


def test_a_fixed_size_vector_of_the_wrong_length_is_a_wrong_type(good: Dataset) -> None:
    wide = pl.lit([1.0, 2.0, 3.0]).cast(pl.Array(pl.Float32, 3)).alias("picture")
    good.items = good.items.with_columns(wide)
    assert "shape=(3,)" in str(good.refusal())
