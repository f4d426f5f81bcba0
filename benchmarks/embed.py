"""Rows a second of `penchant embed`, beside ONNX Runtime alone on arrays that are ready.

    python benchmarks/embed.py BUNDLE --dataset DATASET --snapshot SNAPSHOT [--rounds 3]

The folders are those of an export; benchmarks/export_million.py leaves a large one behind. ONNX
Runtime gets the very batches that `embed` makes, in memory, in two ways: in as many processes of
one thread as there are cores, and in one process with as many threads. Items are embedded twice:
under other ids, so that all of them go through the tower, and as the bundle has them. All take
turns. Speeds are those between the first rows and the last; what starting takes stands beside.
"""

import argparse
import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import pyarrow as pa
from results import write_result

from model.bundle import Bundle, open_bundle
from model.manifest import open_verified
from model.tower_session import TowerSession
from training.embed import ItemEmbedder, UserEmbedder
from training.embed_files import (
    READ_ITEMS,
    READ_USERS,
    Embedded,
    embed_items,
    embed_users,
    moment_of,
    num_cores,
)
from training.memory import keep_freed_memory
from training.snapshot_rows import align_users, read_users

READY_ITEMS, READY_USERS = 4 * READ_ITEMS, 4 * READ_USERS
"""Rows whose arrays ONNX Runtime is given, again and again."""


@dataclass
class Speeds:
    """What the rounds measured for one kind of rows."""

    rows: int
    ours: list[float] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)
    processes: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    encoding: list[float] = field(default_factory=list)


def tables(what: str, bundle: Bundle, source: Path) -> Iterator[Callable[[], Iterator[Any]]]:
    """For each of the first tables: a function that makes its batches, as `embed` does."""
    if what == "users":
        with tempfile.TemporaryDirectory() as scratch:
            features = list(bundle.encoder.profile_columns)
            num_users = min(align_users(source, Path(scratch), features), READY_USERS)
            now = moment_of(open_verified(source, kind="snapshot").as_of)
            embed_them = UserEmbedder(bundle, now=now)
            for users in read_users(source, Path(scratch), 0, num_users, at_once=READ_USERS):
                yield partial(embed_them.batches, users)
    else:
        embed = ItemEmbedder(bundle)
        items = pl.read_parquet(source / "items.parquet", n_rows=READY_ITEMS).to_arrow()
        for start in range(0, len(items), READ_ITEMS):
            part = items.slice(start, READ_ITEMS)
            yield partial(embed.batches, part, bundle.items.rows_of(part["item_id"].to_pylist()))


def raw_speed(
    what: str,
    path: Path,
    source: Path,
    threads: int,
    seconds: float,
    encodes: bool = False,
    barrier: Any = None,
) -> float:
    """Rows a second of one session, on ready arrays or with the encoding of tables in memory."""
    keep_freed_memory()
    pa.set_cpu_count(1)
    bundle = open_bundle(path)
    tower, inputs = (
        (bundle.user_tower_path, bundle.user_tower_inputs)
        if what == "users"
        else (bundle.item_tower_path, bundle.item_tower_inputs)
    )
    session = TowerSession(tower, inputs=inputs, threads=threads)
    made: list[Callable[[], Iterable[Any]]] = list(tables(what, bundle, source))
    if not encodes:
        made = [partial(list, list(make())) for make in made]
    for _, arrays in itertools.islice(made[0](), 20):
        session.run(arrays)
    if barrier is not None:
        barrier.wait()
    done, started = 0, time.perf_counter()
    while True:
        for make in made:
            for rows, arrays in make():
                session.run(arrays)
                done += len(rows)
            spent = time.perf_counter() - started
            if spent > seconds:
                return done / spent


def _in_process(results: Any, *arguments: Any) -> None:
    results.put(raw_speed(*arguments))


def raw_processes(
    what: str, path: Path, source: Path, num: int, seconds: float, encodes: bool = False
) -> float:
    """Rows a second of so many processes together, one thread each."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(num), context.Queue()
    arguments = (results, what, path, source, 1, seconds, encodes, barrier)
    workers = [context.Process(target=_in_process, args=arguments) for _ in range(num)]
    for worker in workers:
        worker.start()
    total = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def our_speed(run: Callable[..., Embedded], speeds: Speeds) -> None:
    """One run of `embed`: its speed from the first rows on, and the seconds before them."""
    seen: list[tuple[float, int]] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        run(
            Path(out) / "out",
            progress=lambda done, total: seen.append((time.perf_counter() - started, done)),
        )
    first = next(i for i, (_, done) in enumerate(seen) if done)
    (begin, had), (end, total) = seen[first], seen[-1]
    speeds.ours.append((total - had) / (end - begin))
    speeds.starting.append(begin)


def under_other_ids(dataset: Path, out: Path) -> Path:
    """The same items, none of which the bundle has."""
    out.mkdir()
    shutil.copy(dataset / "dataset.toml", out)
    items = pl.scan_parquet(dataset / "items.parquet")
    items.with_columns(item_id="new " + pl.col("item_id")).sink_parquet(out / "items.parquet")
    return out


def main() -> None:
    """Measure all in turns and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each raw measurement")
    parser.add_argument("--name", default="embed", help="of the result; another for a trial")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cores, bundle = num_cores(), args.bundle
    with tempfile.TemporaryDirectory() as folder:
        others = under_other_ids(args.dataset, Path(folder) / "dataset")
        num_items = pl.scan_parquet(others / "items.parquet").select(pl.len()).collect().item()
        num_users = open_verified(args.snapshot, kind="snapshot").body["num_users"]
        measured = {
            "users": Speeds(num_users),
            "items, all of them new": Speeds(num_items),
            "items that the bundle has": Speeds(num_items),
        }
        for _ in range(args.rounds):
            for name, speeds in measured.items():
                source = args.snapshot if name == "users" else others
                what = "users" if name == "users" else "items"
                given = args.dataset if name == "items that the bundle has" else source
                embed = embed_users if what == "users" else embed_items
                our_speed(
                    lambda out, embed=embed, given=given, **k: embed(bundle, given, out, **k),
                    speeds,
                )
                speeds.processes.append(raw_processes(what, bundle, source, cores, args.seconds))
                speeds.threads.append(raw_speed(what, bundle, source, cores, args.seconds))
                speeds.encoding.append(
                    raw_processes(what, bundle, source, cores, args.seconds, encodes=True)
                )
    figures: dict[str, Any] = {"cores": cores}
    table = [
        [
            "",
            "rows",
            "`embed`, rows/s",
            f"ONNX Runtime, {cores} processes",
            f"ONNX Runtime, {cores} threads",
            "ratio to the faster",
            f"encoding and ONNX Runtime, {cores} processes",
            "ratio",
            "seconds to the first rows",
        ]
    ]
    for name, s in measured.items():
        ours, processes, threads = median(s.ours), median(s.processes), median(s.threads)
        ratio, encoding = ours / max(processes, threads), median(s.encoding)
        key = name.replace(",", "").replace(" ", "_")
        figures |= {
            f"{key}: rows_per_second": round(ours),
            f"{key}: onnxruntime_processes": round(processes),
            f"{key}: onnxruntime_threads": round(threads),
            f"{key}: ratio": round(ratio, 3),
            f"{key}: encoding_and_onnxruntime_processes": round(encoding),
            f"{key}: ratio_with_encoding": round(ours / encoding, 3),
            f"{key}: seconds_to_first_rows": round(median(s.starting), 2),
        }
        table.append(
            [
                name,
                f"{s.rows:,}",
                f"{ours:,.0f}",
                f"{processes:,.0f}",
                f"{threads:,.0f}",
                f"{ratio:.2f}",
                f"{encoding:,.0f}",
                f"{ours / encoding:.2f}",
                f"{median(s.starting):.1f}",
            ]
        )
    write_result(
        args.name,
        title="penchant embed: rows a second beside ONNX Runtime alone",
        figures=figures,
        table=table,
        notes=(
            f"Median of {args.rounds} rounds; all take turns. ONNX Runtime is given the batches "
            "that `embed` makes, ready in memory; then tables in memory, whose ids are looked up, "
            "and features encoded on the way (of items, the n-grams of titles). `embed` does that, "
            "reads Parquet before, and writes and syncs Parquet behind. An item that the bundle "
            "has unchanged keeps its vector and does not go through the tower."
        ),
        command="python benchmarks/embed.py BUNDLE --dataset DATASET --snapshot SNAPSHOT",
    )


if __name__ == "__main__":
    main()
