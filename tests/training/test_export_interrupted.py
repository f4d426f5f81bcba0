"""`penchant export`, interrupted for real: what was there stays whole, nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from model.manifest import open_verified
from tests.training.conftest import Exported, Trained

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def start(run: Path, folder: Path) -> "subprocess.Popen[str]":
    arguments = ["export", str(run), "--bundle", str(folder / "bundle")]
    arguments += ["--snapshot", str(folder / "snapshot"), "--overwrite"]
    return subprocess.Popen(
        [sys.executable, "-m", "penchant", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def interrupt(process: "subprocess.Popen[str]", folder: Path, with_signal: int) -> str:
    """Send the signal when the new bundle is half written; returns what was printed."""
    deadline = time.monotonic() + 200
    while not list(folder.glob(f".bundle.partial-{process.pid}/*_tower.onnx")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(with_signal)
    return process.communicate(timeout=60)[0]


def test_an_interrupted_export_leaves_what_was_there(
    trained: Trained, exported: Exported, tmp_path: Path
) -> None:
    shutil.copytree(exported.bundle, tmp_path / "bundle")
    shutil.copytree(exported.snapshot, tmp_path / "snapshot")

    def versions() -> list[str]:
        return [
            open_verified(tmp_path / "bundle", kind="bundle").version,
            open_verified(tmp_path / "snapshot", kind="snapshot").version,
        ]

    before = versions()
    shown = interrupt(process := start(trained.path, tmp_path), tmp_path, signal.SIGINT)
    assert process.returncode == 130 and "Traceback" not in shown
    assert "Interrupted: no bundle was written, and one that was there is as it was." in shown
    assert versions() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "snapshot"]

    interrupt(process := start(trained.path, tmp_path), tmp_path, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert versions() == before
    assert (tmp_path / f".bundle.partial-{process.pid}").is_dir()  # it could not tidy up

    # The next one does both.
    shown = (process := start(trained.path, tmp_path)).communicate(timeout=200)[0]
    assert process.returncode == 0, shown
    assert versions() != before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "snapshot"]
