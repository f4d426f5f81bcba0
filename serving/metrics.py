"""What a worker counts, for Prometheus.

With several processes prometheus-client keeps the numbers in files of PROMETHEUS_MULTIPROC_DIR,
which the supervisor sets and sums up; the variable must be set before this module is imported. The
files go by the worker's name, not by its process: a worker that is started again counts on in them,
and their number stays.
Metric names and labels are documented in docs/operations.md. Labels come from the code and the
protos alone, never from a request: their number is bounded.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.stages import Lap

WORKER = "PENCHANT_WORKER"
"""The environment variable that holds a worker's name."""
if WORKER in os.environ and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: os.environ[WORKER]
    )

_FILES = {
    "counter": 1 << 20,
    "histogram": 1 << 20,
    "gauge_livemax": 1 << 16,
    "gauge_livesum": 1 << 16,
}
"""prometheus-client's files of one worker, and more bytes than it will write into each."""


def reserve_files(folder: Path, workers: Iterable[str]) -> None:
    """Make room for what these workers will count; nothing where there is room already.

    The files are mapped: where the disk is full by the time a page of them is written for the first
    time, the system kills the worker. Raises OSError where there is no room.
    """
    for worker in workers:
        for kind, size in _FILES.items():
            with (folder / f"{kind}_{worker}.db").open("ab") as file:
                if hasattr(os, "posix_fallocate"):  # else the files grow as they are written
                    os.posix_fallocate(file.fileno(), 0, size)


CALL_BUCKETS = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
STAGE_BUCKETS = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
"""Seconds, upper ends."""

CALLS = Counter("penchant_calls_total", "Calls answered, by RPC and outcome.", ["rpc", "code"])
CALL_SECONDS = Histogram(
    "penchant_call_seconds",
    "Time from a call's arrival in Python to its answer, by RPC.",
    ["rpc"],
    buckets=CALL_BUCKETS,
)
BATCH_QUERIES = Histogram(
    "penchant_batch_queries",
    "Queries computed together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
CANDIDATES = Counter("penchant_candidates_total", "Candidates returned.")
COLD = Counter("penchant_cold_queries_total", "Queries of users about whom nothing is known.")
EVENTS = Counter(
    "penchant_events_total",
    "Events that came: taken, duplicate or refused.",
    ["outcome"],
)
DEGRADED = Counter(
    "penchant_degraded_answers_total",
    "Answers that left something out to meet their deadline, by RPC and by what.",
    ["rpc", "what"],
)
BUNDLE = Gauge(
    "penchant_bundle_info",
    "1 for the bundle that is served.",
    ["version", "name"],
    multiprocess_mode="livemax",
)
GENERATION_READY = Gauge(
    "penchant_generation_ready_timestamp_seconds",
    "When the generation that is served became ready: the time of the last worker's.",
    multiprocess_mode="livemax",
)
ITEMS_APPLIED = Counter(
    "penchant_items_applied_total", "Changes of items that workers have taken over from the store."
)
DELTA_ITEMS = Gauge(
    "penchant_delta_items",
    "Rows of live items in the memory of the worker that has the most.",
    multiprocess_mode="livemax",
)
IN_FLIGHT = Gauge(
    "penchant_calls_in_flight",
    "Calls that a thread works for, or that wait for their batch.",
    multiprocess_mode="livesum",
)
WAITING = Gauge(
    "penchant_calls_waiting", "Calls that wait for a thread.", multiprocess_mode="livesum"
)


class StageSeconds:
    """A histogram by RPC and stage whose observations are added up in memory first.

    An observation of prometheus-client's own costs 2 to 4 µs in multi-process form (two writes
    into a mapped file), and a call has half a dozen stages; added up here it costs half a
    microsecond, and `flush` hands all of them on at once. Safe across threads.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._mutex = threading.Lock()
        self._added: dict[tuple[str, str], tuple[list[int], list[float]]] = {}

    def add(self, rpc: str, laps: Sequence[Lap]) -> None:
        """Count the laps of a finished call."""
        with self._mutex:
            for name, start, end in laps:
                sums = self._added.get((rpc, name))
                if sums is None:
                    sums = self._added[rpc, name] = ([0] * (len(STAGE_BUCKETS) + 1), [0.0])
                counts, total = sums
                counts[bisect_left(STAGE_BUCKETS, end - start)] += 1
                total[0] += end - start

    def flush(self) -> None:
        """Hand what was added up to Prometheus."""
        with self._mutex:
            added, self._added = self._added, {}
        for labels, (counts, (total,)) in added.items():
            child = self._histogram.labels(*labels)
            # What `observe` does, for many at once; the library has no public way to.
            for bucket, count in zip(child._buckets, counts, strict=True):
                if count:
                    bucket.inc(count)
            child._sum.inc(total)


STAGE_SECONDS = StageSeconds(
    Histogram(
        "penchant_stage_seconds",
        "Time that calls spent in each stage; what a batch spends counts for each of its calls.",
        ["rpc", "stage"],
        buckets=STAGE_BUCKETS,
    )
)

FLUSH_SECONDS = 0.5


class MetricsFlusher:
    """A thread that flushes the stages and samples what is in flight, twice a second."""

    def __init__(self, in_flight: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._in_flight, self._waiting = in_flight, waiting
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Flush for the last time."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        STAGE_SECONDS.flush()
        IN_FLIGHT.set(self._in_flight())
        WAITING.set(self._waiting())


class SupervisorMetrics:
    """What the supervisor itself counts, beside the sum of its workers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.workers = Gauge("penchant_workers", "Workers that serve.", registry=registry)
        self.restarts = Counter(
            "penchant_worker_restarts_total",
            "Workers that ended by themselves and were started again.",
            registry=registry,
        )
        self.start_seconds = Gauge(
            "penchant_worker_start_seconds",
            "From the start of a worker's process to its being ready: the latest one's.",
            registry=registry,
        )
