"""`train-value` and `evaluate-value` as a person types them, and interrupts them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.training.value.conftest import Shown
from training.run import refuse_folder
from training.value.stored import REPORT, TEST

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def penchant(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penchant", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )


def test_the_commands(towers: Path, taste: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(towers, path)
    moved = ("--dataset", str(taste))
    none = penchant("evaluate-value", str(path), *moved)
    assert none.returncode == 2 and "has no value model" in none.stdout + none.stderr
    odd = penchant("train-value", str(path), "--set", "bottom=deep", *moved)
    assert odd.returncode == 2 and "shared, mmoe, ple" in odd.stdout + odd.stderr
    done = penchant("train-value", str(path), "--epochs", "1", "--set", "bottom=ple", *moved)
    assert done.returncode == 0, done.stderr
    assert "The choosing day" in done.stdout and "long_watch" in done.stdout
    assert "retrieval" in done.stdout and str(path / REPORT) in done.stdout
    again = penchant("train-value", str(path), *moved)
    assert again.returncode == 2 and "--overwrite" in again.stdout + again.stderr
    judged = penchant("evaluate-value", str(path), *moved)
    assert judged.returncode == 0, judged.stderr
    assert "The test part" in judged.stdout and "difference" in judged.stdout
    assert "ECE 0." in judged.stdout
    assert (path / "value" / "reliability.svg").read_text().count("ECE") >= 2
    found = json.loads((path / TEST).read_text())
    assert found["heads"]["click"]["num_exposures"] == 120 * 15
    # A new model has no test figures yet. And the towers of such a run may be trained on.
    refuse_folder(path, resume=True)
    over = penchant("train-value", str(path), "--epochs", "1", "--overwrite", *moved)
    assert over.returncode == 0 and not (path / TEST).exists()


def test_interrupted_training_leaves_what_was_there(shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(shown.run.path, path)
    before = {p.name: p.read_bytes() for p in (path / "value").iterdir()}
    options = ("--overwrite", "--epochs", "500", "--dataset", str(shown.run.dataset))
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "penchant", "train-value", str(path), *options],
        cwd=ROOT,
        env={**ENVIRONMENT, "FORCE_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    shown_text = ""
    deadline = time.monotonic() + 200
    while "epoch 2" not in shown_text:
        assert process.poll() is None and time.monotonic() < deadline, shown_text
        shown_text += process.stdout.read(200)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in rest
    assert "Interrupted: no value model was written" in rest
    assert {p.name: p.read_bytes() for p in (path / "value").iterdir()} == before
