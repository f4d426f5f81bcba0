"""Sequence files of Amazon reviews: each user's items in order, as papers have shared them.

`sequences_s3rec.txt` (or S3-Rec's own Beauty.txt) says the order, which the standard leave-one-out
split follows. Where they lie beside it, `interactions.tsv` adds the days, `items.tsv` ASINs, titles
and attributes, and `*_item2attributes.json` the attributes alone.

Days are not known of every event. time = "order" keeps every event in the published order, with its
day where there is one; time = "day" drops the events without, so that splits by time are possible.
"""

import json
from pathlib import Path
from typing import Literal

import polars as pl

from model.errors import DatasetError
from model.schema import Event, Feature, Schema
from training.importers.cells import Cells
from training.importers.sequence_lines import SequenceLines
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.source import require_columns
from training.importers.times import TimeColumn, TimeReader
from training.importers.writer import ImportReport, Progress, new_dataset

SEQUENCES, INTERACTIONS, ITEMS = "sequences_s3rec.txt", "interactions.tsv", "items.tsv"
ATTRIBUTES = "_item2attributes.json"
_ONE_RELEASE = "Take all files from one release."


def find_sequences(source: Path) -> Path | None:
    """The file of sequences that `source` is or holds; None if there is none."""
    if source.is_file():
        return source if source.suffix == ".txt" else None
    if (source / SEQUENCES).is_file():
        return source / SEQUENCES
    found = [
        path
        for path in sorted(source.glob("*.txt"))
        if path.with_name(path.stem + ATTRIBUTES).is_file()
    ]
    if len(found) > 1:
        raise DatasetError(
            f"there are several files of sequences: {', '.join(p.name for p in found)}.",
            file=str(source),
            remedy="Name one of the files instead of the folder.",
        )
    return found[0] if found else None


def import_sequences(
    path: Path, out: Path, *, time: Literal["order", "day"], progress: Progress
) -> ImportReport:
    """Write the dataset; see `amazon.import_amazon` for arguments and errors."""
    progress(0.0, f"reading {path.name}")
    lines = SequenceLines(path, separator=" ")
    events = pl.concat(list(lines.events())).rename({"item_id": "item"})
    read = {f"{path.name}, users": lines.num_users, f"{path.name}, events": events.height}
    dropped, notes = {}, []
    progress(0.3, f"reading {INTERACTIONS}")
    days = path.with_name(INTERACTIONS)
    if days.is_file():
        events = _with_days(events, days)
        read[INTERACTIONS] = events.height
    elif time == "day":
        raise DatasetError(
            f"there is no {INTERACTIONS} beside it, so no event has a day.",
            file=path.name,
            remedy="Leave --time out, to keep the order of the events alone.",
        )
    if time == "day":
        known = events.filter(pl.col("timestamp").is_not_null())
        _refuse_backwards(known, days)
        dropped["events without a day"] = events.height - known.height
        dropped["users without an event that has a day"] = (
            events["user_id"].n_unique() - known["user_id"].n_unique()
        )
        events = known
    elif "timestamp" in events.columns:
        unknown = events["timestamp"].null_count()
        notes.append(
            f"{unknown:,} of {events.height:,} events have no day; the others keep theirs, and the "
            "order alone counts. `--time day` drops those, for splits by time."
        )

    progress(0.5, "reading items")
    items, features = _read_items(path, events, read)
    used = items.join(events.select("item").unique(), on="item", how="semi", maintain_order="left")
    missing = events["item"].n_unique() - used.height
    if missing:
        raise DatasetError(
            f"{missing:,} items of {path.name} have no row here.",
            file=ITEMS,
            remedy=_ONE_RELEASE,
        )
    dropped["items without an event"] = items.height - used.height
    events = events.join(used.select("item", "item_id"), on="item", how="left").select(
        pl.format("{}-{}", "user_id", "sequence").alias("event_id"),
        pl.exclude("item"),
        pl.lit("review").alias("event"),
    )
    category = (path.resolve().parent.name if path.name == SEQUENCES else path.stem).lower()
    schema = Schema(
        name=f"amazon-{category.removeprefix('amazon-')}",
        time=time,
        item_features=features,
        events={"review": Event(role="engagement")},
    )
    progress(0.6, "writing")
    with new_dataset(
        out, schema, progress=lambda part, what: progress(0.6 + 0.4 * part, f"checking {what}")
    ) as writer:
        writer.write_items(used.drop("item").with_columns(pl.lit("product").alias("kind")))
        writer.append_events(events)
    return ImportReport(
        out=out,
        layout="sequences",
        read=read,
        written={
            "users": events["user_id"].n_unique(),
            "items": used.height,
            "events": events.height,
        },
        dropped={reason: count for reason, count in dropped.items() if count},
        summary=writer.summary,
        notes=tuple(notes),
    )


def _with_days(events: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Events with `timestamp`, null where the day is not known. Both files have to agree."""
    source = CsvSource(path, separator="\t", quoted=False)
    reader = TimeReader(TimeColumn(column="unix_ts", format="unix_s"), days="refused")
    frames = []
    columns = ["user", "item", "pos", "unix_ts"]
    require_columns(source, columns, remedy=_ONE_RELEASE)
    for first_row, frame in source.batches(columns):
        frames.append(
            frame.select("user", "item").with_columns(
                Cells(source, first_row, frame["pos"]).integers().alias("pos"),
                reader.read(Cells(source, first_row, frame["unix_ts"])).alias("timestamp"),
            )
        )
    dated = pl.concat(frames)
    joined = events.join(
        dated.with_row_index("row"),
        left_on=["user_id", "item", "sequence"],
        right_on=["user", "item", "pos"],
        how="left",
        maintain_order="left",
    )
    if dated.height != events.height or joined.height != events.height or joined["row"].has_nulls():
        raise DatasetError(
            f"it has other events than {SEQUENCES}, or other positions.",
            file=path.name,
            remedy=_ONE_RELEASE,
        )
    return joined.drop("row")


def _refuse_backwards(events: pl.DataFrame, path: Path) -> None:
    """The order by day has to be the published one, or a split by time would not be fair."""
    gap = pl.col("timestamp").diff().over("user_id")
    back = events.filter(gap < pl.duration())
    if back.height:
        raise DatasetError(
            f"user {back['user_id'][0]}: the days go back at position {back['sequence'][0]}.",
            file=path.name,
            remedy="Leave --time out, to keep the published order alone.",
        )


def _read_items(
    path: Path, events: pl.DataFrame, read: dict[str, int]
) -> tuple[pl.DataFrame, dict[str, Feature]]:
    """Columns: item (the number in the sequences), item_id, title and the declared features."""
    attributes = Feature(type="categories", filterable=True)
    if path.with_name(ITEMS).is_file():
        items = _read_table(path.with_name(ITEMS))
        read[ITEMS] = items.height
        return items, {"title": Feature(type="text"), "attributes": attributes}
    items = events.select(pl.col("item").unique(maintain_order=True)).with_columns(
        pl.col("item").alias("item_id"), pl.lit("").alias("title")
    )
    found = path.with_name(path.stem + ATTRIBUTES)
    if not found.is_file():
        return items, {}
    lists = _read_attributes(found)
    read[found.name] = len(lists)
    return items.with_columns(
        pl.Series("attributes", [lists.get(item, []) for item in items["item"]])
    ), {"attributes": attributes}


def _read_table(path: Path) -> pl.DataFrame:
    source = CsvSource(path, separator="\t", quoted=False)
    columns = ["item", "asin", "attribute_ids", "title"]
    require_columns(source, columns, remedy=_ONE_RELEASE)
    frames = [
        pl.DataFrame(
            {
                "item": Cells(source, first_row, frame["item"]).ids(),
                "item_id": Cells(source, first_row, frame["asin"]).ids(),
                "title": frame["title"].fill_null(""),
                "attributes": Cells(source, first_row, frame["attribute_ids"]).lists(","),
            }
        )
        for first_row, frame in source.batches(columns)
    ]
    items = pl.concat(frames)
    for name, column in (("item", "item"), ("asin", "item_id")):
        Cells(source, 0, items[column].alias(name)).refuse(
            ~items[column].is_first_distinct(), "{} comes a second time.", "Keep one row an item."
        )
    return items


def _read_attributes(path: Path) -> dict[str, list[str]]:
    """One object: the item's number → the numbers of its attributes."""
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        return {item: [str(int(number)) for number in numbers] for item, numbers in lists.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"it is not one object of lists of numbers ({error}).",
            file=path.name,
            remedy="Download it again.",
        ) from None
