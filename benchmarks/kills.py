"""Servers that are killed under a load of writes: is every acknowledged event there, once, and
every acknowledged change of an item?

    python benchmarks/kills.py --work DIR [--kills 50] [--bundle BUNDLE] [--kept FILE]

A server of two workers takes events from callers that hold a plain gRPC channel each and send an
event again, under the same event_id, until it is acknowledged; from one `Client.stream_events`; and
items from one `Client.upsert_items`, new ones and new prices of those.
At random moments one worker, or the server with all its workers, is killed with SIGKILL; a server
that is gone is started again on the same state. At the end the store is read: every acknowledged
event must be in its user's history once and in the log once, and nothing that was never sent; every
item must have the last price that was acknowledged, and the next server must show it.
Many kills are done in rounds, each on a state of its own; --kept FILE has those that are done, to
go on from. Without --bundle, a small simulated world is trained in DIR first.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from commands import ENVIRONMENT, PENCHANT, free_port
from restarts import prepare
from results import FOLDER, write_result

from interest.v1 import ingest_service_pb2 as pb
from interest.v1 import ingest_service_pb2_grpc
from model.errors import PenchantError
from serving.client import Client
from serving.domain import Event, History, ItemChange, UserQuery
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.sqlite_items import SqliteItemLog

NUM_USERS, NUM_CALLERS = 500, 3
WHOLE_SERVER = 0.3
"""The share of kills that take all processes."""
ROUND = 100
"""Kills on one state."""
BETWEEN = (0.1, 1.2)
"""Seconds between a server's being whole again and the next kill."""

Name = tuple[str, str]
"""User and event id."""


class Server:
    """`penchant serve` on one port, killed and started again."""

    def __init__(self, bundle: Path, state: Path, *, workers: int = 2) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self._command = [*PENCHANT, "serve", str(bundle), "--state", str(state)]
        self._command += ["--port", str(port), "--workers", str(workers), "--log-level", "error"]
        self._command += ["--max-stored-events", "1000000"]
        self.start()

    def start(self) -> None:
        """Start it and wait until both workers serve."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit("the server did not start")

    def workers(self) -> list[int]:
        """The processes of the two workers, once both answer."""
        found: set[int] = set()
        while len(found) < 2:
            with (
                contextlib.suppress(PenchantError),
                Client(self.address, timeout=30, num_channels=1) as client,
            ):
                worker = int(client.status().source.worker.partition(".")[2])
                found = {one for one in found if Path(f"/proc/{one}").exists()} | {worker}
        return sorted(found)

    def kill_worker(self, rng: random.Random) -> None:
        """SIGKILL to one of two workers; the supervisor starts another."""
        os.kill(rng.choice(self.workers()), signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL to all processes at once, then a new server."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self._process.wait()
        self.start()

    def stop(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(60):
            raise SystemExit(f"the server ended with {self._process.returncode}")


class Callers:
    """Threads that send events until each is acknowledged; they know what was."""

    def __init__(self, address: str, event: str) -> None:
        self._address, self._event = address, event
        self._over = threading.Event()
        self.sent: set[Name] = set()
        self.acknowledged: list[Name] = []
        self.num_failed = 0
        self.prices: dict[str, float] = {}
        """Item → the last price that was acknowledged."""
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(NUM_CALLERS)
        ]
        self._threads.append(threading.Thread(target=self._stream))
        self._threads.append(threading.Thread(target=self._upsert))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let every event that was sent be acknowledged."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _names(self, number: int) -> Iterator[Name]:
        rng = random.Random(number)
        count = 0
        while not self._over.is_set():
            yield f"user-{rng.randrange(NUM_USERS)}", f"{number}-{count}"
            count += 1

    def _call(self, number: int) -> None:
        """Some events a call, on a channel that is made anew where a call has failed."""
        rng, names = random.Random(-number), self._names(number)
        channel = grpc.insecure_channel(self._address)
        while batch := [name for _, name in zip(range(rng.randint(1, 5)), names, strict=False)]:
            request = pb.RecordEventsRequest(
                events=[
                    pb.Event(user_id=user, event_id=name, item_id=f"item {name}", event=self._event)
                    for user, name in batch
                ]
            )
            self.sent.update(batch)
            while True:
                stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
                try:
                    answer = stub.RecordEvents(request, timeout=2)
                except grpc.RpcError:
                    self.num_failed += 1
                    channel.close()
                    time.sleep(0.02)
                    channel = grpc.insecure_channel(self._address)
                    continue
                if answer.errors or answer.num_taken + answer.num_duplicates != len(batch):
                    raise SystemExit(f"not all was taken: {answer}")
                break
            self.acknowledged.extend(batch)
        channel.close()

    def _stream(self) -> None:
        names = []
        with Client(self._address, num_channels=4) as client:
            with client.stream_events(patience=120) as stream:
                for user, name in self._names(NUM_CALLERS):
                    self.sent.add((user, name))
                    names.append((user, name))
                    stream.send(Event(user, f"item {name}", self._event, name))
                    time.sleep(0.002)
            if stream.num_refused:
                raise SystemExit(f"refused: {stream.refused[0]}")
        self.acknowledged.extend(names)

    def _upsert(self) -> None:
        """New items, and new prices of earlier ones, some a call; each call until it is taken."""
        rng, count = random.Random(0), 0
        with Client(self._address, num_channels=4, timeout=5) as client:
            while not self._over.is_set():
                count += 1
                new = {f"item-{rng.randrange(count)}": float(count) for _ in range(5)}
                changes = [
                    ItemChange(item_id=one, kind="product", features={"price": price})
                    for one, price in new.items()
                ]
                while True:
                    try:
                        written = client.upsert_items(changes)
                    except PenchantError:
                        self.num_failed += 1
                        time.sleep(0.05)
                        continue
                    if written.num_taken != len(changes):
                        raise SystemExit(f"not all was taken: {written.errors}")
                    break
                self.prices |= new


def wrong_items(state: Path, address: str, prices: dict[str, float]) -> int:
    """How many items the store, or the server, has without the price that was acknowledged last."""
    database = Database(store_path(state))
    log = SqliteItemLog(database)
    items, newest = log.read(list(prices)), log.newest()
    database.close()
    wrong = {one for one, price in prices.items() if one not in items}
    wrong |= {one for one, item in items.items() if item.features["price"] != prices[one]}
    ids = list(prices)
    with Client(address, timeout=30) as client:
        while client.status().live["applied_sequence"] < newest:
            time.sleep(0.1)
        for start in range(0, len(ids), 100):
            some = ids[start : start + 100]
            given = client.rerank(UserQuery(history=History([])), some, fields=["price"])
            shown = dict(zip(given.item_ids, given.columns["price"], strict=True))
            wrong |= {one for one in some if shown.get(one) != prices[one]}
    return len(wrong)


def stored(state: Path) -> tuple[Counter[Name], Counter[Name]]:
    """How often each event is in its user's history, and in the log."""
    database = Database(store_path(state))
    users = dict(database.read("SELECT user, user_id FROM users"))
    histories: Counter[Name] = Counter()
    for chunk, names in database.read("SELECT chunk, event_ids FROM chunks"):
        histories.update((users[chunk >> 20], name) for name in json.loads(names))
    bodies = [json.loads(body) for (body,) in database.read("SELECT body FROM event_log")]
    log = Counter((body["user_id"], body["event_id"]) for body in bodies)
    (verdict,) = database.read("PRAGMA integrity_check")[0]
    if verdict != "ok":
        raise SystemExit(f"the store is damaged: {verdict}")
    database.close()
    return histories, log


def figures(bundle: Path, state: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """Kill so often, then count."""
    rng = random.Random(seed)
    server = Server(bundle, state)
    with Client(server.address, timeout=30) as client:
        names = client.status().bundle["history_events"]
    assert isinstance(names, list)
    callers = Callers(server.address, names[0])
    begun, num_whole = time.monotonic(), 0
    for _ in range(num_kills):
        server.workers()
        time.sleep(rng.uniform(*BETWEEN))
        if rng.random() < WHOLE_SERVER:
            server.kill_all()
            num_whole += 1
        else:
            server.kill_worker(rng)
    callers.end()
    seconds = time.monotonic() - begun
    server.workers()
    num_wrong = wrong_items(state, server.address, callers.prices)
    with contextlib.suppress(PenchantError):
        server.stop()
    histories, log = stored(state)
    acknowledged = set(callers.acknowledged)
    return {
        "kills": num_kills,
        "kills_of_the_whole_server": num_whole,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - set(histories)) + len(acknowledged - set(log)),
        "twice": sum(n > 1 for n in [*histories.values(), *log.values()]),
        "in_history_and_not_in_log": len(set(histories) ^ set(log)),
        "items": len(callers.prices),
        "items_without_their_last_acknowledged_change": num_wrong,
        "never_sent": len(set(histories) - callers.sent),
        "calls_that_failed_and_were_sent_again": callers.num_failed,
        "seconds": round(seconds, 1),
    }


def in_rounds(
    bundle: Path, work: Path, num_kills: int, seed: int, kept: Path | None
) -> dict[str, Any]:
    """The figures of all rounds, summed."""
    lines = kept.read_text().splitlines() if kept is not None and kept.exists() else []
    done: list[dict[str, Any]] = [json.loads(line) for line in lines]
    while (left := num_kills - sum(one["kills"] for one in done)) > 0:
        state = work / f"state-kills-{os.getpid()}-{len(done)}"
        done.append(figures(bundle, state, min(left, ROUND), seed + len(done)))
        print(done[-1], flush=True)
        shutil.rmtree(state)
        if kept is not None:
            with kept.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    return {name: round(sum(one[name] for one in done), 1) for name in done[0]}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kept", type=Path, help="rounds that are done, to go on from")
    parser.add_argument("--results", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.bundle is None:
        prepare(options.work)
        options.bundle = options.work / "bundle"
    found = in_rounds(options.bundle, options.work, options.kills, options.seed, options.kept)
    write_result(
        "kills",
        title="Writes and killed servers: what was acknowledged is there, once",
        figures=found,
        table=[
            ["what", "number"],
            *[[name.replace("_", " "), f"{n:,}"] for name, n in found.items()],
        ],
        notes=(
            f"Two workers; {NUM_CALLERS} callers with a plain gRPC channel each, one stream of "
            f"events and one writer of items, {NUM_USERS} users. SIGKILL at random moments, "
            f"{WHOLE_SERVER:.0%} of the times to all processes at once. Killing processes shows "
            "what the store does when they end in the middle; it does not take the power away, "
            "which is what fsync is for."
        ),
        command=f"python benchmarks/kills.py --work DIR --kills {options.kills}",
        folder=options.results,
    )
    wrong = ("lost", "twice", "never_sent", "in_history_and_not_in_log")
    if any(found[name] for name in (*wrong, "items_without_their_last_acknowledged_change")):
        raise SystemExit("writes were lost, doubled or made up")


if __name__ == "__main__":
    main()
