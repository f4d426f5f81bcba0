"""`penchant embed`: the items of a dataset, or the users of a snapshot, to a folder of Parquet.

Knows where rows come from and that they fit the bundle. The towers are in training/embed.py, the
parts and processes in training/parts.py.
"""

import functools
import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from model.bundle import Bundle, open_bundle
from model.encode import Column
from model.errors import BundleRejected, ConfigError
from model.manifest import open_verified
from model.schema import Feature, read_schema
from model.snapshot import HISTORIES
from training.columns import ParquetTable, item_columns
from training.embed import ItemEmbedder, UserEmbedder
from training.part_workers import Rows
from training.parts import SCRATCH, Plan, Progress, Written, parts_folder, write_parts
from training.repeats import Repeats
from training.snapshot_rows import align_users, read_users

ITEMS = "items.parquet"
LARGEST_PART = 65_536
PARTS = 64
"""A table is cut into about so many parts, so that all workers have work until the end; a small
one into fewer, a large one into more."""
READ_ITEMS = 16_384
"""Items that a worker holds at one time."""
READ_USERS = 2_048
"""Users that a worker holds at one time, with the whole of their histories."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an embedding did."""

    written: Written | None
    """None where the folder was finished before."""
    notes: tuple[str, ...] = ()
    """What is allowed but may be a mistake, one sentence each."""


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def embed_items(
    bundle: Path,
    dataset: Path,
    out: Path,
    *,
    workers: int | None = None,
    part_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Embedded:
    """Write the vector of every item of a dataset, in the order of its items.parquet.

    Of the dataset, only dataset.toml and items.parquet are read. Raises what open_bundle,
    parts_folder and write_parts do, DatasetError for a broken items.parquet, ConfigError where a
    feature is of another type than the tower reads, or where neither an item nor a feature is one
    that the bundle knows.
    """
    opened, schema = open_bundle(bundle), read_schema(dataset)
    read = {n: c for n, c in opened.encoder.item_columns.items() if n != "kind"}
    notes = _notes(read, schema.item_features, where=dataset)
    table = _items_table(dataset)
    if read and len(notes) == len(read):  # then only their ids can tell the items apart
        first = pl.scan_parquet(dataset / ITEMS, glob=False).select("item_id").head(READ_ITEMS)
        ids = first.collect()["item_id"].drop_nulls().to_list()
        _refuse_foreign(opened, ids, f"{dataset}, which has no feature that the tower reads,")
    chosen = part_rows or _part_rows(table.num_rows, READ_ITEMS)
    plan = Plan(
        content={
            "of": "items",
            "bundle": opened.manifest.version,
            "items": _sha256(dataset / ITEMS),
            "dim": opened.dim,
        },
        part_rows=chosen,
        command=_command("items", bundle, dataset=dataset, out=out, **{"part-rows": part_rows}),
    )
    with parts_folder(out, plan, overwrite=overwrite) as finished:
        if finished:
            return Embedded(None)
        repeats = Repeats(["item_id"])
        for _, frame in table.batches(["item_id"]):
            repeats.add(frame)
        repeats.refuse([table], remedy="Keep one row an id.")
        written = write_parts(
            out,
            plan,
            table.num_rows,
            functools.partial(_item_rows, bundle, opened.manifest.version, dataset),
            workers=workers or num_cores(),
            progress=progress,
        )
    return Embedded(written, notes)


def embed_users(
    bundle: Path,
    snapshot: Path,
    out: Path,
    *,
    at: datetime | None = None,
    objective: str | None = None,
    workers: int | None = None,
    part_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Embedded:
    """Write the interests of every user of a snapshot, as a request at one moment would have them.

    First those with a history, in the order of histories.parquet, then the other rows of
    users.parquet. at: the moment, with a time zone; the snapshot's `as_of` where it is None.
    objective: one of the bundle's; the first where it is None.

    Raises what open_bundle, open_verified, parts_folder and write_parts do, ConfigError where the
    snapshot is not of the bundle's catalogue or a feature is of another type than the tower reads.
    """
    opened, manifest = open_bundle(bundle), open_verified(snapshot, kind="snapshot")
    objective = objective or opened.objectives[0]
    if objective not in opened.objectives:
        raise ConfigError(
            f"{bundle} has no objective {objective!r}; it has {', '.join(opened.objectives)}."
        )
    read = {
        name: column
        for name, column in opened.encoder.profile_columns.items()
        if f"profile.{name}" in opened.user_tower_inputs
    }
    notes = _notes(read, manifest.schema.user_features, where=snapshot)
    first = pl.scan_parquet(snapshot / HISTORIES, glob=False).select("item_ids").head(READ_USERS)
    met = first.collect()["item_ids"].explode(empty_as_null=False).unique().to_list()
    _refuse_foreign(opened, met, f"the first histories of {snapshot}")
    moment = (at or manifest.as_of or _EPOCH).astimezone(UTC)
    chosen = part_rows or _part_rows(manifest.body["num_users"], 2 * READ_USERS)
    plan = Plan(
        content={
            "of": "users",
            "bundle": opened.manifest.version,
            "snapshot": manifest.version,
            "at": moment.isoformat() if manifest.schema.has_times else None,
            "objective": objective,
            "dim": opened.dim,
            "num_interests": opened.num_interests,
        },
        part_rows=chosen,
        command=_command(
            "users",
            bundle,
            snapshot=snapshot,
            out=out,
            at=moment.isoformat() if at else None,
            objective=objective if objective != opened.objectives[0] else None,
            **{"part-rows": part_rows},
        ),
    )
    with parts_folder(out, plan, overwrite=overwrite) as finished:
        if finished:
            return Embedded(None)
        num_rows = align_users(snapshot, out / SCRATCH, list(read))
        now = moment_of(moment)
        code = opened.objectives.index(objective)
        version = opened.manifest.version
        make_rows = functools.partial(
            _user_rows, bundle, version, snapshot, out / SCRATCH, now, code
        )
        written = write_parts(
            out, plan, num_rows, make_rows, workers=workers or num_cores(), progress=progress
        )
    return Embedded(written, notes)


def _part_rows(num_rows: int, least: int) -> int:
    """Rows of a part where none were asked for; the same for the same table, on any machine."""
    return min(max(num_rows // PARTS, least), LARGEST_PART)


def _command(what: str, bundle: Path, **options: object) -> str:
    """What a person types for these arguments."""
    words = ["penchant", "embed", what, str(bundle)]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value is not None else []
    return shlex.join(words)


def moment_of(time: datetime | None) -> int:
    """UTC µs since 1970; 0 where there is no time."""
    return (time - _EPOCH) // timedelta(microseconds=1) if time else 0


# --- what fits together --------------------------------------------------------------------------


def _notes(
    read: Mapping[str, Column], declared: Mapping[str, Feature], *, where: Path
) -> tuple[str, ...]:
    """Which features the tower reads and `where` does not declare.

    Raises ConfigError naming one that is of another type.
    """
    for name, column in read.items():
        given, wanted = declared.get(name), column.feature
        if given is not None and (given.type, given.dim) != (wanted.type, wanted.dim):
            raise ConfigError(
                f"{where}: feature {name!r} is a {_words(given)}; the bundle's tower reads a "
                f"{_words(wanted)}. Write it as that, or export a bundle that was trained on it."
            )
    return tuple(
        f"{where} has no feature {name!r}, which the tower reads: it counts as missing."
        for name in read
        if name not in declared
    )


def _words(feature: Feature) -> str:
    return feature.type if feature.dim is None else f"{feature.type} of {feature.dim}"


def _refuse_foreign(bundle: Bundle, item_ids: list[str], where: str) -> None:
    """Raise ConfigError if none of these items, which stand `where`, is in the bundle."""
    if item_ids and bundle.items.rows_of(item_ids).max() < 0:
        raise ConfigError(
            f"none of the {len(item_ids):,} items in {where} is in {bundle.path}: they are of two "
            "catalogues. Name a bundle and what belongs to it."
        )


def _items_table(dataset: Path) -> ParquetTable:
    """items.parquet with its column types checked."""
    return ParquetTable(dataset / ITEMS, item_columns(read_schema(dataset)), file=ITEMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(bundle: Path, version: str) -> Bundle:
    """The bundle that the run began with. Raises BundleRejected if another is there now."""
    opened = open_bundle(bundle)
    if opened.manifest.version != version:
        raise BundleRejected(f"{bundle} was replaced while its towers were running. Begin again.")
    return opened


# --- rows, in a worker process -------------------------------------------------------------------


def _item_rows(bundle: Path, version: str, dataset: Path) -> Rows:
    """Opens the bundle; the result reads and embeds items [start, stop) of items.parquet."""
    embed = ItemEmbedder(_open(bundle, version))
    table = _items_table(dataset)

    def rows(start: int, stop: int) -> Iterator[pa.Table]:
        for first in range(start, stop, READ_ITEMS):
            items = pl.scan_parquet(dataset / ITEMS, glob=False)
            frame = items.slice(first, min(READ_ITEMS, stop - first)).collect()
            table.check(frame, first)
            yield embed(frame.to_arrow())

    return rows


def _user_rows(
    bundle: Path, version: str, snapshot: Path, aligned: Path, now: int, objective: int
) -> Rows:
    """Opens the bundle; the result reads and embeds users [start, stop)."""
    embed = UserEmbedder(_open(bundle, version), now=now, objective=objective)

    def rows(start: int, stop: int) -> Iterator[pa.Table]:
        for users in read_users(snapshot, aligned, start, stop, at_once=READ_USERS):
            yield embed(users)

    return rows
