"""Items that arrive while the server serves: what readers pay, and how soon an item is there.

    python benchmarks/live.py --work DIR [--seconds 300]

The first start makes a world of a million items, trains towers on it for two minutes and exports a
bundle without a value model (kept in DIR). Two workers on two cores, the load generators beside
them on the same cores. First h2load asks as fast as it is answered (`Recommend`, a stored user, 50
of 500 candidates): the peak. Then it begins half as many calls a second: alone for a minute, and
then while 1,000 items a second are upserted in requests of 50, over as many seals as that takes;
calls that a seal overlapped are told apart. All the while a probe upserts an item now and then, and
asks each worker until it is there. At last all processes are killed (SIGKILL), and the server is
started again.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from commands import ENVIRONMENT
from recommend import prepare
from results import write_result
from serving_load import Load, framed, load, long_history, serve_command
from worker_memory import children, held

from interest.v1 import retrieval_service_pb2 as pb
from serving.client import Client
from serving.domain import AnyOf, ItemChange

CONCURRENCY, K, AT_ONCE = 32, 50, 50
CONNECTIONS = 32
"""Of h2load: with few of them, one worker may have most by lot."""
WRITTEN_A_SECOND = 1000
LOG = "server.log"
PROBES = "probe"
"""The craft of all probes, by which a filter finds them among all other items."""
STYLES = ("hand carved", "plain", "antique", "small", "lacquered", "woven", "painted")
THINGS = (
    "竹笛",
    "苏绣",
    "silver box",
    "leather case",
    "茶",
    "pottery bowl",
    "手工 gift",
    "jade ring",
)


@dataclass
class Server:
    """A running server of two workers."""

    process: "subprocess.Popen[str]"
    address: str
    seconds: float
    """From its start until it said that it serves."""


@contextmanager
def served(work: Path, state: Path) -> Iterator[Server]:
    """Start it on all cores."""
    command = serve_command(work, "--workers", 2)
    command[command.index(str(work / "state"))] = str(state)
    command[command.index("error")] = "info"
    began = time.perf_counter()
    state.mkdir(parents=True, exist_ok=True)
    with (state / LOG).open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        yield Server(process, line.split()[-1], time.perf_counter() - began)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def change(number: int, rng: np.random.Generator, known: Sequence[str]) -> ItemChange:
    """A new item, or, one time in five, a price of the bundle's that changes."""
    if number % 5 == 0:
        chosen = known[int(rng.integers(len(known)))]
        return ItemChange(item_id=chosen, features={"price": float(rng.integers(1, 500))})
    words = (STYLES[number % len(STYLES)], THINGS[number % len(THINGS)], str(number % 997))
    features: dict[str, Any] = {"title": " ".join(words), "price": float(rng.integers(1, 500))}
    return ItemChange(item_id=f"live-{number}", kind="product", features=features)


def write(address: str, seconds: float, known: Sequence[str], result: dict[str, Any]) -> None:
    """1,000 items a second in requests of 50, whatever the answers take; four calls at a time."""
    rng = np.random.default_rng(0)
    spent: list[float] = []
    errors: list[str] = []
    num_requests = round(seconds * WRITTEN_A_SECOND / AT_ONCE)
    began, turn, lock = time.perf_counter(), iter(range(num_requests)), threading.Lock()
    with Client(address, timeout=30, num_channels=4) as client:

        def run() -> None:
            while True:
                with lock:
                    number = next(turn, None)
                    if number is None:
                        return
                    first = number * AT_ONCE
                    changes = [change(i, rng, known) for i in range(first, first + AT_ONCE)]
                wait = began + number * AT_ONCE / WRITTEN_A_SECOND - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                sent = time.perf_counter()
                written = client.upsert_items(changes)
                spent.append(time.perf_counter() - sent)
                errors.extend(error.message for error in written.errors)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    took = time.perf_counter() - began
    if errors:
        raise SystemExit(f"refused: {errors[:3]}")
    result["items_per_second"] = num_requests * AT_ONCE / took
    result["write_ms"] = 1000 * np.array(spent)


def probe(
    address: str, state: Path, stopping: threading.Event, found: list[float], seals: set[str]
) -> None:
    """Upsert an item and ask each worker until it shows it, again and again: milliseconds until a
    call is sent to the slower of them that does. See what has been sealed meanwhile."""
    clients: dict[str, Client] = {}
    while len(clients) < 2:
        client = Client(address, timeout=30, num_channels=1)
        clients.setdefault(client.status().source.worker, client)
    number = 0
    with ThreadPoolExecutor(len(clients)) as pool:
        while not stopping.wait(1.0):
            item_id, number = f"probe-{number}", number + 1
            features = {"title": f"a probe {number}", "craft": PROBES}
            began = time.perf_counter()
            next(iter(clients.values())).upsert_items(
                ItemChange(item_id=item_id, kind="product", features=features)
            )
            asked = pool.map(first_shown, clients.values(), repeat(item_id))
            found.append(1000 * (max(asked) - began))
            seals.update(folder.name for folder in (state / "segments").glob("[!.]*"))
    for client in clients.values():
        client.close()


def first_shown(client: Client, item_id: str) -> float:
    """When the first call was sent whose answer has the item."""
    began = time.perf_counter()
    while True:
        asked = time.perf_counter()
        answer = client.retrieve("nobody", k=1000, filters=[AnyOf("craft", (PROBES,))])
        if item_id in answer.item_ids:
            return asked
        if asked - began > 10:
            raise SystemExit(f"{item_id} is not shown after 10 seconds")
        time.sleep(0.005)


def reads(address: str, payload: Path, rate: float, seconds: float) -> Load:
    """`Recommend` at a rate, whatever the answers take."""
    return load(
        address,
        "Recommend",
        payload,
        concurrency=256,
        requests=round(rate * seconds),
        rate=rate,
        connections=CONNECTIONS,
    )


def while_sealing(beside: Load, state: Path) -> tuple[list[float], dict[str, float]]:
    """Seconds that each seal took, and p50 and p99 of the calls that one overlapped and of those
    that none did."""
    seals = []
    for line in (state / LOG).read_text().splitlines():
        if line.startswith("{") and "segment sealed" in line:
            body = json.loads(line)
            end = datetime.fromisoformat(body["timestamp"]).timestamp()
            seals.append((end - body["seconds"], end))
    ended = beside.began + beside.spent_ms / 1000
    during = np.zeros(len(ended), bool)
    for first, last in seals:
        during |= (beside.began <= last) & (ended >= first)
    figures = {}
    for name, those in (("during seals", during), ("between seals", ~during)):
        spent = beside.spent_ms[those] if those.any() else np.full(1, np.nan)
        figures |= percentiles(name, spent) | {f"{name}/calls": float(those.sum())}
    return [round(last - first, 1) for first, last in seals], figures


def main() -> None:
    """Measure, kill, start again, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the bundle is kept")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="of writing")
    args = parser.parse_args()
    prepare(args.work, items=args.items, value=False)
    state = args.work / "live-state"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(args.work / "state", state)
    user = long_history(args.work, 50)
    # What people do most with, changes most.
    lists = pq.read_table(args.work / "snapshot" / "histories.parquet")["item_ids"].to_pylist()
    known = [item_id for some in lists[:1000] for item_id in some]
    payload = args.work / "recommend.bin"
    payload.write_bytes(
        framed(pb.RecommendRequest(queries=[{"user_id": user["user_id"]}], k=K).SerializeToString())
    )
    figures: dict[str, Any] = {}
    writes: dict[str, Any] = {}
    fresh: list[float] = []
    seals: set[str] = set()
    stopping = threading.Event()
    with served(args.work, state) as server:
        address = server.address
        for requests in (2000, 10_000):  # the first warm up
            peak = load(
                address,
                "Recommend",
                payload,
                concurrency=CONCURRENCY,
                requests=requests,
                connections=CONNECTIONS,
            )
        figures["peak_per_second"] = peak.requests_per_second
        rate = peak.requests_per_second / 2
        alone = reads(address, payload, rate, 60)
        threads = [
            threading.Thread(target=write, args=(address, args.seconds, known, writes)),
            threading.Thread(target=probe, args=(address, state, stopping, fresh, seals)),
        ]
        for thread in threads:
            thread.start()
        beside = reads(address, payload, rate, args.seconds)
        threads[0].join()
        stopping.set()
        threads[1].join()
        with Client(address, timeout=30) as client:
            live = dict(client.status().live)
        owned = memory(server.process.pid)
        server.process.send_signal(signal.SIGKILL)
        for pid in owned:
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
    with served(args.work, state) as server:
        figures["recovery_seconds"] = server.seconds
        with Client(server.address, timeout=30) as client:
            after = dict(client.status().live)
    if after["newest_sequence"] != live["newest_sequence"]:
        raise SystemExit(f"lost: {live} before the kill, {after} after it")
    for name, calls in (("alone", alone), ("beside writes", beside)):
        figures |= {f"{name}/{key}": value for key, value in calls.figures().items()}
    figures["seconds of seals"], told_apart = while_sealing(beside, state)
    figures |= told_apart
    figures["items_per_second"] = writes["items_per_second"]
    figures |= percentiles("write", writes["write_ms"])
    figures |= percentiles("fresh", np.array(fresh))
    figures["num_probes"] = len(fresh)
    figures["seals"] = len(seals)
    figures["live"] = live
    figures["owned_mb"] = [round(one["owned"], 1) for one in owned.values()]
    report(figures, args.items, args.seconds)


def memory(pid: int) -> dict[int, dict[str, float]]:
    """What each worker and the background process hold."""
    return {child: held(child) for child in children(pid)}


def percentiles(name: str, milliseconds: "np.ndarray[Any, Any]") -> dict[str, float]:
    """p50 and p99."""
    return {
        f"{name}_p50_ms": float(np.percentile(milliseconds, 50)),
        f"{name}_p99_ms": float(np.percentile(milliseconds, 99)),
    }


def report(figures: dict[str, Any], num_items: int, seconds: float) -> None:
    """Write the result."""
    rows = [["", "calls a second", "p50 ms", "p99 ms"]]
    for name in ("alone", "beside writes"):
        rows.append(
            [
                f"`Recommend` at half the peak, {name}",
                f"{figures[f'{name}/requests_per_second']:,.0f}",
                f"{figures[f'{name}/p50_ms']:.2f}",
                f"{figures[f'{name}/p99_ms']:.1f}",
            ]
        )
    for name in ("between seals", "during seals"):
        calls = f"{figures[f'{name}/calls']:,.0f} calls"
        p50, p99 = (f"{figures[f'{name}_{p}_ms']:.{n}f}" for p, n in (("p50", 2), ("p99", 1)))
        rows.append([f"of those, {name}", calls, p50, p99])
    written = figures["items_per_second"]
    rows += [
        [
            f"`UpsertItems`, {AT_ONCE} items a call",
            f"{written / AT_ONCE:,.0f} ({written:,.0f} items)",
            f"{figures['write_p50_ms']:.1f}",
            f"{figures['write_p99_ms']:.0f}",
        ],
        [
            "upsert → retrievable on both workers",
            f"{figures['num_probes']} probes",
            f"{figures['fresh_p50_ms']:.0f}",
            f"{figures['fresh_p99_ms']:.0f}",
        ],
        ["all killed → serving again", "", f"{1000 * figures['recovery_seconds']:,.0f}", ""],
    ]
    print(json.dumps(figures, indent=1))
    live = figures["live"]
    write_result(
        "live",
        title=f"Items that arrive while {num_items:,} are served",
        figures=figures,
        table=rows,
        notes=(
            f"Two workers on two cores, the load generators beside them. The peak was "
            f"{figures['peak_per_second']:,.0f} calls a second. {seconds:g} seconds of writing: "
            "four of five items are new, the others are changes of the bundle's. "
            "Retrievable: from sending an upsert to sending the first call, to the slower worker, "
            "whose answer has the item. "
            f"{figures['seals']} seals of {figures['seconds of seals']} seconds; "
            f"at the end {live['num_sealed']:,} live items were sealed, "
            f"{live['num_delta']:,} in memory, {live['num_replaced']:,} of the bundle's replaced. "
            "The processes owned "
            f"{figures['owned_mb']} MB (workers and the background process)."
        ),
        command="python benchmarks/live.py --work DIR",
    )


if __name__ == "__main__":
    main()
