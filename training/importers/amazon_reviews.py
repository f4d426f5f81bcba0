"""Amazon's published reviews (2014, 2018, 2023) become a dataset, one category at a time.

Reviews come as JSON lines, or as CSV with the ratings alone. The fields tell the release; where a
CSV has no header its name does: `ratings_Beauty.csv` is of 2014, `Beauty.csv` of 2018, which puts
the item first. Unix seconds of 2014 and 2018 are days (time = "day"), the milliseconds of 2023 are
exact. What the items are comes from `amazon_metadata.py`. The texts of reviews are left out:
nothing learns from them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import polars as pl
import pyarrow.parquet as pq

from model.errors import ConfigError, DatasetError
from model.schema import Event, Schema
from training.importers.amazon_metadata import FEATURES, find_metadata, read_metadata
from training.importers.cells import Cells
from training.importers.delimited import LINE
from training.importers.grouping import UserGroups, grouped_by_user, without_repeats
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.json_source import JsonSource, json_or_python
from training.importers.sources.source import SourceFile, open_bytes
from training.importers.times import TimeColumn, TimeReader
from training.importers.writer import ImportReport, Progress, new_dataset

_NAME = re.compile(
    r"^(?:reviews_|ratings_)?(?P<category>[A-Za-z]\w*?)(?:_5)?\.(?:json|jsonl|csv)(?:\.gz)?$"
)
_GZIP_RATIO = 4
"""About how many bytes of text one byte of a gzip file of reviews holds."""
_KEPT = ["user_id", "item_id", "value", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Release:
    """One release's way of writing reviews."""

    name: str
    time: Literal["day", "exact"]
    unit: Literal["unix_s", "unix_ms"]
    columns: tuple[str, str, str, str]
    """User, item, rating and time."""
    header: tuple[str, ...] | None = None
    """The columns in order, where a CSV does not name them itself."""


_OLD_JSON = _Release(
    name="2014 or 2018",
    time="day",
    unit="unix_s",
    columns=("reviewerID", "asin", "overall", "unixReviewTime"),
)
_NEW = _Release(
    name="2023",
    time="exact",
    unit="unix_ms",
    columns=("user_id", "parent_asin", "rating", "timestamp"),
)
_PLAIN = ("user", "item", "rating", "timestamp")
_OLD_CSV = _Release(name="2014", time="day", unit="unix_s", columns=_PLAIN, header=_PLAIN)
_MIDDLE_CSV = _Release(
    name="2018",
    time="day",
    unit="unix_s",
    columns=_PLAIN,
    header=("item", "user", "rating", "timestamp"),
)
_NAMED_CSV = _Release(
    name="2014",
    time="day",
    unit="unix_s",
    columns=("UserId", "ProductId", "Rating", "Timestamp"),
)


def find_reviews(source: Path) -> Path | None:
    """The file of reviews that `source` is or holds; None if there is none.

    Raises DatasetError where a folder holds several.
    """
    if source.is_file():
        return source if _NAME.match(source.name) else None
    found = [
        path
        for path in sorted(source.glob("*"))
        if _NAME.match(path.name) and not path.name.startswith("meta_")
    ]
    if len(found) > 1:
        raise DatasetError(
            f"there are several files of reviews: {', '.join(path.name for path in found)}.",
            file=str(source),
            remedy="Name one of the files instead of the folder.",
        )
    return found[0] if found else None


def import_reviews(path: Path, out: Path, *, min_events: int, progress: Progress) -> ImportReport:
    """Write the dataset; see `amazon.import_amazon` for arguments and errors."""
    named = _NAME.match(path.name)
    category = named["category"] if named else path.stem
    source, release = _open(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.reviews-") as folder:
        reviews = Path(folder) / "reviews.parquet"
        num_read = _gather(source, release, path, out, reviews, progress)
        num_distinct = pq.read_metadata(reviews).num_rows
        progress(0.55, "counting")
        users, items, num_kept = _core(reviews, min_events)
        if not num_kept:
            raise ConfigError(
                f"min_events is {min_events}: no review is left. Give a smaller number, or take "
                "the whole category instead of a part"
            )
        dropped = {
            "reviews that repeat one of the same user, item, rating and time": num_read
            - num_distinct,
            f"reviews by users or of items with fewer than {min_events}": num_distinct - num_kept,
        }
        read = {path.name: num_read}
        notes = []
        table = items.with_columns(pl.lit("").alias("title"))
        metadata = find_metadata(path, category)
        if metadata is None:
            notes.append(f"There is no meta_{category} file beside the reviews: no item is known.")
        else:
            found = read_metadata(
                metadata,
                items["item_id"],
                progress=lambda part: progress(0.6 + 0.15 * part, f"reading {metadata.name}"),
            )
            read[metadata.name] = found.num_read
            dropped["items in the metadata without a review that is kept"] = found.num_unwanted
            dropped["further lines of the metadata about one item"] = found.num_repeated
            untold = items.height - found.items.height
            if untold:
                notes.append(f"{untold:,} items have no line in {metadata.name}: no title.")
            table = items.join(found.items, on="item_id", how="left", maintain_order="left")
            table = table.with_columns(
                pl.col("title").fill_null(""),
                pl.col("categories").fill_null(pl.lit([], dtype=pl.List(pl.String))),
            )
        schema = Schema(
            name=f"amazon-{category.lower()}",
            time=release.time,
            item_features=dict(FEATURES) if metadata else {},
            events={"review": Event(role="engagement", unit="stars")},
        )
        progress(0.75, "writing")
        with new_dataset(
            out,
            schema,
            progress=lambda part, what: progress(0.8 + 0.2 * part, f"checking {what}"),
        ) as writer:
            writer.write_items(table.with_columns(pl.lit("product").alias("kind")))
            for frame in _batches(reviews):
                kept = frame.join(users, on="user_id", how="semi", maintain_order="left").join(
                    items, on="item_id", how="semi", maintain_order="left"
                )
                writer.append_events(
                    kept.select(
                        pl.format("{}:{}", pl.lit(category), LINE).alias("event_id"),
                        "user_id",
                        "item_id",
                        pl.lit("review").alias("event"),
                        pl.from_epoch("time", time_unit="us")
                        .dt.replace_time_zone("UTC")
                        .alias("timestamp"),
                        "value",
                    )
                )
    return ImportReport(
        out=out,
        layout=f"reviews of {release.name}",
        read=read,
        written={"users": users.height, "items": items.height, "events": num_kept},
        dropped={reason: count for reason, count in dropped.items() if count},
        summary=writer.summary,
        notes=tuple(notes),
    )


def _open(path: Path) -> tuple[SourceFile, _Release]:
    """The file, and whose fields it has. Raises DatasetError for fields of no release."""
    if ".csv" in path.suffixes:
        opened = open_bytes(path, path.name)
        first = opened.stream.readline(1 << 16).decode("utf-8-sig", errors="replace").strip()
        opened.close()
        names = set(first.split(","))
        for release in (_NEW, _NAMED_CSV):
            if names.issuperset(release.columns):
                return CsvSource(path), release
        release = _OLD_CSV if path.name.startswith("ratings_") else _MIDDLE_CSV
        return CsvSource(path, header=release.header), release
    source = JsonSource(path, parse=json_or_python)
    _, record = next(source.records(), (0, {}))
    for release in (_OLD_JSON, _NEW):
        if record.keys() >= set(release.columns):
            return source, release
    raise source.error(
        f"these fields are of no release: {', '.join(record)!s:.300}.",
        row=0,
        remedy=f"Expected are {', '.join(_OLD_JSON.columns)} or {', '.join(_NEW.columns)}.",
    )


def _gather(
    source: SourceFile,
    release: _Release,
    path: Path,
    out: Path,
    reviews: Path,
    progress: Progress,
) -> int:
    """Write every distinct review to `reviews`, user by user in order of time; count those read."""
    num_bytes = path.stat().st_size * (_GZIP_RATIO if path.suffix == ".gz" else 1)
    num_read = 0
    with grouped_by_user(out, num_bytes=num_bytes) as groups:
        for rows in _rows(source, release):
            progress(0.4 * source.fraction, f"reading {path.name}")
            num_read += rows.height
            groups.add(rows)
        if not num_read:
            raise DatasetError(
                "there are no reviews in it.", file=path.name, remedy="Get the file again."
            )
        _write_distinct(groups, reviews, progress)
    return num_read


def _write_distinct(groups: UserGroups, reviews: Path, progress: Progress) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for users in groups.read(lambda part, what: progress(0.4 + 0.15 * part, what)):
            table = without_repeats(users, _KEPT).to_arrow()
            writer = writer or pq.ParquetWriter(reviews, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _rows(source: SourceFile, release: _Release) -> Iterator[pl.DataFrame]:
    """Yield frames of _KEPT and LINE. Raises DatasetError for a malformed cell."""
    user, item, rating, timestamp = release.columns
    reader = TimeReader(TimeColumn(column=timestamp, format=release.unit), days="refused")
    for first_row, frame in source.batches(release.columns):
        cells = {name: Cells(source, first_row, frame[name]) for name in release.columns}
        items = cells[item].ids()
        if release.header is not None:
            cells[item].refuse(
                ~items.str.contains(r"^[0-9A-Z]{10}$"),
                "{} is no ASIN of ten digits and capital letters.",
                f"The columns of this file are taken to be {', '.join(release.header)}: a file of "
                "2014 has to be called ratings_CATEGORY.csv, one of 2018 CATEGORY.csv.",
            )
        values = cells[rating].numbers()
        cells[rating].refuse(
            values.is_null() | ~values.is_between(0, 5), "{} is no rating from 0 to 5.", _AGAIN
        )
        times = reader.read(cells[timestamp])
        cells[timestamp].refuse(times.is_null(), "there is no time.", _AGAIN)
        lines = pl.int_range(first_row + 1, first_row + 1 + frame.height, eager=True)
        yield pl.DataFrame(
            {
                "user_id": cells[user].ids(),
                "item_id": items,
                "value": values,
                "time": times.dt.timestamp("us"),
                LINE: lines,
            }
        )


_AGAIN = "Mend the line, or get the file again."


def _core(reviews: Path, least: int) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The users and items that keep `least` reviews of each other, and the number of those.

    The largest such set is unique; leaving out whoever has too few, again and again, ends there.
    """
    scan = pl.scan_parquet(reviews, glob=False).select("user_id", "item_id")
    kept = scan
    while True:
        users, items = (
            kept.group_by(key, maintain_order=True)
            .len()
            .filter(pl.col("len") >= least)
            .select(key)
            .collect(engine="streaming")
            for key in ("user_id", "item_id")
        )
        before = kept.select(pl.len()).collect().item()
        kept = scan.join(users.lazy(), on="user_id", how="semi").join(
            items.lazy(), on="item_id", how="semi"
        )
        after = kept.select(pl.len()).collect(engine="streaming").item()
        if after == before:
            return users, items, after


def _batches(reviews: Path) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(reviews) as file:
        for batch in file.iter_batches(131_072):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame
