"""How every importer writes a dataset: into a hidden folder that is checked, then renamed.

A dataset under its final name is therefore whole and valid, whatever happened meanwhile. Knows
the dataset's files and column types; knows no public dataset.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.atomic import sync, sync_tree
from model.errors import DatasetError
from model.schema import Schema, write_schema
from training.columns import (
    Column,
    event_columns,
    item_columns,
    link_columns,
    user_columns,
)
from training.validate import DatasetSummary, validate_dataset

Progress = Callable[[float, str], None]
"""Called with a fraction from 0 to 1 and what is being done."""

PART_ROWS = 1_000_000
_ROW_GROUP_ROWS = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an importer did, for the person who ran it."""

    out: Path
    """The finished dataset."""
    layout: str
    """Which published layout the source folder had."""
    read: dict[str, int]
    """Rows read, by source file."""
    written: dict[str, int]
    """Rows written: "users", "items", "events"."""
    dropped: dict[str, int]
    """Rows that were read and not written, by reason; a reason that met no row is absent."""
    summary: DatasetSummary
    """What the validator counted in the finished dataset."""
    notes: tuple[str, ...] = ()
    """What no count says and the person should know, one sentence each: a biased sample, a file
    that was left unread, what the source itself had cut off."""


class DatasetWriter:
    """Writes the files of one dataset; made by `new_dataset`."""

    def __init__(self, folder: Path, schema: Schema, *, part_rows: int = PART_ROWS) -> None:
        self._folder = folder
        self._schema = schema
        self._part_rows = part_rows
        self._pending: list[pl.DataFrame] = []
        self._num_pending = 0
        self._num_parts = 0
        self._summary: DatasetSummary | None = None
        (folder / "events").mkdir()

    def write_items(self, items: pl.DataFrame) -> None:
        """Write items.parquet, cast to the contract's types."""
        self._write(items, item_columns(self._schema), "items.parquet")

    def write_users(self, users: pl.DataFrame) -> None:
        """Write users.parquet, cast to the contract's types."""
        self._write(users, user_columns(self._schema), "users.parquet")

    def write_links(self, links: pl.DataFrame) -> None:
        """Write links.parquet, cast to the contract's types."""
        self._write(links, link_columns(), "links.parquet")

    def append_events(self, events: pl.DataFrame) -> None:
        """Add events; a part file is written whenever enough of them have gathered.

        Every call must bring the same columns. Readers order a user's events by (timestamp,
        sequence); events that have neither, or share both, keep the order in which they came.
        """
        self._pending.append(events)
        self._num_pending += events.height
        while self._num_pending >= self._part_rows:
            self._write_part(self._part_rows)

    @property
    def summary(self) -> DatasetSummary:
        """The validator's counts; there only after `new_dataset` has ended without an error."""
        if self._summary is None:
            raise RuntimeError("the dataset is not finished: read `summary` after the with block")
        return self._summary

    def _finish(self, progress: Progress | None) -> None:
        if self._num_pending:
            self._write_part(self._num_pending)
        write_schema(self._schema, self._folder)
        self._summary = validate_dataset(self._folder, progress=progress)

    def _write_part(self, num_rows: int) -> None:
        pending = pl.concat(self._pending)
        name = f"events/part-{self._num_parts:05d}.parquet"
        self._write(pending.head(num_rows), event_columns(self._schema), name)
        self._pending = [pending.slice(num_rows)]
        self._num_pending -= num_rows
        self._num_parts += 1

    def _write(self, frame: pl.DataFrame, columns: Mapping[str, Column], name: str) -> None:
        # A column that the contract does not know stays, so that the validator names it.
        casts = [
            pl.col(n).cast(columns[n].dtypes[0])
            for n in frame.columns
            if n in columns and frame.schema[n] not in columns[n].dtypes
        ]
        frame.with_columns(casts).write_parquet(
            self._folder / name, compression="zstd", row_group_size=_ROW_GROUP_ROWS
        )


@contextmanager
def new_dataset(
    out: Path,
    schema: Schema,
    *,
    progress: Progress | None = None,
    part_rows: int = PART_ROWS,
) -> Iterator[DatasetWriter]:
    """Write a dataset that appears under `out` whole and valid, or not at all.

    progress: told how far the final check of the written files is.
    part_rows: the most rows of one events/part-*.parquet.

    Raises DatasetError if `out` is taken or if what was written breaks the dataset contract.
    """
    refuse_taken(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    folder.mkdir()
    try:
        writer = DatasetWriter(folder, schema, part_rows=part_rows)
        yield writer
        writer._finish(progress)
        sync_tree(folder)
        refuse_taken(out)  # once more: another import may have ended meanwhile
        os.rename(folder, out)  # takes the place of an empty folder, never of a full one
        sync(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_taken(out: Path) -> None:
    """Raise DatasetError unless `out` is free: absent, or an empty folder."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise DatasetError(
            "this path is taken: it is not an empty folder.",
            file=str(out),
            remedy="Choose another output folder, or delete this one first.",
        )
