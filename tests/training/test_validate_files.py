"""Files, columns and types of a dataset: what is missing, damaged or unknown; and the writer."""

import shutil
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import DatasetError
from model.schema import parse_schema
from tests.training.contract import UTC_TIME, Dataset, events_of, put
from training.importers.writer import new_dataset
from training.validate import validate_dataset


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
    many = events_of(100, [("ann", "film", "watch", 1.0)] * 45)
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
