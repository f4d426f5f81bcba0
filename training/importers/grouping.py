"""Rows of a log in any order come back user by user, each user's oldest first, in bounded memory.

They are dealt into files by a hash of the user, and one such file after the other is sorted. Knows
no public dataset; the columns it needs are `user_id`, `time` (Int64, any unit; null comes last)
and `line`.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa

from training.importers.delimited import LINE
from training.importers.writer import Progress

_BUCKET_BYTES = 32 * 2**20
"""Of the source's text. Sorting a bucket takes several times that."""

_PENDING_ROWS = 1_000_000

SLICE_ROWS = 250_000
"""Of a bucket, so many rows at a time become events, which take more memory."""


class UserGroups:
    """Rows in, whole users out; made by `grouped_by_user`."""

    def __init__(self, folder: Path, num_buckets: int, files: ExitStack) -> None:
        self._paths = [folder / f"bucket-{number:04d}.arrows" for number in range(num_buckets)]
        self._files = files
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Take in more rows; every call must bring the same columns."""
        bucket = (pl.col("user_id").hash() % len(self._paths)).alias("bucket")
        parts = frame.with_columns(bucket).partition_by("bucket", as_dict=True, include_key=False)
        for (number,), part in parts.items():
            self._writer(number, part).write_table(part.to_arrow())

    def read(self, progress: Progress | None = None) -> Iterator[pl.DataFrame]:
        """Yield frames of whole users, each user's rows by (time, line); call once, after `add`."""
        self._files.close()
        for done, number in enumerate(sorted(self._writers)):
            with pa.OSFile(str(self._paths[number])) as file:
                frame = pl.from_arrow(pa.ipc.open_stream(file).read_all())
            self._paths[number].unlink()
            assert isinstance(frame, pl.DataFrame)
            yield frame.sort("user_id", "time", LINE, nulls_last=True)
            if progress is not None:
                progress((done + 1) / len(self._writers), "users in order of time")

    def _writer(self, number: int, part: pl.DataFrame) -> pa.RecordBatchStreamWriter:
        if number not in self._writers:
            file = self._files.enter_context(pa.OSFile(str(self._paths[number]), "wb"))
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            writer = pa.ipc.new_stream(file, part.to_arrow().schema, options=options)
            self._writers[number] = self._files.enter_context(writer)
        return self._writers[number]


@contextmanager
def grouped_by_user(out: Path, *, num_bytes: int) -> Iterator[UserGroups]:
    """Group the rows of a log by user, with files beside `out` that are gone afterwards.

    num_bytes: how large the log's text is; it decides how many files.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.grouping-") as folder,
        ExitStack() as files,
    ):
        yield UserGroups(Path(folder), 1 + num_bytes // _BUCKET_BYTES, files)


def without_repeats(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The rows of whole users without those that equal an earlier one in all of `columns`."""
    return frame.unique(columns, keep="first", maintain_order=True)


class Distinct:
    """The distinct rows of many frames; memory holds at most about twice as many rows."""

    def __init__(self, *columns: str) -> None:
        """columns: those to tell rows apart by, all strings; the others are left out."""
        self._columns = columns
        self._kept = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        self._pending: list[pl.DataFrame] = []
        self._num_pending = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take in more rows."""
        self._pending.append(frame.select(self._columns).unique(maintain_order=True))
        self._num_pending += self._pending[-1].height
        if self._num_pending > max(self._kept.height, _PENDING_ROWS):
            self._compact()

    def rows(self) -> pl.DataFrame:
        """The distinct rows so far, in order of their first coming."""
        self._compact()
        return self._kept

    def _compact(self) -> None:
        self._kept = pl.concat([self._kept, *self._pending]).unique(maintain_order=True)
        self._pending, self._num_pending = [], 0
