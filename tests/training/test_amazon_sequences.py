"""Sequence files of Amazon reviews: order, days, malformed lines; the real set if it is there."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DatasetError
from training.importers.amazon import import_amazon
from training.importers.writer import ImportReport

DAY = 86_400 * 10_000

SEQUENCES = "1 1 2 3\n2 3 1\n"
INTERACTIONS = (
    "user\titem\tpos\tunix_ts\n"
    f"1\t1\t0\t{DAY}\n1\t2\t1\t{DAY}\n1\t3\t2\t\n2\t3\t0\t{DAY}\n2\t1\t1\t{2 * DAY}\n"
)
ITEMS = (
    "item\tasin\tattribute_ids\ttext_id_keywords\ttitle\n"
    '1\tA\t7,8\tk\tA 5" comb\n2\tB\t\tk\t\n3\tC\t9\tk\tSoap\n4\tD\t9\tk\tUnsold\n'
)


def _folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def _events(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/*.parquet")


def _items(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "items.parquet").sort("item_id")


def _reconciles(report: ImportReport, file: str) -> bool:
    """Whether what was read of the events, less what was dropped, is what was written."""
    lost = sum(n for why, n in report.dropped.items() if why.startswith("events"))
    return report.read[file] - lost == report.written["events"]


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return _folder(
        tmp_path / "beauty",
        **{"sequences_s3rec.txt": SEQUENCES, "interactions.tsv": INTERACTIONS, "items.tsv": ITEMS},
    )


def test_the_sequence_files_keep_every_event_in_the_published_order(
    sequences: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = import_amazon(sequences, out)
    assert report.written == {"users": 2, "items": 3, "events": 5}
    assert report.dropped == {"items without an event": 1}
    assert "1 of 5 events have no day" in report.notes[0]
    assert _reconciles(report, "sequences_s3rec.txt, events")
    assert report.summary.time == "order"
    assert _events(out).select("user_id", "item_id", "sequence", "event_id").rows() == [
        ("1", "A", 0, "1-0"),
        ("1", "B", 1, "1-1"),
        ("1", "C", 2, "1-2"),
        ("2", "C", 0, "2-0"),
        ("2", "A", 1, "2-1"),
    ]
    assert _events(out)["timestamp"].is_null().to_list() == [False, False, True, False, False]
    assert _items(out).select("item_id", "title", "attributes").rows() == [
        ("A", 'A 5" comb', ["7", "8"]),
        ("B", "", []),
        ("C", "Soap", ["9"]),
    ]


def test_days_drop_the_events_without_one(sequences: Path, tmp_path: Path) -> None:
    (sequences / "interactions.tsv").write_text(
        INTERACTIONS.replace(f"2\t3\t0\t{DAY}", "2\t3\t0\t")
    )
    report = import_amazon(sequences, tmp_path / "out", time="day")
    assert report.summary.time == "day"
    assert report.written == {"users": 2, "items": 2, "events": 3}
    assert report.dropped == {"events without a day": 2, "items without an event": 2}
    assert _reconciles(report, "interactions.tsv")
    assert _events(tmp_path / "out")["sequence"].to_list() == [0, 1, 1]


def test_days_that_contradict_the_order_are_refused(sequences: Path, tmp_path: Path) -> None:
    text = INTERACTIONS.replace(f"2\t1\t1\t{2 * DAY}", "2\t1\t1\t0")
    (sequences / "interactions.tsv").write_text(text)
    assert import_amazon(sequences, tmp_path / "order").written["events"] == 5
    with pytest.raises(DatasetError, match="user 2: the days go back at position 1"):
        import_amazon(sequences, tmp_path / "day", time="day")


def test_the_files_of_s3rec_itself(tmp_path: Path) -> None:
    raw = _folder(
        tmp_path / "raw",
        **{"Beauty.txt": SEQUENCES, "Beauty_item2attributes.json": '{"1": [7, 8], "2": [9]}'},
    )
    report = import_amazon(raw, tmp_path / "out")
    assert report.written == {"users": 2, "items": 3, "events": 5}
    assert _items(tmp_path / "out")["attributes"].to_list() == [["7", "8"], ["9"], []]
    with pytest.raises(DatasetError, match="no event has a day"):
        import_amazon(raw, tmp_path / "day", time="day")
    (raw / "Beauty_item2attributes.json").write_text('{"1": 7}')
    with pytest.raises(DatasetError, match="not one object of lists of numbers"):
        import_amazon(raw, tmp_path / "other")


BROKEN_SEQUENCES: list[tuple[str, Callable[[str], str], str]] = [
    ("sequences_s3rec.txt", lambda t: t + "3\n", "line 3: '3' is not a user's number"),
    ("sequences_s3rec.txt", lambda t: t + "3 1  2\n", "line 3: '3 1  2' is not"),
    ("sequences_s3rec.txt", lambda t: t + "1 2\n", "line 3: '1 2' is a second line"),
    ("sequences_s3rec.txt", lambda t: t + "3 4\n", "other events than"),
    ("interactions.tsv", lambda t: t.replace("1\t2\t1", "1\t2\t2"), "other events than"),
    ("interactions.tsv", lambda t: t.replace("unix_ts", "time"), "no such column"),
    (
        "interactions.tsv",
        lambda t: t.replace(f"2\t1\t1\t{2 * DAY}", "2\t1\t1\tMay"),
        "line 6: 'May'",
    ),
    ("items.tsv", lambda t: t.replace("2\tB", "2\tA"), "'asin': line 3: 'A' comes a second"),
    ("items.tsv", lambda t: t.replace("3\tC", "2\tC"), "'item': line 4: '2' comes a second"),
    (
        "items.tsv",
        lambda t: t.replace("3\tC", "5\tC"),
        "1 items of sequences_s3rec.txt have no row",
    ),
    ("items.tsv", lambda t: t + "5\tE\n", "line 6: Expected 5 columns, got 2"),
]


@pytest.mark.parametrize(("file", "damage", "says"), BROKEN_SEQUENCES)
def test_a_malformed_sequence_file_is_named(
    file: str, damage: Callable[[str], str], says: str, sequences: Path, tmp_path: Path
) -> None:
    (sequences / file).write_text(damage((sequences / file).read_text()))
    with pytest.raises(DatasetError) as caught:
        import_amazon(sequences, tmp_path / "out")
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_k_core_is_not_for_sequences(sequences: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_events is 5"):
        import_amazon(sequences, tmp_path / "out", min_events=5)


def test_a_taken_folder_is_left_alone(sequences: Path) -> None:
    with pytest.raises(DatasetError, match="Choose another output folder"):
        import_amazon(sequences, sequences)


@pytest.mark.parametrize(
    ("time", "counts"), [("order", (22_363, 12_101, 198_502)), ("day", (22_332, 12_086, 198_215))]
)
def test_the_real_set(time: str, counts: tuple[int, int, int], tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data")) / "amazon-beauty"
    if not (source / "sequences_s3rec.txt").is_file():
        pytest.skip(
            "Amazon Beauty is not here: set PENCHANT_DATA to the folder that holds amazon-beauty"
        )
    report = import_amazon(source, tmp_path / "out", time="day" if time == "day" else None)
    summary = report.summary
    assert (summary.num_users, summary.num_items, summary.num_events) == counts
    assert (summary.name, summary.time, summary.warnings) == ("amazon-beauty", time, ())
    assert summary.first == datetime(2002, 6, 12, tzinfo=UTC)
    assert report.dropped.get("events without a day", 0) == 198_502 - counts[2]
    lines = (source / "sequences_s3rec.txt").read_text().split("\n")
    order = _events(tmp_path / "out").group_by("user_id", maintain_order=True).len()
    if time == "order":
        assert [f"{u}:{n}" for u, n in order.rows()] == [
            f"{line.split()[0]}:{len(line.split()) - 1}" for line in lines if line
        ]
