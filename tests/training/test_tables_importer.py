"""Anyone's tables, by a column map: what is read, dropped, added and refused."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import typer

from model.errors import ConfigError, DatasetError
from model.schema import Event, Feature, read_schema
from training.import_cli import importers
from training.importers.map_file import EXAMPLE
from training.importers.tables import import_table
from training.importers.writer import ImportReport

MAP = """\
name = "shop"
time = "exact"
[events]
files = "events.csv"
user_id = "user"
item_id = "item"
event = "action"
timestamp = { column = "time", format = "iso8601" }
value = "amount"
[event_names]
view = { role = "engagement", values = ["pv", "detail"] }
order = { role = "conversion", weight = 5.0, unit = "CNY" }
[items]
files = "items.csv"
item_id = "sku"
kind = { column = "type", values = { goods = "product", clip = "video" } }
title = "name"
[items.features]
title = { type = "text" }
brand = { type = "category", filterable = true }
tags = { type = "categories", separator = "|" }
price = { type = "number", column = "price_cny", filterable = true }
"""
EVENTS = """\
user,item,action,time,amount
ann,film-1,pv,2026-03-01T20:15:00+08:00,61.5
bob,flute-7,detail,2026-03-02T10:00:00Z,
ann,flute-7,order,2026-03-08T17:00:00+08:00,88
"""
ITEMS = """\
sku,type,name,brand,tags,price_cny
flute-7,goods,Bamboo flute,Feng,music|handmade,88
film-1,clip,"Flutes, and how",,,
mat-1,goods,Mat,Zhu,,12.5
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "map.toml").write_text(MAP)
    (folder / "events.csv").write_text(EVENTS)
    (folder / "items.csv").write_text(ITEMS)
    return folder


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _say(shop: Path, *lines: str) -> None:
    """Add lines to [events]."""
    _change(shop / "map.toml", "[events]\n", "[events]\n" + "".join(f"{x}\n" for x in lines))


def _import(shop: Path) -> ImportReport:
    report = import_table(shop / "map.toml", shop.parent / "out")
    lost = sum(count for why, count in report.dropped.items() if why.startswith("events "))
    read = sum(count for file, count in report.read.items() if "event" in file)
    assert read - lost == report.written["events"]
    made = report.written.get("items that only events name", 0)
    lost = sum(count for why, count in report.dropped.items() if why.startswith("items "))
    assert report.read.get("items.csv", 0) - lost + made == report.written["items"]
    return report


def _events(shop: Path) -> pl.DataFrame:
    return pl.read_parquet(shop.parent / "out/events/*.parquet")


def _items(shop: Path) -> pl.DataFrame:
    return pl.read_parquet(shop.parent / "out/items.parquet")


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
    assert _events(shop).select(columns).rows() == [
        ("events.csv#0", "ann", "film-1", "view", 61.5),
        ("events.csv#1", "bob", "flute-7", "view", None),
        ("events.csv#2", "ann", "flute-7", "order", 88.0),
    ]
    assert _events(shop)["timestamp"][0] == datetime(2026, 3, 1, 12, 15, tzinfo=UTC)
    assert _items(shop).rows() == [
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
    _import(shop)
    expected = _events(shop).drop("event_id")
    frame = pl.read_csv(shop / "events.csv")
    times = frame["time"].str.to_datetime(time_zone="UTC")
    frame.with_columns(times).write_parquet(shop / "events.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
    (shop / "events.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    frame.write_csv(shop / "events.tsv", separator="\t")
    before = "events.csv"
    for name, number in (("events.parquet", 1), ("events.jsonl.gz", 2), ("events.tsv", 3)):
        _change(shop / "map.toml", before, name)
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
    _change(shop / "map.toml", '"events.csv"', '"logs/**/*.csv"')
    report = _import(shop)
    assert report.read == {"items.csv": 3, "logs/b/events.csv": 3, "logs/events.csv": 1}
    assert _events(shop)["event_id"].to_list()[2:] == ["logs/b/events.csv#2", "logs/events.csv#0"]


def test_rows_that_the_map_drops_are_counted(shop: Path) -> None:
    with (shop / "events.csv").open("a") as file:
        file.write("ann,,login,nonsense,\nbob,,login,,\n,mat-1,pv,2026-03-02T10:00:00Z,\n")
        file.write("ann,mat-1,pv,,\nann,gone-1,pv,2026-03-02T10:00:00Z,\n")
    _say(shop, 'drop = ["login"]', 'missing = "drop"', 'unknown_items = "drop"')
    assert _import(shop).dropped == {
        "events whose action is 'login', as the map says": 2,
        "events without user_id": 1,
        "events without timestamp": 1,
        "events whose item_id has no row in [items]": 1,
    }
    assert _events(shop).height == 3


def test_items_that_only_events_name_can_be_added(shop: Path) -> None:
    (shop / "events.csv").write_text(
        EVENTS.replace("amount\n", "amount,from\n")
        .replace("61.5", "61.5,film-9")
        .replace("00Z,", "00Z,,")
        .replace("88\n", "88,film-1\n")
        .replace("bob,flute-7", "bob,flute-8")
    )
    _say(shop, 'unknown_items = "add"', 'added_kind = "video"', 'source_item_id = "from"')
    report = _import(shop)
    assert report.written == {"users": 2, "items": 5, "items that only events name": 2, "events": 3}
    added = _items(shop).tail(2).sort("item_id")
    assert added.rows() == [
        ("film-9", "video", "", None, [], None),
        ("flute-8", "video", "", None, [], None),
    ]


def test_without_items_all_are_added(shop: Path) -> None:
    text = MAP[: MAP.index("[items]")]
    (shop / "map.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"without \[items\], say unknown_items"):
        _import(shop)
    _say(shop, 'unknown_items = "add"', 'added_kind = "product"')
    assert _import(shop).written["items"] == 2
    assert _items(shop).columns == ["item_id", "kind", "title"]


def test_ids_of_events_from_a_column(shop: Path) -> None:
    rows = (
        EVENTS.replace("user,", "id,user,")
        .replace("\nann,f", "\ne1,ann,f")
        .replace("\nbob", "\ne2,bob")
    )
    (shop / "events.csv").write_text(rows + "e1,bob,mat-1,pv,2026-04-01T00:00:00Z,\n")
    _change(shop / "events.csv", "e1,ann,flute", "e3,ann,flute")
    _say(shop, 'event_id = "id"')
    with pytest.raises(DatasetError) as caught:
        _import(shop)
    assert "'id': line 5: 'e1' was already used in events.csv, row 0." in str(caught.value)
    assert 'on_duplicate = "drop"' in str(caught.value)
    assert not (shop.parent / "out").exists()

    _say(shop, 'on_duplicate = "drop"')
    assert _import(shop).dropped == {"events with the event_id of an earlier row": 1}
    assert _events(shop)["event_id"].to_list() == ["e1", "e2", "e3"]


def test_duplicates_are_found_across_files_and_blocks(shop: Path) -> None:
    head = "id,user,item,action,time,amount\n"
    row = "{},ann,mat-1,pv,2026-04-01T00:00:00Z,\n"
    (shop / "events-1.csv").write_text(head + "".join(row.format(n) for n in range(150_000)))
    (shop / "events-2.csv").write_text(head + row.format(150_000) + row.format(7))
    _change(shop / "map.toml", "events.csv", "events-*.csv")
    _say(shop, 'event_id = "id"')
    with pytest.raises(DatasetError, match=r"line 3: '7' was already used in events-1.csv, row 7"):
        _import(shop)
    _say(shop, 'on_duplicate = "drop"')
    report = _import(shop)
    assert report.dropped == {"events with the event_id of an earlier row": 1}
    assert _events(shop)["event_id"].n_unique() == 150_001


def test_order_from_the_file_or_a_column(shop: Path) -> None:
    _change(shop / "map.toml", '"exact"', '"order"')
    with pytest.raises(ConfigError, match='time = "order" needs a sequence'):
        _import(shop)
    _say(shop, 'sequence = "file"')
    _change(shop / "events.csv", "2026-03-02T10:00:00Z", "")  # times of some events at most
    _import(shop)
    assert _events(shop)["sequence"].to_list() == [0, 1, 2]
    assert _events(shop)["timestamp"].null_count() == 1

    _change(shop / "map.toml", '"file"', '"amount"')
    _change(shop / "map.toml", 'value = "amount"\n', "")
    with pytest.raises(DatasetError, match=r"'amount': line 2: '61.5' is no whole number"):
        import_table(shop / "map.toml", shop.parent / "other")


def test_days_and_no_order_at_all(shop: Path) -> None:
    text = EVENTS
    for time in ("2026-03-01T20:15:00+08:00", "2026-03-02T10:00:00Z", "2026-03-08T17:00:00+08:00"):
        text = text.replace(time, time[:10])
    (shop / "events.csv").write_text(text)
    with pytest.raises(DatasetError, match="is a day without a time of day"):
        _import(shop)
    _change(shop / "map.toml", '"exact"', '"day"')
    report = _import(shop)
    assert (report.summary.time, report.summary.warnings) == (
        "day",
        ("1 of 3 items have no event.",),
    )
    assert _events(shop)["timestamp"][0] == datetime(2026, 3, 1, tzinfo=UTC)

    _change(shop / "map.toml", '"day"', '"none"')
    with pytest.raises(ConfigError, match="leave timestamp and sequence out"):
        import_table(shop / "map.toml", shop.parent / "none")
    _change(shop / "map.toml", 'timestamp = { column = "time", format = "iso8601" }\n', "")
    none = import_table(shop / "map.toml", shop.parent / "none")
    assert none.notes == ("Columns of events.csv that the map does not name: time.",)
    assert none.summary.time == "none"


def test_every_optional_column(shop: Path) -> None:
    (shop / "events.csv").write_text(
        "user,item,action,time,seq,shown,from,place,chance,fold\n"
        "ann,film-1,pv,1772323200000,7,x1,flute-7,0,0.25,fit\n"
        "ann,mat-1,pv,,8,,,,,held\n"
    )
    _change(shop / "map.toml", 'format = "iso8601"', 'format = "unix_ms"')
    _change(shop / "map.toml", 'value = "amount"\n', "")
    _say(
        shop,
        'sequence = "seq"',
        'exposure_id = "shown"',
        'source_item_id = "from"',
        'position = "place"',
        'propensity = "chance"',
        'split = { column = "fold", values = { fit = "train", held = "test" } }',
    )
    _import(shop)
    events = _events(shop)
    assert events.drop("event_id", "timestamp").rows() == [
        ("ann", "film-1", "view", 7, "x1", "flute-7", 0, 0.25, "train"),
        ("ann", "mat-1", "view", 8, None, None, None, None, "test"),
    ]
    # An event that is held out may lack its time; one that is learned from may not.
    assert events["timestamp"].is_null().to_list() == [False, True]
    _change(shop / "events.csv", "held", "fit")
    with pytest.raises(DatasetError, match="'time': line 3: there is no timestamp"):
        import_table(shop / "map.toml", shop.parent / "other")


def test_items_users_and_links_with_everything(shop: Path) -> None:
    (shop / "items.csv").write_text(
        "sku,type,name,listed,gone,stock,image\n"
        "flute-7,goods,Bamboo flute,2026-01-01,,1,0.5 1\n"
        "film-1,clip,,2026-01-02,2026-05-01,true,\n"
        "mat-1,goods,Mat,,,FALSE,[1 2]\n"
    )
    (shop / "users.csv").write_text("who,city\nann,Guiyang\nbob,\nann,Twice\n")
    (shop / "links.jsonl").write_text(
        '{"v": "film-1", "p": "flute-7", "from": 1772323200}\n{"v": "film-1", "p": "gone-1"}\n'
    )
    (shop / "map.toml").write_text(
        MAP[: MAP.index("[items.features]")]
        + 'created_at = { column = "listed", format = "%Y-%m-%d" }\n'
        'expires_at = { column = "gone", format = "iso8601" }\navailable = "stock"\n'
        '[items.features]\nimage = { type = "vector", dim = 2, separator = " " }\n'
        '[users]\nfiles = "users.csv"\nuser_id = "who"\non_duplicate = "drop"\n'
        '[users.features]\ncity = { type = "category" }\n'
        '[links]\nfiles = "links.jsonl"\nfrom_item = "v"\nto_item = "p"\nunknown_items = "drop"\n'
        'relation = { constant = "shows" }\nstart = { column = "from", format = "unix_s" }\n'
    )
    report = _import(shop)
    assert report.dropped == {
        "users with the user_id of an earlier row": 1,
        "links of items without a row": 1,
    }
    assert report.written == {"users": 2, "items": 3, "links": 1, "events": 3}
    items = _items(shop)
    assert items["image"].to_list() == [[0.5, 1.0], None, [1.0, 2.0]]
    assert items["available"].to_list() == [True, True, False]
    assert items["created_at"][0] == datetime(2026, 1, 1, tzinfo=UTC)
    assert items["title"].to_list() == ["Bamboo flute", "", "Mat"]
    users = pl.read_parquet(shop.parent / "out/users.parquet")
    assert users.rows() == [("ann", "Guiyang"), ("bob", None)]
    links = pl.read_parquet(shop.parent / "out/links.parquet")
    assert links.rows() == [("film-1", "flute-7", "shows", datetime(2026, 3, 1, tzinfo=UTC), None)]


def test_the_printed_example_is_a_map(shop: Path) -> None:
    (shop / "map.toml").write_text(EXAMPLE.read_text())
    with (shop / "events.csv").open("a") as file:
        file.write("bob,,login,2026-03-02T10:00:00Z,\n")
    (shop / "users.csv").write_text("user,city\nann,Guiyang\n")
    (shop / "links.csv").write_text("video,sku\nfilm-1,flute-7\n")
    report = _import(shop)
    assert report.written == {"users": 2, "items": 3, "links": 1, "events": 3}
    assert "Event 'hide' is declared but never happens." in report.summary.warnings


def test_the_command_prints_an_example_and_imports(
    shop: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    app = typer.main.get_command(importers)
    app.main(["table", "--example"], standalone_mode=False)
    assert capfd.readouterr().out == EXAMPLE.read_text()
    app.main(["table", str(shop / "map.toml"), str(shop.parent / "out")], standalone_mode=False)
    said = capfd.readouterr().out
    assert "3 events\n" in said
    assert "note     1 of 3 items have no event.\n" in said
    assert f"Next: penchant train {shop.parent / 'out'} --out RUN" in said


def test_the_types_of_parquet_are_taken_as_they_are(shop: Path) -> None:
    pl.DataFrame(
        {
            "user": [7, 8],
            "item": pl.Series(["film-1", "flute-7"], dtype=pl.Categorical),
            "action": ["pv", "order"],
            "time": pl.Series(
                [datetime(2026, 3, 1, 20), datetime(2026, 3, 2)], dtype=pl.Datetime("ns")
            ),
            "amount": pl.Series(["1.50", None]).cast(pl.Decimal(10, 2)),
        }
    ).write_parquet(shop / "events.parquet")
    pl.DataFrame(
        {
            "sku": ["flute-7", "film-1"],
            "type": ["goods", "clip"],
            "name": ["Flute", None],
            "brand": [None, "Feng"],
            "tags": [["music", "handmade"], None],
            "price_cny": pl.Series([88, None], dtype=pl.Int16),
        }
    ).write_parquet(shop / "items.parquet")
    _change(shop / "map.toml", "events.csv", "events.parquet")
    _change(shop / "map.toml", "items.csv", "items.parquet")
    _change(shop / "map.toml", 'format = "iso8601"', 'zone = "Asia/Shanghai"')
    import_table(shop / "map.toml", shop.parent / "out")
    assert _events(shop).select("user_id", "item_id", "value").rows() == [
        ("7", "film-1", 1.5),
        ("8", "flute-7", None),
    ]
    assert _events(shop)["timestamp"][0] == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert _items(shop).select("title", "tags", "price").rows() == [
        ("Flute", ["music", "handmade"], 88.0),
        ("", [], None),
    ]
