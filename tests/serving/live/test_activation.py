"""Activations that go wrong: the bundle before goes on, and the next one may come."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model.errors import BundleRejected
from serving.config import ServerConfig
from serving.live import activation
from serving.live.activation import Activator, Current, open_generation
from serving.live.compactor import Compactor
from serving.store import generations
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.event_log import SqliteEventLog
from serving.store.generations import GenerationLog, StoredGeneration
from serving.store.sqlite_items import SqliteItemLog
from tests.serving.rewritten import rewritten
from tests.serving.tiny import World, make_world


class Server:
    """One worker's part and the background's part of activations, in one process."""

    def __init__(self, bundle: Path, state: Path) -> None:
        self.config = ServerConfig(bundle=bundle, state=state)
        self.database = Database(store_path(state))
        self.items = SqliteItemLog(self.database)
        self.log = GenerationLog(self.database)
        self.log.adopt(bundle, open_generation(self.config, bundle, "").version)
        self.activator = Activator(self.config, self.database, self.items)
        self.compactor = Compactor(self.config, self.database, self.items)
        self.worker = Current(
            self.config, self.database, self.items, SqliteEventLog(self.database), worker="w0"
        )

    def activate(self, bundle: Path) -> StoredGeneration:
        number = self.log.request(bundle, skips_gate=True)
        self.compactor = self.activator.step(self.compactor)
        return self.log.read(number)


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[Server]:
    server = Server(world.bundle, tmp_path / "state")
    server.worker.start()
    yield server
    server.worker.close()
    server.database.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("activation") / "other", seed=8)


@contextmanager
def opening(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> Iterator[None]:
    """What happens in the worker's thread before it opens a bundle."""
    usual = activation.open_generation

    def slowly(*arguments: Any) -> Any:
        if threading.current_thread().name == "activation":
            before()
        return usual(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(activation, "open_generation", slowly)
        yield


@pytest.mark.parametrize(
    "name", ["index.faiss", "circles.parquet", "items.arrow", "vocab/encoder.json", "vectors.npy"]
)
def test_garbage_under_checksums_that_hold(
    server: Server, other: World, tmp_path: Path, name: str
) -> None:
    def change(folder: Path, body: dict[str, Any]) -> None:
        (folder / name).write_bytes(b"{}")

    bundle = rewritten(other.bundle, tmp_path / "broken", change)
    done = server.activate(bundle)
    assert done.state == "failed" and str(bundle) in done.message, done
    active = server.log.active()
    assert active is not None and active.path == server.config.bundle
    assert server.activate(other.bundle).state == "active"


def test_a_worker_that_takes_long_is_waited_for(
    server: Server, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "_GONE_SECONDS", 0.6)
    monkeypatch.setattr(activation, "_BEAT_SECONDS", 0.1)
    time.sleep(1.1)  # until it beats that often
    ready: list[float] = []

    def take_long() -> None:
        time.sleep(2)
        ready.append(time.monotonic())

    with opening(monkeypatch, take_long):
        assert server.activate(other.bundle).state == "active"
        assert ready and time.monotonic() > ready[0]


def test_a_worker_that_cannot_open_it_ends_the_activation(
    server: Server, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise MemoryError("no room")

    with opening(monkeypatch, fail):
        done = server.activate(other.bundle)
    assert done.state == "failed" and "worker w0: MemoryError: no room" in done.message
    assert server.activate(other.bundle).state == "active"


def test_a_worker_tries_again_to_open_what_is_active(
    server: Server, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for gone, so nobody asked it; and it cannot open the bundle at once."""
    monkeypatch.setattr(activation, "_FIRST_PAUSE", 0.1)
    server.worker._pause = 0.1
    tries = []

    def fail_twice() -> None:
        tries.append(time.monotonic())
        if len(tries) <= 2:
            raise BundleRejected("the disk was away")

    version = open_generation(server.config, other.bundle, "").version
    with opening(monkeypatch, fail_twice):
        number = server.log.request(other.bundle, version=version, skips_gate=True)
        server.log.flip(number)
        deadline = time.monotonic() + 10
        while server.worker.follower.catalogue.generation.version != version:
            assert time.monotonic() < deadline
            server.log.beat("other", prepared=0, serving=0)  # the database changes all the time
            time.sleep(0.01)
    assert len(tries) == 3
    assert tries[1] - tries[0] >= 0.1 and tries[2] - tries[1] >= 0.2
