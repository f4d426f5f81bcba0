"""MovieLens-1M becomes a dataset, from either of the two layouts it is passed on in.

Original (grouplens.org): `ratings.dat`, `movies.dat`, `users.dat`, fields parted by `::`, latin-1.
Ratings have Unix seconds, so time = "exact".

Ordered sequences (as SASRec's preparation leaves it): `sequences_sasrec_order.tsv` beside
`movies.dat` and `users.dat`. It has each user's movies oldest first and no times, so time =
"order": sequence numbers are written and timestamps are not, for none are known. Where
`ratings_no_timestamp.tsv` lies there too, the stars come from it.

Zip codes are left out: nothing learns from them, and they point at people.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.errors import ConfigError, DatasetError
from model.schema import Event, Feature, Schema
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken

RATINGS, MOVIES, USERS = "ratings.dat", "movies.dat", "users.dat"
SEQUENCES, STARS = "sequences_sasrec_order.tsv", "ratings_no_timestamp.tsv"

# The meaning of the codes in users.dat, as MovieLens-1M's README gives it.
_AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56 and over",
}
_OCCUPATIONS = (
    "other",
    "academic or educator",
    "artist",
    "clerical or admin",
    "college or grad student",
    "customer service",
    "doctor or health care",
    "executive or managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales or marketing",
    "scientist",
    "self-employed",
    "technician or engineer",
    "tradesman or craftsman",
    "unemployed",
    "writer",
)

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLES = "The|An|A|Les|Le|La|L'|El|Il|I|O|Das|Der|Die|Det"
_TRAILING_ARTICLE = re.compile(rf"(^|\()([^()]+), ({_ARTICLES})(?=\)|$|\s+\()")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ratings:
    """The events of either layout, before they are written."""

    layout: str
    events: pl.DataFrame
    """user_id, item_id str; timestamp or not; value or not. By user, oldest first."""
    read: dict[str, int]
    dropped: dict[str, int]


def import_movielens(
    source: Path,
    out: Path,
    *,
    progress: Progress | None = None,
    max_users: int | None = None,
) -> ImportReport:
    """Write MovieLens-1M from the folder `source` as a dataset under `out`.

    progress: called with a fraction from 0 to 1 and what is being done.
    max_users: keep only the first so many users of the source file, and the movies they rated.

    Raises DatasetError if neither layout is there, a line is malformed (naming file and line), or
    `out` is taken; ConfigError if max_users is not positive. `out` appears whole or not at all.
    """
    if max_users is not None and max_users < 1:
        raise ConfigError(f"max_users is {max_users}; it must be 1 or more, or None for all users")
    refuse_taken(out)  # before minutes of reading, not after
    tell = progress or (lambda fraction, message: None)
    tell(0.0, "reading ratings")
    ratings = _read_ratings(source)
    tell(0.4, "reading movies and users")
    movies = _read_movies(source / MOVIES)
    users = _read_users(source / USERS)
    read = {**ratings.read, MOVIES: movies.height, USERS: users.height}

    events, dropped = ratings.events, dict(ratings.dropped)
    if max_users is not None:
        first = events["user_id"].unique(maintain_order=True).head(max_users)
        kept = events.filter(pl.col("user_id").is_in(first.implode()))
        dropped["events of users past max_users"] = events.height - kept.height
        events = kept

    # Only movies that somebody rated become items. Published figures rank a target among exactly
    # these (3,416 in the sequence layout, whose preparation took out movies with fewer than five
    # ratings): more candidates would make every metric of ours incomparable, and a movie without
    # an event can neither be learned nor be a target.
    items = _of_events(movies, events, "item_id", MOVIES)
    people = _of_events(users, events, "user_id", USERS)
    dropped["movies without an event"] = movies.height - items.height
    dropped["users without an event"] = users.height - people.height

    tell(0.5, "writing")
    events = events.with_columns(
        pl.format("{}-{}", "user_id", "item_id").alias("event_id"),
        pl.lit("rate").alias("event"),
        pl.int_range(pl.len()).over("user_id").alias("sequence"),
    )
    schema = _schema(time="exact" if "timestamp" in events.columns else "order", events=events)
    with new_dataset(
        out,
        schema,
        progress=lambda part, message: tell(0.6 + 0.4 * part, f"checking {message}"),
    ) as writer:
        writer.write_items(items.with_columns(pl.lit("video").alias("kind")))
        writer.write_users(people)
        writer.append_events(events)
    return ImportReport(
        out=out,
        layout=ratings.layout,
        read=read,
        written={
            "users": people.height,
            "items": items.height,
            "events": events.height,
        },
        dropped={reason: count for reason, count in dropped.items() if count},
        summary=writer.summary,
    )


def _schema(*, time: str, events: pl.DataFrame) -> Schema:
    return Schema.model_validate(
        {
            "name": "movielens-1m",
            "time": time,
            "item_features": {
                "title": Feature(type="text"),
                "genres": Feature(type="categories", filterable=True),
                "year": Feature(type="number", filterable=True),
            },
            "user_features": {
                name: Feature(type="category") for name in ("gender", "age", "occupation")
            },
            "events": {
                "rate": Event(
                    role="engagement",
                    unit="stars" if "value" in events.columns else None,
                )
            },
        }
    )


def _read_ratings(source: Path) -> _Ratings:
    if (source / RATINGS).is_file():
        return _read_original(source / RATINGS)
    if (source / SEQUENCES).is_file():
        return _read_sequences(source / SEQUENCES, source / STARS)
    raise DatasetError(
        f"there is neither {RATINGS} nor {SEQUENCES} in this folder."
        if source.is_dir()
        else "there is no such folder.",
        file=str(source),
        remedy=f"Expected are {RATINGS}, {MOVIES} and {USERS}: download ml-1m.zip from "
        "https://grouplens.org/datasets/movielens/1m/, unpack it and name the folder ml-1m. "
        f"{SEQUENCES} may stand in for {RATINGS}.",
    )


def _read_original(path: Path) -> _Ratings:
    rows = _fields(path, "::", ["user_id", "item_id", "value", "timestamp"])
    unclear = ~pl.col("timestamp").str.contains(r"^\d{1,10}$")
    _refuse_line(path, rows, unclear, "the timestamp is not Unix seconds")
    rows = rows.with_columns(
        pl.col("value").cast(pl.Float64, strict=False),
        pl.from_epoch(pl.col("timestamp").cast(pl.Int64), time_unit="s")
        .dt.cast_time_unit("us")
        .dt.replace_time_zone("UTC"),
    )
    _refuse_ratings(path, rows, first_line=1)
    # Users stay in the file's order; ties in time stay in the file's order too (the sort is
    # stable), as the field's preparations of this set do.
    rows = rows.with_row_index("row").with_columns(pl.col("row").min().over("user_id"))
    events = rows.sort("row", "timestamp", maintain_order=True).drop("row")
    return _Ratings(
        layout="original",
        events=events,
        read={path.name: rows.height},
        dropped={},
    )


def _read_sequences(path: Path, stars_path: Path) -> _Ratings:
    header = ["sas_user", "raw_user", "movie_ids_chronological"]
    users = _fields(path, "\t", header, has_header=True)
    _refuse_line(
        path, users, pl.col("raw_user").is_first_distinct().not_(), "a second line of one user", 2
    )
    events = users.select(
        pl.col("raw_user").alias("user_id"),
        pl.col("movie_ids_chronological").str.split(" ").alias("item_id"),
    )
    malformed = pl.col("item_id").list.eval(~pl.element().str.contains(r"^\d+$")).list.any()
    _refuse_line(path, events, malformed, "the movie ids are not numbers parted by one space", 2)
    repeated = pl.col("item_id").list.n_unique() != pl.col("item_id").list.len()
    _refuse_line(path, events, repeated, "a movie comes twice", 2)
    events = events.explode("item_id")
    read, dropped = {path.name: users.height}, {}
    if stars_path.is_file():
        stars = _fields(stars_path, "\t", ["user", "movie", "rating"], has_header=True).select(
            pl.col("user").alias("user_id"),
            pl.col("movie").alias("item_id"),
            pl.col("rating").cast(pl.Float64, strict=False).alias("value"),
        )
        _refuse_ratings(stars_path, stars, first_line=2)
        events = events.join(stars, on=["user_id", "item_id"], how="left", maintain_order="left")
        read[stars_path.name] = stars.height
        with_stars = events.height - events["value"].null_count()
        dropped["ratings that are in no sequence"] = stars.height - with_stars
    return _Ratings(layout="ordered sequences", events=events, read=read, dropped=dropped)


def _read_movies(path: Path) -> pl.DataFrame:
    rows = _fields(path, "::", ["item_id", "title", "genres"])
    _refuse_line(
        path, rows, pl.col("item_id").is_first_distinct().not_(), "a second line of one movie"
    )
    titles = [_readable_title(title) for title in rows["title"]]
    years = [_YEAR.search(title) for title in rows["title"]]
    genres = pl.col("genres").str.split("|").list.eval(pl.element().filter(pl.element() != ""))
    return rows.with_columns(
        pl.Series("title", titles),
        pl.Series("year", [float(y[1]) if y else None for y in years], dtype=pl.Float64),
        genres,
    )


def _read_users(path: Path) -> pl.DataFrame:
    rows = _fields(path, "::", ["user_id", "gender", "age", "occupation", "zip"])
    _refuse_line(
        path, rows, pl.col("user_id").is_first_distinct().not_(), "a second line of one user"
    )
    occupations = {str(code): name for code, name in enumerate(_OCCUPATIONS)}
    for name, meanings in (("age", _AGES), ("occupation", occupations)):
        problem = f"{name} is none of the codes {', '.join(meanings)}"
        _refuse_line(path, rows, ~pl.col(name).is_in(list(meanings)), problem)
    return rows.select(
        "user_id",
        "gender",
        pl.col("age").replace_strict(_AGES),
        pl.col("occupation").replace_strict(occupations),
    )


def _readable_title(title: str) -> str:
    """`American President, The (1995)` → `The American President (1995)`; so in each bracket."""

    def move(match: re.Match[str]) -> str:
        start, rest, article = match.groups()
        return f"{start}{article}{'' if article.endswith(chr(39)) else ' '}{rest}"

    return _TRAILING_ARTICLE.sub(move, title.strip())


def _fields(
    path: Path, separator: str, names: list[str], *, has_header: bool = False
) -> pl.DataFrame:
    """All lines of a text file, cut into columns of strings. Raises DatasetError naming the line.

    Ids (the columns named so) have to be numbers: MovieLens has no others.
    """
    try:
        text = path.read_bytes().decode("latin-1")
    except FileNotFoundError:
        raise DatasetError(
            f"there is no such file in {path.parent}.",
            file=path.name,
            remedy="It belongs to MovieLens-1M: https://grouplens.org/datasets/movielens/1m/.",
        ) from None
    # Not splitlines(): in latin-1 it would also cut at the byte 0x85.
    lines = pl.Series("line", text.removesuffix("\n").replace("\r", "").split("\n"))
    first_line = 1
    if has_header:
        if lines[0] != separator.join(names):
            raise _malformed(path, 1, f"the header is not {separator.join(names)!r}")
        lines, first_line = lines.slice(1), 2
    cut = lines.str.split(separator)
    rows = pl.DataFrame({"cut": cut})
    wrong = pl.col("cut").list.len() != len(names)
    shape = separator.join(names)
    _refuse_line(path, rows, wrong, f"it does not have the shape {shape!r}", first_line)
    rows = rows.select(pl.col("cut").list.get(i).alias(name) for i, name in enumerate(names))
    for name in names:
        if name.endswith("_id") or name in ("user", "raw_user", "movie"):
            not_number = ~pl.col(name).str.contains(r"^\d+$")
            _refuse_line(path, rows, not_number, f"{name} is not a number", first_line)
    return rows


def _of_events(rows: pl.DataFrame, events: pl.DataFrame, key: str, file: str) -> pl.DataFrame:
    """The rows that an event names, in file order. Raises DatasetError if one has no row."""
    used = events[key].unique(maintain_order=True)
    absent = used.filter(~used.is_in(rows[key].implode()))
    if len(absent):
        raise DatasetError(
            f"{key} {absent[0]} has ratings but no line here.",
            file=file,
            remedy="Take all files from the same release of MovieLens-1M.",
        )
    return rows.filter(pl.col(key).is_in(used.implode()))


def _refuse_ratings(path: Path, rows: pl.DataFrame, *, first_line: int) -> None:
    wrong = ~pl.col("value").is_between(0.5, 5.0) | pl.col("value").is_null()
    _refuse_line(path, rows, wrong, "the rating is not a number from 0.5 to 5", first_line)
    repeated = pl.struct("user_id", "item_id").is_first_distinct().not_()
    _refuse_line(path, rows, repeated, "a second rating of one movie by one user", first_line)


def _refuse_line(
    path: Path, rows: pl.DataFrame, wrong: pl.Expr, problem: str, first_line: int = 1
) -> None:
    """Raise DatasetError for the first row where `wrong` is true; row 0 is line `first_line`."""
    bad = rows.select(wrong.fill_null(False).arg_true()).to_series()
    if len(bad):
        raise _malformed(path, int(bad[0]) + first_line, problem)


def _malformed(path: Path, line: int, problem: str) -> DatasetError:
    return DatasetError(
        f"line {line}: {problem}.",
        file=path.name,
        remedy="Mend the line, or download the file again.",
    )
