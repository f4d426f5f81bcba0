"""The split of Taobao that MULE published becomes a dataset: who viewed, carted and bought what.

One file a behaviour, lines of user and item, and no times: time = "none". What is held out is a
purchase a user for validation and one for test, marked in the events' column `split`. As published,
the validation purchases are in the training part too; they are taken out of it here.

Repository (github.com/geonwooko/MULE, data/taobao): `view.txt`, `cart.txt`, `train.txt`,
`valid.txt`, `test.txt`, fields parted by a space, no header. Tables: the same as `view.tsv`,
`cart.tsv`, `buy_train.tsv`, `buy_valid.tsv`, `buy_test.tsv`, parted by a tab, with a header.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.schema import Event, Schema
from training.importers.behaviours import plain_items
from training.importers.delimited import LINE, DelimitedFile, unknown_layout
from training.importers.grouping import without_repeats
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken

_PARTS = {
    "view": ("view", "train"),
    "cart": ("cart", "train"),
    "train": ("buy", "train"),
    "valid": ("buy", "validation"),
    "test": ("buy", "test"),
}
"""The event and the split of each file, by its name in the repository."""

_ORIGIN = "The release is the folder data/taobao of https://github.com/geonwooko/MULE."
_PAIR = ["user_id", "item_id"]


@dataclass(frozen=True, slots=True)
class _Layout:
    name: str
    files: dict[str, str]
    """File name by part, as in _PARTS."""
    separator: str
    header: bool


_LAYOUTS = (
    _Layout("repository", {part: f"{part}.txt" for part in _PARTS}, " ", False),
    _Layout(
        "tables",
        {p: f"buy_{p}.tsv" if event == "buy" else f"{p}.tsv" for p, (event, _) in _PARTS.items()},
        "\t",
        True,
    ),
)


def import_mule(source: Path, out: Path, *, progress: Progress | None = None) -> ImportReport:
    """Write MULE's Taobao split from the folder `source` as a dataset under `out`.

    Raises DatasetError if a file is missing, a line is malformed, or `out` is taken. `out` appears
    whole or not at all.
    """
    refuse_taken(out)
    tell = progress or (lambda fraction, message: None)
    layout = next((x for x in _LAYOUTS if (source / x.files["train"]).is_file()), None)
    if layout is None:
        expected = ", or ".join(", ".join(x.files.values()) for x in _LAYOUTS)
        raise unknown_layout(source, expected=f"{expected}.", origin=_ORIGIN)
    read: dict[str, int] = {}
    dropped: dict[str, int] = {}
    pairs: dict[str, pl.DataFrame] = {}
    for number, (part, name) in enumerate(layout.files.items()):
        tell(0.4 * number / len(_PARTS), f"reading {name}")
        frame = _read_pairs(source / name, layout)
        pairs[part] = without_repeats(frame, _PAIR)
        read[name] = frame.height
        dropped[f"{name}: exact duplicates of an earlier line"] = frame.height - pairs[part].height
    # What test asks for may be neither learned nor validated on; nor what validation asks for.
    for part, held_out in (("train", "valid"), ("train", "test"), ("valid", "test")):
        kept = pairs[part].join(pairs[held_out], on=_PAIR, how="anti", maintain_order="left")
        reason = f"{layout.files[part]}: purchases that {layout.files[held_out]} holds out"
        dropped[reason] = pairs[part].height - kept.height
        pairs[part] = kept

    events = pl.concat(
        frame.select(
            pl.format(f"{part}-{{}}", LINE).alias("event_id"),
            *_PAIR,
            pl.lit(_PARTS[part][0]).alias("event"),
            pl.lit(_PARTS[part][1]).alias("split"),
        )
        for part, frame in pairs.items()
    )
    schema = Schema(
        name="taobao-mule",
        time="none",
        language="zh",
        events={
            "view": Event(role="engagement"),
            "cart": Event(role="engagement"),
            "buy": Event(role="conversion", weight=5.0),
        },
    )
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.6 + 0.4 * part, f"checking {what}")
    ) as writer:
        writer.write_items(plain_items(events.select("item_id").unique()))
        writer.append_events(events)
    return ImportReport(
        out=out,
        layout=layout.name,
        read=read,
        written={
            "users": writer.summary.num_users,
            "items": writer.summary.num_items,
            "events": events.height,
        },
        dropped={reason: count for reason, count in dropped.items() if count},
        summary=writer.summary,
        notes=("The files have no times, so the dataset has none: time splits are refused.",),
    )


def _read_pairs(path: Path, layout: _Layout) -> pl.DataFrame:
    """user_id, item_id and LINE of every line."""
    file = DelimitedFile(
        path,
        ["user", "item"],
        separator=layout.separator,
        header=layout.header,
        origin=_ORIGIN,
    )
    frames = []
    for frame in file.batches():
        file.refuse_empty(frame, "user", "item")
        frames.append(frame.rename({"user": "user_id", "item": "item_id"}))
    if not frames:
        return pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, LINE: pl.Int64})
    return pl.concat(frames)
