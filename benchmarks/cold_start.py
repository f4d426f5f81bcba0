"""From `penchant serve` to SERVING with half a million items, every checksum verified.

    python benchmarks/cold_start.py --work DIR [--items 500000]

The first start makes the dataset, trains towers on it for one epoch and exports a bundle (kept in
DIR; as benchmarks/export_million.py does). Then, in rounds: the command is started and health is
asked for until it says SERVING, once with the bundle in the page cache, as when a server is started
again, and once with every page of it dropped, as on a machine that has just fetched it. Beside it,
in the same round: what Python needs to import the worker, and what SHA-256 of the bundle costs.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from commands import ENVIRONMENT, PENCHANT, free_port, penchant
from export_million import make_dataset
from results import write_result

from serving.client import Client
from serving.errors import ServerUnavailable
from serving.probe import probe_health


def prepare(work: Path, num_items: int, num_users: int) -> None:
    """Dataset, run, bundle and state, each where it is not there yet."""
    dataset, run = work / "dataset", work / "run"
    if not dataset.exists():
        make_dataset(dataset, num_items, num_users)
    if not (work / "state" / "store.db").exists():
        maker = Path(__file__).with_name("export_million.py")
        python(str(maker), "--train", dataset, run)
        penchant("export", run, "--bundle", work / "bundle", "--snapshot", work / "snapshot")
        penchant("load-users", work / "snapshot", "--state", work / "state")


def python(*arguments: str | Path) -> None:
    """Run Python with these arguments; stop if it fails."""
    subprocess.run([sys.executable, *arguments], check=True, env=ENVIRONMENT)


def files(folder: Path) -> list[Path]:
    """The files of a bundle."""
    return [path for path in folder.rglob("*") if path.is_file()]


def drop_pages(folder: Path) -> None:
    """Drop a folder's files from the page cache; their pages are clean, so that this is all."""
    for path in files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def start(work: Path) -> tuple[float, float]:
    """Seconds from starting the command to SERVING, and to the first answer after it."""
    port = free_port()
    command = [*PENCHANT, "serve", str(work / "bundle")]
    command += ["--state", str(work / "state"), "--port", str(port), "--log-level", "error"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        while True:
            try:
                if "NOT_SERVING" not in probe_health(f"127.0.0.1:{port}", timeout=5).values():
                    break
            except ServerUnavailable:
                time.sleep(0.005)
            if process.poll() is not None:
                raise SystemExit("the server did not start")
        serving = time.perf_counter() - started
        with Client(f"127.0.0.1:{port}", timeout=10) as client:
            found = client.retrieve("u0000007", k=100)
        if len(found.item_ids) != 100 or found.cold[0]:
            raise SystemExit(f"not the answer that was asked for: {found}")
        return serving, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(60)


def imports() -> float:
    """Seconds of a Python that imports a worker and ends."""
    started = time.perf_counter()
    python("-c", "import serving.server")
    return time.perf_counter() - started


def hashing(folder: Path) -> float:
    """Seconds of SHA-256 over the bundle, in the page cache."""
    started = time.perf_counter()
    for path in files(folder):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - started


def main() -> None:
    """Prepare, measure in rounds, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the bundle is kept")
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    prepare(args.work, args.items, args.users)
    bundle = args.work / "bundle"
    size = sum(path.stat().st_size for path in files(bundle)) / 1e6
    runs: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        runs.setdefault("hashing", []).append(hashing(bundle))  # also fills the page cache
        runs.setdefault("imports", []).append(imports())
        for name in ("warm", "cold"):
            if name == "cold":
                drop_pages(bundle)
            serving, answered = start(args.work)
            runs.setdefault(name, []).append(serving)
            runs.setdefault(f"{name} answer", []).append(answered)
    labels = {
        "warm": "SERVING, bundle in the page cache",
        "cold": "SERVING, bundle dropped from it",
        "warm answer": "first answer, bundle in the page cache",
        "imports": "of it: Python imports a worker",
        "hashing": "of it: SHA-256 of the bundle",
    }
    most = {"warm": "at most 3", "cold": "at most 3"}
    rows = [
        [label, f"{median(runs[name]):.2f}", f"{max(runs[name]):.2f}", most.get(name, "")]
        for name, label in labels.items()
    ]
    write_result(
        "cold_start",
        title=f"From `penchant serve` to SERVING with {args.items:,} items",
        figures={
            "items": args.items,
            "bundle_mb": round(size, 1),
            **{
                f"{name.replace(' ', '_')}_seconds": round(median(values), 3)
                for name, values in runs.items()
            },
            "warm_seconds_max": round(max(runs["warm"]), 3),
            "cold_seconds_max": round(max(runs["cold"]), 3),
        },
        table=[["seconds", "median", "most", "asked for"], *rows],
        notes=(
            f"One worker, a bundle of {size:,.0f} MB whose every file is verified before it is "
            f"opened, a store of {args.users:,} users; {args.rounds} rounds. The time runs from "
            "starting the command to the health check that says SERVING: supervisor, worker, "
            "imports, checksums, index, warm-up."
        ),
        command="python benchmarks/cold_start.py --work DIR",
    )


if __name__ == "__main__":
    main()
