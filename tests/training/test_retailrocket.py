"""Retailrocket's public release and the layout with held-out purchases; malformed lines."""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import DatasetError
from model.schema import read_schema
from training.importers.retailrocket import import_retailrocket
from training.importers.sources import csv_source

# Visitor 1 bought item 7 twice at one moment, in two transactions; line 6 is line 3 again.
FILES = {
    "events.csv": """\
timestamp,visitorid,event,itemid,transactionid
1433221332117,2,view,8,
1433224214164,1,view,7,
1433223236124,1,addtocart,7,
1433225000500,1,transaction,7,100
1433224214164,1,view,7,
1433225000500,1,transaction,7,101
1433225000600,2,view,9,
,2,view,9,
99999999999999,2,view,9,
""",
    "item_properties_part1.csv": """\
timestamp,itemid,property,value
1435460400000,7,categoryid,30
1439089200000,7,categoryid,31
1435460400000,7,888,1116713 960601 n277.200
1435460400000,7,available,1
1435460400000,55,categoryid,30
""",
    "item_properties_part2.csv": """\
timestamp,itemid,property,value
1431831600000,7,categoryid,32
1431831600000,8,categoryid,40
1431831600000,8,available,0
""",
    "category_tree.csv": "categoryid,parentid\n30,1\n31,20\n20,\n40,\n",
}


@pytest.fixture
def public(tmp_path: Path) -> Path:
    folder = tmp_path / "public"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def events_of(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/part-*.parquet")


@pytest.mark.parametrize("block_bytes", [100, 4 * 2**20])
def test_public_release(
    block_bytes: int, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", block_bytes)
    told: list[float] = []
    out = tmp_path / "out"
    report = import_retailrocket(public, out, progress=lambda part, _: told.append(part))
    assert report.layout == "public release"
    assert report.read == {
        "events.csv": 9,
        "item_properties_part1.csv": 5,
        "item_properties_part2.csv": 3,
        "category_tree.csv": 4,
    }
    assert report.written == {"users": 2, "items": 3, "categories of items": 2, "events": 6}
    assert report.dropped == {
        "events.csv: lines without a time": 1,
        "events.csv: times outside 1970 to 2099": 1,
        "events.csv: exact duplicates of an earlier line": 1,
        "item_properties: hashed properties, whose meaning was not published": 1,
        "item_properties: available, which changes over time": 2,
        "item_properties: categories that the item later left": 2,
        "item_properties: categories of items without an event": 1,
    }
    by_file = {
        prefix: sum(n for reason, n in report.dropped.items() if reason.startswith(prefix))
        for prefix in ("events.csv", "item_properties")
    }
    assert report.read["events.csv"] - by_file["events.csv"] == report.written["events"]
    assert 5 + 3 - by_file["item_properties"] == report.written["categories of items"]
    assert told == sorted(told) and told[-1] == 1.0
    assert report.summary.warnings == ()

    events = events_of(out).sort("user_id", maintain_order=True)
    assert events.select("user_id", "event_id", "item_id", "event").rows() == [
        ("1", "4", "7", "cart"),
        ("1", "3", "7", "view"),
        ("1", "5", "7", "buy"),
        ("1", "7", "7", "buy"),
        ("2", "2", "8", "view"),
        ("2", "8", "9", "view"),
    ]
    assert events["timestamp"][0] == datetime(2015, 6, 2, 5, 33, 56, 124_000, tzinfo=UTC)
    assert pl.read_parquet(out / "items.parquet").select("item_id", "categories").rows() == [
        ("7", ["31", "20"]),
        ("8", ["40"]),
        ("9", []),
    ]
    schema = read_schema(out)
    assert (schema.time, schema.events["buy"].role) == ("exact", "conversion")
    assert schema.item_features["categories"].filterable


def test_a_category_that_the_tree_lacks_has_no_parent(public: Path, tmp_path: Path) -> None:
    (public / "category_tree.csv").write_text("categoryid,parentid\n30,1\n")
    import_retailrocket(public, tmp_path / "out")
    items = pl.read_parquet(tmp_path / "out/items.parquet")
    assert items["categories"].to_list() == [["31"], ["40"], []]


BROKEN = [
    ("events.csv", "1433225000600,2,look,9,\n", "line 11: 'look' must be one of view, addtocart"),
    ("events.csv", "noon,2,view,9,\n", "line 11: 'noon' must be Unix milliseconds"),
    ("events.csv", "1433225000600,,view,9,\n", "line 11: '' must be an id"),
    ("events.csv", "1433225000600,2,view,9\n", "line 11: Expected 5 columns, got 4"),
    ("item_properties_part1.csv", "x,7,categoryid,3\n", "line 7: 'x' must be Unix milliseconds"),
    ("item_properties_part1.csv", "1,7,categoryid,\n", "line 7: '' must be an id"),
    ("item_properties_part2.csv", "1,7,888,a,b\n", "line 5: Expected 4 columns, got 5"),
    ("category_tree.csv", "30,2\n", "line 6: '30' must be a category that has no earlier line"),
    ("category_tree.csv", ",2\n", "line 6: '' must be an id"),
]


@pytest.mark.parametrize(("file", "line", "says"), BROKEN)
def test_a_malformed_line_is_named(
    file: str, line: str, says: str, public: Path, tmp_path: Path
) -> None:
    (public / file).write_text(FILES[file] + line)
    with pytest.raises(DatasetError, match=says) as caught:
        import_retailrocket(public, tmp_path / "out")
    assert caught.value.file == file
    assert [path.name for path in tmp_path.iterdir()] == ["public"]


@pytest.mark.parametrize("file", ["item_properties_part2.csv", "category_tree.csv"])
def test_a_missing_file_is_named(file: str, public: Path, tmp_path: Path) -> None:
    (public / file).unlink()
    with pytest.raises(DatasetError, match="no such file") as caught:
        import_retailrocket(public, tmp_path / "out")
    assert caught.value.file == file
    assert "kaggle.com" in str(caught.value)


def test_columns_in_another_order_are_read_by_name(public: Path, tmp_path: Path) -> None:
    text = "parentid,note,categoryid\n20,,31\n,root,40\n"
    (public / "category_tree.csv").write_text(text)
    import_retailrocket(public, tmp_path / "out")
    items = pl.read_parquet(tmp_path / "out/items.parquet")
    assert items["categories"].to_list() == [["31", "20"], ["40"], []]


def test_an_unknown_folder_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"events\.csv.*kaggle\.com"):
        import_retailrocket(tmp_path, tmp_path / "out")


def test_held_out_purchases_have_no_time(tmp_path: Path) -> None:
    source, out = tmp_path / "held_out", tmp_path / "out"
    source.mkdir()
    lines = "user\titem\tbehaviour\tunix_ts\n0\t3\tview\t1433221969\n0\t1\tcart\t1433222104\n"
    (source / "interactions.tsv").write_text(lines)
    (source / "test_buy.tsv").write_text("user\titem\n0\t4\n")
    report = import_retailrocket(source, out)
    assert report.written == {"users": 1, "items": 3, "events": 3}
    assert events_of(out).select("event", "timestamp", "split").rows() == [
        ("view", datetime(2015, 6, 2, 5, 12, 49, tzinfo=UTC), "train"),
        ("cart", datetime(2015, 6, 2, 5, 15, 4, tzinfo=UTC), "train"),
        ("buy", None, "test"),
    ]


def test_the_real_copy(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data")) / "retailrocket-mb"
    if not source.is_dir():
        pytest.skip("set PENCHANT_DATA to the folder that holds retailrocket-mb")
    report = import_retailrocket(source, tmp_path / "out")
    summary = report.summary
    assert (summary.num_users, summary.num_items, report.dropped) == (2_174, 30_113, {})
    assert summary.events_by_name == {"view": 75_374, "cart": 12_456, "buy": 9_551 + 2_174}
    events = events_of(tmp_path / "out")
    assert events.filter(pl.col("timestamp").is_null())["split"].to_list() == ["test"] * 2_174
