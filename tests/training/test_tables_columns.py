"""Every column that a map may name, the types of Parquet, and the command with its example."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import typer

from model.errors import DatasetError
from tests.training.shop_tables import (
    MAP,
    change,
    events_of,
    import_shop,
    items_of,
    say,
    write_shop,
)
from training.import_cli import importers
from training.importers.map_file import EXAMPLE
from training.importers.tables import import_table


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def test_every_optional_column(shop: Path) -> None:
    (shop / "events.csv").write_text(
        "user,item,action,time,seq,shown,from,place,chance,fold\n"
        "ann,film-1,pv,1772323200000,7,x1,flute-7,0,0.25,fit\n"
        "ann,mat-1,pv,,8,,,,,held\n"
    )
    change(shop / "map.toml", 'format = "iso8601"', 'format = "unix_ms"')
    change(shop / "map.toml", 'value = "amount"\n', "")
    say(
        shop,
        'sequence = "seq"',
        'exposure_id = "shown"',
        'source_item_id = "from"',
        'position = "place"',
        'propensity = "chance"',
        'split = { column = "fold", values = { fit = "train", held = "test" } }',
    )
    import_shop(shop)
    events = events_of(shop)
    assert events.drop("event_id", "timestamp").rows() == [
        ("ann", "film-1", "view", 7, "x1", "flute-7", 0, 0.25, "train"),
        ("ann", "mat-1", "view", 8, None, None, None, None, "test"),
    ]
    # An event that is held out may lack its time; one that is learned from may not.
    assert events["timestamp"].is_null().to_list() == [False, True]
    change(shop / "events.csv", "held", "fit")
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
    report = import_shop(shop)
    assert report.dropped == {
        "users with the user_id of an earlier row": 1,
        "links of items without a row": 1,
    }
    assert report.written == {"users": 2, "items": 3, "links": 1, "events": 3}
    items = items_of(shop)
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
    report = import_shop(shop)
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
    change(shop / "map.toml", "events.csv", "events.parquet")
    change(shop / "map.toml", "items.csv", "items.parquet")
    change(shop / "map.toml", 'format = "iso8601"', 'zone = "Asia/Shanghai"')
    import_table(shop / "map.toml", shop.parent / "out")
    assert events_of(shop).select("user_id", "item_id", "value").rows() == [
        ("7", "film-1", 1.5),
        ("8", "flute-7", None),
    ]
    assert events_of(shop)["timestamp"][0] == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert items_of(shop).select("title", "tags", "price").rows() == [
        ("Flute", ["music", "handmade"], 88.0),
        ("", [], None),
    ]
