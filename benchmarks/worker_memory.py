"""Memory that a worker owns, and memory that all workers of a machine share.

    python benchmarks/worker_memory.py --work DIR [--million DIR]

The first DIR is that of benchmarks/recommend.py (500 thousand items, a value model), the other that
of benchmarks/live.py (a million items, none). Servers with 1, 2 and 4
workers each answer some thousand `Recommend`, `Retrieve` and `FindSimilar` of many users, and items
described by their features, over many channels; then the kernel says what each process holds
(/proc/PID/smaps_rollup). Owned: its anonymous pages. Shared: pages of mapped files, which are there
once for all processes and which the kernel may drop. All: the proportional set sizes of all
processes of the server, summed: a page that several have counts once.
"""

import argparse
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from recommend import prepare
from results import write_result
from serving_load import pinned, serve_command

from serving.client import Client
from serving.domain import ItemFeatures

WORKERS = (1, 2, 4)
MB = 1 << 10  # of the kB that the kernel counts in


def held(pid: int) -> dict[str, float]:
    """MB of one process: owned, shared, and its proportional set size."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {name.strip(): int(rest.split()[0]) for name, rest in (x.split(":") for x in lines)}
    return {
        "owned": kb["Anonymous"] / MB,
        "shared": (kb["Rss"] - kb["Anonymous"]) / MB,
        "pss": kb["Pss"] / MB,
    }


def children(pid: int) -> list[int]:
    """A process's descendants."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return [c for child in map(int, found) for c in (child, *children(child))]


def ask(address: str, users: list[str], calls: int) -> None:
    """Calls of every kind, over as many channels as make it likely that every worker gets some."""
    rng = np.random.default_rng(0)
    with Client(address, timeout=30, num_channels=16) as client:
        for _ in range(calls):
            user = users[rng.integers(len(users))]
            shown = client.recommend(user, k=50)
            client.retrieve(user, k=100)
            client.find_similar(shown.item_ids[0], k=100)
        for _ in range(64):
            client.embed_items([ItemFeatures("video", {"title": "火腿"})])


def measure(title: str, work: Path, calls: int, figures: dict[str, Any]) -> list[list[str]]:
    """Each number of workers over one bundle: rows for the table."""
    users = pq.read_table(work / "snapshot" / "users.parquet")["user_id"].to_pylist()
    bundle = sum(p.stat().st_size for p in (work / "bundle").rglob("*") if p.is_file())
    figures[f"{title}/bundle_mb"] = round(bundle / 2**20, 1)
    rows = []
    for workers in WORKERS:
        cores = sorted(os.sched_getaffinity(0))
        with pinned(serve_command(work, "--workers", workers), cores) as address:
            server = int(
                subprocess.run(
                    ["pgrep", "-f", f"penchant.py serve {work / 'bundle'}"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split()[0]
            )
            ask(address, users, calls)
            processes = [server, *children(server)]
            each = {pid: held(pid) for pid in processes}
            at_work = sorted((h for h in each.values()), key=lambda h: -h["shared"])[:workers]
            owned, shared = (
                sum(h[key] for h in at_work) / len(at_work) for key in ("owned", "shared")
            )
            everything = sum(h["pss"] for h in each.values())
        figures |= {
            f"{title}/owned_mb@{workers}": round(owned, 1),
            f"{title}/shared_mb@{workers}": round(shared, 1),
            f"{title}/all_mb@{workers}": round(everything, 1),
        }
        cells = [f"{value:,.0f}" for value in (owned, shared, everything)]
        rows.append([title, str(workers), *cells])
        print(rows[-1], each, flush=True)
    return rows


def main() -> None:
    """Measure each number of workers and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="that of benchmarks/recommend.py")
    parser.add_argument("--million", type=Path, help="that of benchmarks/live.py")
    parser.add_argument("--calls", type=int, default=1000, help="of each kind and server")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    columns = ["owned, a worker, MB", "shared, a worker, MB", "all, the server, MB"]
    prepare(args.work)
    table = [["", "workers", *columns]]
    table += measure("500,000 items, a value model", args.work, args.calls, figures)
    if args.million:
        prepare(args.million, items=1_000_000, value=False)
        table += measure("1,000,000 items", args.million, args.calls, figures)
    write_result(
        "worker_memory",
        title="Memory of workers",
        figures=figures,
        table=table,
        notes="Each process maps what it reads of the bundle's files.",
        command="python benchmarks/worker_memory.py --work DIR --million DIR",
    )


if __name__ == "__main__":
    main()
