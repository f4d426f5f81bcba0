"""The event log as partitions of a dataset: events/part-live-STORE-FIRST-LAST.parquet.

A partition's name says which rows of which store's log it holds, and it appears whole or not at
all: so the folder itself knows where the next export goes on, and whatever stopped an export,
nothing is lost and nothing comes twice. Knows the columns of docs/dataset.md; nothing of training.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.atomic import sync, write_whole
from model.errors import ConfigError
from model.schema import TimeKind, read_schema
from serving.store.event_log import EventLog, qualified_id

PART_ROWS = 1_000_000
_BATCH_ROWS = 20_000
_TRIMMED_TOGETHER = 5_000
_AFTER_ALL = 1 << 40
"""Where the sequences of live events begin in a dataset that has an order and no times."""
_NAME = re.compile(r"part-live-([0-9a-f]{16})-(\d{16})-(\d{16})\.parquet")
_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("sequence", pa.int64()),
        ("value", pa.float64()),
        ("exposure_id", pa.string()),
        ("source_item_id", pa.string()),
        ("position", pa.int32()),
        ("propensity", pa.float64()),
    ]
)

_OPTIONAL = ("value", "exposure_id", "source_item_id", "position", "propensity")


@dataclass(slots=True)
class Exported:
    """What an export did."""

    num_events: int = 0
    num_parts: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Column → values that the dataset has no column for."""
    num_foreign: int = 0
    """Events that name an item, or a source, that the dataset's items.parquet lacks."""


def export_events(
    log: EventLog,
    out: Path,
    *,
    part_rows: int = PART_ROWS,
    progress: Callable[[int], None] = lambda done: None,
) -> Exported:
    """Write what is new in the log into the dataset at `out`, which need not have anything yet.

    Where `out` has partitions, their columns are kept to; where it has a dataset.toml, its kind of
    time. progress: told how many events are written. Raises ConfigError where another export is
    writing there, DatasetError for a broken dataset.toml, StoreUnavailable.
    """
    folder = out / "events"
    folder.mkdir(parents=True, exist_ok=True)
    sync(out)
    done = Exported()
    with _alone_in(folder):
        for left in folder.glob(".part-live-*"):
            left.unlink()  # of an export that was killed
        form = _Form(out)
        store = log.store_id()
        last = _last_exported(folder, store)
        while (part := log.next_part(last, part_rows)) is not None:
            first, end = part
            path = folder / f"part-live-{store}-{first:016d}-{end:016d}.parquet"

            def write(partial: Path, after: int = last, until: int = end) -> None:
                with pq.ParquetWriter(partial, form.schema, compression="zstd") as writer:
                    for rows in _batches(log, after, until):
                        writer.write_table(form.table(rows, done))
                        done.num_events += len(rows)
                        progress(done.num_events)

            write_whole(path, write)
            done.num_parts += 1
            last = end
    return done


def trim_log(log: EventLog, out: Path) -> int:
    """Delete the rows of the log that `out` has partitions of; returns how many those were."""
    last = _last_exported(out / "events", log.store_id())
    num_trimmed = 0
    while True:
        num = log.trim(last, limit=_TRIMMED_TOGETHER)
        num_trimmed += num
        if num < _TRIMMED_TOGETHER:
            return num_trimmed


class _Form:
    """The columns that a dataset's events have, and what its items are."""

    def __init__(self, out: Path) -> None:
        others = [
            path
            for path in sorted((out / "events").glob("part-*.parquet"))
            if not _NAME.fullmatch(path.name)
        ]
        ours = sorted((out / "events").glob("part-live-*.parquet"))
        models = others or ours
        self.schema: pa.Schema = pq.read_schema(models[0]).remove_metadata() if models else _SCHEMA
        self._time: TimeKind = "exact"
        if (out / "dataset.toml").exists():
            self._time = read_schema(out).time
        self._items: pa.Array | None = None
        if (out / "items.parquet").exists():
            self._items = pq.read_table(out / "items.parquet", columns=["item_id"])["item_id"]

    def table(self, rows: Sequence[tuple[int, str]], done: Exported) -> pa.Table:
        """(number, body) of the log as a table; what of it has no place is counted in `done`."""
        bodies = [json.loads(body) for _, body in rows]
        columns = _columns(bodies)
        if self._time == "order":  # nothing but its order counts, and no two may share one
            columns["sequence"] = pa.array([_AFTER_ALL + number for number, _ in rows])
        elif self._time == "none":
            columns["timestamp"] = pa.nulls(len(rows), _SCHEMA.field("timestamp").type)
        for name in _OPTIONAL:
            num = len(rows) - columns[name].null_count
            if num and name not in self.schema.names:
                done.left_out[name] = done.left_out.get(name, 0) + num
        if self._items is not None:
            known = pc.and_(
                pc.is_in(columns["item_id"], value_set=self._items),
                pc.or_(
                    pc.is_null(columns["source_item_id"]),
                    pc.is_in(columns["source_item_id"], value_set=self._items),
                ),
            )
            done.num_foreign += len(rows) - int(pc.sum(known).as_py() or 0)
        return pa.table(
            [
                columns[entry.name].cast(entry.type)
                if entry.name in columns
                else pa.nulls(len(rows), entry.type)
                for entry in self.schema
            ],
            schema=self.schema,
        )


def _columns(bodies: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    values: dict[str, list[Any]] = {
        name: [body.get(name) for body in bodies]
        for name in _SCHEMA.names
        if name not in ("event_id", "timestamp")
    }
    values["event_id"] = [qualified_id(body["user_id"], body["event_id"]) for body in bodies]
    values["timestamp"] = [body["timestamp_us"] for body in bodies]
    return {entry.name: pa.array(values[entry.name], entry.type) for entry in _SCHEMA}


def _batches(log: EventLog, after: int, until: int) -> Iterator[list[tuple[int, str]]]:
    """(number, body) of the log's rows in (after, until], some thousands at a time."""
    while rows := log.rows(after, until, limit=_BATCH_ROWS):
        yield rows
        after = rows[-1][0]


def _last_exported(folder: Path, store: str) -> int:
    """The last row of this store's log that a partition holds; 0 for none."""
    names = [_NAME.fullmatch(path.name) for path in folder.glob("part-live-*.parquet")]
    return max((int(name[3]) for name in names if name and name[1] == store), default=0)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other export writes there meanwhile. Raises ConfigError where one does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another export is writing into {folder}; wait for its end, or name another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
