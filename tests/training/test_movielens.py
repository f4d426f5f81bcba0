"""Both layouts of MovieLens-1M, their malformed lines, and the real set where it is there."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DatasetError
from model.schema import read_schema
from training.importers.movielens import import_movielens

MOVIES = """\
11::American President, The (1995)::Comedy|Drama|Romance
12::Postino, Il (The Postman) (1994)::Drama
13::Maybe, Maybe Not (Bewegte Mann, Der) (1994)::Comedy
14::Enfer, L' (1994)::Drama
15::Mis\u00e9rables, Les (1995)::Drama|Musical
16::Paris, Texas (1984)::
17::Untitled::Comedy
"""

USERS = """\
1::F::1::10::48067
2::M::56::0::02460
3::F::25::20::55117
"""

# User 2 stands first in the file; user 1 rated 13 and 12 in the same second, 13 first in the file.
RATINGS = """\
2::11::5::978300760
1::11::3::978302109
1::13::4::978300000
1::12::2::978300000
2::14::1::978300001
"""

SEQUENCES = """\
sas_user\traw_user\tmovie_ids_chronological
1\t2\t14 11
2\t1\t13 12 11
3\t3\t15
"""

STARS = "user\tmovie\trating\n1\t11\t3\n1\t12\t2\n2\t11\t5\n2\t14\t1\n3\t15\t4\n3\t17\t4\n"


def _folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        suffix = ".tsv" if name.startswith(("sequences", "ratings_")) else ".dat"
        (path / f"{name}{suffix}").write_bytes(text.encode("latin-1"))
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return _folder(tmp_path / "original", ratings=RATINGS, movies=MOVIES, users=USERS)


@pytest.fixture
def ordered(tmp_path: Path) -> Path:
    return _folder(
        tmp_path / "ordered", sequences_sasrec_order=SEQUENCES, movies=MOVIES, users=USERS
    )


def _read(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / name)


def test_original_layout(original: Path, tmp_path: Path) -> None:
    told: list[float] = []
    out = tmp_path / "new" / "ml"
    report = import_movielens(original, out, progress=lambda part, _: told.append(part))

    assert report.layout == "original"
    assert report.read == {"ratings.dat": 5, "movies.dat": 7, "users.dat": 3}
    assert report.written == {"users": 2, "items": 4, "events": 5}
    assert report.dropped == {"movies without an event": 3, "users without an event": 1}
    assert report.summary.time == "exact"
    assert report.summary.first == datetime(2000, 12, 31, 22, 0, tzinfo=UTC)
    assert told == sorted(told) and told[-1] == 1.0

    schema = read_schema(out)
    assert schema.events["rate"].role == "engagement"
    assert schema.events["rate"].unit == "stars"
    assert {n for n, f in schema.item_features.items() if f.filterable} == {"genres", "year"}

    # Users in file order, each oldest first; the tie of user 1 stays as the file has it.
    events = _read(out, "events/part-00000.parquet")
    columns = ("user_id", "item_id", "sequence", "value", "event_id")
    assert events.select(columns).rows() == [
        ("2", "14", 0, 1.0, "2-14"),
        ("2", "11", 1, 5.0, "2-11"),
        ("1", "13", 0, 4.0, "1-13"),
        ("1", "12", 1, 2.0, "1-12"),
        ("1", "11", 2, 3.0, "1-11"),
    ]
    assert events["timestamp"][0] == datetime.fromtimestamp(978300001, UTC)


def test_titles_years_genres_and_people_are_readable(original: Path, tmp_path: Path) -> None:
    ratings = (original / "ratings.dat").read_text() + "".join(
        f"3::{movie}::4::978300000\n" for movie in (15, 16, 17)
    )
    (original / "ratings.dat").write_text(ratings)
    import_movielens(original, tmp_path / "ml")
    items = _read(tmp_path / "ml", "items.parquet")
    assert dict(items.select("item_id", "title").rows()) == {
        "11": "The American President (1995)",
        "12": "Il Postino (The Postman) (1994)",
        "13": "Maybe, Maybe Not (Der Bewegte Mann) (1994)",
        "14": "L'Enfer (1994)",
        "15": "Les Mis\u00e9rables (1995)",
        "16": "Paris, Texas (1984)",
        "17": "Untitled",
    }
    assert items["year"].to_list() == [1995.0, 1994.0, 1994.0, 1994.0, 1995.0, 1984.0, None]
    assert items["genres"][0].to_list() == ["Comedy", "Drama", "Romance"]
    assert items["genres"][5].to_list() == []
    assert set(items["kind"]) == {"video"}
    assert _read(tmp_path / "ml", "users.parquet").rows() == [
        ("1", "F", "under 18", "K-12 student"),
        ("2", "M", "56 and over", "other"),
        ("3", "F", "25-34", "writer"),
    ]


def test_sequence_layout_has_an_order_and_no_times(ordered: Path, tmp_path: Path) -> None:
    report = import_movielens(ordered, tmp_path / "ml")
    assert report.layout == "ordered sequences"
    assert report.written == {"users": 3, "items": 5, "events": 6}
    assert report.summary.time == read_schema(tmp_path / "ml").time == "order"
    assert read_schema(tmp_path / "ml").events["rate"].unit is None
    events = _read(tmp_path / "ml", "events/part-00000.parquet")
    assert set(events.columns) == {"event_id", "user_id", "item_id", "event", "sequence"}
    assert events.select("user_id", "item_id", "sequence").rows() == [
        ("2", "14", 0),
        ("2", "11", 1),
        ("1", "13", 0),
        ("1", "12", 1),
        ("1", "11", 2),
        ("3", "15", 0),
    ]


def test_sequence_layout_takes_stars_where_they_are(ordered: Path, tmp_path: Path) -> None:
    (ordered / "ratings_no_timestamp.tsv").write_text(STARS)
    report = import_movielens(ordered, tmp_path / "ml")
    events = _read(tmp_path / "ml", "events/part-00000.parquet")
    # 1-13 is in no rating: its stars are unknown, so null.
    assert events["event_id"].to_list() == ["2-14", "2-11", "1-13", "1-12", "1-11", "3-15"]
    assert events["value"].to_list() == [1.0, 5.0, None, 2.0, 3.0, 4.0]
    assert report.dropped["ratings that are in no sequence"] == 1
    assert read_schema(tmp_path / "ml").events["rate"].unit == "stars"


def test_original_layout_is_taken_first(ordered: Path, tmp_path: Path) -> None:
    (ordered / "ratings.dat").write_text(RATINGS)
    assert import_movielens(ordered, tmp_path / "ml").layout == "original"


@pytest.mark.parametrize(("layout", "num_dropped"), [("original", 3), ("ordered", 4)])
def test_max_users_keeps_the_first(
    layout: str, num_dropped: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    report = import_movielens(request.getfixturevalue(layout), tmp_path / "ml", max_users=1)
    assert report.written == {"users": 1, "items": 2, "events": 2}
    assert _read(tmp_path / "ml", "users.parquet")["user_id"].to_list() == ["2"]
    assert report.dropped["events of users past max_users"] == num_dropped


def test_max_users_is_positive(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_users is 0"):
        import_movielens(original, tmp_path / "ml", max_users=0)


BROKEN: list[tuple[str, str, Callable[[str], str], str]] = [
    ("original", "ratings.dat", lambda t: t + "1::12::3\n", "line 6: it does not have the shape"),
    ("original", "ratings.dat", lambda t: t.replace("::3::", "::six::"), "line 2: the rating"),
    ("original", "ratings.dat", lambda t: t.replace("::3::", "::7::"), "line 2: the rating"),
    ("original", "ratings.dat", lambda t: t.replace("978302109", "May"), "line 2: the timestamp"),
    ("original", "ratings.dat", lambda t: t.replace("1::13", "x::13"), "line 3: user_id"),
    ("original", "ratings.dat", lambda t: t + "1::11::3::9\n", "line 6: a second rating"),
    ("original", "ratings.dat", lambda t: t + "\n1::14::3::9\n", "line 6: it does not have"),
    ("original", "movies.dat", lambda t: t + "18::No genres\n", "line 8: it does not have"),
    ("original", "movies.dat", lambda t: t + "17::Again::Drama\n", "line 8: a second line"),
    ("original", "movies.dat", lambda t: t[t.index("12::") :], "item_id 11 has ratings"),
    ("original", "users.dat", lambda t: t.replace("::56::", "::57::"), "line 2: age"),
    ("original", "users.dat", lambda t: t.replace("::20::", "::21::"), "line 3: occupation"),
    ("original", "users.dat", lambda t: t + "3::F::1::1::1\n", "line 4: a second line"),
    ("ordered", "sequences_sasrec_order.tsv", lambda t: t[4:], "line 1: the header"),
    ("ordered", "sequences_sasrec_order.tsv", lambda t: t + "4\t9\n", "line 5: it does not"),
    ("ordered", "sequences_sasrec_order.tsv", lambda t: t + "4\t9\t\n", "line 5: the movie ids"),
    (
        "ordered",
        "sequences_sasrec_order.tsv",
        lambda t: t + "4\t9\t1  2\n",
        "line 5: the movie ids",
    ),
    ("ordered", "sequences_sasrec_order.tsv", lambda t: t + "4\t9\t1 1\n", "line 5: a movie comes"),
    ("ordered", "sequences_sasrec_order.tsv", lambda t: t + "4\t3\t11\n", "line 5: a second line"),
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
    path = request.getfixturevalue(layout) / file
    path.write_bytes(damage(path.read_bytes().decode("latin-1")).encode("latin-1"))
    with pytest.raises(DatasetError, match=says) as caught:
        import_movielens(path.parent, tmp_path / "ml")
    assert caught.value.file == file
    assert not (tmp_path / "ml").exists()


def test_a_title_with_the_byte_0x85_is_one_line(original: Path, tmp_path: Path) -> None:
    movies = (original / "movies.dat").read_bytes().replace(b"American", b"Ameri\x85can")
    (original / "movies.dat").write_bytes(movies)
    assert import_movielens(original, tmp_path / "ml").read["movies.dat"] == 7


def test_windows_line_ends_are_read(original: Path, tmp_path: Path) -> None:
    for path in original.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert import_movielens(original, tmp_path / "ml").summary.num_events == 5


def test_a_folder_with_neither_layout_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        import_movielens(tmp_path / "nowhere", tmp_path / "ml")
    assert "ratings.dat" in str(caught.value)
    assert "https://grouplens.org/datasets/movielens/1m/" in str(caught.value)


def test_a_missing_companion_file_is_named(original: Path, tmp_path: Path) -> None:
    (original / "users.dat").unlink()
    with pytest.raises(DatasetError, match="no such file") as caught:
        import_movielens(original, tmp_path / "ml")
    assert caught.value.file == "users.dat"


def test_a_taken_folder_is_left_alone(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "ml"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="Choose another output folder"):
        import_movielens(original, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled_and_nothing_else_is_left(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "place" / "ml"
    out.mkdir(parents=True)
    import_movielens(original, out)
    assert [path.name for path in out.parent.iterdir()] == ["ml"]
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.toml",
        "events",
        "items.parquet",
        "users.parquet",
    ]


def test_the_real_set(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    source = Path(os.environ.get("PENCHANT_DATA", root / "../shared/data")) / "ml-1m"
    if not source.is_dir():
        pytest.skip("MovieLens-1M is not here: set PENCHANT_DATA to the folder that holds ml-1m")
    if not (source / "sequences_sasrec_order.tsv").is_file():
        pytest.skip("this copy of MovieLens-1M has no sequences_sasrec_order.tsv")
    report = import_movielens(source, tmp_path / "ml")
    summary = report.summary
    assert (summary.num_users, summary.num_items, summary.num_events) == (6_040, 3_416, 999_611)
    assert (summary.time, summary.first, summary.warnings) == ("order", None, ())
    assert report.dropped["ratings that are in no sequence"] == 1_000_209 - 999_611
    assert _read(tmp_path / "ml", "events/part-00000.parquet")["value"].null_count() == 0
