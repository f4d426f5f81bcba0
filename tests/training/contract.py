"""A small good dataset, for tests that break it in one place before it is written."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from model.errors import DatasetError
from training.validate import DatasetSummary, validate_dataset

START = datetime(2024, 5, 1, 8, 30, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")

TOML = """\
format = 1
name = "tiny"
time = "exact"

[item_features]
title = { type = "text" }
craft = { type = "category", filterable = true }
tags = { type = "categories" }
price = { type = "number", filterable = true }
picture = { type = "vector", dim = 2 }

[user_features]
city = { type = "category" }

[events]
watch = { role = "engagement", unit = "seconds" }
order = { role = "conversion" }
"""


@dataclass
class Dataset:
    """A small good dataset that a test breaks in one place before it is written."""

    folder: Path
    toml: str
    items: pl.DataFrame
    users: pl.DataFrame | None
    links: pl.DataFrame | None
    parts: list[pl.DataFrame]

    def write(self) -> None:
        (self.folder / "events").mkdir(parents=True)
        (self.folder / "dataset.toml").write_text(self.toml, encoding="utf-8")
        self.items.write_parquet(self.folder / "items.parquet")
        if self.users is not None:
            self.users.write_parquet(self.folder / "users.parquet")
        if self.links is not None:
            self.links.write_parquet(self.folder / "links.parquet")
        for number, part in enumerate(self.parts):
            part.write_parquet(self.folder / f"events/part-{number:05d}.parquet")

    def check(self) -> DatasetSummary:
        self.write()
        return validate_dataset(self.folder)

    def refusal(self) -> DatasetError:
        with pytest.raises(DatasetError) as caught:
            self.check()
        return caught.value


def events_of(first: int, rows: list[tuple[str, str, str, float | None]]) -> pl.DataFrame:
    users, items, events, values = zip(*rows, strict=True)
    numbers = range(first, first + len(rows))
    return pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in numbers],
            "user_id": users,
            "item_id": items,
            "event": events,
            "timestamp": [START + timedelta(minutes=n) for n in numbers],
            "sequence": list(numbers),
            "value": values,
            "source_item_id": [None] * len(rows),
            "position": [None] * len(rows),
            "propensity": [None] * len(rows),
            "split": ["train"] * len(rows),
        },
        schema_overrides={
            "timestamp": UTC_TIME,
            "value": pl.Float64,
            "source_item_id": pl.String,
            "position": pl.Int32,
            "propensity": pl.Float64,
        },
    )


def put(frame: pl.DataFrame, column: str, row: int, value: object) -> pl.DataFrame:
    """The frame with one cell replaced, every type kept."""
    cells = frame[column].to_list()
    cells[row] = value
    dtype = frame.schema[column]
    return frame.with_columns(pl.Series(column, cells, dtype=dtype))


def without_times(dataset: Dataset, time: str) -> Dataset:
    dataset.toml = dataset.toml.replace('"exact"', f'"{time}"')
    dataset.parts = [part.drop("timestamp") for part in dataset.parts]
    return dataset


def good_dataset(folder: Path) -> Dataset:
    items = pl.DataFrame(
        {
            "item_id": ["flute", "film", "room"],
            "kind": ["product", "video", "live"],
            "title": ["Bamboo flute", "How a flute is made", ""],
            "created_at": [START, None, START],
            "expires_at": [None, None, START + timedelta(hours=3)],
            "available": [True, True, False],
            "craft": ["bamboo", None, "bamboo"],
            "tags": [["music", "wood"], [], ["music"]],
            "price": [88.0, None, None],
            "picture": [[0.5, 1.0], None, [0.0, -1.0]],
        },
        schema_overrides={
            "created_at": UTC_TIME,
            "expires_at": UTC_TIME,
            "tags": pl.List(pl.String),
            "picture": pl.List(pl.Float32),
        },
    )
    links = pl.DataFrame(
        {
            "from_item": ["film", "room"],
            "to_item": ["flute", "flute"],
            "relation": ["shows", "on_air"],
            "start": [None, START],
            "end": [None, START + timedelta(hours=1)],
        },
        schema_overrides={"start": UTC_TIME, "end": UTC_TIME},
    )
    return Dataset(
        folder=folder,
        toml=TOML,
        items=items,
        users=pl.DataFrame({"user_id": ["ann", "bo"], "city": ["Jingdezhen", None]}),
        links=links,
        parts=[
            events_of(0, [("ann", "film", "watch", 61.5), ("ann", "flute", "order", None)]),
            events_of(2, [("bo", "room", "watch", 5.0), ("cy", "film", "watch", 9.0)]),
        ],
    )
