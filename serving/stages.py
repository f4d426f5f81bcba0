"""How long each stage of a call takes, by a clock that costs about a microsecond.

    with stage("search"):
        rows, scores = index.search(...)

adds a lap to the call that this thread computes for, and does nothing where there is none (warming
up, a test of the pipeline alone). A batch computes in one caller's thread for several: its laps are
then everyone's (`batch_laps`, `adopt`). Knows neither metrics nor logs nor traces; those are handed
the finished record (serving/telemetry.py).
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Lap = tuple[str, float, float]
"""A stage's name, and when it began and ended, in seconds of time.perf_counter()."""


class CallRecord:
    """One call in progress: which RPC, its request id, when it came, and its laps so far."""

    __slots__ = ("laps", "request_id", "rpc", "start")

    def __init__(self, rpc: str, request_id: str, start: float) -> None:
        self.rpc, self.request_id, self.start = rpc, request_id, start
        self.laps: list[Lap] = []


class _Thread(threading.local):
    record: CallRecord | None = None


_thread = _Thread()


class stage:  # noqa: N801  (reads as a statement: `with stage("search"):`)
    """Times its block as one lap of this thread's call. Stages do not nest: laps must not overlap.

    name: a word of the code's own, never of a request: it becomes a metric's label.
    """

    __slots__ = ("_name", "_start")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        record = _thread.record
        if record is not None:
            record.laps.append((self._name, self._start, time.perf_counter()))


def add_lap(name: str, start: float, end: float) -> None:
    """As `stage`, for a time that is known by itself (waiting, for instance)."""
    record = _thread.record
    if record is not None:
        record.laps.append((name, start, end))


def begin(record: CallRecord) -> None:
    """This thread works for `record` from now on."""
    _thread.record = record


def end() -> None:
    """This thread works for no call any more."""
    _thread.record = None


def current() -> CallRecord | None:
    """The call that this thread works for."""
    return _thread.record


@contextmanager
def batch_laps() -> Iterator[list[Lap]]:
    """The laps of a block that computes for several calls, this thread's own among them."""
    record = _thread.record
    if record is None:
        yield []
        return
    before, record.laps = record.laps, []
    batch = record.laps
    try:
        yield batch
    finally:
        record.laps = before + batch


def adopt(laps: Sequence[Lap]) -> None:
    """Count a batch's laps as this thread's call's, which another thread computed."""
    record = _thread.record
    if record is not None:
        record.laps.extend(laps)


def milliseconds(laps: Sequence[Lap]) -> dict[str, float]:
    """Each stage's time in ms, those that came several times added up, in order of coming."""
    spent: dict[str, float] = {}
    for name, start, stop in laps:
        spent[name] = spent.get(name, 0.0) + (stop - start) * 1000
    return {name: round(value, 3) for name, value in spent.items()}
