"""One tiny world, one loaded store and one running server for all read-only tests."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving.processes import Served, penchant, serve
from tests.serving.raw_calls import RawCall, raw_calls
from tests.serving.tiny import World, make_world
from tests.serving.tiny_value import add_value


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def state(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the snapshot's users loaded."""
    folder = tmp_path_factory.mktemp("state")
    done = penchant("load-users", str(world.snapshot), "--state", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def server(world: World, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One worker that the read-only tests share."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serve(world.bundle, state, log, "--drain-pause", "0.1") as served:
        yield served


@pytest.fixture(scope="session")
def value_bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's bundle with a value model."""
    return add_value(world, tmp_path_factory.mktemp("value") / "bundle")


@pytest.fixture(scope="session")
def value_state(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another state folder with the same users: two bundles cannot share one."""
    folder = tmp_path_factory.mktemp("value-state")
    done = penchant("load-users", str(world.snapshot), "--state", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def value_server(
    value_bundle: Path, value_state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One worker over the bundle with a value model."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serve(value_bundle, value_state, log, "--drain-pause", "0.1") as served:
        yield served


@pytest.fixture(scope="module")
def call(value_server: Served) -> Iterator[RawCall]:
    """Raw bytes to an RPC of the server with a value model."""
    with raw_calls(value_server.address) as call:
        yield call


@pytest.fixture(scope="session")
def start_server(
    world: World, state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """serve(*arguments), for tests that stop or break their own server."""

    def start(*arguments: str) -> contextlib.AbstractContextManager[Served]:
        log = tmp_path_factory.mktemp("log") / "server.log"
        return serve(world.bundle, state, log, "--drain-pause", "0.3", *arguments)

    return start
