"""What Amazon's metadata files say of items: title, brand, categories, price; all three years.

2014 writes Python literals (read without running anything), 2018 and 2023 JSON. Knows the fields of
each year and the page source that 2018 took for titles and prices. Knows no reviews.
"""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from model.schema import Feature
from training.importers.sources.json_source import JsonSource, json_or_python

FEATURES: Mapping[str, Feature] = {
    "title": Feature(type="text"),
    "brand": Feature(type="category", filterable=True),
    "categories": Feature(type="categories", filterable=True),
    "price": Feature(type="number", filterable=True),
}
_PRICE = re.compile(r"^\$?\s*(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?$")
_LONGEST_NAME = 200
"""Of a brand or category; what is longer is page source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The items that were asked for, as far as the file has them."""

    items: pl.DataFrame
    """item_id and a column a feature."""
    num_read: int
    num_repeated: int
    """Lines about an item that an earlier line was about."""
    num_unwanted: int
    """Lines about other items."""


def find_metadata(reviews: Path, category: str) -> Path | None:
    """The metadata file beside a file of reviews, if it is there."""
    names = [f"meta_{category}.{kind}{gz}" for kind in ("jsonl", "json") for gz in (".gz", "")]
    return next((p for name in names if (p := reviews.with_name(name)).is_file()), None)


def read_metadata(path: Path, wanted: pl.Series, *, progress: Callable[[float], None]) -> Metadata:
    """Read the lines about the items `wanted`; of several about one, the first.

    Raises DatasetError for a line that is no object, or has no ASIN.
    """
    source = JsonSource(path, parse=json_or_python)
    names = set(wanted)
    rows: dict[str, dict[str, object]] = {}
    num_read = num_repeated = 0
    for row, record in source.records():
        num_read += 1
        asin = record.get("parent_asin") or record.get("asin")
        if not isinstance(asin, str):
            raise source.error(
                "there is neither parent_asin nor asin.", row=row, remedy="Get the file again."
            )
        if asin in rows:
            num_repeated += 1
        elif asin in names:
            rows[asin] = _described(record)
        if row % 4096 == 0:
            progress(source.fraction)
    schema = {
        "title": pl.String(),
        "brand": pl.String(),
        "categories": pl.List(pl.String()),
        "price": pl.Float64(),
    }
    items = pl.DataFrame(list(rows.values()), schema=schema)
    return Metadata(
        items=items.with_columns(pl.Series("item_id", list(rows), dtype=pl.String)),
        num_read=num_read,
        num_repeated=num_repeated,
        num_unwanted=num_read - num_repeated - len(rows),
    )


def _described(record: Mapping[str, Any]) -> dict[str, object]:
    # 2018 kept some pages' scripts for titles; its authors advise to leave those out.
    title = _text(record.get("title"))
    if title is None or "getTime" in title:
        title = ""
    brand = _text(record.get("brand")) or _text(record.get("store"))
    categories = record.get("categories") or record.get("category") or []
    return {
        "title": title,
        "brand": brand if brand and len(brand) <= _LONGEST_NAME else None,
        "categories": list(dict.fromkeys(_names(categories))),
        "price": _price(record.get("price")),
    }


def _names(categories: object) -> list[str]:
    """2014 has a list of paths from the root, the others one path; page source is left out."""
    if isinstance(categories, list):
        return [name for part in categories for name in _names(part)]
    name = _text(categories)
    return [name] if name and "<" not in name and len(name) <= _LONGEST_NAME else []


def _price(price: object) -> float | None:
    """A number of dollars; None for ranges and page source, which stand there too."""
    if isinstance(price, int | float) and not isinstance(price, bool):
        return float(price)
    found = _PRICE.match(price.strip()) if isinstance(price, str) else None
    return float(found[1].replace(",", "") + (found[2] or "")) if found else None


def _text(value: object) -> str | None:
    return html.unescape(value).strip() or None if isinstance(value, str) else None
