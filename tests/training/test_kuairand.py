"""KuaiRand's full releases and its partial layout; what must be refused; the real copy."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from model.errors import DatasetError
from model.schema import read_schema
from tests.training.kuairand_files import SEQUENCES, T0, USERS, VIDEOS, exposure, partial, release
from training.importers import grouping
from training.importers.kuairand import import_kuairand
from training.importers.sources import csv_source
from training.importers.writer import ImportReport

START = datetime.fromtimestamp(T0 / 1000, UTC)


@pytest.fixture
def pure(tmp_path: Path) -> Path:
    return release(tmp_path / "KuaiRand-Pure")


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    return partial(tmp_path / "partial")


def events_of(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/part-*.parquet")


def dropped_of(report: ImportReport, word: str) -> int:
    return sum(count for reason, count in report.dropped.items() if word in reason)


@pytest.mark.parametrize("block_bytes", [600, 4 * 2**20])
def test_full_release(
    block_bytes: int, pure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(grouping, "_BUCKET_BYTES", block_bytes)
    told: list[float] = []
    out = tmp_path / "out"
    report = import_kuairand(pure, out, progress=lambda part, _: told.append(part))
    assert report.layout == "full release KuaiRand-pure"
    assert report.read == {
        "log_standard_4_08_to_4_21_pure.csv": 3,
        "log_standard_4_22_to_5_08_pure.csv": 4,
        "log_random_4_22_to_5_08_pure.csv": 1,
        "video_features_basic_pure.csv": 4,
        "user_features_pure.csv": 4,
    }
    assert report.dropped == {
        "exposures without a time": 1,
        "exposures at times outside 2022-04-07 to 2022-05-09": 1,
        "exact duplicates of an earlier exposure": 1,
        "users without an event": 2,
    }
    read = sum(count for name, count in report.read.items() if name.startswith("log_"))
    assert read - dropped_of(report, "exposure") == report.written["exposures"] == 5
    assert report.read["user_features_pure.csv"] - 2 == report.written["users"] == 2
    assert told == sorted(told) and told[-1] == 1.0

    events = events_of(out).sort("user_id", maintain_order=True)
    early, late = "log_standard_4_08_to_4_21_pure", "log_standard_4_22_to_5_08_pure"
    random = "log_random_4_22_to_5_08_pure"
    assert events.select("user_id", "item_id", "event", "value", "exposure_id").rows() == [
        ("1", "2", "show", None, f"{early}-4"),
        ("1", "2", "hate", None, f"{early}-4"),
        ("1", "0", "show", None, f"{early}-2"),
        ("1", "0", "click", 61.802, f"{early}-2"),
        ("1", "0", "long_view", 61.802, f"{early}-2"),
        ("1", "0", "like", None, f"{early}-2"),
        ("1", "0", "show", None, f"{late}-2"),
        ("1", "0", "click", None, f"{late}-2"),
        ("1", "0", "follow", None, f"{late}-2"),
        ("1", "0", "comment", None, f"{late}-2"),
        ("1", "0", "forward", None, f"{late}-2"),
        ("2", "1", "show", None, f"{early}-3"),
        ("2", "7", "random_show", None, f"{random}-2"),
        ("2", "7", "click", 4.0, f"{random}-2"),
    ]
    assert report.written["events"] == events.height
    # Without looking at the files' order, (timestamp, sequence) gives the same.
    assert events.equals(events.sort("user_id", "timestamp", "sequence"))
    assert events["timestamp"][0] == START + timedelta(milliseconds=100)
    assert events["event_id"][3] == f"{early}-2-click"


def test_roles_and_the_random_flag_are_kept(pure: Path, tmp_path: Path) -> None:
    report = import_kuairand(pure, tmp_path / "out")
    schema = read_schema(tmp_path / "out")
    roles = {name: event.role for name, event in schema.events.items()}
    assert [n for n, role in roles.items() if role == "exposure"] == ["show", "random_show"]
    assert [n for n, role in roles.items() if role == "negative"] == ["hate"]
    assert schema.events["click"].unit == schema.events["long_view"].unit == "seconds"
    assert schema.time == "exact"
    assert [(head.name, head.event, head.window_days) for head in schema.heads] == [
        (name, name, None) for name, role in roles.items() if role != "exposure"
    ]
    notes = " ".join(report.notes)
    assert "random_show" in notes
    assert "Not read: video_features_statistic_pure.csv" in notes
    assert "1 videos of the logs have no row" in notes


def test_videos_and_users_keep_what_is_known(pure: Path, tmp_path: Path) -> None:
    import_kuairand(pure, tmp_path / "out")
    items = pl.read_parquet(tmp_path / "out/items.parquet")
    assert set(items["kind"]) == {"video"} and set(items["title"]) == {""}
    columns = ("item_id", "author", "video_type", "upload_type", "music", "music_type", "tags")
    assert items.select(columns).rows() == [
        ("0", "73", "NORMAL", "LongImport", "91", "9", ["39", "12"]),
        ("1", "74", "AD", None, None, None, []),
        ("2", "73", "NORMAL", "Web", "92", "4", ["2"]),
        ("5", "75", "NORMAL", "Web", "92", "4", []),
        ("7", None, None, None, None, None, []),
    ]
    assert items["duration_seconds"].to_list() == [87.433, None, 5.0, 9.0, None]
    # The start of 2022-04-10 in China; no time where there is no day.
    assert items["created_at"][0] == datetime(2022, 4, 9, 16, tzinfo=UTC)
    assert items["created_at"][2] is None
    users = pl.read_parquet(tmp_path / "out/users.parquet")
    assert users["user_id"].to_list() == ["1", "2"]
    first = users.row(0, named=True)
    assert (first["follow_user_num"], first["friend_user_num"]) == (60.0, None)
    assert (first["follow_user_num_range"], first["is_live_streamer"]) == ("(50,100]", "-124")
    assert (first["onehot_feat0"], first["onehot_feat17"]) == ("1", None)
    assert len(first) == 31


@pytest.mark.parametrize("name", ["1k", "27k"])
def test_the_other_releases_have_the_same_layout(name: str, tmp_path: Path) -> None:
    report = import_kuairand(release(tmp_path / name, name), tmp_path / "out")
    assert report.written["exposures"] == 5
    assert len(report.read) == (7 if name == "27k" else 5)
    assert read_schema(tmp_path / "out").name == f"kuairand-{name}"


def test_the_folder_data_may_be_named_too(pure: Path, tmp_path: Path) -> None:
    assert import_kuairand(pure / "data", tmp_path / "out").written["exposures"] == 5


def test_a_missing_log_of_a_release_is_named(pure: Path, tmp_path: Path) -> None:
    (pure / "data/log_random_4_22_to_5_08_pure.csv").unlink()
    with pytest.raises(DatasetError, match="no such file") as caught:
        import_kuairand(pure, tmp_path / "out")
    assert caught.value.file == "log_random_4_22_to_5_08_pure.csv"
    assert "zenodo.org" in str(caught.value)


def test_two_releases_in_one_folder_are_refused(pure: Path, tmp_path: Path) -> None:
    release(tmp_path / "other", "1k")
    for path in (tmp_path / "other/data").iterdir():
        path.rename(pure / "data" / path.name)
    with pytest.raises(DatasetError, match="several releases are here: 1k, pure"):
        import_kuairand(pure, tmp_path / "out")


BROKEN_RELEASE = [
    ("log_standard_4_08_to_4_21", exposure(1, 0, "soon"), "line 5: 'soon' must be a whole number"),
    ("log_standard_4_08_to_4_21", exposure("", 0, 1), "line 5: '' must be an id"),
    ("log_standard_4_08_to_4_21", exposure(1, "", 1), "line 5: '' must be an id"),
    ("log_standard_4_08_to_4_21", exposure(1, 0, 1, played="long"), "'long' must be a whole"),
    ("log_standard_4_08_to_4_21", exposure(1, 0, 1, random=2), "line 5: '2' must be 0 or 1"),
    ("log_standard_4_08_to_4_21", exposure(1, 0, 1)[:-2], "line 5: Expected 19 columns, got 18"),
    ("video_features_basic", "0,1,NORMAL,,Web,0,1,1,1,1,1,2", "line 6: '0' must be an id that"),
    ("video_features_basic", "8,1,NORMAL,May 4,Web,0,1,1,1,1,1,2", "line 6: 'May 4' must be a day"),
    ("video_features_basic", "8,1,NORMAL,,Web,0,1s,1,1,1,1,2", "line 6: '1s' must be a number"),
    ("user_features", USERS.splitlines()[1], "line 6: '1' must be an id that has no earlier"),
    ("user_features", USERS.splitlines()[1].replace("1,full", "7,full").replace("3624", "old"),
     "line 6: 'old' must be a number"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "line", "says"), BROKEN_RELEASE)
def test_a_malformed_line_of_a_release_is_named(
    file: str, line: str, says: str, pure: Path, tmp_path: Path
) -> None:
    path = pure / "data" / f"{file}_pure.csv"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DatasetError, match=says) as caught:
        import_kuairand(pure, tmp_path / "out")
    assert caught.value.file == path.name
    assert [p.name for p in tmp_path.iterdir()] == ["KuaiRand-Pure"]


def test_partial_layout(cut: Path, tmp_path: Path) -> None:
    told: list[float] = []
    out = tmp_path / "out"
    report = import_kuairand(cut, out, progress=lambda part, _: told.append(part))
    sequences = "train_user_sequences_last50.tsv"
    assert report.layout.startswith("partial")
    assert report.read == {
        f"{sequences}: exposures": 7,
        f"{sequences}: long views": 5,
        f"{sequences}: likes": 3,
        "events_val.tsv": 6,
        "events_test.tsv": 2,
        "items.tsv": 4,
        "users.csv": 4,
    }
    assert report.dropped == {
        f"{sequences}: likes before the exposures, whose place is unknown": 1,
        "exact duplicates of an earlier exposure": 2,
        f"exposures that {sequences} has as the last": 1,
        "exposures before the user's last of the train part": 1,
    }
    assert told == sorted(told) and told[-1] == 1.0
    assert report.summary.time == read_schema(out).time == "order"

    events = events_of(out).sort("user_id", "sequence")
    known = events.select("user_id", "item_id", "event", "timestamp", "split")
    at = [START + timedelta(milliseconds=ms) for ms in (0, 50, 80, 90, 10, 500)]
    assert known.rows() == [
        # 0 comes twice in user 1's exposures: its long view and like are put at the later one.
        ("1", "0", "show", None, "train"),
        ("1", "1", "show", None, "train"),
        ("1", "0", "show", None, "train"),
        ("1", "0", "long_view", None, "train"),
        ("1", "0", "like", None, "train"),
        ("1", "2", "show", at[0], "train"),
        ("1", "2", "long_view", at[0], "train"),
        ("1", "2", "show", at[2], "validation"),
        ("1", "1", "show", at[3], "validation"),
        ("1", "1", "click", at[3], "validation"),
        ("1", "1", "long_view", at[3], "validation"),
        # Two long views came before the exposures that are left; when 5 was liked is unknown.
        ("2", "1", "long_view", None, "train"),
        ("2", "5", "long_view", None, "train"),
        ("2", "2", "show", None, "train"),
        ("2", "2", "like", None, "train"),
        ("2", "0", "show", at[1], "train"),
        ("2", "0", "long_view", at[1], "train"),
        ("3", "5", "show", at[0], "train"),
        ("3", "5", "show", at[4], "validation"),
        ("9", "0", "show", at[5], "test"),
        ("9", "0", "click", at[5], "test"),
        ("9", "0", "hate", at[5], "test"),
    ]
    assert report.written["events"] == events.height
    shows = events.filter(pl.col("event") == "show")
    lost = dropped_of(report, "exposure") - dropped_of(report, "likes")
    assert 7 + 6 + 2 - lost == report.written["exposures"] == shows.height
    train = events.filter((pl.col("split") == "train") & (pl.col("event") != "show"))
    assert train.height == 5 + 3 - 1
    # What was done at a showing names it; early long views have none.
    acts = events.filter(pl.col("event") != "show")
    assert (
        acts.filter(pl.col("exposure_id").is_null()).rows()
        == acts.filter((pl.col("user_id") == "2") & pl.col("item_id").is_in(["1", "5"])).rows()
    )
    named = acts.drop_nulls("exposure_id").join(shows, on=["exposure_id", "item_id", "user_id"])
    assert named.height == acts.height - 2
    assert events.filter(pl.col("event") == "click")["value"].to_list() == [9.5, 4.0]


def test_partial_layout_says_what_it_lacks(cut: Path, tmp_path: Path) -> None:
    notes = " ".join(import_kuairand(cut, tmp_path / "out").notes)
    assert "exposures, not clicks" in notes
    assert "cut off 7 exposures of 1 users; 2 long views" in notes
    assert "random_show" not in read_schema(tmp_path / "out").events


BROKEN_PARTIAL: list[tuple[str, Callable[[str], str], str, str]] = [
    (
        "train_user_sequences_last50.tsv",
        lambda t: t.replace("0 1 0 2\t0\t", "0 1 0 2\t7\t"),
        "line 2: '7' must be videos of watch_seq in their order",
        "like_seq",
    ),
    (
        "train_user_sequences_last50.tsv",
        lambda t: t.replace("\t0\t0 2\n", "\t0\t2 1\n"),
        "line 2: '2 1' must be videos of watch_seq in their order",
        "long_watch_seq",
    ),
    (
        "train_user_sequences_last50.tsv",
        lambda t: t.replace("1\t4\t", "1\t3\t"),
        "line 2: 3 must be at least the number",
        "history_len",
    ),
    (
        "train_user_sequences_last50.tsv",
        lambda t: t.replace("1\t4\t", "1\tfour\t"),
        "line 2: 'four' must be a whole number",
        "history_len",
    ),
    (
        "train_user_sequences_last50.tsv",
        lambda t: t.replace("\t2 0\t", "\t2  0\t"),
        "line 3: '2  0' must be video ids parted by one space",
        "watch_seq",
    ),
    (
        "train_user_sequences_last50.tsv",
        lambda t: t.replace("\t5\t\t\n", "\t\t\t\n"),
        "line 4: '' must be an id",
        "watch_seq",
    ),
    (
        "train_user_sequences_last50.tsv",
        lambda t: t + t.splitlines()[1] + "\n",
        "line 5: '1' must be a user that has no earlier line",
        "user_id",
    ),
    (
        "events_val.tsv",
        lambda t: t + exposure(1, 0, "", "click", partial=True).replace("\t1\t", "\tyes\t", 1)
        + "\n",
        "line 8: 'yes' must be 0 or 1",
        "is_click",
    ),
    ("events_val.tsv", lambda t: t.replace("time_ms", "at", 1), "no such column", "time_ms"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "damage", "says", "column"), BROKEN_PARTIAL)
def test_a_malformed_line_of_the_partial_layout_is_named(
    file: str, damage: Callable[[str], str], says: str, column: str, cut: Path, tmp_path: Path
) -> None:
    path = cut / file
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(DatasetError, match=says) as caught:
        import_kuairand(cut, tmp_path / "out")
    assert (caught.value.file, caught.value.column) == (file, column)
    assert not (tmp_path / "out").exists()


def test_users_are_unique_across_batches_too(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cut / "train_user_sequences_last50.tsv"
    others = "".join(f"{user}\t1\t{T0}\t5\t\t\n" for user in range(100, 150))
    path.write_text(SEQUENCES + others + SEQUENCES.splitlines()[1] + "\n")
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", 600)
    with pytest.raises(DatasetError, match="line 55: '1' must be a user"):
        import_kuairand(cut, tmp_path / "out")


def test_an_unknown_folder_says_what_to_get(tmp_path: Path) -> None:
    (tmp_path / "video_features_basic_pure.csv").write_text(VIDEOS)
    with pytest.raises(DatasetError, match=r"log_standard.*zenodo\.org/records/10439422"):
        import_kuairand(tmp_path, tmp_path / "out")


def test_the_real_copy(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data"))
    source = data / "kuairand-pure-partial"
    if not source.is_dir():
        pytest.skip("set PENCHANT_DATA to the folder that holds kuairand-pure-partial")
    report = import_kuairand(source, tmp_path / "out")
    assert report.read["train_user_sequences_last50.tsv: exposures"] == 817_187
    assert (report.read["events_val.tsv"], report.read["events_test.tsv"]) == (94_784, 133_545)
    assert report.summary.num_items == 7_583
    lost = dropped_of(report, "exposure") - dropped_of(report, "likes")
    shows = report.summary.events_by_name["show"]
    assert 817_187 + 94_784 + 133_545 - lost == shows == report.written["exposures"]
    train = events_of(tmp_path / "out").filter(pl.col("split") == "train")
    assert train["user_id"].n_unique() == 26_469
    acts = train.filter(pl.col("event") != "show").height
    read = sum(
        report.read[f"train_user_sequences_last50.tsv: {w}"] for w in ("long views", "likes")
    )
    assert acts == read - dropped_of(report, "likes")
