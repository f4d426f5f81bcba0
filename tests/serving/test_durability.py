"""What was acknowledged is on disk, whatever happens: kills, a disk that fails, or is full."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import Client
from serving.domain import Event
from serving.errors import StoreUnavailable
from tests.serving.processes import ROOT, Served, environment, serve
from tests.serving.tiny import World, item_id


def test_five_kills_lose_nothing_and_double_nothing(world: World, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--work", str(tmp_path)]
    command += ["--bundle", str(world.bundle), "--kills", "5", "--results", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=environment(), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "kills.json").read_text())["figures"]
    assert (found["lost"], found["twice"], found["never_sent"]) == (0, 0, 0)
    assert found["in_history_and_not_in_log"] == 0
    assert found["items_without_their_last_acknowledged_change"] == 0 < found["items"]
    assert found["acknowledged"] > 100 and found["kills_of_the_whole_server"] >= 1


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose fsync fails on demand."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler (cc) and Linux, to make fsync fail for real")
    library = tmp_path_factory.mktemp("shim") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def test_an_event_whose_fsync_fails_is_not_acknowledged(
    world: World, tmp_path: Path, failing_disk: Path
) -> None:
    flag, state = tmp_path / "disk fails", tmp_path / "state"
    shim = {"LD_PRELOAD": str(failing_disk), "FAILING_DISK": str(flag)}
    with serve(world.bundle, state, tmp_path / "log", variables=shim) as served:
        with Client(served.address, timeout=10) as client:
            assert client.record_events(Event("u", item_id(0), "watch", "before")).num_taken == 1
            flag.touch()
            for name in ("lost", "lost", "lost too"):
                with pytest.raises(StoreUnavailable, match=r"cannot write store\.db: disk I/O"):
                    client.record_events(Event("u", item_id(1), "watch", name))
            with pytest.raises(StoreUnavailable), client.stream_events(patience=0.5) as stream:
                stream.send(Event("u", item_id(1), "watch", "streamed"))
            assert client.retrieve("u", k=1).history_lengths.tolist() == [1]
            flag.unlink()
            again = client.record_events(
                [Event("u", item_id(1), "watch", name) for name in ("lost", "streamed", "after")]
            )
            assert again.num_taken + again.num_duplicates == 3
        for pid in [served.process.pid, *served.worker_pids()]:
            os.kill(pid, signal.SIGKILL)
        served.process.wait()
    with (
        serve(world.bundle, state, tmp_path / "log") as served,
        Client(served.address, timeout=10) as client,
    ):
        names = ("before", "lost", "streamed", "after")
        repeated = [Event("u", item_id(2), "watch", name) for name in names]
        assert client.record_events(repeated).num_duplicates == 4
        assert client.retrieve("u", k=1).history_lengths.tolist() == [4]


@pytest.fixture
def full(world: World, tmp_path: Path) -> Iterator[Served]:
    """A server over a state that has a few events."""
    with serve(world.bundle, tmp_path / "state", tmp_path / "log") as served:
        with Client(served.address, timeout=10) as client:
            client.record_events([Event("u", item_id(i), "watch", str(i)) for i in range(3)])
        yield served


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit (Linux)")
def test_a_disk_without_room_refuses_writes_and_goes_on_reading(
    full: Served, tmp_path: Path
) -> None:
    """No file of the worker may grow: what a full disk is to its store."""
    (worker,) = full.worker_pids()
    size = (tmp_path / "state" / "store.db-wal").stat().st_size
    _, most = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    with Client(full.address, timeout=10) as client:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (size, most))
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"cannot write store\.db"):
                client.record_events(Event("u", item_id(5), "watch", "new"))
            with pytest.raises(StoreUnavailable):
                client.delete_user("u")
            assert client.recommend("u", k=3).history_lengths.tolist() == [3]
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (most, most))
        assert client.record_events(Event("u", item_id(5), "watch", "new")).num_taken == 1
        assert client.recommend("u", k=3).history_lengths.tolist() == [4]
    assert full.stop() == 0
