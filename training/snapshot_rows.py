"""The users of a snapshot, row by row: each history beside the features of the same user.

A snapshot has them in two files of different orders. Knows no towers.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model.items import IdIndex, write_items
from model.snapshot import HISTORIES, HISTORY_SCHEMA, USERS

_LISTED, _PLACES = "users.arrow", "places.npy"
_TOGETHER = 65_536
"""User ids that are Python strings at one time."""
_HISTORY_COLUMNS = ["user_id", "item_ids", "events", "timestamps"]
_HISTORIES_READ = pa.schema([HISTORY_SCHEMA.field(name) for name in _HISTORY_COLUMNS])


def align_users(snapshot: Path, scratch: Path, features: list[str]) -> int:
    """Write, for `read_users`, where each user's row of users.parquet is; returns how many users
    there are in either file.

    Holds users.parquet's `features` and 24 bytes a user while it does so.
    """
    scratch.mkdir(exist_ok=True)
    columns = [n for n in features if n in pq.read_schema(snapshot / USERS).names]
    listed = pq.read_table(snapshot / USERS, columns=["user_id", *columns])
    write_items(listed, scratch / _LISTED)
    with pa.memory_map(str(scratch / _LISTED)) as source:
        listed = pa.ipc.open_file(source).read_all()
    index = IdIndex(listed["user_id"].combine_chunks())
    with pq.ParquetFile(snapshot / HISTORIES) as file:
        parts = [
            index.rows_of(batch.column("user_id").to_pylist())
            for batch in file.iter_batches(_TOGETHER, columns=["user_id"])
        ]
    places = np.concatenate([np.empty(0, np.int64), *parts])
    alone = np.ones(listed.num_rows, bool)
    alone[places[places >= 0]] = False
    np.save(scratch / _PLACES, np.concatenate([places, np.flatnonzero(alone)]))
    return len(places) + int(alone.sum())


def read_users(snapshot: Path, aligned: Path, start: int, stop: int) -> pa.Table:
    """Users [start, stop) as UserEmbedder takes them. aligned: what align_users wrote."""
    histories = (
        pl.scan_parquet(snapshot / HISTORIES)
        .select(_HISTORY_COLUMNS)
        .slice(start, stop - start)
        .collect()
        .to_arrow()
        .cast(_HISTORIES_READ)
    )
    with pa.memory_map(str(aligned / _LISTED)) as source:
        listed = pa.ipc.open_file(source).read_all()
    places = np.load(aligned / _PLACES, mmap_mode="r")[start:stop]
    features = listed.take(pa.array(np.asarray(places), mask=places < 0))
    alone = len(places) - histories.num_rows
    if alone:
        ids = features["user_id"].slice(histories.num_rows)
        none = [pa.nulls(alone, field.type) for field in _HISTORIES_READ][1:]
        without = pa.table([ids, *none], schema=_HISTORIES_READ)
        histories = pa.concat_tables([histories, without])
    for name in features.column_names[1:]:
        histories = histories.append_column(name, features[name])
    return histories
