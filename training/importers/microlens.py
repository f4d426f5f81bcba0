"""MicroLens, the short videos of recsys.westlake.edu.cn, becomes a dataset, whatever its size.

`MicroLens-*_pairs.csv` has a user, an item and milliseconds a line, so time = "exact"; where only
`MicroLens-*_pairs.tsv` lies there, with each user's items in order, time = "order". Titles come
from `MicroLens-*_title*.csv`, one category a video from `tags_to_summary.csv`.

Likes and views a video, and comments, are left out: they count what users did, held-out events
included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.errors import DatasetError
from model.schema import Event, Feature, Schema
from training.importers.cells import Cells
from training.importers.delimited import LINE, unknown_layout
from training.importers.grouping import UserGroups, grouped_by_user, without_repeats
from training.importers.sequence_lines import SequenceLines
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.source import require_columns
from training.importers.times import TimeColumn, TimeReader
from training.importers.writer import (
    DatasetWriter,
    ImportReport,
    Progress,
    new_dataset,
    refuse_taken,
)

TAGS = "tags_to_summary.csv"
_ORIGIN = "They are at https://recsys.westlake.edu.cn/ (MicroLens-50k, -100k and -1M)."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What was found in the folder."""

    timed: Path | None
    ordered: Path | None
    titles: Path
    tags: Path | None


class _Watched:
    """Counts what is written, and remembers which users and videos have an event."""

    def __init__(self, writer: DatasetWriter) -> None:
        self._writer = writer
        self.num_users = self.num_events = 0
        self.items = pl.Series("item_id", [], dtype=pl.String)

    def append(self, events: pl.DataFrame) -> None:
        """Write events of users that no other call brings."""
        self._writer.append_events(events)
        self.num_events += events.height
        self.num_users += events["user_id"].n_unique()
        self.items = pl.concat([self.items, events["item_id"].unique()]).unique()


def import_microlens(source: Path, out: Path, *, progress: Progress | None = None) -> ImportReport:
    """Write MicroLens from the folder `source` as a dataset under `out`.

    progress: called with a fraction from 0 to 1 and what is being done.

    Raises DatasetError if the files are not there, a line is malformed (naming file and line), or
    `out` is taken. `out` appears whole or not at all.
    """
    refuse_taken(out)  # before minutes of reading, not after
    files = _find(source)
    tell = progress or (lambda fraction, message: None)
    read: dict[str, int] = {}
    dropped: dict[str, int] = {}
    tell(0.0, "reading titles")
    titles = _numbered_texts(files.titles, "title", read)
    features = {"title": Feature(type="text")}
    tags = _numbered_texts(files.tags, "category", read) if files.tags else None
    if tags is not None:
        features["category"] = Feature(type="category", filterable=True)
    pairs = files.timed or files.ordered
    assert pairs is not None  # _find has seen to it
    schema = Schema(
        name=pairs.name.partition("_")[0].lower(),
        time="exact" if files.timed else "order",
        item_features=features,
        # The files say no more than that a user interacted with a video.
        events={"interact": Event(role="engagement")},
    )
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.7 + 0.3 * part, f"checking {what}")
    ) as writer:
        watched = _Watched(writer)
        if files.timed is not None:
            _write_timed(files.timed, out, watched, tell, read, dropped)
        else:
            _write_ordered(pairs, watched, tell, read)
        items = watched.items.to_frame().join(titles, on="item_id", how="left")
        untitled = items["title"].null_count()
        dropped["titles of videos without an event"] = titles.height - items.height + untitled
        if tags is not None:
            items = items.join(tags, on="item_id", how="left")
            known = items.height - items["category"].null_count()
            dropped["categories of videos without an event"] = tags.height - known
        writer.write_items(
            items.with_columns(pl.col("title").fill_null(""), pl.lit("video").alias("kind")).sort(
                pl.col("item_id").cast(pl.Int64)
            )
        )
    notes = [f"{untitled:,} videos have no title."] if untitled else []
    return ImportReport(
        out=out,
        layout="times" if files.timed else "order",
        read=read,
        written={
            "users": watched.num_users,
            "items": items.height,
            "events": watched.num_events,
        },
        dropped={reason: count for reason, count in dropped.items() if count},
        summary=writer.summary,
        notes=tuple(notes),
    )


def _find(source: Path) -> _Files:
    def only(*patterns: str) -> Path | None:
        found = sorted({path for pattern in patterns for path in source.glob(pattern)})
        if len(found) > 1:
            raise DatasetError(
                f"there are several files of one kind: {', '.join(path.name for path in found)}.",
                file=str(source),
                remedy="Keep one size of MicroLens a folder.",
            )
        return found[0] if found else None

    timed, ordered = only("MicroLens-*_pairs.csv"), only("MicroLens-*_pairs.tsv")
    titles = only("MicroLens-*_title_en.csv", "MicroLens-*_title.csv", "MicroLens-*_titles.csv")
    if not source.is_dir() or (timed or ordered) is None or titles is None:
        expected = (
            "MicroLens-100k_pairs.csv or MicroLens-100k_pairs.tsv, and MicroLens-100k_title_en.csv "
            f"(or another size's), and {TAGS} where there is one."
        )
        raise unknown_layout(source, expected=expected, origin=_ORIGIN)
    tags = source / TAGS
    return _Files(
        timed=timed, ordered=ordered, titles=titles, tags=tags if tags.is_file() else None
    )


def _write_ordered(path: Path, watched: _Watched, tell: Progress, read: dict[str, int]) -> None:
    lines = SequenceLines(path, separator="\t")
    for events in lines.events():
        tell(0.1 + 0.6 * lines.fraction, f"reading {path.name}")
        watched.append(
            events.with_columns(
                pl.format("{}-{}", "user_id", "sequence").alias("event_id"),
                pl.lit("interact").alias("event"),
            )
        )
    read[f"{path.name}, users"] = lines.num_users
    read[f"{path.name}, events"] = lines.num_events


def _write_timed(
    path: Path,
    out: Path,
    watched: _Watched,
    tell: Progress,
    read: dict[str, int],
    dropped: dict[str, int],
) -> None:
    with grouped_by_user(out, num_bytes=path.stat().st_size) as groups:
        num_read = 0
        for rows, fraction in _timed_rows(path):
            tell(0.1 + 0.3 * fraction, f"reading {path.name}")
            groups.add(rows)
            num_read += rows.height
        _write_groups(groups, watched, tell)
    read[path.name] = num_read
    dropped["events that repeat a user, video and time"] = num_read - watched.num_events


def _write_groups(groups: UserGroups, watched: _Watched, tell: Progress) -> None:
    for users in groups.read(lambda part, what: tell(0.4 + 0.3 * part, what)):
        kept = without_repeats(users, ["user_id", "item_id", "time"])
        watched.append(
            kept.select(
                pl.format("{}-{}-{}", "user_id", "item_id", "time").alias("event_id"),
                "user_id",
                "item_id",
                pl.lit("interact").alias("event"),
                pl.from_epoch("time", time_unit="us")
                .dt.replace_time_zone("UTC")
                .alias("timestamp"),
            )
        )


def _timed_rows(path: Path) -> Iterator[tuple[pl.DataFrame, float]]:
    """Yield (user_id, item_id, time in microseconds, line; the part of the file that is read)."""
    source = CsvSource(path)
    columns = ["user", "item", "timestamp"]
    require_columns(source, columns, remedy=_ORIGIN)
    times = TimeReader(TimeColumn(column="timestamp", format="unix_ms"), days="refused")
    for first_row, frame in source.batches(columns):
        cells = {name: Cells(source, first_row, frame[name]) for name in columns}
        for name in ("user", "item"):
            cells[name].refuse(
                ~frame[name].str.contains(r"^\d+$").fill_null(False),
                "{} is no number.",
                "Mend the line, or get the file again.",
            )
        when = times.read(cells["timestamp"])
        cells["timestamp"].refuse(when.is_null(), "there is no time.", "Get the file again.")
        yield (
            pl.DataFrame(
                {
                    "user_id": frame["user"],
                    "item_id": frame["item"],
                    "time": when.dt.timestamp("us"),
                    LINE: pl.int_range(first_row, first_row + frame.height, eager=True),
                }
            ),
            source.fraction,
        )


def _numbered_texts(path: Path, name: str, read: dict[str, int]) -> pl.DataFrame:
    """Lines of `number,text`. Some releases quote the text, others leave lone quotes in it, so a
    line is cut at its first comma; some have a header, others none."""
    source = CsvSource(path, separator="\x1f", quoted=False, header=["line"])
    frames = []
    for first_row, frame in source.batches(["line"]):
        lines = Cells(source, first_row, frame["line"])
        parts = frame["line"].str.extract_groups(r"^(\d+),(.*)$").struct.unnest()
        is_header = (pl.int_range(len(parts), eager=True) == 0) & (first_row == 0)
        is_header &= frame["line"].str.contains(r"^[A-Za-z_]+,\s*[A-Za-z_]+$")
        lines.refuse(
            parts["1"].is_null() & ~is_header,
            f"{{}} is not a video's number, a comma and its {name}.",
            "Mend the line, or get the file again.",
        )
        text = parts["2"].str.strip_chars()
        inner = text.str.extract(r'^"(.*)"$').str.replace_all('""', '"', literal=True)
        frames.append(
            pl.DataFrame({"item_id": parts["1"], name: inner.fill_null(text)}).filter(~is_header)
        )
    texts = pl.concat(frames)
    twice = texts.filter(~pl.col("item_id").is_first_distinct())
    if twice.height:
        raise DatasetError(
            f"video {twice['item_id'][0]} has two lines.",
            file=path.name,
            column=name,
            remedy="Keep one line a video.",
        )
    read[path.name] = texts.height
    return texts
