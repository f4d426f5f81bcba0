"""The batcher, with threads that meet at known points."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.batching import Batcher
from serving.errors import DeadlineExceeded


def later() -> float:
    return time.monotonic() + 30


class Gate:
    """A computation that doubles numbers; it stops at each batch until told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, requests: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(requests))
        self.begun.release()
        self.go.acquire()
        return [ValueError(f"{n} is bad") if n < 0 else 2 * n for n in requests]


def wait_for_waiting(batcher: Batcher[int, int], num: int) -> None:
    while len(batcher._waiting) < num:
        time.sleep(0.001)


def test_alone_it_computes_at_once() -> None:
    batcher: Batcher[int, int] = Batcher(lambda ns: [n + 1 for n in ns], max_size=4)
    assert [batcher.submit(n, size=1, deadline=later()) for n in range(3)] == [1, 2, 3]


def test_what_arrives_meanwhile_is_the_next_batch() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_size=3)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(batcher.submit, 1, size=1, deadline=later())]
        gate.begun.acquire()
        for n in range(2, 7):
            answers.append(pool.submit(batcher.submit, n, size=1, deadline=later()))
            wait_for_waiting(batcher, n - 1)
        for _ in range(3):
            gate.go.release()
        assert [answer.result(10) for answer in answers] == [2, 4, 6, 8, 10, 12]
    assert gate.batches == [[1], [2, 3, 4], [5, 6]]


def test_sizes_bound_a_batch() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_size=10)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(batcher.submit, 1, size=1, deadline=later())]
        gate.begun.acquire()
        for i, size in enumerate((6, 4, 1, 100, 1)):
            answers.append(pool.submit(batcher.submit, i, size=size, deadline=later()))
            wait_for_waiting(batcher, i + 1)
        for _ in range(5):
            gate.go.release()
        for answer in answers:
            answer.result(10)
    assert gate.batches == [[1], [0, 1], [2], [3], [4]]


def test_an_answer_that_is_an_exception_reaches_its_caller_alone() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_size=8)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 0, size=1, deadline=later())
        gate.begun.acquire()
        bad = pool.submit(batcher.submit, -5, size=1, deadline=later())
        wait_for_waiting(batcher, 1)
        good = pool.submit(batcher.submit, 5, size=1, deadline=later())
        wait_for_waiting(batcher, 2)
        gate.go.release()
        gate.go.release()
        assert (first.result(10), good.result(10)) == (0, 10)
        with pytest.raises(ValueError, match="-5 is bad"):
            bad.result(10)


def test_a_computation_that_raises_fails_its_batch_and_no_other() -> None:
    def compute(numbers: Sequence[int]) -> list[int]:
        if numbers[0] == 0:
            raise RuntimeError("broken")
        return list(numbers)

    batcher: Batcher[int, int] = Batcher(compute, max_size=8)
    with pytest.raises(RuntimeError, match="broken"):
        batcher.submit(0, size=1, deadline=later())
    assert batcher.submit(3, size=1, deadline=later()) == 3


def test_a_deadline_that_passed_is_not_begun() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_size=8)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, size=1, deadline=later())
        gate.begun.acquire()
        late = pool.submit(batcher.submit, 2, size=1, deadline=time.monotonic() + 0.01)
        wait_for_waiting(batcher, 1)
        time.sleep(0.02)
        gate.go.release()
        assert first.result(10) == 2
        with pytest.raises(DeadlineExceeded):
            late.result(10)
    assert gate.batches == [[1]]


def test_many_threads_all_get_their_own_answer() -> None:
    batcher: Batcher[int, int] = Batcher(lambda ns: [n * n for n in ns], max_size=5)
    with ThreadPoolExecutor(16) as pool:
        numbers = range(2000)
        found = list(pool.map(lambda n: batcher.submit(n, size=1, deadline=later()), numbers))
    assert found == [n * n for n in numbers]


def test_one_that_cannot_be_computed_fails_alone() -> None:
    gate = Gate()

    def compute(numbers: Sequence[int]) -> list[int | Exception]:
        answers = gate(numbers)
        if 13 in numbers:
            raise RuntimeError("13 broke the batch")
        return answers

    batcher: Batcher[int, int] = Batcher(compute, max_size=8)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(batcher.submit, 1, size=1, deadline=later())]
        gate.begun.acquire()
        for i, n in enumerate((2, 13, 3)):
            answers.append(pool.submit(batcher.submit, n, size=1, deadline=later()))
            wait_for_waiting(batcher, i + 1)
        for _ in range(5):
            gate.go.release()
        first, before, poisoned, after = answers
        assert (first.result(10), before.result(10), after.result(10)) == (2, 4, 6)
        with pytest.raises(RuntimeError, match="13 broke"):
            poisoned.result(10)
    assert gate.batches == [[1], [2, 13, 3], [2], [13], [3]]


def test_a_waiting_call_gives_up_at_its_own_deadline() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_size=8)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, 1, size=1, deadline=later())
        gate.begun.acquire()
        late = pool.submit(batcher.submit, 2, size=1, deadline=time.monotonic() + 0.05)
        wait_for_waiting(batcher, 1)
        try:
            # The batch before it is still computing.
            with pytest.raises(DeadlineExceeded):
                late.result(5)
            assert not first.done() and not batcher._waiting
            patient = pool.submit(batcher.submit, 3, size=1, deadline=later())
            wait_for_waiting(batcher, 1)
        finally:
            gate.go.release()
            gate.go.release()
        assert (first.result(10), patient.result(10)) == (2, 6)
    assert gate.batches == [[1], [3]]


def test_a_call_gives_up_in_a_batch_that_takes_too_long() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_size=8)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(batcher.submit, 1, size=1, deadline=later())]
        gate.begun.acquire()
        answers.append(pool.submit(batcher.submit, 2, size=1, deadline=later()))
        wait_for_waiting(batcher, 1)
        hasty = pool.submit(batcher.submit, 3, size=1, deadline=time.monotonic() + 0.5)
        wait_for_waiting(batcher, 2)
        gate.go.release()
        gate.begun.acquire()
        try:
            with pytest.raises(DeadlineExceeded):
                hasty.result(5)
            assert not answers[1].done()
        finally:
            gate.go.release()
        assert [answer.result(10) for answer in answers] == [2, 4]
    assert not batcher._computing
