"""A snapshot's users merged into a store: what `penchant load-users` does.

Merging goes by event id, so loading the same snapshot twice changes nothing, and a newer snapshot
adds what is new. Knows no rows and no vectors.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.histories import NO_TIME
from model.manifest import Manifest
from model.snapshot import open_snapshot, read_histories
from serving.store.base import NewHistory, UserStore

Int64 = npt.NDArray[np.int64]

_PROFILES_A_BATCH = 20_000
_PAUSE = 0.01
"""Seconds after a transaction: a running server's writes come between."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: users in the snapshot, events in it, and how many of those were new."""

    manifest: Manifest
    num_users: int
    num_events: int
    num_added: int


def load_snapshot(
    path: Path, store: UserStore, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Loaded:
    """Merge the snapshot at `path` into the store, some hundred users a transaction.

    progress: called with (users done, users in all). Raises BundleRejected for a damaged snapshot
    before anything is written, StoreUnavailable where the store cannot be written; what earlier
    transactions wrote then stays, and loading again completes it.
    """
    manifest, users = open_snapshot(path)
    total, negative = users.num_rows, manifest.schema.negative_events
    # Users who were deleted later than the data was gathered do not come back by it.
    as_of_us = 0 if manifest.as_of is None else int(manifest.as_of.timestamp() * 1e6)
    for start in range(0, total if users.num_columns > 1 else 0, _PROFILES_A_BATCH):
        some = users.slice(start, _PROFILES_A_BATCH)
        store.put_profiles(_profiles(some), as_of_us=as_of_us)
    done = num_events = num_added = 0
    for batch in read_histories(path, batch_users=store.most_together):
        num_added += store.merge_histories(_histories(batch), negative=negative)
        done += batch.num_rows
        num_events += len(pc.list_flatten(batch.column("item_ids")))
        progress(done, max(total, done))
        time.sleep(_PAUSE)
    progress(max(total, done), max(total, done))  # some users may have a profile and no history
    return Loaded(manifest, max(total, done), num_events, num_added)


def _profiles(users: pa.Table) -> Iterator[tuple[str, str]]:
    """(user_id, JSON of the features that are present) of each user."""
    for row in users.to_pylist():
        user_id = row.pop("user_id")
        present = {name: value for name, value in row.items() if value is not None}
        yield user_id, json.dumps(present, ensure_ascii=False, sort_keys=True)


def _histories(batch: pa.RecordBatch) -> Iterator[NewHistory]:
    """The batch's users; columns are flattened once, then cut a user at a time."""
    user_ids = batch.column("user_id").to_pylist()
    lengths = pc.fill_null(pc.list_value_length(batch.column("item_ids")), 0)
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    num_events = int(ends[-1]) if len(ends) else 0
    item_ids = pc.list_flatten(batch.column("item_ids")).to_pylist()
    events = pc.list_flatten(batch.column("events")).to_pylist()
    event_ids = pc.list_flatten(batch.column("event_ids")).to_pylist()
    stamps = batch.column("timestamps").cast(pa.list_(pa.timestamp("us", tz="UTC")))
    times = _flat(stamps.cast(pa.list_(pa.int64())), lengths, np.full(num_events, NO_TIME))
    # The order among equal timestamps is the order of the list, where the snapshot has no better.
    order = np.arange(num_events) - np.repeat(starts, ends - starts)
    sequences = _flat(batch.column("sequences"), lengths, order)
    for user_id, start, end in zip(user_ids, starts.tolist(), ends.tolist(), strict=True):
        yield NewHistory(
            user_id,
            item_ids[start:end],
            events[start:end],
            times[start:end],
            sequences[start:end],
            event_ids[start:end],
        )


def _flat(column: pa.Array, lengths: pa.Array, missing: Int64) -> Int64:
    """[num_events] int64: the lists end to end; `missing` [num_events] where a list is null."""
    known = pc.is_valid(column).to_numpy(zero_copy_only=False)
    given = np.repeat(known, lengths.to_numpy(zero_copy_only=False))
    values = missing.copy()
    flat = pc.list_flatten(column)
    values[given] = pc.fill_null(flat, int(NO_TIME)).to_numpy(zero_copy_only=False)
    return values
