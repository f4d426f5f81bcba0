"""The snapshot: users, their histories and profiles, as of a time; the second folder of an export.

Ids, never rows: it outlives the bundle it was exported with. `penchant load-users` merges it into
the store. Knows nothing of vectors or stores.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.manifest import Manifest, open_verified

USERS, HISTORIES = "users.parquet", "histories.parquet"

HISTORY_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("events", pa.list_(pa.string())),
        ("timestamps", pa.list_(pa.timestamp("us", tz="UTC"))),
        ("event_ids", pa.list_(pa.string())),
        ("sequences", pa.list_(pa.int64())),
    ]
)
"""One row a user, lists oldest first; `timestamps` is null where the dataset has no times, and
`sequences` orders events of one time, as in the dataset."""


def open_snapshot(path: Path) -> tuple[Manifest, pa.Table]:
    """Verify a snapshot; returns its manifest and users.parquet (user_id and user features).

    Raises BundleRejected naming the file that is wrong.
    """
    manifest = open_verified(path, kind="snapshot")
    return manifest, pq.read_table(path / USERS)


def read_histories(path: Path, *, batch_users: int = 4096) -> Iterator[pa.RecordBatch]:
    """Stream histories.parquet of a verified snapshot, `batch_users` users at a time."""
    with pq.ParquetFile(path / HISTORIES) as file:
        yield from file.iter_batches(batch_size=batch_users)
