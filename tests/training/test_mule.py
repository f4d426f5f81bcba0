"""MULE's Taobao split in both layouts: what is held out is not learned; malformed lines."""

import os
from pathlib import Path

import polars as pl
import pytest

from model.errors import DatasetError
from model.schema import read_schema
from training.importers.mule import import_mule
from training.importers.writer import ImportReport

PAIRS = {
    "view": "1 10\n1 11\n2 10\n2 12\n2 10\n",
    "cart": "1 11\n",
    "train": "1 10\n1 13\n2 10\n2 14\n2 15\n",
    "valid": "1 13\n2 14\n",
    "test": "1 11\n2 15\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    for part, text in PAIRS.items():
        (folder / f"{part}.txt").write_text(text)
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    for part, text in PAIRS.items():
        name = f"buy_{part}" if part in ("train", "valid", "test") else part
        (folder / f"{name}.tsv").write_text("user\titem\n" + text.replace(" ", "\t"))
    return folder


def events_of(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/part-*.parquet")


def assert_reconciled(report: ImportReport) -> None:
    assert sum(report.read.values()) - sum(report.dropped.values()) == report.written["events"]
    assert report.written["events"] == events_of(report.out).height


@pytest.mark.parametrize("layout", ["repository", "tables"])
def test_both_layouts_give_the_same_events(
    layout: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    told: list[float] = []
    out = tmp_path / "out"
    report = import_mule(
        request.getfixturevalue(layout), out, progress=lambda part, _: told.append(part)
    )
    assert report.layout == layout
    assert report.written == {"users": 2, "items": 6, "events": 11}
    assert_reconciled(report)
    assert told == sorted(told) and told[-1] == 1.0
    buys = events_of(out).filter(pl.col("event") == "buy")
    assert buys.select("user_id", "item_id", "split").rows() == [
        ("1", "10", "train"),
        ("2", "10", "train"),
        ("1", "13", "validation"),
        ("2", "14", "validation"),
        ("1", "11", "test"),
        ("2", "15", "test"),
    ]
    # A view or cart of what is held out stays: the published figures are with them.
    others = events_of(out).filter(pl.col("event") != "buy")
    assert set(others["split"]) == {"train"}
    assert ("1", "11", "cart") in others.select("user_id", "item_id", "event").rows()
    assert set(pl.read_parquet(out / "items.parquet")["kind"]) == {"product"}


def test_what_was_taken_out_is_said(tables: Path, tmp_path: Path) -> None:
    report = import_mule(tables, tmp_path / "out")
    assert report.dropped == {
        "view.tsv: exact duplicates of an earlier line": 1,
        "buy_train.tsv: purchases that buy_valid.tsv holds out": 2,
        "buy_train.tsv: purchases that buy_test.tsv holds out": 1,
    }


def test_a_purchase_is_held_out_once(tables: Path, tmp_path: Path) -> None:
    (tables / "buy_valid.tsv").write_text("user\titem\n1\t13\n2\t15\n")
    report = import_mule(tables, tmp_path / "out")
    assert report.dropped["buy_valid.tsv: purchases that buy_test.tsv holds out"] == 1
    assert_reconciled(report)
    held_out = events_of(tmp_path / "out").filter(pl.col("split") != "train")
    assert held_out.select("user_id", "item_id").is_unique().all()


def test_no_time_and_no_order_is_invented(tables: Path, tmp_path: Path) -> None:
    report = import_mule(tables, tmp_path / "out")
    assert read_schema(tmp_path / "out").time == "none"
    assert set(events_of(tmp_path / "out").columns) == {
        "event_id",
        "user_id",
        "item_id",
        "event",
        "split",
    }
    assert (report.summary.first, report.summary.last) == (None, None)
    assert any("no times" in note for note in report.notes)


@pytest.mark.parametrize(
    ("layout", "file", "text", "says"),
    [
        ("repository", "cart.txt", "1 10\n1 11 12\n", "line 2: Expected 2 columns, got 3"),
        ("repository", "cart.txt", "1 10\n111\n", "line 2: Expected 2 columns, got 1"),
        ("repository", "cart.txt", "1 10\n1 \n", "line 2: '' must be an id"),
        ("repository", "cart.txt", "", "the file is empty"),
        ("tables", "cart.tsv", "user\titem\n1\t10\n2\t3\t4\n", "line 3: Expected 2"),
        ("tables", "cart.tsv", "1\t10\n2\t3\n", "there is no such column"),
    ],
)
def test_a_malformed_file_is_named(
    layout: str, file: str, text: str, says: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(layout)
    (source / file).write_text(text)
    with pytest.raises(DatasetError, match=says) as caught:
        import_mule(source, tmp_path / "out")
    assert caught.value.file == file
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tables: Path, tmp_path: Path) -> None:
    (tables / "view.tsv").unlink()
    with pytest.raises(DatasetError, match="no such file") as caught:
        import_mule(tables, tmp_path / "out")
    assert caught.value.file == "view.tsv"


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such folder.*view\.txt.*github\.com/geonwooko"):
        import_mule(tmp_path / "nowhere", tmp_path / "out")


def test_an_unknown_folder_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"buy_train\.tsv.*geonwooko/MULE"):
        import_mule(tmp_path, tmp_path / "out")


def test_the_real_copy(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data")) / "taobao-mb-mule"
    if not source.is_dir():
        pytest.skip("set PENCHANT_DATA to the folder that holds taobao-mb-mule")
    report = import_mule(source, tmp_path / "out")
    summary = report.summary
    assert (summary.num_users, summary.num_items) == (15_449, 11_953)
    assert summary.events_by_name == {"view": 873_954, "cart": 195_476, "buy": 92_180 + 15_449}
    assert report.dropped == {"buy_train.tsv: purchases that buy_valid.tsv holds out": 15_449}
    assert_reconciled(report)
