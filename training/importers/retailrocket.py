"""Retailrocket's shop log becomes a dataset: views, carts and purchases with times.

Public release (kaggle.com/datasets/retailrocket/ecommerce-dataset): `events.csv` (milliseconds, up
to three behaviours), `item_properties_part1.csv` and `_part2.csv` (what was known of an item from
when on; every property but `categoryid` and `available` has a hashed name and value), and
`category_tree.csv`. An item's last known category and that category's parent become its
categories. `available` is left out: it changes over time, and an item's last state says nothing of
whether it could be bought when an event happened. Only items with an event become items, as in the
figures published for this set.

Held-out purchases: `interactions.tsv` with `test_buy.tsv`, see training/importers/behaviours.py.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from model.schema import Event, Feature, Schema
from training.importers.behaviours import (
    INTERACTIONS,
    POSSIBLE,
    TEST_BUY,
    WHOLE_NUMBER,
    BehaviourLog,
    import_held_out,
    plain_items,
    write_acts,
)
from training.importers.delimited import LINE, DelimitedFile, unknown_layout
from training.importers.grouping import Distinct
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken

EVENTS, TREE = "events.csv", "category_tree.csv"
PROPERTIES = ("item_properties_part1.csv", "item_properties_part2.csv")

_ORIGIN = (
    "The release is at https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset (free, with "
    "an account): unpack it."
)
_BEHAVIOURS = {"view": "view", "addtocart": "cart", "transaction": "buy"}
_EVENTS = {
    "view": Event(role="engagement"),
    "cart": Event(role="engagement"),
    "buy": Event(role="conversion", weight=5.0),
}


def import_retailrocket(
    source: Path, out: Path, *, progress: Progress | None = None
) -> ImportReport:
    """Write Retailrocket's log from the folder `source` as a dataset under `out`.

    Raises DatasetError if no layout is there, a line is malformed, or `out` is taken. `out` appears
    whole or not at all.
    """
    tell = progress or (lambda fraction, message: None)
    if (source / EVENTS).is_file():
        return _import_public(source, out, tell=tell)
    if (source / INTERACTIONS).is_file():
        return import_held_out(
            source,
            out,
            name="retailrocket",
            events=_EVENTS,
            period=POSSIBLE,
            origin=f"{INTERACTIONS} and {TEST_BUY} belong together.",
            notes=(),
            progress=tell,
        )
    expected = f"{EVENTS}, {PROPERTIES[0]}, {PROPERTIES[1]} and {TREE}, or {INTERACTIONS} with "
    raise unknown_layout(source, expected=f"{expected}{TEST_BUY}.", origin=_ORIGIN)


def _import_public(source: Path, out: Path, *, tell: Progress) -> ImportReport:
    refuse_taken(out)
    columns = ["timestamp", "visitorid", "event", "itemid", "transactionid"]
    log = BehaviourLog(
        DelimitedFile(source / EVENTS, columns, origin=_ORIGIN),
        user="visitorid",
        item="itemid",
        behaviour="event",
        time="timestamp",
        unit="ms",
        events=_BEHAVIOURS,
        also=["transactionid"],  # two lines that differ in it are two purchases
    )
    schema = Schema(
        name="retailrocket",
        time="exact",
        item_features={"categories": Feature(type="categories", filterable=True)},
        events=_EVENTS,
    )
    properties = _Categories(source)
    seen = Distinct("item_id")
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.8 + 0.2 * part, f"checking {what}")
    ) as writer:
        num_events = write_acts(
            log, writer, out, items=seen, progress=lambda part, what: tell(0.3 * part, what)
        )
        items = properties.read(seen.rows(), lambda part, what: tell(0.3 + 0.5 * part, what))
        writer.write_items(plain_items(items))
    return ImportReport(
        out=out,
        layout="public release",
        read={EVENTS: log.num_read, **properties.num_read},
        written={
            "users": writer.summary.num_users,
            "items": writer.summary.num_items,
            "categories of items": properties.num_written,
            "events": num_events,
        },
        dropped=log.dropped | properties.dropped,
        summary=writer.summary,
        notes=("transactionid, which lines of one purchase share, is not kept.",),
    )


class _Categories:
    """The last known category of each item, out of the property files and the tree."""

    def __init__(self, source: Path) -> None:
        names = ["timestamp", "itemid", "property", "value"]
        self._files = [DelimitedFile(source / p, names, origin=_ORIGIN) for p in PROPERTIES]
        self._tree = DelimitedFile(source / TREE, ["categoryid", "parentid"], origin=_ORIGIN)
        self.num_read: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.num_written = 0

    def read(self, items: pl.DataFrame, progress: Progress) -> pl.DataFrame:
        """items: item_id. Returns them with `categories`: [category, its parent], or []."""
        rows = pl.concat(list(self._category_rows(progress)))
        # Of two lines with one time, the later one stays: the sort is stable.
        last = rows.sort("timestamp", maintain_order=True).unique("item_id", keep="last")
        used = last.join(items, on="item_id", how="semi")
        self._drop("categories that the item later left", rows.height - last.height)
        self._drop("categories of items without an event", last.height - used.height)
        self.num_written = used.height
        listed = pl.concat_list("category", "parentid").list.drop_nulls()
        with_parent = used.join(self._parents(), on="category", how="left").select(
            "item_id", categories=listed
        )
        return items.join(with_parent, on="item_id", how="left").with_columns(
            pl.col("categories").fill_null([])
        )

    def _category_rows(self, progress: Progress) -> Iterator[pl.DataFrame]:
        """Yield item_id, timestamp (ms), category: the lines of the property `categoryid`."""
        yield pl.DataFrame(
            schema={"item_id": pl.String, "timestamp": pl.Int64, "category": pl.String}
        )
        for number, file in enumerate(self._files):
            self.num_read[file.name] = 0

            def told(part: float, file: DelimitedFile = file, number: int = number) -> None:
                progress((number + part) / len(self._files), f"reading {file.name}")

            for frame in file.batches(told):
                self.num_read[file.name] += frame.height
                file.refuse_empty(frame, "itemid", "property")
                file.refuse(
                    frame,
                    ~pl.col("timestamp").str.contains(WHOLE_NUMBER),
                    column="timestamp",
                    allowed="Unix milliseconds, a whole number of at most 18 digits",
                )
                found = frame.filter(pl.col("property") == "categoryid")
                available = frame.filter(pl.col("property") == "available")
                file.refuse_empty(found, "value")
                self._drop("available, which changes over time", available.height)
                hashed = frame.height - found.height - available.height
                self._drop("hashed properties, whose meaning was not published", hashed)
                yield found.select(
                    pl.col("itemid").alias("item_id"),
                    pl.col("timestamp").cast(pl.Int64),
                    pl.col("value").alias("category"),
                )

    def _parents(self) -> pl.DataFrame:
        """category, parentid; null for a root."""
        rows = pl.DataFrame(schema={"category": pl.String, "parentid": pl.String, LINE: pl.Int64})
        for frame in self._tree.batches():
            self._tree.refuse_empty(frame, "categoryid")
            rows.extend(frame.select(pl.col("categoryid").alias("category"), "parentid", LINE))
        self.num_read[TREE] = rows.height
        self._tree.refuse(
            rows,
            ~pl.col("category").is_first_distinct(),
            column="category",
            allowed="a category that has no earlier line",
        )
        return rows.select("category", pl.col("parentid").replace("", None))

    def _drop(self, reason: str, count: int) -> None:
        if count:
            key = f"item_properties: {reason}"
            self.dropped[key] = self.dropped.get(key, 0) + count
