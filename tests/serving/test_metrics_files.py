"""Room for metrics is made before a worker writes any."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving.metrics import reserve_files
from serving.metrics_folder import PREFIX, metrics_folder
from tests.serving.processes import environment, penchant
from tests.serving.tiny import World

COUNT = """
from serving.metrics import CALLS
CALLS.labels("Retrieve", "OK").inc()
print(CALLS.labels("Retrieve", "OK")._value.get())
"""


def count(folder: Path, worker: str) -> float:
    """Count one call in a process of its own; how many the worker has counted by then."""
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PENCHANT_WORKER": worker}
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(done.stdout)


def test_every_file_that_a_worker_writes_has_room(tmp_path: Path) -> None:
    reserve_files(tmp_path, ["w0"])
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    if hasattr(os, "posix_fallocate"):
        assert all(512 * path.stat().st_blocks >= 1 << 16 for path in tmp_path.iterdir())
    assert [count(tmp_path, "w0"), count(tmp_path, "w0")] == [1, 2]
    reserve_files(tmp_path, ["w0"])
    assert count(tmp_path, "w0") == 3
    assert before == {path.name: path.stat().st_size for path in tmp_path.iterdir()}


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
def test_without_room_a_server_does_not_start(world: World, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # inherited
    try:
        done = penchant(
            *("serve", str(world.bundle), "--state", str(tmp_path / "state")),
            *("--port", "0", "--metrics-port", "0"),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == 2 and "no room for metrics" in done.stderr


def test_what_a_killed_server_leaves_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    foreign = tmp_path / f"{PREFIX}foreign"  # of something else, or not yet locked
    foreign.mkdir()
    hold = "from serving.metrics_folder import metrics_folder\n"
    hold += "with metrics_folder() as folder: print(folder, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        env={**environment(), "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        reserve_files(theirs, ["w0"])
        with metrics_folder() as ours:
            assert theirs.exists() and ours.parent == tmp_path
        assert not ours.exists()
        other.kill()
    assert theirs.exists()
    with metrics_folder():
        assert not theirs.exists() and foreign.exists()
