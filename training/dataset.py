"""A dataset's events become memory-mapped arrays grouped by user, in (timestamp, sequence) order.

Only events that enter histories (engagements and conversions) are kept here. Users and items are
rows: items in the order of items.parquet, users in order of their id. Never opens truth/.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from model.atomic import sync, sync_tree
from model.items import hash_ids
from model.schema import Schema, read_schema
from training.columns import SPLITS
from training.validate import validate_dataset

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

_PER_EVENT = ("items", "events", "times", "weights", "published")
_SHUFFLE_SEED = 17

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Interactions:
    """Every user's history: user u has events starts[u] .. starts[u + 1], oldest first."""

    schema: Schema
    starts: Int64
    """[U + 1]"""
    items: Int32
    """[E] item rows."""
    events: Int32
    """[E] event codes from 1: position in schema.history_events + 1."""
    times: Int64
    """[E] UTC µs; zeros where the dataset has no times, -1 where a held-out event lacks one."""
    weights: npt.NDArray[np.float32]
    """[E] how much the event counts as a target (the event's weight in dataset.toml)."""
    published: npt.NDArray[np.int8]
    """[E] the part that a published split puts the event in, a position in columns.SPLITS."""
    num_items: int

    @property
    def num_users(self) -> int:
        """Users with at least one event in their history."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Int64:
        """[U] events a user."""
        return np.diff(self.starts)

    @property
    def owners(self) -> Int64:
        """[E] the user row of each event."""
        return np.repeat(np.arange(self.num_users, dtype=np.int64), self.lengths)

    def keep(self, mask: Bool) -> "Interactions":
        """The same users with only the events where mask [E] is True."""
        return replace(
            self,
            starts=np.concatenate([[0], np.cumsum(mask)])[self.starts],
            **{name: getattr(self, name)[mask] for name in _PER_EVENT},
        )

    def weighing_others(self, names: tuple[str, ...], weight: float) -> "Interactions":
        """The same histories; events of other names weigh `weight` times what they did."""
        wanted = [self.schema.history_events.index(name) + 1 for name in names]
        factor = np.where(np.isin(self.events, wanted), 1, weight)
        return replace(self, weights=(self.weights * factor).astype(np.float32))

    def without_repeats(self) -> "Interactions":
        """The same histories; an event on an item the user had before weighs nothing."""
        pairs = self.owners * self.num_items + self.items
        first = np.zeros(len(pairs), bool)
        first[np.unique(pairs, return_index=True)[1]] = True
        return replace(self, weights=np.where(first, self.weights, 0).astype(np.float32))

    def popularity(self) -> Int64:
        """[V] events of each item row."""
        return np.bincount(self.items, minlength=self.num_items)


def read_items_table(dataset: Path) -> pa.Table:
    """items.parquet, in file order: its order gives the item rows."""
    return pq.read_table(dataset / "items.parquet")


def read_users_table(dataset: Path) -> pa.Table | None:
    """users.parquet, or None where the dataset has none."""
    path = dataset / "users.parquet"
    return pq.read_table(path) if path.exists() else None


def load_interactions(dataset: Path, cache: Path) -> Interactions:
    """Build the arrays from Parquet, or map them from the cache if it was built from these files.

    cache: a folder of npy files; written whole or not at all. Raises DatasetError where the dataset
    must be read anew and breaks its contract.
    """
    schema = read_schema(dataset)
    stamp = {
        p.relative_to(dataset).as_posix(): [p.stat().st_size, p.stat().st_mtime_ns]
        for p in [dataset / "dataset.toml", dataset / "items.parquet", *_parts(dataset)]
    }
    arrays = _map_arrays(cache, stamp)
    if arrays is None:
        validate_dataset(dataset)
        _build(dataset, schema, cache, stamp)
        arrays = _map_arrays(cache, stamp)
        assert arrays is not None
    return Interactions(
        schema, **arrays, num_items=pq.read_metadata(dataset / "items.parquet").num_rows
    )


def _map_arrays(cache: Path, stamp: dict[str, list[int]]) -> dict[str, Any] | None:
    """The cached arrays; None where there are none, of other files, or damaged ones."""
    try:
        if json.loads((cache / "built_from.json").read_text()) != stamp:
            return None
        return {
            name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("starts", *_PER_EVENT)
        }
    except (OSError, ValueError, EOFError):
        return None


def data_digest(data: Interactions, item_ids: pa.ChunkedArray) -> str:
    """Hex digest of which items there are, in order, and of every event a run learns from."""
    digest = xxhash.xxh3_128(hash_ids(item_ids.to_pylist()).tobytes())
    arrays = [data.starts, data.items, data.events, data.times, data.weights]
    for array in [*arrays, data.published] if data.published.any() else arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load_user_ids(cache: Path) -> list[str]:
    """The ids of user rows, as load_interactions numbered them."""
    ids: list[str] = pq.read_table(cache / "user_ids.parquet")["user_id"].to_pylist()
    return ids


def load_sequences(cache: Path) -> Int64:
    """The sequence number of each of the E events, in array order; file order if there is none."""
    sequences: Int64 = np.load(cache / "sequences.npy", mmap_mode="r")
    return sequences


def load_event_ids(cache: Path) -> pa.ChunkedArray:
    """The event id of each of the E events, in array order."""
    return pq.read_table(cache / "event_ids.parquet")["event_id"]


def _parts(dataset: Path) -> list[Path]:
    return sorted((dataset / "events").glob("part-*.parquet"))


def _build(dataset: Path, schema: Schema, cache: Path, stamp: dict[str, list[int]]) -> None:
    path = dataset / "items.parquet"
    items = pl.read_parquet(path, columns=["item_id"], glob=False).with_row_index("item")
    codes = pl.DataFrame(
        {
            "event": schema.history_events,
            "code": np.arange(1, len(schema.history_events) + 1, dtype=np.int32),
            "weight": [schema.events[name].weight for name in schema.history_events],
        },
        schema_overrides={"weight": pl.Float32},
    )
    scan = pl.scan_parquet(_parts(dataset), glob=False, missing_columns="insert")
    columns = scan.collect_schema().names()
    time = pl.col("timestamp").dt.timestamp("us") if schema.has_times else pl.lit(0, pl.Int64)
    split = pl.col("split").fill_null(SPLITS[0]) if "split" in columns else pl.lit(SPLITS[0])
    sequence = pl.col("sequence") if "sequence" in columns else pl.int_range(pl.len())
    events = (
        scan.select(
            "user_id",
            "item_id",
            "event",
            "event_id",
            time.alias("time"),
            sequence.alias("seq"),
            split.replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.Int8).alias("split"),
        )
        .join(codes.lazy(), on="event", how="inner", maintain_order="left")
        .join(items.lazy(), on="item_id", how="inner", maintain_order="left")
        .collect()
    )
    if schema.has_order:
        events = events.sort("user_id", "time", "seq", maintain_order=True, nulls_last=True)
    else:
        # The order of the files is often that of the ids: not one to learn from.
        order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(events))
        events = events.with_columns(order=order).sort("user_id", "order").drop("order")
    users = events.select(pl.col("user_id").rle().struct.unnest())
    partial = cache.parent / f".{cache.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    starts = np.concatenate([[0], np.cumsum(users["len"].to_numpy())]).astype(np.int64)
    np.save(partial / "starts.npy", starts)
    np.save(partial / "items.npy", events["item"].to_numpy().astype(np.int32))
    np.save(partial / "events.npy", events["code"].to_numpy())
    np.save(partial / "times.npy", events["time"].fill_null(-1).to_numpy())
    np.save(partial / "published.npy", events["split"].to_numpy())
    np.save(partial / "sequences.npy", events["seq"].to_numpy())
    np.save(partial / "weights.npy", events["weight"].to_numpy())
    users.select(user_id="value").write_parquet(partial / "user_ids.parquet")
    events.select("event_id").write_parquet(partial / "event_ids.parquet")
    (partial / "built_from.json").write_text(json.dumps(stamp))
    sync_tree(partial)
    shutil.rmtree(cache, ignore_errors=True)
    partial.rename(cache)
    sync(cache.parent)
