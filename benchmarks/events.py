"""Events: how many a worker takes, what they cost its readers, and how soon another shows them.

    python benchmarks/events.py --work DIR [--bundle BUNDLE] [--seconds 5]

Servers, callers and the disk share one machine. Beside the figures stands what the disk itself
needs to append 4 KB and sync them, measured in the same run. Without --bundle, a small simulated
world is trained in DIR first. The last rows are about a user with 30,000 events: what a request
needs to know of all that they have seen, now and by reading every event, as it was done before.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from kills import Server
from restarts import prepare
from results import FOLDER, write_result

from model.bundle import open_bundle
from model.items import distinct
from serving.client import Client
from serving.domain import Event, RetrieveRequest, UserQuery
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.readers import Readers
from serving.store.base import NewHistory
from serving.store.database import Database
from serving.store.sqlite import SqliteStore

NUM_USERS, NUM_CALLERS, NUM_FRESH, NUM_EVENTS = 2_000, 16, 300, 30_000


def p(values: list[float], percent: float) -> float:
    """A percentile, in milliseconds."""
    return float(np.percentile(values, percent)) * 1000


def disk_ms(folder: Path) -> float:
    """The median time of appending 4 KB to a file and syncing them."""
    times = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    (folder / "probe").unlink()
    return statistics.median(times) * 1000


class Numbers:
    """Events of many users, none twice."""

    def __init__(self, event: str, items: list[str]) -> None:
        self._event, self._items = event, items
        self._rng = np.random.default_rng(5)

    def events(self, num: int) -> list[Event]:
        """So many of them."""
        users, items = self._rng.integers(NUM_USERS, size=num), self._rng.integers(10**6, size=num)
        return [
            Event(f"user-{user}", self._items[item % len(self._items)], self._event)
            for user, item in zip(users.tolist(), items.tolist(), strict=True)
        ]


def unary(address: str, numbers: Numbers, size: int, seconds: float) -> tuple[float, list[float]]:
    """Events a second by calls of `size` events, from NUM_CALLERS callers; and the calls' times."""
    times: list[float] = []
    ends = time.monotonic() + seconds

    def call(client: Client) -> None:
        while time.monotonic() < ends:
            events = numbers.events(size)
            began = time.perf_counter()
            client.record_events(events, timeout=30)
            times.append(time.perf_counter() - began)

    with Client(address, num_channels=4) as client:
        threads = [threading.Thread(target=call, args=(client,)) for _ in range(NUM_CALLERS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(times) * size / (time.monotonic() - began), times


def streamed(address: str, numbers: Numbers, seconds: float) -> float:
    """Events a second by one stream, acknowledged."""
    with Client(address) as client:
        began = time.monotonic()
        with client.stream_events() as stream:
            while time.monotonic() < began + seconds:
                stream.send(numbers.events(20))
        return stream.num_taken / (time.monotonic() - began)


@contextmanager
def telling(address: str, numbers: Numbers, rate: float) -> Iterator[None]:
    """Events at a steady rate, in the background."""
    over = threading.Event()

    def tell() -> None:
        with Client(address) as client, client.stream_events() as stream:
            while not over.wait(10 / rate):
                stream.send(numbers.events(10))

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def reads(address: str, seconds: float) -> list[float]:
    """Times of Retrieve, one after the other."""
    times, ends = [], time.monotonic() + seconds
    with Client(address, num_channels=1) as client:
        while time.monotonic() < ends:
            began = time.perf_counter()
            client.retrieve(f"user-{len(times) % NUM_USERS}", k=20, exclude_seen=True, timeout=10)
            times.append(time.perf_counter() - began)
    return times


def freshness(address: str, numbers: Numbers) -> list[float]:
    """From sending an event to one worker until the other's answer has it."""
    clients: dict[str, Client] = {}
    while len(clients) < 2:
        client = Client(address, timeout=10, num_channels=1)
        clients.setdefault(client.status().source.worker, client)
    writer, reader = clients.values()
    times = []
    for number in range(NUM_FRESH):
        (event,) = numbers.events(1)
        event.user_id = f"fresh-{number}"
        began = time.perf_counter()
        writer.record_events(event)
        while not reader.retrieve(event.user_id, k=1).history_lengths[0]:
            pass
        times.append(time.perf_counter() - began)
    return times


def long_history(bundle: Path, work: Path) -> dict[str, float]:
    """What a request reads of a user with many events, as it is and as it was."""
    catalogue = Catalogue(Generation(open_bundle(bundle)))
    ids = catalogue.generation.items.table["item_id"].to_pylist()
    event = next(iter(catalogue.generation.event_codes))
    rng = np.random.default_rng(9)
    history = NewHistory(
        *("long", [ids[row] for row in rng.integers(len(ids), size=NUM_EVENTS)]),
        *([event] * NUM_EVENTS, np.arange(NUM_EVENTS) + 10**15, np.zeros(NUM_EVENTS, np.int64)),
        [str(number) for number in range(NUM_EVENTS)],
    )
    request = RetrieveRequest(queries=[UserQuery("long")], k=10, exclude_seen=True)
    found: dict[str, float] = {}
    for name, most in (("bounded", 10_000), ("whole", 1_000_000)):
        database = Database(work / f"long-{name}-{os.getpid()}" / "store.db")
        store = SqliteStore(database, most_events=most)
        store.merge_histories([history])
        readers = Readers(catalogue, store)

        def now(readers: Readers = readers) -> None:
            distinct(readers.read(request.queries[0], 0, request).seen)

        def before(store: SqliteStore = store) -> None:
            stored = store.read("long", limit=None)
            assert stored is not None
            np.unique(catalogue.rows_of(stored.item_ids))

        found[f"state_ms_of_30000_events_{name}"] = median_ms(now)
        if name == "whole":
            found["state_ms_of_30000_events_before"] = median_ms(before)
        database.close()
    return found


def median_ms(work: Callable[[], None]) -> float:
    """The median time of some runs."""
    times = []
    for _ in range(50):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--results", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.bundle is None:
        prepare(options.work)
        options.bundle = options.work / "bundle"
    options.work.mkdir(parents=True, exist_ok=True)
    seconds = options.seconds
    # What else the machine does: above its number of cores, all figures are of what is left.
    found = {"load_average_before": os.getloadavg()[0], "disk_sync_ms": disk_ms(options.work)}
    with open_server(options.bundle, options.work, 1) as server:
        numbers = numbers_of(server.address, options.bundle)
        for size in (1, 50):
            rate, times = unary(server.address, numbers, size, seconds)
            found[f"events_per_second_in_calls_of_{size}"] = rate
            found[f"p50_ms_of_a_call_of_{size}"] = p(times, 50)
            found[f"p99_ms_of_a_call_of_{size}"] = p(times, 99)
        found["events_per_second_by_a_stream"] = streamed(server.address, numbers, seconds)
        alone = reads(server.address, seconds)
        with telling(server.address, numbers, rate=500):
            beside = reads(server.address, seconds)
        for name, times in (("alone", alone), ("beside_500_events_a_second", beside)):
            found[f"retrieve_p50_ms_{name}"] = p(times, 50)
            found[f"retrieve_p99_ms_{name}"] = p(times, 99)
    with open_server(options.bundle, options.work, 2) as server:
        times = freshness(server.address, numbers_of(server.address, options.bundle))
        found["fresh_on_another_worker_p50_ms"] = p(times, 50)
        found["fresh_on_another_worker_p99_ms"] = p(times, 99)
    found |= long_history(options.bundle, options.work)
    write_result(
        "events",
        title="Events: throughput, what readers pay, freshness",
        figures={name: round(value, 3) for name, value in found.items()},
        table=[["what", ""], *[[n.replace("_", " "), f"{v:,.2f}"] for n, v in found.items()]],
        notes=(
            f"One worker takes events from {NUM_CALLERS} callers at once (calls), or by one "
            "stream; "
            f"{NUM_USERS:,} users. Every event is on disk when it is acknowledged. Freshness: from "
            "sending an event to one of two workers until an answer of the other has it, both "
            "calls included. State: what a request reads to leave out all that a user with 30,000 "
            "events has seen; `bounded` is the default (10,000 kept, 20,000 summed up), `whole` "
            "keeps all, `before` reads every event's id. `disk sync` is one append of 4 KB and "
            "fdatasync. Server and callers share the cores with whatever else the machine does, "
            "see `load average`: where it is above their number, the times are those of waiting."
        ),
        command="python benchmarks/events.py --work DIR",
        folder=options.results,
    )


@contextmanager
def open_server(bundle: Path, work: Path, workers: int) -> Iterator[Server]:
    """A server on a state of its own."""
    server = Server(bundle, work / f"state-events-{os.getpid()}-{workers}", workers=workers)
    try:
        yield server
    finally:
        server.stop()


def numbers_of(address: str, bundle: Path) -> Numbers:
    """Events of the first kind that enters histories, on items of the bundle."""
    with Client(address, timeout=30) as client:
        names = client.status().bundle["history_events"]
    assert isinstance(names, list)
    return Numbers(names[0], open_bundle(bundle).items.table["item_id"].to_pylist())


if __name__ == "__main__":
    main()
