"""What KuaiRand publishes of its videos and users, as the tables items and users of a dataset.

Left out of the videos: their state of visibility (one value for all), width and height, and the
daily statistics, which tell of the whole month and so of the time after most events.
"""

from collections.abc import Mapping

import polars as pl

from model.schema import Event, Feature, Head, Schema, TimeKind
from training.importers.delimited import LINE, DelimitedFile

VIDEO_COLUMNS = (
    "video_id",
    "author_id",
    "video_type",
    "upload_dt",
    "upload_type",
    "video_duration",
    "music_id",
    "music_type",
    "tag",
)
_USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_USER_CATEGORIES = (
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    *(f"{number}_range" for number in _USER_NUMBERS),
    *(f"onehot_feat{n}" for n in range(18)),
)
USER_COLUMNS = ("user_id", *_USER_NUMBERS, *_USER_CATEGORIES)

_NUMBER = r"^-?\d{1,15}(\.\d+)?$"


def kuairand_schema(name: str, *, time: TimeKind, events: Mapping[str, Event]) -> Schema:
    """The dataset.toml of every layout."""
    category = Feature(type="category")
    return Schema(
        name=name,
        time=time,
        language="zh",
        item_features={
            "author": Feature(type="category", filterable=True),
            "video_type": Feature(type="category", filterable=True),
            "upload_type": Feature(type="category", filterable=True),
            "music": category,
            "music_type": category,
            "tags": Feature(type="categories", filterable=True),
            "duration_seconds": Feature(type="number", filterable=True),
        },
        user_features={
            **dict.fromkeys(_USER_NUMBERS, Feature(type="number")),
            **dict.fromkeys(_USER_CATEGORIES, category),
        },
        events=dict(events),
        # What a user did at an exposure: every event that is not itself a showing.
        heads=[
            Head(name=name, event=name)
            for name, event in events.items()
            if event.role != "exposure"
        ],
    )


def read_videos(file: DelimitedFile) -> pl.DataFrame:
    """items.parquet's columns of every video, in file order. Raises DatasetError."""
    rows = _read(file, "video_id", VIDEO_COLUMNS)
    _refuse_no_number(file, rows, "video_duration")
    day = pl.col("upload_dt").str.to_date("%Y-%m-%d", strict=False)
    wrong = day.is_null() & (pl.col("upload_dt") != "")
    file.refuse(rows, wrong, column="upload_dt", allowed="a day such as 2022-04-09")
    # Only the day is known, in China (UTC+8): at its start the video can have been there.
    start = (day.cast(pl.Datetime("us")) - pl.duration(hours=8)).dt.replace_time_zone("UTC")
    tags = (
        pl.col("tag")
        .str.split(",")
        .list.eval(pl.element().filter(~pl.element().str.to_lowercase().is_in(["", "unknown"])))
    )
    return rows.select(
        pl.col("video_id").alias("item_id"),
        pl.lit("video").alias("kind"),
        pl.lit("").alias("title"),
        start.alias("created_at"),
        _category("author_id").alias("author"),
        _category("video_type"),
        _category("upload_type"),
        # Music 0 stands for none: it is the one that has no type.
        pl.when(pl.col("music_id") != "0").then(_category("music_id")).alias("music"),
        _category("music_type"),
        tags.alias("tags"),
        (pl.col("video_duration").replace("", None).cast(pl.Float64) / 1000).alias(
            "duration_seconds"
        ),
    )


def bare_videos(ids: pl.Series) -> pl.DataFrame:
    """Rows like those of read_videos for videos of which nothing but the id is known."""
    empty = pl.DataFrame({"item_id": ids}).with_columns(
        kind=pl.lit("video"),
        title=pl.lit(""),
        created_at=pl.lit(None, pl.Datetime("us", "UTC")),
    )
    nothing = dict.fromkeys(
        ("author", "video_type", "upload_type", "music", "music_type"), pl.lit(None, pl.String)
    )
    return empty.with_columns(
        **nothing,
        tags=pl.lit([], pl.List(pl.String)),
        duration_seconds=pl.lit(None, pl.Float64),
    )


def read_users(file: DelimitedFile) -> pl.DataFrame:
    """users.parquet's columns of every user, in file order. Raises DatasetError."""
    rows = _read(file, "user_id", USER_COLUMNS)
    for name in _USER_NUMBERS:
        _refuse_no_number(file, rows, name)
    return rows.select(
        "user_id",
        *(pl.col(name).replace("", None).cast(pl.Float64) for name in _USER_NUMBERS),
        *(_category(name) for name in _USER_CATEGORIES),
    )


def _read(file: DelimitedFile, key: str, columns: tuple[str, ...]) -> pl.DataFrame:
    frames = list(file.batches())
    if not frames:
        return pl.DataFrame(schema={**dict.fromkeys(columns, pl.String), LINE: pl.Int64})
    rows = pl.concat(frames)
    file.refuse_empty(rows, key)
    repeated = ~pl.col(key).is_first_distinct()
    file.refuse(rows, repeated, column=key, allowed="an id that has no earlier line")
    return rows


def _category(name: str) -> pl.Expr:
    """A code as a string: `9.0` is `9`; the empty string and `unknown` are null."""
    code = pl.col(name).str.strip_suffix(".0")
    return pl.when(~code.str.to_lowercase().is_in(["", "unknown"])).then(code).alias(name)


def _refuse_no_number(file: DelimitedFile, rows: pl.DataFrame, column: str) -> None:
    wrong = ~pl.col(column).str.contains(_NUMBER) & (pl.col(column) != "")
    file.refuse(rows, wrong, column=column, allowed="a number, or empty where it is unknown")
