"""Both layouts of MicroLens, their malformed lines, and the real set where it is there."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import DatasetError
from model.schema import read_schema
from training.importers.microlens import import_microlens

MS = 1_584_541_617_000

# User 2's lines are out of order, and one comes twice.
TIMED = (
    "user,item,timestamp\n"
    f"2,11,{MS + 2}\n1,10,{MS}\n2,10,{MS + 1}\n1,10,{MS + 5}\n2,11,{MS + 2}\n10,12,{MS}\n"
)
ORDERED = "1\t10 12\n2\t10 11 10\n"
# As published: some texts are quoted, some have quotes in them, and none spans two lines.
TITLES = '10,"He said ""go"", and went"\n11,a "lone quote, and a comma\n13, Unwatched\n'


def _folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    return _folder(
        tmp_path / "raw",
        **{"MicroLens-100k_pairs.csv": TIMED, "MicroLens-100k_title_en.csv": TITLES},
    )


@pytest.fixture
def ordered(tmp_path: Path) -> Path:
    return _folder(
        tmp_path / "raw",
        **{"MicroLens-50k_pairs.tsv": ORDERED, "MicroLens-50k_titles.csv": "item,title\n" + TITLES},
    )


def _events(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/*.parquet")


def test_pairs_with_times(timed: Path, tmp_path: Path) -> None:
    told: list[float] = []
    out = tmp_path / "out"
    report = import_microlens(timed, out, progress=lambda part, _: told.append(part))
    assert report.read == {"MicroLens-100k_title_en.csv": 3, "MicroLens-100k_pairs.csv": 6}
    assert report.written == {"users": 3, "items": 3, "events": 5}
    assert report.dropped == {
        "events that repeat a user, video and time": 1,
        "titles of videos without an event": 1,
    }
    assert report.notes == ("1 videos have no title.",)
    assert told == sorted(told) and told[-1] == 1.0
    assert (report.summary.time, report.summary.warnings) == ("exact", ())
    assert report.summary.first == datetime.fromtimestamp(MS / 1000, UTC)

    # Each user's oldest first, and no second event from the line that came twice.
    by_user = {
        user: frame.select("item_id", pl.col("timestamp").dt.timestamp("ms") - MS).rows()
        for (user,), frame in _events(out).partition_by("user_id", as_dict=True).items()
    }
    assert by_user == {
        "1": [("10", 0), ("10", 5)],
        "2": [("10", 1), ("11", 2)],
        "10": [("12", 0)],
    }
    assert pl.read_parquet(out / "items.parquet").select("item_id", "kind", "title").rows() == [
        ("10", "video", 'He said "go", and went'),
        ("11", "video", 'a "lone quote, and a comma'),
        ("12", "video", ""),
    ]
    assert read_schema(out).name == "microlens-100k"


def test_pairs_in_order(ordered: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = import_microlens(ordered, out)
    assert report.read == {
        "MicroLens-50k_titles.csv": 3,
        "MicroLens-50k_pairs.tsv, users": 2,
        "MicroLens-50k_pairs.tsv, events": 5,
    }
    assert report.written["events"] == 5
    assert report.summary.time == "order"
    assert _events(out).select("user_id", "item_id", "sequence", "event_id").rows() == [
        ("1", "10", 0, "1-0"),
        ("1", "12", 1, "1-1"),
        ("2", "10", 0, "2-0"),
        ("2", "11", 1, "2-1"),
        ("2", "10", 2, "2-2"),
    ]
    assert "timestamp" not in _events(out).columns


def test_times_are_taken_where_both_lie_there(timed: Path, tmp_path: Path) -> None:
    (timed / "MicroLens-100k_pairs.tsv").write_text(ORDERED)
    assert import_microlens(timed, tmp_path / "out").layout == "times"


def test_categories_are_read_where_they_are_there(timed: Path, tmp_path: Path) -> None:
    (timed / "tags_to_summary.csv").write_text("10,Food\n12,Music\n99,Unwatched\n")
    report = import_microlens(timed, tmp_path / "out")
    assert report.read["tags_to_summary.csv"] == 3
    assert report.dropped["categories of videos without an event"] == 1
    items = pl.read_parquet(tmp_path / "out/items.parquet")
    # Video 12 has a category and no title: one does not hang on the other.
    assert items["category"].to_list() == ["Food", None, "Music"]
    assert read_schema(tmp_path / "out").item_features["category"].filterable


BROKEN: list[tuple[str, str, Callable[[str], str], str]] = [
    ("timed", "pairs.csv", lambda t: t.replace("user,", "uid,"), "there is no such column"),
    ("timed", "pairs.csv", lambda t: t + "1,10\n", "line 8: Expected 3 columns, got 2"),
    ("timed", "pairs.csv", lambda t: t.replace("10,12", "x,12"), "line 7: 'x' is no number"),
    ("timed", "pairs.csv", lambda t: t.replace("10,12", "10,"), "line 7: None is no number"),
    ("timed", "pairs.csv", lambda t: t + "1,10,May\n", "line 8: 'May' is no finite number"),
    ("timed", "pairs.csv", lambda t: t + "1,10,\n", "line 8: there is no time"),
    ("timed", "pairs.csv", lambda t: t + f"1,10,{MS}000000\n", "as unix_ms is before 1970 or"),
    ("timed", "title_en.csv", lambda t: t + "continued\n", "line 4: 'continued' is not a video's"),
    ("timed", "title_en.csv", lambda t: t + "10,again\n", "video 10 has two lines"),
    ("ordered", "pairs.tsv", lambda t: t + "3\n", "line 3: '3' is not a user's number"),
    ("ordered", "pairs.tsv", lambda t: t + "3\t1  2\n", "line 3: "),
    ("ordered", "pairs.tsv", lambda t: t + "1\t12\n", "line 3: '1\\t12' is a second line"),
]


@pytest.mark.parametrize(("layout", "file", "damage", "says"), BROKEN)
def test_a_malformed_line_is_named(
    layout: str,
    file: str,
    damage: Callable[[str], str],
    says: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue(layout)
    (path,) = folder.glob(f"*_{file}")
    path.write_text(damage(path.read_text()))
    with pytest.raises(DatasetError) as caught:
        import_microlens(folder, tmp_path / "out")
    assert says in str(caught.value)
    assert caught.value.file == path.name
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_windows_line_ends_are_read(ordered: Path, tmp_path: Path) -> None:
    for path in ordered.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert import_microlens(ordered, tmp_path / "out").written["events"] == 5
    assert pl.read_parquet(tmp_path / "out/items.parquet")["title"][1] == TITLES.split("\n")[1][3:]


def test_two_sizes_in_one_folder_are_refused(timed: Path, tmp_path: Path) -> None:
    (timed / "MicroLens-1M_pairs.csv").write_text(TIMED)
    with pytest.raises(DatasetError, match="Keep one size of MicroLens a folder"):
        import_microlens(timed, tmp_path / "out")


def test_an_unknown_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        import_microlens(tmp_path / "nowhere", tmp_path / "out")
    assert "MicroLens-100k_pairs.csv" in str(caught.value)
    assert "https://recsys.westlake.edu.cn" in str(caught.value)


def test_the_real_set(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data")) / "microlens-50k"
    if not (source / "MicroLens-50k_pairs.tsv").is_file():
        pytest.skip("MicroLens is not here: set PENCHANT_DATA to the folder with microlens-50k")
    report = import_microlens(source, tmp_path / "out")
    summary = report.summary
    assert (summary.num_users, summary.num_items, summary.num_events) == (50_000, 19_220, 359_708)
    assert (summary.time, summary.warnings, report.dropped) == ("order", (), {})
    items = pl.read_parquet(tmp_path / "out/items.parquet")
    assert items.filter(pl.col("title") == "").is_empty()
    assert not items["title"].str.contains('^"').any()
