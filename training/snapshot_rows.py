"""The users of a snapshot, row by row: each history beside the features of the same user.

A snapshot has them in two files of different orders. Knows no towers.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.items import IdIndex, write_items
from model.snapshot import HISTORIES, HISTORY_SCHEMA, USERS

_LISTED, _PLACES = "users.arrow", "places.npy"
_TOGETHER = 65_536
"""User ids that are Python strings at one time."""
_COLUMNS = ["user_id", "item_ids", "events", "timestamps"]
_SCHEMA = pa.schema([HISTORY_SCHEMA.field(name) for name in _COLUMNS])


def align_users(snapshot: Path, scratch: Path, features: list[str]) -> int:
    """Write, for `read_users`, where each user's row of users.parquet is; returns how many users
    there are in either file.

    Holds users.parquet's `features` and 24 bytes a user while it does so.
    """
    scratch.mkdir(exist_ok=True)
    columns = [n for n in features if n in pq.read_schema(snapshot / USERS).names]
    write_items(pq.read_table(snapshot / USERS, columns=["user_id", *columns]), scratch / _LISTED)
    listed = _listed(scratch)
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


def read_users(
    snapshot: Path, aligned: Path, start: int, stop: int, *, at_once: int
) -> Iterator[pa.Table]:
    """Users [start, stop) as UserEmbedder takes them, at most `at_once` in one table.

    First those of histories.parquet, in its order, then the other rows of users.parquet. aligned:
    what align_users wrote.
    """
    listed, places = _listed(aligned), np.load(aligned / _PLACES, mmap_mode="r")
    done = start
    for histories in _histories(snapshot, start, stop, at_once):
        yield _beside(histories, listed, places[done : done + histories.num_rows])
        done += histories.num_rows
    for first in range(done, stop, at_once):  # who has no history
        theirs = places[first : min(first + at_once, stop)]
        ids = listed["user_id"].take(pa.array(theirs))
        none = [pa.nulls(len(theirs), field.type) for field in _SCHEMA][1:]
        yield _beside(pa.table([ids, *none], schema=_SCHEMA), listed, theirs)


def _histories(snapshot: Path, start: int, stop: int, at_once: int) -> Iterator[pa.Table]:
    """Rows [start, stop) of histories.parquet, fewer where it has fewer."""
    with pq.ParquetFile(snapshot / HISTORIES) as file:
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.flatnonzero((ends > start) & (ends - sizes < stop))
        if not len(groups):
            return
        first = int(ends[groups[0]] - sizes[groups[0]])
        for batch in file.iter_batches(at_once, row_groups=groups.tolist(), columns=_COLUMNS):
            table = pa.Table.from_batches([batch])
            kept = table.slice(max(start - first, 0), stop - max(first, start))
            first += table.num_rows
            if kept.num_rows:
                yield kept
            if first >= stop:
                return


def _beside(histories: pa.Table, listed: pa.Table, places: np.ndarray) -> pa.Table:
    """Histories with the features of these rows of users.arrow; null where it is -1."""
    features = listed.drop_columns("user_id")
    if features.num_columns:
        theirs = features.take(pa.array(np.asarray(places), mask=places < 0))
        for name in theirs.column_names:
            histories = histories.append_column(name, theirs[name])
    return histories


def _listed(aligned: Path) -> pa.Table:
    """users.arrow, memory-mapped."""
    with pa.memory_map(str(aligned / _LISTED)) as source:
        return pa.ipc.open_file(source).read_all()
