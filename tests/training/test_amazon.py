"""Amazon's reviews of every release, their metadata and their malformed lines."""

import gzip
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DatasetError
from model.schema import read_schema
from training.importers.amazon import import_amazon
from training.importers.writer import ImportReport

DAY = 86_400 * 10_000

# ann reviews A twice on one day; the third line repeats the first but for its text.
OLD: list[dict[str, object]] = [
    {
        "reviewerID": "ann",
        "asin": "A",
        "overall": 5.0,
        "unixReviewTime": 3 * DAY,
        "reviewText": "1",
    },
    {"reviewerID": "bob", "asin": "B", "overall": 1.0, "unixReviewTime": 2 * DAY, "summary": "x"},
    {
        "reviewerID": "ann",
        "asin": "A",
        "overall": 5.0,
        "unixReviewTime": 3 * DAY,
        "reviewText": "2",
    },
    {"reviewerID": "ann", "asin": "A", "overall": 4.0, "unixReviewTime": 3 * DAY},
    {"reviewerID": "ann", "asin": "B", "overall": 2.0, "unixReviewTime": 1 * DAY},
    {"reviewerID": "cat", "asin": "C", "overall": 3.0, "unixReviewTime": 1 * DAY},
]
META_2014: list[dict[str, object]] = [
    {
        "asin": "A",
        "title": "Shampoo &amp; more",
        "price": 9.5,
        "brand": "Fern",
        "categories": [["Beauty", "Hair"], ["Beauty", "Gifts"]],
    },
    {"asin": "B", "categories": [["Beauty"]]},
    {"asin": "Z", "title": "Nobody's"},
]
META_2018: list[dict[str, object]] = [
    {"asin": "A", "title": "Shampoo", "price": "$1,234.50", "brand": "", "category": ["Beauty"]},
    {"asin": "A", "title": "Shampoo", "price": "$1,234.50", "brand": "", "category": ["Beauty"]},
    {
        "asin": "B",
        "title": "var aPageStart = (new Date()).getTime();",
        "price": "$5.00 - $9.00",
        "category": ["Beauty", "</span>", "Hair"],
    },
]
NEW: list[dict[str, object]] = [
    {"user_id": "ann", "parent_asin": "A", "asin": "A1", "rating": 5.0, "timestamp": 1588615855070},
    {"user_id": "bob", "parent_asin": "A", "asin": "A2", "rating": 4, "timestamp": 1588615855071},
]
META_2023: list[dict[str, object]] = [
    {
        "parent_asin": "A",
        "title": "Comb",
        "price": 12,
        "store": "Fern",
        "categories": ["Beauty", "Hair"],
        "main_category": "All Beauty",
    },
]


def _json(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _python(records: list[dict[str, object]]) -> str:
    return "".join(repr(record) + "\n" for record in records)


def _folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        data = text.encode()
        (path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def _events(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "events/*.parquet")


def _items(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "items.parquet").sort("item_id")


def _reconciles(report: ImportReport, *files: str) -> bool:
    """Whether what was read of the events, less what was dropped, is what was written."""
    lost = sum(n for why, n in report.dropped.items() if why.startswith(("reviews", "events")))
    return sum(report.read[file] for file in files) - lost == report.written["events"]


def test_reviews_of_2014(tmp_path: Path) -> None:
    files = {"reviews_Beauty_5.json.gz": _json(OLD), "meta_Beauty.json.gz": _python(META_2014)}
    told: list[float] = []
    out = tmp_path / "out"
    report = import_amazon(
        _folder(tmp_path / "raw", **files), out, progress=lambda part, _: told.append(part)
    )
    assert report.read == {"reviews_Beauty_5.json.gz": 6, "meta_Beauty.json.gz": 3}
    assert report.written == {"users": 3, "items": 3, "events": 5}
    assert report.dropped == {
        "reviews that repeat one of the same user, item, rating and time": 1,
        "items in the metadata without a review that is kept": 1,
    }
    assert _reconciles(report, "reviews_Beauty_5.json.gz")
    assert report.notes == ("1 items have no line in meta_Beauty.json.gz: no title.",)
    assert told == sorted(told) and told[-1] == 1.0
    assert (report.summary.time, report.summary.warnings) == ("day", ())

    ann = _events(out).filter(pl.col("user_id") == "ann")
    assert ann.select("event_id", "item_id", "value").rows() == [
        ("Beauty:5", "B", 2.0),
        ("Beauty:1", "A", 5.0),
        ("Beauty:4", "A", 4.0),
    ]
    assert ann["timestamp"][0] == datetime.fromtimestamp(DAY, UTC)
    assert _items(out).select(
        "item_id", "kind", "title", "brand", "categories", "price"
    ).rows() == [
        ("A", "product", "Shampoo & more", "Fern", ["Beauty", "Hair", "Gifts"], 9.5),
        ("B", "product", "", None, ["Beauty"], None),
        ("C", "product", "", None, [], None),
    ]
    schema = read_schema(out)
    assert (schema.name, schema.events["review"].unit) == ("amazon-beauty", "stars")
    assert list(schema.filterable()) == ["kind", "brand", "categories", "price"]


def test_reviews_of_2018(tmp_path: Path) -> None:
    files = {"Beauty_5.json.gz": _json(OLD), "meta_Beauty.json.gz": _json(META_2018)}
    out = tmp_path / "out"
    report = import_amazon(_folder(tmp_path / "raw", **files), out)
    assert report.dropped["further lines of the metadata about one item"] == 1
    assert _items(out).select("title", "brand", "categories", "price").rows() == [
        ("Shampoo", None, ["Beauty"], 1234.5),
        ("", None, ["Beauty", "Hair"], None),
        ("", None, [], None),
    ]


def test_reviews_of_2023(tmp_path: Path) -> None:
    files = {"All_Beauty.jsonl.gz": _json(NEW), "meta_All_Beauty.jsonl.gz": _json(META_2023)}
    out = tmp_path / "out"
    report = import_amazon(_folder(tmp_path / "raw", **files), out)
    assert (report.summary.time, report.layout) == ("exact", "reviews of 2023")
    assert _events(out)["timestamp"].dt.timestamp("ms").to_list() == [1588615855070, 1588615855071]
    assert _items(out).select("title", "brand", "price").rows() == [("Comb", "Fern", 12.0)]


@pytest.mark.parametrize(
    ("name", "text", "time"),
    [
        ("ratings_Beauty.csv", f"ann,B000000001,5.0,{DAY}\nbob,B000000001,1.0,{DAY}\n", "day"),
        ("Beauty.csv", f"B000000001,ann,5.0,{DAY}\nB000000001,bob,1.0,{DAY}\n", "day"),
        (
            "ratings_Beauty.csv",
            f"UserId,ProductId,Rating,Timestamp\nann,B000000001,5,{DAY}\nbob,B000000001,1,{DAY}\n",
            "day",
        ),
        (
            "Beauty.csv.gz",
            "user_id,parent_asin,rating,timestamp\n"
            "ann,B000000001,5.0,1588615855070\nbob,B000000001,1.0,1588615855070\n",
            "exact",
        ),
    ],
)
def test_ratings_alone(name: str, text: str, time: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = import_amazon(_folder(tmp_path / "raw", **{name: text}), out)
    assert report.summary.time == time
    assert _events(out).sort("user_id").select("user_id", "item_id", "value").rows() == [
        ("ann", "B000000001", 5.0),
        ("bob", "B000000001", 1.0),
    ]
    assert "meta_Beauty" in report.notes[0]
    assert read_schema(out).item_features == {}


def test_min_events_takes_the_core(tmp_path: Path) -> None:
    # dan has two reviews, but one is of an item that nobody else reviewed: both go.
    more = [
        {"reviewerID": "bob", "asin": "A", "overall": 5.0, "unixReviewTime": DAY},
        {"reviewerID": "dan", "asin": "A", "overall": 5.0, "unixReviewTime": DAY},
        {"reviewerID": "dan", "asin": "D", "overall": 5.0, "unixReviewTime": DAY},
    ]
    raw = _folder(tmp_path / "raw", **{"Beauty.json": _json(OLD + more)})
    report = import_amazon(raw, tmp_path / "out [x]", min_events=2)
    assert report.dropped["reviews by users or of items with fewer than 2"] == 3
    assert report.written == {"users": 2, "items": 2, "events": 5}
    assert _reconciles(report, "Beauty.json")
    with pytest.raises(ConfigError, match="no review is left"):
        import_amazon(raw, tmp_path / "none", min_events=9)
    assert not (tmp_path / "none").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out [x]", "raw"]


def _changed(**fields: object) -> str:
    return _json([OLD[0], {**OLD[1], **fields}])


BROKEN_REVIEWS: list[tuple[str, str, str]] = [
    ("Beauty.json", _changed(overall="five"), "'overall': line 2: 'five' is no finite number"),
    ("Beauty.json", _changed(overall=9), "'overall': line 2: '9' is no rating from 0 to 5"),
    ("Beauty.json", _changed(overall=None), "'overall': line 2: None is no rating"),
    ("Beauty.json", _changed(asin=""), "'asin': line 2: there is no id"),
    ("Beauty.json", _changed(reviewerID=None), "'reviewerID': line 2: there is no id"),
    ("Beauty.json", _changed(unixReviewTime=None), "'unixReviewTime': line 2: there is no time"),
    ("Beauty.json", _changed(unixReviewTime=DAY * 10**6), "as unix_s is before 1970"),
    ("Beauty.json", _json(OLD[:1]) + '{"reviewerID": "x"\n', "line 2: it cannot be read"),
    ("Beauty.json", "[]\n", "line 1: it holds a list"),
    ("Beauty.json", '{"user": "x"}\n', "line 1: these fields are of no release: user"),
    ("Beauty.json", "", "line 1: these fields are of no release"),
    ("Beauty.csv", f"ann,B000000001,5.0,{DAY}\n", "line 1: 'ann' is no ASIN"),
    ("ratings_Beauty.csv", "ann,B000000001,5.0\n", "line 1: Expected 4 columns, got 3"),
]


@pytest.mark.parametrize(("file", "text", "says"), BROKEN_REVIEWS)
def test_a_malformed_review_is_named(file: str, text: str, says: str, tmp_path: Path) -> None:
    raw = _folder(tmp_path / "raw", **{file: text})
    with pytest.raises(DatasetError) as caught:
        import_amazon(raw, tmp_path / "out")
    assert says in str(caught.value)
    assert caught.value.file == file
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize("line", ['{"title": "no asin"}', "__import__('os').getcwd()", "1 +"])
def test_a_malformed_line_of_metadata_is_named_and_not_run(line: str, tmp_path: Path) -> None:
    files = {"Beauty.json": _json(OLD), "meta_Beauty.json": _python(META_2014) + line + "\n"}
    with pytest.raises(DatasetError, match="line 4: ") as caught:
        import_amazon(_folder(tmp_path / "raw", **files), tmp_path / "out")
    assert caught.value.file == "meta_Beauty.json"


def test_a_damaged_download_is_refused(tmp_path: Path) -> None:
    raw = _folder(tmp_path / "raw", **{"Beauty.json.gz": _json(OLD * 500)})
    whole = (raw / "Beauty.json.gz").read_bytes()
    (raw / "Beauty.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="breaks off or is damaged"):
        import_amazon(raw, tmp_path / "out")


def test_one_category_is_taken_out_of_several_by_name(tmp_path: Path) -> None:
    raw = _folder(tmp_path / "raw", **{"Beauty.json": _json(OLD), "Toys.json": _json(OLD[:2])})
    with pytest.raises(DatasetError, match=r"several files of reviews: Beauty.json, Toys.json"):
        import_amazon(raw, tmp_path / "out")
    assert import_amazon(raw / "Toys.json", tmp_path / "out").written["events"] == 2


def test_an_unknown_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        import_amazon(tmp_path, tmp_path / "out")
    for expected in ("Beauty_5.json.gz", "All_Beauty.jsonl.gz", "sequences_s3rec.txt", "https://"):
        assert expected in str(caught.value)


def test_options_that_reviews_do_not_have_are_refused(tmp_path: Path) -> None:
    raw = _folder(tmp_path / "raw", **{"Beauty.json": _json(OLD)})
    with pytest.raises(ConfigError, match="time is 'day'"):
        import_amazon(raw, tmp_path / "out", time="day")
    with pytest.raises(ConfigError, match="min_events is 0"):
        import_amazon(raw, tmp_path / "out", min_events=0)


def test_the_core_is_the_largest_one(tmp_path: Path) -> None:
    draw = random.Random(5)
    pairs = sorted({(int(40 * draw.random() ** 2), draw.randrange(40)) for _ in range(160)})
    reviews = [
        {"reviewerID": f"u{u}", "asin": f"i{i}", "overall": 1.0, "unixReviewTime": DAY}
        for u, i in pairs
    ]
    raw = _folder(tmp_path / "raw", **{"Beauty.json": _json(reviews)})
    import_amazon(raw, tmp_path / "out", min_events=3)

    kept = {(f"u{u}", f"i{i}") for u, i in pairs}  # one at a time, the plain way
    while rare := [
        (u, i)
        for u, i in kept
        if sum(u == other for other, _ in kept) < 3 or sum(i == other for _, other in kept) < 3
    ]:
        kept.remove(rare[0])
    assert 20 < len(kept) < len(pairs)
    assert set(_events(tmp_path / "out").select("user_id", "item_id").rows()) == kept
