"""How long a call that begins now will wait, and which calls are refused for it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving import errors, pace
from serving.client import Client
from serving.config import ServerConfig
from serving.interceptors import RETRIEVAL
from serving.pace import Pace
from serving.runtime import Runtime
from serving.server import WorkerServer
from tests.serving.tiny import World, item_id


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(pace, "_AT_LEAST", 1.0)
    return Clock(monkeypatch)


def test_nothing_is_expected_of_what_is_not_known(clock: Clock) -> None:
    calls = Pace()
    assert calls.expected() == 0.0
    with calls.begun():
        assert (calls.num_begun, calls.expected()) == (1, 0.0)


def test_calls_take_the_time_between_answers(clock: Clock) -> None:
    calls = Pace()
    one, two, three = calls.begun(), calls.begun(), calls.begun()
    for call in (one, two, three):
        call.__enter__()
    # The first answer comes 4 ms after the calls began, the second 4 ms after it.
    for call, left in ((one, 2), (two, 1)):
        clock.now += 0.004
        call.__exit__(None, None, None)
        assert calls.expected() == pytest.approx(left * 0.004)
    three.__exit__(None, None, None)
    clock.now += 1.0  # nobody calls
    with calls.begun():
        assert calls.expected() < 0.005, "idle time is no time between answers"


def test_a_call_that_fails_is_no_answer(clock: Clock) -> None:
    calls = Pace()
    one, two = calls.begun(), calls.begun()
    one.__enter__()
    two.__enter__()
    clock.now += 0.002
    with pytest.raises(errors.DeadlineExceeded), calls.begun():
        raise errors.DeadlineExceeded("late")
    assert (calls.num_begun, calls.expected()) == (2, 0.0)
    clock.now += 0.002
    one.__exit__(None, None, None)
    assert calls.expected() == pytest.approx(0.004), "what came to nothing took its time, too"


@pytest.fixture
def slow(world: World, state: Path) -> Iterator[tuple[WorkerServer, Runtime, str]]:
    """A worker whose batcher is held."""
    config = ServerConfig(bundle=world.bundle, state=state, port=0, drain_pause=0)
    runtime = Runtime(config)
    server = WorkerServer(config, runtime, worker="w")
    address = f"127.0.0.1:{server.start()}"
    runtime._batcher._computing = True  # as while a long batch computes
    yield server, runtime, address
    server.drain(threading.Event())
    runtime.close()


def test_a_call_that_has_no_chance_is_refused_at_once(
    slow: tuple[WorkerServer, Runtime, str],
) -> None:
    server, runtime, address = slow
    with Client(address, timeout=4) as client, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(client.find_similar, item_id(1)) for _ in range(3)]
        while len(runtime._batcher._waiting) < 3:
            time.sleep(0.01)
        server._calls._paces[RETRIEVAL]._between.observe(1, 1.0)  # an answer a second
        started = time.monotonic()
        with pytest.raises(errors.Overloaded, match="3 calls before this one") as caught:
            client.retrieve("nobody", timeout=1.0)
        assert time.monotonic() - started < 0.9, "it waited for its deadline"
        assert caught.value.retry_after == pytest.approx(3 * pace._AT_LEAST, rel=0.2)
        assert client.status().bundle, "status has a pace of its own"
        for future in held:
            with pytest.raises(errors.DeadlineExceeded):
                future.result(10)
