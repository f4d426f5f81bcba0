"""The split of Taobao that MULE published becomes a dataset: who viewed, carted and bought what.

One file a behaviour, lines of `user, item`, and no times: time = "none". What is held out is a
purchase a user for validation and one for test, marked in the events' column `split`. As published,
the validation purchases are in `buy_train.tsv` too; they are taken out of the training part here.
"""

from pathlib import Path

import polars as pl

from model.schema import Event, Schema
from training.importers.behaviours import plain_items
from training.importers.delimited import LINE, DelimitedFile, unknown_layout
from training.importers.grouping import without_repeats
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken

VIEW, CART = "view.tsv", "cart.tsv"
TRAIN, VALID, TEST = "buy_train.tsv", "buy_valid.tsv", "buy_test.tsv"

_FILES = {
    VIEW: ("view", "train"),
    CART: ("cart", "train"),
    TRAIN: ("buy", "train"),
    VALID: ("buy", "validation"),
    TEST: ("buy", "test"),
}
_ORIGIN = (
    "They are the Taobao set of https://github.com/geonwooko/MULE as one pair a line "
    "with the header `user<TAB>item`."
)
_PAIR = ["user_id", "item_id"]


def import_mule(source: Path, out: Path, *, progress: Progress | None = None) -> ImportReport:
    """Write MULE's Taobao split from the folder `source` as a dataset under `out`.

    Raises DatasetError if a file is missing, a line is malformed, or `out` is taken. `out` appears
    whole or not at all.
    """
    refuse_taken(out)
    tell = progress or (lambda fraction, message: None)
    if not (source / TRAIN).is_file():
        raise unknown_layout(source, expected=", ".join(_FILES) + ".", origin=_ORIGIN)
    read: dict[str, int] = {}
    dropped: dict[str, int] = {}
    pairs: dict[str, pl.DataFrame] = {}
    for number, name in enumerate(_FILES):
        tell(0.4 * number / len(_FILES), f"reading {name}")
        frame = _read_pairs(source / name)
        pairs[name] = without_repeats(frame, _PAIR)
        read[name] = frame.height
        dropped[f"{name}: exact duplicates of an earlier line"] = frame.height - pairs[name].height
    for held_out in (VALID, TEST):
        kept = pairs[TRAIN].join(pairs[held_out], on=_PAIR, how="anti", maintain_order="left")
        reason = f"{TRAIN}: purchases that {held_out} holds out"
        dropped[reason] = pairs[TRAIN].height - kept.height
        pairs[TRAIN] = kept
    # One purchase cannot be both what validation and what test ask for.
    kept = pairs[VALID].join(pairs[TEST], on=_PAIR, how="anti", maintain_order="left")
    dropped[f"{VALID}: purchases that {TEST} holds out"] = pairs[VALID].height - kept.height
    pairs[VALID] = kept

    events = pl.concat(
        frame.select(
            pl.format(f"{name.removesuffix('.tsv')}-{{}}", LINE).alias("event_id"),
            *_PAIR,
            pl.lit(_FILES[name][0]).alias("event"),
            pl.lit(_FILES[name][1]).alias("split"),
        )
        for name, frame in pairs.items()
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
        layout="MULE's files",
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


def _read_pairs(path: Path) -> pl.DataFrame:
    """user_id, item_id and LINE of every line."""
    file = DelimitedFile(path, ["user", "item"], separator="\t", origin=_ORIGIN)
    frames = []
    for frame in file.batches():
        file.refuse_empty(frame, "user", "item")
        frames.append(frame.rename({"user": "user_id", "item": "item_id"}))
    if not frames:
        return pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, LINE: pl.Int64})
    return pl.concat(frames)
