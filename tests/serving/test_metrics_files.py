"""Room for metrics is made before a worker writes any."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from serving.metrics import reserve_files
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
