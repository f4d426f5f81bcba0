"""Taobao UserBehavior in both layouts, times that cannot be, malformed lines, the real copy."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DatasetError
from model.schema import read_schema
from training.importers import behaviours, grouping
from training.importers.sources import csv_source
from training.importers.taobao import import_taobao
from training.importers.writer import ImportReport

# 1511539200 is midnight of 2017-11-25 in China, 1512316799 the last second of 2017-12-03. User 7 is
# in two places of the file, newest line first; items 10 and 30 have the same second.
LOG = """\
7,10,500,buy,1512000300
7,10,500,pv,1512000100
7,30,501,cart,1512000100
8,10,500,pv,1511539200
8,20,501,fav,1512316799
7,10,500,pv,1512000100
8,20,502,pv,1512000000
9,20,501,pv,1511539199
9,20,501,pv,1512316800
9,40,503,pv,-1511539200
9,40,503,pv,
"""

INTERACTIONS = """\
user\titem\tbehaviour\tunix_ts
0\t3\tview_of_bought\t1511929000
0\t3\tbuy\t1511929781
0\t4\tcart\t1511929781
0\t4\tcart\t1511929781
1\t3\tfav\t1400000000
1\t5\tfav\t1511929781
"""

TEST_BUY = "user\titem\n0\t9\n2\t3\n0\t9\n"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "UserBehavior.csv").write_text(LOG)
    return folder


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    folder = tmp_path / "held_out"
    folder.mkdir()
    (folder / "interactions.tsv").write_text(INTERACTIONS)
    (folder / "test_buy.tsv").write_text(TEST_BUY)
    return folder


def events_of(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/part-*.parquet")


def assert_reconciled(report: ImportReport) -> None:
    """Every line that was read is an event now, or is counted among the dropped."""
    assert sum(report.read.values()) - sum(report.dropped.values()) == report.written["events"]
    assert report.written["events"] == events_of(report.out).height == report.summary.num_events


def test_public_log(public: Path, tmp_path: Path) -> None:
    told: list[float] = []
    out = tmp_path / "new" / "taobao"
    report = import_taobao(public, out, progress=lambda part, _: told.append(part))

    assert report.layout == "public release"
    assert report.read == {"UserBehavior.csv": 11}
    assert report.written == {"users": 2, "items": 3, "events": 6}
    assert report.dropped == {
        "UserBehavior.csv: lines without a time": 1,
        "UserBehavior.csv: times outside 2017-11-25 to 2017-12-03 in China": 3,
        "UserBehavior.csv: exact duplicates of an earlier line": 1,
    }
    assert_reconciled(report)
    assert report.summary.time == "exact"
    assert report.summary.first == datetime(2017, 11, 24, 16, tzinfo=UTC)
    assert report.summary.last == datetime(2017, 12, 3, 15, 59, 59, tzinfo=UTC)
    assert report.summary.warnings == ()
    assert told == sorted(told) and told[-1] == 1.0

    # Each user's oldest first; the tie stays in the order of the lines; ids are line numbers.
    columns = ("user_id", "event_id", "item_id", "event", "sequence")
    by_user = events_of(out).select(columns).sort("user_id", maintain_order=True)
    assert by_user.rows() == [
        ("7", "2", "10", "view", 2),
        ("7", "3", "30", "cart", 3),
        ("7", "1", "10", "buy", 1),
        ("8", "4", "10", "view", 4),
        ("8", "7", "20", "view", 7),
        ("8", "5", "20", "fav", 5),
    ]
    assert pl.read_parquet(out / "items.parquet").rows(named=True) == [
        {"item_id": "10", "categories": ["500"], "kind": "product", "title": ""},
        {"item_id": "20", "categories": ["501", "502"], "kind": "product", "title": ""},
        {"item_id": "30", "categories": ["501"], "kind": "product", "title": ""},
    ]
    schema = read_schema(out)
    assert {name: event.role for name, event in schema.events.items()} == {
        "view": "engagement",
        "cart": "engagement",
        "fav": "engagement",
        "buy": "conversion",
    }
    assert schema.events["buy"].weight > schema.events["view"].weight
    assert schema.item_features["categories"].filterable


def test_nothing_else_is_left_beside_the_dataset(public: Path, tmp_path: Path) -> None:
    out = tmp_path / "place" / "taobao"
    import_taobao(public, out)
    assert [path.name for path in out.parent.iterdir()] == ["taobao"]


def test_the_period_can_be_named(public: Path, tmp_path: Path) -> None:
    day = date(2017, 11, 30)
    report = import_taobao(public, tmp_path / "out", first_day=day, last_day=day)
    assert set(events_of(tmp_path / "out")["event_id"]) == {"1", "2", "3", "7"}
    assert report.dropped["UserBehavior.csv: times outside 2017-11-30 to 2017-11-30 in China"] == 5
    assert_reconciled(report)


def test_a_period_that_ends_before_it_starts_is_refused(public: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="last_day is 2017-12-01"):
        import_taobao(
            public, tmp_path / "out", first_day=date(2017, 12, 2), last_day=date(2017, 12, 1)
        )


def test_a_log_of_other_years_is_refused_and_not_written(public: Path, tmp_path: Path) -> None:
    (public / "UserBehavior.csv").write_text("1,2,3,pv,1411539200\n1,3,3,pv,1411539300\n")
    with pytest.raises(DatasetError, match=r"nothing is left to write.*2 .*times outside"):
        import_taobao(public, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["public"]


def test_small_batches_and_many_buckets_change_nothing(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"{user},{user * item % 37},{item % 5},{'pv' if item % 3 else 'buy'},{1511600000 + item}"
        for item in range(60)
        for user in range(40)
    ]
    (public / "UserBehavior.csv").write_text("\n".join(lines + lines[100:150]) + "\n")
    whole = import_taobao(public, tmp_path / "whole")
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(grouping, "_BUCKET_BYTES", 5_000)
    monkeypatch.setattr(behaviours, "SLICE_ROWS", 30)
    small = import_taobao(public, tmp_path / "small")
    assert small.dropped == {"UserBehavior.csv: exact duplicates of an earlier line": 50}
    assert (whole.read, whole.written, whole.dropped) == (small.read, small.written, small.dropped)
    for name in ("items.parquet", "events/part-00000.parquet"):
        one, other = (pl.read_parquet(tmp_path / d / name) for d in ("whole", "small"))
        key = one.columns[0]
        assert one.sort(key).equals(other.sort(key))
    # Within a user the order is the same without sorting.
    one, other = (
        events_of(tmp_path / d).group_by("user_id").agg("event_id").sort("user_id")
        for d in ("whole", "small")
    )
    assert one.equals(other)


BROKEN = [
    ("1,2,3,pv\n", "line 12: Expected 5 columns, got 4", None),
    ("1,2,3,pv,1512000300,x\n", "line 12: Expected 5 columns, got 6", None),
    ("1,2,3,look,1512000300\n", "line 12: 'look' must be one of pv, cart, fav, buy", "behaviour"),
    ("1,2,3,pv,today\n", "line 12: 'today' must be Unix seconds", "unix_seconds"),
    ("1,2,3,pv,1512000300.5\n", "line 12: '1512000300.5' must be Unix", "unix_seconds"),
    ("1,2,3,pv," + "9" * 30 + "\n", "line 12: .* at most 18 digits", "unix_seconds"),
    (",2,3,pv,1512000300\n", "line 12: '' must be an id", "user"),
    ("1,,3,pv,1512000300\n", "line 12: '' must be an id", "item"),
    ("\n1,2,3,pv,soon\n", "line 13: 'soon' must be Unix seconds", "unix_seconds"),
    ("user,item,category,behaviour,time\n", "line 12: 'behaviour' must be one of", "behaviour"),
]


@pytest.mark.parametrize(("line", "says", "column"), BROKEN)
@pytest.mark.parametrize("block_bytes", [64, 4 * 2**20])
def test_a_malformed_line_is_named(
    line: str,
    says: str,
    column: str | None,
    block_bytes: int,
    public: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", block_bytes)
    (public / "UserBehavior.csv").write_text(LOG + line)
    with pytest.raises(DatasetError, match=says) as caught:
        import_taobao(public, tmp_path / "out")
    assert (caught.value.file, caught.value.column) == ("UserBehavior.csv", column)
    assert [path.name for path in tmp_path.iterdir()] == ["public"]


def test_bytes_that_are_no_utf8_are_named(public: Path, tmp_path: Path) -> None:
    (public / "UserBehavior.csv").write_bytes(LOG.encode() + b"1,\xff2,3,pv,1512000300\n")
    with pytest.raises(DatasetError, match=r"line 12: .*UTF8"):
        import_taobao(public, tmp_path / "out")


def test_held_out_purchases_have_no_time(held_out: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = import_taobao(held_out, out)
    assert report.read == {"interactions.tsv": 6, "test_buy.tsv": 3}
    assert report.written == {"users": 3, "items": 4, "events": 6}
    assert report.dropped == {
        "interactions.tsv: times outside 2017-11-25 to 2017-12-03 in China": 1,
        "interactions.tsv: exact duplicates of an earlier line": 1,
        "test_buy.tsv: exact duplicates of an earlier line": 1,
    }
    assert_reconciled(report)
    assert any("view_of_bought" in note and "biased" in note for note in report.notes)
    events = events_of(out).sort("user_id", "split", maintain_order=True)
    assert events.select("event_id", "user_id", "item_id", "event", "split").rows() == [
        ("test-2", "0", "9", "buy", "test"),
        ("2", "0", "3", "view_of_bought", "train"),
        ("3", "0", "3", "buy", "train"),
        ("4", "0", "4", "cart", "train"),
        ("7", "1", "5", "fav", "train"),
        ("test-3", "2", "3", "buy", "test"),
    ]
    assert events.filter(pl.col("timestamp").is_null())["split"].to_list() == ["test", "test"]
    assert read_schema(out).time == "exact"


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("interactions.tsv", "user\titem\tunix_ts\n", "there is no such column"),
        ("interactions.tsv", "user\titem\tbehaviour\tunix_ts\n", "nothing is left to write"),
        ("interactions.tsv", "", "the file is empty"),
        ("interactions.tsv", INTERACTIONS + "1\t2\tview\t1511929781\n", "line 8: 'view' must be"),
        ("test_buy.tsv", "user\titem\n1\n", "line 2: Expected 2 columns, got 1"),
        ("test_buy.tsv", "user\titem\n1\t\n", "line 2: '' must be an id"),
        ("test_buy.tsv", "user item\n", "there is no such column"),
    ],
)
def test_a_malformed_copy_is_refused(
    file: str, text: str, says: str, held_out: Path, tmp_path: Path
) -> None:
    (held_out / file).write_text(text)
    with pytest.raises(DatasetError, match=says) as caught:
        import_taobao(held_out, tmp_path / "out")
    assert caught.value.file == file
    assert not (tmp_path / "out").exists()


def test_the_held_out_file_has_to_be_there(held_out: Path, tmp_path: Path) -> None:
    (held_out / "test_buy.tsv").unlink()
    with pytest.raises(DatasetError, match="no such file") as caught:
        import_taobao(held_out, tmp_path / "out")
    assert caught.value.file == "test_buy.tsv"


def test_an_unknown_folder_says_what_to_get(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("?")
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match=r"UserBehavior\.csv.*tianchi"):
            import_taobao(source, tmp_path / "out")
    with pytest.raises(DatasetError, match="Name its folder"):
        import_taobao(tmp_path / "notes.txt", tmp_path / "out")


def test_a_taken_folder_is_left_alone(public: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="Choose another output folder"):
        import_taobao(public, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_real_copy(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data"))
    source = data / "taobao-userbehavior-mb"
    if not source.is_dir():
        pytest.skip("set PENCHANT_DATA to the folder that holds taobao-userbehavior-mb")
    report = import_taobao(source, tmp_path / "out")
    assert report.dropped == {}
    assert_reconciled(report)
    assert report.summary.num_users == 31_882
    assert report.summary.events_by_name == {
        "view_of_bought": 113_925,
        "cart": 140_068,
        "fav": 49_482,
        "buy": 167_862 + 10_000,
    }
    events = events_of(tmp_path / "out")
    assert events.filter(pl.col("timestamp").is_null())["split"].to_list() == ["test"] * 10_000
