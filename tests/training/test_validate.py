"""Every rule of the dataset contract, each broken alone in one place of a small good dataset."""

import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.errors import DatasetError
from model.schema import parse_schema
from training.importers.writer import new_dataset
from training.validate import DatasetSummary, validate_dataset

START = datetime(2024, 5, 1, 8, 30, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")

TOML = """\
format = 1
name = "tiny"
time = "exact"

[item_features]
title = { type = "text" }
craft = { type = "category", filterable = true }
tags = { type = "categories" }
price = { type = "number", filterable = true }
picture = { type = "vector", dim = 2 }

[user_features]
city = { type = "category" }

[events]
watch = { role = "engagement", unit = "seconds" }
order = { role = "conversion" }
"""


@dataclass
class Dataset:
    """A small good dataset that a test breaks in one place before it is written."""

    folder: Path
    toml: str
    items: pl.DataFrame
    users: pl.DataFrame | None
    links: pl.DataFrame | None
    parts: list[pl.DataFrame]

    def write(self) -> None:
        (self.folder / "events").mkdir(parents=True)
        (self.folder / "dataset.toml").write_text(self.toml, encoding="utf-8")
        self.items.write_parquet(self.folder / "items.parquet")
        if self.users is not None:
            self.users.write_parquet(self.folder / "users.parquet")
        if self.links is not None:
            self.links.write_parquet(self.folder / "links.parquet")
        for number, part in enumerate(self.parts):
            part.write_parquet(self.folder / f"events/part-{number:05d}.parquet")

    def check(self) -> DatasetSummary:
        self.write()
        return validate_dataset(self.folder)

    def refusal(self) -> DatasetError:
        with pytest.raises(DatasetError) as caught:
            self.check()
        return caught.value


def _events(first: int, rows: list[tuple[str, str, str, float | None]]) -> pl.DataFrame:
    users, items, events, values = zip(*rows, strict=True)
    numbers = range(first, first + len(rows))
    return pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in numbers],
            "user_id": users,
            "item_id": items,
            "event": events,
            "timestamp": [START + timedelta(minutes=n) for n in numbers],
            "sequence": list(numbers),
            "value": values,
            "source_item_id": [None] * len(rows),
            "position": [None] * len(rows),
            "propensity": [None] * len(rows),
        },
        schema_overrides={
            "timestamp": UTC_TIME,
            "value": pl.Float64,
            "source_item_id": pl.String,
            "position": pl.Int32,
            "propensity": pl.Float64,
        },
    )


@pytest.fixture
def good(tmp_path: Path) -> Dataset:
    items = pl.DataFrame(
        {
            "item_id": ["flute", "film", "room"],
            "kind": ["product", "video", "live"],
            "title": ["Bamboo flute", "How a flute is made", ""],
            "created_at": [START, None, START],
            "expires_at": [None, None, START + timedelta(hours=3)],
            "available": [True, True, False],
            "craft": ["bamboo", None, "bamboo"],
            "tags": [["music", "wood"], [], ["music"]],
            "price": [88.0, None, None],
            "picture": [[0.5, 1.0], None, [0.0, -1.0]],
        },
        schema_overrides={
            "created_at": UTC_TIME,
            "expires_at": UTC_TIME,
            "tags": pl.List(pl.String),
            "picture": pl.List(pl.Float32),
        },
    )
    links = pl.DataFrame(
        {
            "from_item": ["film", "room"],
            "to_item": ["flute", "flute"],
            "relation": ["shows", "on_air"],
            "start": [None, START],
            "end": [None, START + timedelta(hours=1)],
        },
        schema_overrides={"start": UTC_TIME, "end": UTC_TIME},
    )
    return Dataset(
        folder=tmp_path / "tiny",
        toml=TOML,
        items=items,
        users=pl.DataFrame({"user_id": ["ann", "bo"], "city": ["Jingdezhen", None]}),
        links=links,
        parts=[
            _events(0, [("ann", "film", "watch", 61.5), ("ann", "flute", "order", None)]),
            _events(2, [("bo", "room", "watch", 5.0), ("cy", "film", "watch", 9.0)]),
        ],
    )


def put(frame: pl.DataFrame, column: str, row: int, value: object) -> pl.DataFrame:
    """The frame with one cell replaced, every type kept."""
    cells = frame[column].to_list()
    cells[row] = value
    dtype = frame.schema[column]
    return frame.with_columns(pl.Series(column, cells, dtype=dtype))


def without_times(dataset: Dataset, time: str) -> Dataset:
    dataset.toml = dataset.toml.replace('"exact"', f'"{time}"')
    dataset.parts = [part.drop("timestamp") for part in dataset.parts]
    return dataset


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


@pytest.mark.parametrize("time", ["order", "none"])
def test_timestamps_are_refused_where_there_is_no_time(good: Dataset, time: str) -> None:
    good.toml = good.toml.replace('"exact"', f'"{time}"')
    error = good.refusal()
    assert (error.file, error.column, error.row) == ("events/part-00000.parquet", "timestamp", 0)
    assert f'time = "{time}"' in str(error)


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


def test_a_missing_column_is_named(good: Dataset) -> None:
    good.items = good.items.drop("craft")
    error = good.refusal()
    assert (error.file, error.column) == ("items.parquet", "craft")
    assert "missing" in str(error)


def test_an_unknown_column_is_named_with_the_closest_known_one(good: Dataset) -> None:
    good.items = good.items.rename({"craft": "crafts"})
    error = good.refusal()
    assert (error.file, error.column) == ("items.parquet", "crafts")
    assert "Did you mean 'craft'?" in str(error)


def test_all_parts_have_the_same_columns(good: Dataset) -> None:
    good.parts[1] = good.parts[1].drop("value")
    error = good.refusal()
    assert (error.file, error.column) == ("events/part-00001.parquet", "value")


Break = Callable[[Path], object]
FILE_RULES: list[tuple[Break, str, str]] = [
    (lambda d: (d / "dataset.toml").unlink(), "dataset.toml", "no such file"),
    (lambda d: (d / "items.parquet").unlink(), "items.parquet", "no such file"),
    (
        lambda d: shutil.rmtree(d / "events"),
        "events/part-*.parquet",
        "no such file",
    ),
    (
        lambda d: (d / "links.parquet").rename(d / "link.parquet"),
        "link.parquet",
        "Did you mean 'links.parquet'",
    ),
    (
        lambda d: (d / "events/part-00001.parquet").rename(d / "events/p1.parquet"),
        "events/p1.parquet",
        "nothing reads",
    ),
    (lambda d: (d / "items.parquet").write_bytes(b""), "items.parquet", "cannot be read"),
    (
        lambda d: (d / "users.parquet").write_text("user_id,city\n"),
        "users.parquet",
        "cannot be read",
    ),
]


@pytest.mark.parametrize(("damage", "file", "says"), FILE_RULES)
def test_file_rule(good: Dataset, damage: Break, file: str, says: str) -> None:
    good.write()
    damage(good.folder)
    with pytest.raises(DatasetError) as caught:
        validate_dataset(good.folder)
    assert caught.value.file == file
    assert says in str(caught.value)


def test_a_cut_off_part_is_named(good: Dataset) -> None:
    good.write()
    part = good.folder / "events/part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(DatasetError) as caught:
        validate_dataset(good.folder)
    assert caught.value.file == "events/part-00001.parquet"
    assert "damaged" in str(caught.value)


def test_damaged_pages_are_named(good: Dataset) -> None:
    good.write()
    path = good.folder / "items.parquet"
    content = bytearray(path.read_bytes())
    content[4:120] = b"\xff" * 116  # the first column's pages; the footer stays whole
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read as Parquet") as caught:
        validate_dataset(good.folder)
    assert caught.value.file == "items.parquet"


def test_no_items_and_no_events_are_refused(good: Dataset) -> None:
    good.items = good.items.clear()
    assert "no items" in str(good.refusal())


def test_parts_without_rows_are_refused(good: Dataset) -> None:
    good.parts = [part.clear() for part in good.parts]
    assert "no events" in str(good.refusal())


def test_rows_are_counted_within_the_file_past_the_first_batch(
    good: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.columns._MAX_BATCH_ROWS", 10)
    many = _events(100, [("ann", "film", "watch", 1.0)] * 45)
    good.parts.append(put(many, "item_id", 37, "drum"))
    error = good.refusal()
    assert (error.file, error.row) == ("events/part-00002.parquet", 37)
    good.parts[2] = put(many, "event_id", 44, "e103")
    good.folder = good.folder.with_name("second")
    error = good.refusal()
    assert (error.file, error.row) == ("events/part-00002.parquet", 44)
    assert "part-00002.parquet, row 3" in str(error)


def test_what_looks_like_a_mistake_is_a_warning(good: Dataset) -> None:
    good.toml += 'follow = { role = "engagement" }\n'
    midnight = pl.lit(datetime(1970, 1, 20, tzinfo=UTC)).cast(UTC_TIME).alias("timestamp")
    only_film = pl.lit("film").alias("item_id")
    good.parts = [part.with_columns(midnight, only_film) for part in good.parts]
    warnings = " ".join(good.check().warnings)
    assert "'follow' is declared but never happens" in warnings
    assert "2 of 3 items have no event" in warnings
    assert "1970-01-20: was the unit" in warnings
    assert 'declare time = "day"' in warnings


def test_a_day_with_hours_is_a_warning(good: Dataset) -> None:
    good.toml = good.toml.replace('"exact"', '"day"')
    assert any('declare time = "exact"' in warning for warning in good.check().warnings)


def test_the_writer_casts_and_cuts_into_parts(good: Dataset) -> None:
    schema = parse_schema(tomllib.loads(good.toml), file="dataset.toml")
    assert good.users is not None and good.links is not None
    with new_dataset(good.folder, schema, part_rows=3) as writer:
        writer.write_items(good.items.with_columns(pl.col("picture").cast(pl.List(pl.Float64))))
        writer.write_users(good.users)
        writer.write_links(good.links)
        for part in good.parts:
            writer.append_events(part.with_columns(pl.col("sequence").cast(pl.Int32)))
        with pytest.raises(RuntimeError):
            writer.summary  # noqa: B018
    assert writer.summary == validate_dataset(good.folder)
    sizes = [pl.read_parquet(p).height for p in sorted(good.folder.glob("events/*"))]
    assert sizes == [3, 1]
    events = pl.read_parquet(good.folder / "events/*.parquet")
    assert events["event_id"].to_list() == ["e0", "e1", "e2", "e3"]


def test_a_dataset_that_breaks_the_contract_never_appears(good: Dataset) -> None:
    schema = parse_schema(tomllib.loads(good.toml), file="dataset.toml")
    with pytest.raises(DatasetError, match="drum"), new_dataset(good.folder, schema) as writer:
        writer.write_items(good.items)
        writer.append_events(put(good.parts[0], "item_id", 0, "drum"))
    assert list(good.folder.parent.iterdir()) == []


def test_the_example_of_the_public_page_is_a_good_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/dataset.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/dataset.md", "exec"), {})
    summary = validate_dataset(tmp_path / "my-shop")
    assert (summary.num_items, summary.num_users, summary.num_events) == (2, 1, 2)
