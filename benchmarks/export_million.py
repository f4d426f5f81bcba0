"""Time and peak memory of `penchant export` for a catalogue of a million items.

    python benchmarks/export_million.py [--items 1000000] [--users 100000] [--work FOLDER]

Makes a synthetic dataset (items of 2,000 topics with titles, crafts, creators, tags and prices;
users who follow a few topics, 50 events each), trains one epoch on it for real, and then runs the
command in a process of its own on two cores. What is made stays in FOLDER for the next time.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from results import ROOT, write_result

from model.bundle import open_bundle
from model.manifest import open_verified
from model.schema import Event, Feature, Schema
from training.config import RunConfig
from training.distributed import join
from training.importers.writer import new_dataset
from training.memory import keep_freed_memory
from training.report import RunReporter
from training.run import BEST, start_run
from training.terminal import console

EVENTS_A_USER, TOPICS, CREATORS = 50, 2_000, 30_000
CATEGORY = Feature(type="category", filterable=True)
SCHEMA = Schema(
    name="a million",
    time="exact",
    item_features={
        "title": Feature(type="text"),
        "craft": CATEGORY,
        "category": CATEGORY,
        "creator": CATEGORY,
        "tags": Feature(type="categories", filterable=True),
        "price": Feature(type="number", filterable=True),
    },
    events={
        "watch": Event(role="engagement"),
        "like": Event(role="engagement"),
        "order": Event(role="conversion", weight=3.0),
    },
)
STYLES = ("hand carved", "plain", "antique", "small", "family", "lacquered", "woven", "painted")
CRAFTS = ("竹笛", "苏绣", "silver", "leather", "茶", "pottery", "mushroom", "汉服", "paper", "jade")
THINGS = ("set", "box", "手工", "gift", "workshop", "故事", "stand", "cloth", "bowl", "第一集")


def words(kinds: tuple[str, ...], codes: np.ndarray) -> pl.Series:
    """One word a code, of as many as there are codes: the kinds, numbered where they run out."""
    known = [
        f"{kinds[i % len(kinds)]}{f' {i // len(kinds)}' if i >= len(kinds) else ''}"
        for i in range(int(codes.max()) + 1)
    ]
    return pl.Series(known).gather(codes)


def make_dataset(folder: Path, num_items: int, num_users: int) -> None:
    """Write the dataset; the same numbers give the same one."""
    rng = np.random.default_rng(17)
    topic = np.sort(rng.integers(0, TOPICS, num_items))
    first = np.searchsorted(topic, np.arange(TOPICS + 1))
    kinds = pl.Series(["video", "product", "live", "article"])
    items = pl.DataFrame(
        {
            "item_id": pl.Series(np.arange(num_items)).cast(pl.String).str.zfill(8),
            "kind": kinds.gather(rng.choice(4, num_items, p=[0.55, 0.35, 0.05, 0.05])),
            "craft": words(CRAFTS, topic % 400),
            "category": words(THINGS, topic % 40),
            "creator": "creator " + pl.Series(rng.integers(0, CREATORS, num_items)).cast(pl.String),
            "price": np.exp(rng.normal(4, 1, num_items)).round(2),
            "style": words(STYLES, rng.integers(0, len(STYLES), num_items)),
            "thing": words(THINGS, rng.integers(0, 500, num_items)),
            "number": rng.integers(0, 10_000, num_items),
        }
    )
    items = items.select(
        "item_id",
        "kind",
        pl.format("{} {} {} no {}", "style", "craft", "thing", "number").alias("title"),
        "craft",
        "category",
        "creator",
        pl.concat_list("style", "category").alias("tags"),
        "price",
    )
    with new_dataset(folder, SCHEMA) as writer:
        writer.write_items(items)
        for start in range(0, num_users, 20_000):
            users = np.arange(start, min(start + 20_000, num_users))
            writer.append_events(events_of(users, first, rng))


def events_of(users: np.ndarray, first: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """50 events of each user: mostly of four topics, mostly of their best-known items."""
    shape = (len(users), EVENTS_A_USER)
    loved = (TOPICS * rng.random((len(users), 4)) ** 2).astype(np.int64)
    topic = np.take_along_axis(loved, rng.integers(0, 4, shape), axis=1)
    topic = np.where(rng.random(shape) < 0.2, rng.integers(0, TOPICS, shape), topic)
    size = first[topic + 1] - first[topic]
    item = first[topic] + (size * rng.random(shape) ** 3).astype(np.int64)
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    seconds = start + np.sort(rng.random(shape) * 60 * 86_400, axis=1)
    user = np.repeat(users, EVENTS_A_USER)
    number = user * EVENTS_A_USER + np.tile(np.arange(EVENTS_A_USER), len(users))
    names = pl.Series(["watch", "like", "order"])
    return pl.DataFrame(
        {
            "event_id": "e" + pl.Series(number).cast(pl.String),
            "user_id": "u" + pl.Series(user).cast(pl.String).str.zfill(7),
            "item_id": pl.Series(item.ravel()).cast(pl.String).str.zfill(8),
            "event": names.gather(rng.choice(3, item.size, p=[0.85, 0.12, 0.03])),
            "timestamp": pl.Series((seconds.ravel() * 1e6).astype(np.int64))
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC"),
            "sequence": np.tile(np.arange(EVENTS_A_USER), len(users)),
        }
    )


def make_run(dataset: Path, path: Path) -> None:
    """One epoch of the default towers: 200 steps of large batches, some minutes."""
    keep_freed_memory()
    config = RunConfig(
        recipe="one large epoch",
        max_history=50,
        epochs=1,
        batch_tokens=25_000,
        min_steps_per_epoch=1,
        learning_rate=3e-3,
        warmup_steps=20,
        validation_users=1_000,
    )
    with RunReporter(path, epochs=1, console=console) as reporter:
        start_run(dataset, path, config, rank=join("cpu"), reporter=reporter)


@dataclass(frozen=True)
class Measured:
    """One run of the command."""

    minutes: float
    peak_gigabytes: float


def measure(run: Path, work: Path, cores: int) -> Measured:
    """`penchant export` in a process of its own, on so many cores."""
    for name in ("bundle", "snapshot"):
        shutil.rmtree(work / name, ignore_errors=True)
    command = [sys.executable, "-m", "penchant", "export", str(run)]
    command += ["--bundle", str(work / "bundle"), "--snapshot", str(work / "snapshot")]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, allowed)
    )
    # Asked for again and again: the export resets the mark when it measures its index.
    while process.poll() is None:
        peak = max(peak, high_water(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"penchant export ended with {process.returncode}")
    return Measured(seconds / 60, peak / 1e9)


def high_water(pid: int) -> int:
    """The most bytes that a process has had in memory, as Linux knows it; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Make what is missing, run the command, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("/tmp/penchant-export"))
    parser.add_argument("--name", default="export_million", help="of the result")
    args = parser.parse_args()
    work = args.work / f"{args.items}x{args.users}"
    dataset, run = work / "dataset", work / "run"
    if not dataset.exists():
        make_dataset(dataset, args.items, args.users)
    if not (run / BEST).exists():
        shutil.rmtree(run, ignore_errors=True)
        # In a process of its own: what training holds is no part of the export.
        subprocess.run([sys.executable, __file__, "--train", str(dataset), str(run)], check=True)
    measured = measure(run, work, args.cores)
    bundle = open_bundle(work / "bundle")
    size = sum(f.stat().st_size for f in (work / "bundle").rglob("*") if f.is_file())
    ann, snapshot = bundle.ann, open_verified(work / "snapshot", kind="snapshot").body
    rows = {
        "minutes": (measured.minutes, 15.0),
        "peak memory, GB": (measured.peak_gigabytes, 6.0),
    }
    write_result(
        args.name,
        title=f"penchant export of {args.items:,} items on {args.cores} cores",
        figures={
            "items": args.items,
            "users": snapshot["num_users"],
            "events": snapshot["num_events"],
            "cores": args.cores,
            "minutes": round(measured.minutes, 2),
            "peak_memory_gb": round(measured.peak_gigabytes, 2),
            "bundle_gb": round(size / 1e9, 2),
            "recall@100": ann["recall@100"],
        },
        table=[
            ["", "measured", "asked for"],
            *([name, f"{value:.1f}", f"at most {most:g}"] for name, (value, most) in rows.items()),
            ["recall@100 of the index", f"{ann['recall@100']:.4f}", "at least 0.99"],
        ],
        notes=(
            f"{snapshot['num_users']:,} users with {snapshot['num_events']:,} events, "
            f"d = {bundle.dim}; the towers were trained for one epoch. Minutes are those of the "
            "whole command, memory is the peak resident set of its process."
        ),
        command=f"python benchmarks/export_million.py --items {args.items} --users {args.users}",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        make_run(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
