"""Stage times: whose they are, also where a batch computes for several calls."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from serving import stages
from serving.batching import Batcher
from serving.stages import CallRecord, adopt, batch_laps, milliseconds, stage


def test_laps_go_to_the_threads_call_and_nowhere_without_one() -> None:
    with stage("search"):
        pass
    record = CallRecord("Retrieve", "r", time.perf_counter())
    stages.begin(record)
    try:
        with stage("search"):
            time.sleep(0.01)
        with ThreadPoolExecutor(1) as pool:  # another thread works for no call
            assert pool.submit(stages.current).result() is None
        assert stages.current() is record
    finally:
        stages.end()
    with stage("search"):
        pass
    ((name, start, end),) = record.laps
    assert name == "search" and record.start <= start < end
    assert milliseconds(record.laps)["search"] >= 10


def test_a_stage_that_raises_is_timed_too() -> None:
    record = CallRecord("Retrieve", "r", 0.0)
    stages.begin(record)
    try:
        with stage("encode"):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    finally:
        stages.end()
    assert [name for name, _, _ in record.laps] == ["encode"]


def test_stages_of_one_name_are_added_up_in_order_of_coming() -> None:
    laps = [("read", 0.0, 0.001), ("search", 0.001, 0.002), ("read", 0.002, 0.0045)]
    assert list(milliseconds(laps).items()) == [("read", 3.5), ("search", 1.0)]


def test_a_batch_without_a_call_gives_no_laps() -> None:
    with batch_laps() as laps, stage("search"):
        pass
    adopt(laps)
    assert laps == []


def test_a_batchs_laps_are_every_callers() -> None:
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def compute(requests: Sequence[int]) -> list[int | Exception]:
        with stage("search"):
            begun.release()
            go.acquire()
        return list(requests)

    batcher: Batcher[int, int] = Batcher(compute, max_size=8)

    def call(number: int) -> CallRecord:
        record = CallRecord("Retrieve", str(number), time.perf_counter())
        stages.begin(record)
        with stage("parse"):
            pass
        assert batcher.submit(number, size=1, deadline=time.monotonic() + 30) == number
        with stage("pack"):
            pass
        stages.end()
        return record

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(call, 0)
        begun.acquire()
        others = []
        for number in (1, 2):
            others.append(pool.submit(call, number))
            while len(batcher._waiting) < number:
                time.sleep(0.001)
        go.release()
        go.release()
        alone, *batched = [future.result(10) for future in (first, *others)]
    assert [name for name, _, _ in alone.laps] == ["parse", "search", "pack"]
    for record in batched:
        assert [name for name, _, _ in record.laps] == ["parse", "wait", "search", "pack"]
        ends = [lap[2] for lap in record.laps]
        assert ends == sorted(ends)
        for (_, _, end), (_, start, _) in zip(record.laps, record.laps[1:], strict=False):
            assert start >= end, "laps overlap"
    # One search, computed once for both.
    assert batched[0].laps[2] == batched[1].laps[2]
