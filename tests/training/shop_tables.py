"""A shop as three text files and a column map, for the tests of the importer of tables."""

from pathlib import Path

import polars as pl

from training.importers.tables import import_table
from training.importers.writer import ImportReport

MAP = """\
name = "shop"
time = "exact"
[events]
files = "events.csv"
user_id = "user"
item_id = "item"
event = "action"
timestamp = { column = "time", format = "iso8601" }
value = "amount"
[event_names]
view = { role = "engagement", values = ["pv", "detail"] }
order = { role = "conversion", weight = 5.0, unit = "CNY" }
[items]
files = "items.csv"
item_id = "sku"
kind = { column = "type", values = { goods = "product", clip = "video" } }
title = "name"
[items.features]
title = { type = "text" }
brand = { type = "category", filterable = true }
tags = { type = "categories", separator = "|" }
price = { type = "number", column = "price_cny", filterable = true }
"""
EVENTS = """\
user,item,action,time,amount
ann,film-1,pv,2026-03-01T20:15:00+08:00,61.5
bob,flute-7,detail,2026-03-02T10:00:00Z,
ann,flute-7,order,2026-03-08T17:00:00+08:00,88
"""
ITEMS = """\
sku,type,name,brand,tags,price_cny
flute-7,goods,Bamboo flute,Feng,music|handmade,88
film-1,clip,"Flutes, and how",,,
mat-1,goods,Mat,Zhu,,12.5
"""


def write_shop(folder: Path) -> Path:
    folder.mkdir()
    (folder / "map.toml").write_text(MAP)
    (folder / "events.csv").write_text(EVENTS)
    (folder / "items.csv").write_text(ITEMS)
    return folder


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def say(shop: Path, *lines: str) -> None:
    """Add lines to [events]."""
    change(shop / "map.toml", "[events]\n", "[events]\n" + "".join(f"{x}\n" for x in lines))


def import_shop(shop: Path) -> ImportReport:
    report = import_table(shop / "map.toml", shop.parent / "out")
    lost = sum(count for why, count in report.dropped.items() if why.startswith("events "))
    read = sum(count for file, count in report.read.items() if "event" in file)
    assert read - lost == report.written["events"]
    made = report.written.get("items that only events name", 0)
    lost = sum(count for why, count in report.dropped.items() if why.startswith("items "))
    assert report.read.get("items.csv", 0) - lost + made == report.written["items"]
    return report


def events_of(shop: Path) -> pl.DataFrame:
    return pl.read_parquet(shop.parent / "out/events/*.parquet")


def items_of(shop: Path) -> pl.DataFrame:
    return pl.read_parquet(shop.parent / "out/items.parquet")
