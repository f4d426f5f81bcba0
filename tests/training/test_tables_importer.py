"""Anyone's tables, by a column map: what is read, dropped, added and refused."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DatasetError
from model.schema import Event, Feature, read_schema
from tests.training.shop_tables import (
    EVENTS,
    MAP,
    change,
    events_of,
    import_shop,
    items_of,
    say,
    write_shop,
)
from training.importers.tables import import_table


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def test_a_shop_of_csv(shop: Path) -> None:
    told: list[float] = []
    report = import_table(
        shop / "map.toml", shop.parent / "out", progress=lambda part, _: told.append(part)
    )
    assert report.read == {"items.csv": 3, "events.csv": 3}
    assert report.written == {"users": 2, "items": 3, "events": 3}
    assert (report.dropped, report.notes) == ({}, ())
    assert told == sorted(told) and told[-1] == 1.0
    columns = ("event_id", "user_id", "item_id", "event", "value")
    assert events_of(shop).select(columns).rows() == [
        ("events.csv#0", "ann", "film-1", "view", 61.5),
        ("events.csv#1", "bob", "flute-7", "view", None),
        ("events.csv#2", "ann", "flute-7", "order", 88.0),
    ]
    assert events_of(shop)["timestamp"][0] == datetime(2026, 3, 1, 12, 15, tzinfo=UTC)
    assert items_of(shop).rows() == [
        ("flute-7", "product", "Bamboo flute", "Feng", ["music", "handmade"], 88.0),
        ("film-1", "video", "Flutes, and how", None, [], None),
        ("mat-1", "product", "Mat", "Zhu", [], 12.5),
    ]
    schema = read_schema(shop.parent / "out")
    assert schema.item_features == {
        "title": Feature(type="text"),
        "brand": Feature(type="category", filterable=True),
        "tags": Feature(type="categories"),
        "price": Feature(type="number", filterable=True),
    }
    assert schema.events["order"] == Event(role="conversion", weight=5.0, unit="CNY")
    assert (schema.name, schema.time) == ("shop", "exact")


def test_events_of_parquet_json_lines_and_gzip_are_the_same(shop: Path) -> None:
    import_shop(shop)
    expected = events_of(shop).drop("event_id")
    frame = pl.read_csv(shop / "events.csv")
    times = frame["time"].str.to_datetime(time_zone="UTC")
    frame.with_columns(times).write_parquet(shop / "events.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
    (shop / "events.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    frame.write_csv(shop / "events.tsv", separator="\t")
    before = "events.csv"
    for name, number in (("events.parquet", 1), ("events.jsonl.gz", 2), ("events.tsv", 3)):
        change(shop / "map.toml", before, name)
        import_table(shop / "map.toml", shop.parent / f"out{number}")
        found = pl.read_parquet(shop.parent / f"out{number}/events/*.parquet")
        assert found.drop("event_id").equals(expected), name
        assert found["event_id"][0] == f"{name}#0"
        before = name


def test_many_files_of_a_pattern_are_one_table(shop: Path) -> None:
    (shop / "logs/b").mkdir(parents=True)
    (shop / "events.csv").rename(shop / "logs/b/events.csv")
    (shop / "logs/events.csv").write_text(
        "item,user,time,amount,action\nmat-1,cy,2026-04-01T00:00Z,,pv\n"
    )
    change(shop / "map.toml", '"events.csv"', '"logs/**/*.csv"')
    report = import_shop(shop)
    assert report.read == {"items.csv": 3, "logs/b/events.csv": 3, "logs/events.csv": 1}
    assert events_of(shop)["event_id"].to_list()[2:] == ["logs/b/events.csv#2", "logs/events.csv#0"]


def test_rows_that_the_map_drops_are_counted(shop: Path) -> None:
    with (shop / "events.csv").open("a") as file:
        file.write("ann,,login,nonsense,\nbob,,login,,\n,mat-1,pv,2026-03-02T10:00:00Z,\n")
        file.write("ann,mat-1,pv,,\nann,gone-1,pv,2026-03-02T10:00:00Z,\n")
    say(shop, 'drop = ["login"]', 'missing = "drop"', 'unknown_items = "drop"')
    assert import_shop(shop).dropped == {
        "events whose action is 'login', as the map says": 2,
        "events without user_id": 1,
        "events without timestamp": 1,
        "events whose item_id has no row in [items]": 1,
    }
    assert events_of(shop).height == 3


def test_items_that_only_events_name_can_be_added(shop: Path) -> None:
    (shop / "events.csv").write_text(
        EVENTS.replace("amount\n", "amount,from\n")
        .replace("61.5", "61.5,film-9")
        .replace("00Z,", "00Z,,")
        .replace("88\n", "88,film-1\n")
        .replace("bob,flute-7", "bob,flute-8")
    )
    say(shop, 'unknown_items = "add"', 'added_kind = "video"', 'source_item_id = "from"')
    report = import_shop(shop)
    assert report.written == {"users": 2, "items": 5, "items that only events name": 2, "events": 3}
    added = items_of(shop).tail(2).sort("item_id")
    assert added.rows() == [
        ("film-9", "video", "", None, [], None),
        ("flute-8", "video", "", None, [], None),
    ]


def test_an_item_that_only_a_dropped_event_names_is_not_added(shop: Path) -> None:
    rows = (
        EVENTS.replace("user,", "id,user,")
        .replace("\nann", "\ne1,ann")
        .replace("\nbob", "\ne2,bob")
    )
    last = rows.splitlines()[-1].replace("flute-7", "flute-9")
    (shop / "events.csv").write_text(f"{rows}{last}\n")
    say(shop, 'unknown_items = "add"', 'added_kind = "video"', 'event_id = "id"')
    say(shop, 'on_duplicate = "drop"')
    report = import_shop(shop)
    assert report.dropped == {"events with the event_id of an earlier row": 2}
    assert report.written == {"users": 2, "items": 3, "events": 2}


def test_without_items_all_are_added(shop: Path) -> None:
    text = MAP[: MAP.index("[items]")]
    (shop / "map.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"without \[items\], say unknown_items"):
        import_shop(shop)
    say(shop, 'unknown_items = "add"', 'added_kind = "product"')
    assert import_shop(shop).written["items"] == 2
    assert items_of(shop).columns == ["item_id", "kind", "title"]


def test_ids_of_events_from_a_column(shop: Path) -> None:
    rows = (
        EVENTS.replace("user,", "id,user,")
        .replace("\nann,f", "\ne1,ann,f")
        .replace("\nbob", "\ne2,bob")
    )
    (shop / "events.csv").write_text(rows + "e1,bob,mat-1,pv,2026-04-01T00:00:00Z,\n")
    change(shop / "events.csv", "e1,ann,flute", "e3,ann,flute")
    say(shop, 'event_id = "id"')
    with pytest.raises(DatasetError) as caught:
        import_shop(shop)
    assert "'id': line 5: 'e1' was already used in events.csv, row 0." in str(caught.value)
    assert 'on_duplicate = "drop"' in str(caught.value)
    assert not (shop.parent / "out").exists()

    say(shop, 'on_duplicate = "drop"')
    assert import_shop(shop).dropped == {"events with the event_id of an earlier row": 1}
    assert events_of(shop)["event_id"].to_list() == ["e1", "e2", "e3"]


def test_duplicates_are_found_across_files_and_blocks(shop: Path) -> None:
    head = "id,user,item,action,time,amount\n"
    row = "{},ann,mat-1,pv,2026-04-01T00:00:00Z,\n"
    (shop / "events-1.csv").write_text(head + "".join(row.format(n) for n in range(150_000)))
    (shop / "events-2.csv").write_text(head + row.format(150_000) + row.format(7))
    change(shop / "map.toml", "events.csv", "events-*.csv")
    say(shop, 'event_id = "id"')
    with pytest.raises(DatasetError, match=r"line 3: '7' was already used in events-1.csv, row 7"):
        import_shop(shop)
    say(shop, 'on_duplicate = "drop"')
    report = import_shop(shop)
    assert report.dropped == {"events with the event_id of an earlier row": 1}
    assert events_of(shop)["event_id"].n_unique() == 150_001


def test_order_from_the_file_or_a_column(shop: Path) -> None:
    change(shop / "map.toml", '"exact"', '"order"')
    with pytest.raises(ConfigError, match='time = "order" needs a sequence'):
        import_shop(shop)
    say(shop, 'sequence = "file"')
    change(shop / "events.csv", "2026-03-02T10:00:00Z", "")  # times of some events at most
    import_shop(shop)
    assert events_of(shop)["sequence"].to_list() == [0, 1, 2]
    assert events_of(shop)["timestamp"].null_count() == 1

    change(shop / "map.toml", '"file"', '"amount"')
    change(shop / "map.toml", 'value = "amount"\n', "")
    with pytest.raises(DatasetError, match=r"'amount': line 2: '61.5' is no whole number"):
        import_table(shop / "map.toml", shop.parent / "other")


def test_days_and_no_order_at_all(shop: Path) -> None:
    text = EVENTS
    for time in ("2026-03-01T20:15:00+08:00", "2026-03-02T10:00:00Z", "2026-03-08T17:00:00+08:00"):
        text = text.replace(time, time[:10])
    (shop / "events.csv").write_text(text)
    with pytest.raises(DatasetError, match="is a day without a time of day"):
        import_shop(shop)
    change(shop / "map.toml", '"exact"', '"day"')
    report = import_shop(shop)
    assert (report.summary.time, report.summary.warnings) == (
        "day",
        ("1 of 3 items have no event.",),
    )
    assert events_of(shop)["timestamp"][0] == datetime(2026, 3, 1, tzinfo=UTC)

    change(shop / "map.toml", '"day"', '"none"')
    with pytest.raises(ConfigError, match="leave timestamp and sequence out"):
        import_table(shop / "map.toml", shop.parent / "none")
    change(shop / "map.toml", 'timestamp = { column = "time", format = "iso8601" }\n', "")
    none = import_table(shop / "map.toml", shop.parent / "none")
    assert none.notes == ("Columns of events.csv that the map does not name: time.",)
    assert none.summary.time == "none"
