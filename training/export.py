"""A run becomes a bundle and a snapshot: all that serving will ever see of it.

The ONNX graphs are compared with the towers that were trained before anything gets its final name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model import bundle as files
from model.circles import CIRCLES, DISTRICTS
from model.errors import ConfigError
from model.items import IdIndex, write_items
from model.manifest import refuse_existing, write_folder
from model.snapshot import HISTORIES, HISTORY_SCHEMA, USERS
from model.tower_session import require_vectors
from model.towers import TwoTower
from training.circles.find import find_circles
from training.circles.growth import count_events
from training.circles.previous import Previous
from training.circles.report import sentences
from training.dataset import (
    load_event_ids,
    load_sequences,
    load_user_ids,
    read_items_table,
    read_users_table,
)
from training.evaluate import evaluate_run
from training.index import write_tuned_index
from training.onnx_towers import (
    export_item_tower,
    export_user_tower,
    id_vectors,
    item_tower_error,
    require_exportable,
    user_tower_error,
)
from training.run import Run
from training.tower_ranker import item_vectors
from training.user_states import encode_users
from training.value.export import ValueErrors, export_value
from training.value.ranker import reranker_of
from training.value.stored import has_value, load_value

METRIC_USERS = 20_000
"""At most so many users, chosen by the run's seed, are asked for the manifest's metrics; `penchant
evaluate` asks them all."""
NUM_GATE_USERS = 2000

_GROUP_USERS = 4096
"""Users of one row group of histories.parquet."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and how faithful it is."""

    num_items: int
    num_active: int
    num_users: int
    num_circles: int
    num_districts: int
    circles: list[str]
    """Sentences on what became of the circles of the bundle before."""
    user_tower_error: float
    item_tower_error: float
    """Largest absolute difference between ONNX Runtime and torch, over all that was compared."""
    value_errors: ValueErrors | None
    """The same for the value model; None where the run has none."""
    index: dict[str, Any]
    """What the manifest says of the index: its kind, recall, seconds and memory."""
    metrics: dict[str, Any]


def export_run(
    run: Run,
    model: TwoTower,
    *,
    bundle: Path,
    snapshot: Path,
    replace: bool = False,
    previous: Previous | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the bundle and the snapshot of a trained model (on the CPU, in evaluation mode).

    previous: the bundle before, whose circles' ids last where their items stay together.

    Raises NoVector if the item tower gives none for an item, ParityError if a graph differs from
    its tower by more than MAX_ERROR, ConfigError if the item tower outgrows an ONNX file, a target
    exists and replace is False, or both are one folder. Then nothing is written.
    """
    outside = (snapshot, run.path, run.dataset)
    for target, others in ((bundle, outside), (snapshot, (bundle, *outside[1:]))):
        for other in others:
            one, two = target.resolve(), other.resolve()
            if one.is_relative_to(two) or two.is_relative_to(one):
                raise ConfigError(
                    f"{target} and {other} are one folder or lie one in the other; name folders "
                    "apart for the bundle, the snapshot, the run and the dataset."
                )
    refuse_existing(bundle, kind="bundle" if replace else None)
    refuse_existing(snapshot, kind="snapshot" if replace else None)
    require_exportable(model)
    value = load_value(run) if has_value(run) else None
    say = progress or (lambda done, what: None)
    schema, as_of = run.data.schema, last_event(run)
    items = read_items_table(run.dataset)
    ids = items["item_id"].combine_chunks()
    order, num_active = _row_order(items, as_of)
    vectors = item_vectors(run.items, model).numpy()
    require_vectors(vectors, ids, of="item")
    circles = find_circles(
        vectors,
        items,
        schema,
        run.data.popularity(),
        seed=run.config.seed,
        shown=~_retired(items, as_of),
        events=count_events(run.data.times, run.data.items, num_items=len(vectors))
        if schema.has_times
        else None,
        previous=previous,
    )
    say(0.2, "measure on the test split")
    metrics = evaluate_run(run, model, sample=METRIC_USERS, reranker=reranker_of(run)).to_json()
    body: dict[str, Any] = {
        "dim": run.tower.dim,
        "num_interests": run.tower.num_interests,
        "max_history": run.tower.max_history,
        "event_codes": {name: i for i, name in enumerate(schema.history_events, 1)},
        "objectives": list(run.tower.objectives),
        "num_items": len(vectors),
        "num_active": num_active,
        "metrics": metrics,
        "circles": circles.manifest,
        "run": {"recipe": run.config.recipe, "seed": run.config.seed},
    }
    with write_folder(
        bundle, kind="bundle", schema=schema, as_of=as_of, body=body, replace=replace
    ) as folder:
        say(0.4, "export the towers to ONNX")
        body["user_tower"] = export_user_tower(model, run, folder / files.USER_TOWER)
        body["item_tower"] = export_item_tower(model, run, folder / files.ITEM_TOWER)
        say(0.7, "compare ONNX with torch")
        user_error = user_tower_error(run, model, vectors, folder / files.USER_TOWER)
        ids_of_items = id_vectors(run, model)
        item_error = item_tower_error(run, ids_of_items, vectors, folder / files.ITEM_TOWER)
        np.save(folder / files.ID_VECTORS, ids_of_items[order])
        del ids_of_items  # as large as the vectors
        body["parity"] = {"user_tower": user_error, "item_tower": item_error}
        value_errors = None
        if value is not None:
            say(0.75, "export the value model")
            body["value"], value_errors = export_value(run, model, value, order, folder)
            body["parity"] |= value_errors.to_json()
        say(0.8, "write vectors, index and items")
        gate, queries = _gate(run, model, vectors, ids)
        pq.write_table(gate, folder / files.GATE)
        vectors = vectors[order]  # from here on in the bundle's order, once in memory
        np.save(folder / files.VECTORS, vectors)
        table = _item_table(run, items, circles.of_item, as_of)
        table = table.take(pa.array(order)).combine_chunks()
        write_items(table, folder / files.ITEMS)
        hashes, rows = IdIndex(table["item_id"].combine_chunks()).arrays
        np.save(folder / files.ID_HASHES, hashes)
        np.save(folder / files.ID_ROWS, rows)
        pq.write_table(circles.circles, folder / CIRCLES)
        pq.write_table(circles.districts, folder / DISTRICTS)
        (folder / "vocab").mkdir()
        run.encoder.write(folder / files.ENCODER)
        index = write_tuned_index(
            folder / files.INDEX,
            vectors[:num_active],
            queries,
            progress=lambda what: say(0.85, what),
        )
        body["ann"] = index
        # Inside the block: a snapshot that cannot be written leaves the old bundle in its place.
        say(0.9, "write the snapshot")
        num_users = write_snapshot(run, snapshot, as_of=as_of, replace=replace)
    say(1.0, "done")
    return ExportReport(
        num_items=len(vectors),
        num_active=num_active,
        num_users=num_users,
        num_circles=circles.circles.num_rows,
        num_districts=circles.districts.num_rows,
        circles=sentences(circles.manifest, circles.names),
        user_tower_error=user_error,
        item_tower_error=item_error,
        value_errors=value_errors,
        index=index,
        metrics=metrics,
    )


def last_event(run: Run) -> datetime | None:
    """The newest event of the dataset; None where it has no times."""
    if not run.data.schema.has_times:
        return None
    return datetime.fromtimestamp(int(run.data.times.max()) / 1e6, UTC)


def write_snapshot(run: Run, target: Path, *, as_of: datetime | None, replace: bool) -> int:
    """Write every user's features and whole history, in ids. Returns the number of users."""
    user_ids = pa.array(load_user_ids(run.arrays), pa.string())
    users = read_users_table(run.dataset)
    if users is None:
        users = pa.table({"user_id": user_ids})
    body = {"num_users": len(user_ids), "num_events": int((run.data.times >= 0).sum())}
    with write_folder(
        target,
        kind="snapshot",
        schema=run.data.schema,
        as_of=as_of,
        body=body,
        replace=replace,
    ) as folder:
        pq.write_table(users, folder / USERS)
        with pq.ParquetWriter(folder / HISTORIES, HISTORY_SCHEMA) as writer:
            for histories in _histories(run, user_ids):
                writer.write_table(histories)
    return len(user_ids)


def _histories(run: Run, user_ids: pa.Array) -> Iterator[pa.Table]:
    """histories.parquet, so many users at a time that their lists are small arrays."""
    data, schema = run.data, run.data.schema
    item_ids = read_items_table(run.dataset)["item_id"].combine_chunks()
    names = pa.array(["", *schema.history_events])
    event_ids, sequences = load_event_ids(run.arrays), load_sequences(run.arrays)
    for first in range(0, data.num_users, _GROUP_USERS):
        starts = data.starts[first : first + _GROUP_USERS + 1]
        span = slice(int(starts[0]), int(starts[-1]))
        dated = data.times[span] >= 0  # a held-out event without a time has no place in a history
        offsets = np.concatenate([[0], np.cumsum(dated)])[starts - starts[0]]
        times = pa.array(data.times[span][dated]).cast(pa.timestamp("us", tz="UTC"))
        columns = {
            "item_ids": item_ids.take(pa.array(data.items[span][dated])),
            "events": names.take(pa.array(data.events[span][dated])),
            "timestamps": times if schema.has_times else None,
            "event_ids": event_ids[span].combine_chunks().filter(pa.array(dated)),
            "sequences": pa.array(sequences[span][dated], pa.int64()),
        }
        ends = pa.array(offsets, pa.int32())
        lists = [
            pa.ListArray.from_arrays(ends, column)
            if column is not None
            else pa.nulls(len(starts) - 1, HISTORY_SCHEMA.field(name).type)
            for name, column in columns.items()
        ]
        ids = user_ids.slice(first, len(starts) - 1)
        yield pa.table([ids, *lists], schema=HISTORY_SCHEMA)


def _row_order(items: pa.Table, as_of: datetime | None) -> tuple[Int64, int]:
    """Rows of the bundle: items that can be shown, then retired ones; else as in the file."""
    retired = _retired(items, as_of)
    return np.argsort(retired, kind="stable"), int((~retired).sum())


def _retired(items: pa.Table, as_of: datetime | None) -> npt.NDArray[np.bool_]:
    retired = np.zeros(items.num_rows, bool)
    if "available" in items.column_names:
        retired |= items["available"].fill_null(True).to_numpy() == False  # noqa: E712
    if as_of is not None and "expires_at" in items.column_names:
        expires = items["expires_at"].to_numpy()
        retired |= expires <= np.datetime64(as_of.replace(tzinfo=None), "us")
    return retired


def _item_table(
    run: Run, items: pa.Table, circles: npt.NDArray[np.int32], as_of: datetime | None
) -> pa.Table:
    extra = {
        "popularity": pa.array(run.data.popularity(), pa.int64()),
        "retired": pa.array(_retired(items, as_of)),
        "circle": pa.array(circles, pa.int32()),
    }
    for name, column in extra.items():
        items = items.append_column(name, column)
    return items


def _gate(run: Run, model: TwoTower, vectors: Float32, ids: pa.Array) -> tuple[pa.Table, Float32]:
    """gate.parquet: validation histories, targets, and the user vectors that tune the index.

    vectors, ids: [N] of all items, in the dataset's order.
    """
    questions = run.split.questions("validation", seen=run.config.seen)
    questions = questions.sample(NUM_GATE_USERS, seed=run.config.seed)
    data, users, targets = questions.histories, questions.users, questions.targets
    queries = np.empty((len(users), run.tower.num_interests, run.tower.dim), np.float32)
    place = np.empty(run.data.num_users, np.int64)
    place[users] = np.arange(len(users))
    for rows, found in encode_users(
        model,
        torch.from_numpy(vectors),
        data,
        users,
        questions.idle,
        profiles=run.profiles,
    ):
        queries[place[rows]] = found
    names = pa.array(["", *run.data.schema.history_events])
    lengths, num_targets = data.lengths[users], np.diff(questions.starts)
    popularity = run.split.training.popularity()
    places = np.concatenate([np.arange(data.starts[u], data.starts[u + 1]) for u in users])
    user_ids = pa.array(load_user_ids(run.arrays))
    table = pa.table(
        {
            "user_id": user_ids.take(pa.array(users)),
            "item_ids": _lists(ids.take(pa.array(data.items[places])), lengths),
            "events": _lists(names.take(pa.array(data.events[places])), lengths),
            "times_us": _lists(pa.array(data.times[places]), lengths),
            "idle_seconds": questions.idle,
            "targets": _lists(ids.take(pa.array(targets)), num_targets),
            "target_popularity": _lists(pa.array(popularity[targets]), num_targets),
            "interests": list(queries.reshape(len(users), -1)),
        }
    )
    return table, queries.reshape(-1, run.tower.dim)


def _lists(values: pa.Array, lengths: Int64) -> pa.Array:
    """Cut values, laid end to end, into lists of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
