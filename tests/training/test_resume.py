"""`penchant train`, killed for real and resumed, ends where an uninterrupted run ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.checkpoint import load_checkpoint
from training.run import LAST

ROOT = Path(__file__).resolve().parents[2]


def command(world: Path, run: Path, *more: str) -> list[str]:
    arguments = ["train", str(world), "--out", str(run), "--recipe", "demo", "--device", "cpu"]
    return [sys.executable, "-m", "penchant", *arguments, *more]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def train(world: Path, run: Path, *more: str) -> str:
    done = subprocess.run(
        command(world, run, *more), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics(run: Path) -> dict[int, dict[str, float]]:
    """metrics.jsonl by epoch, without what a clock measured."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    clocks = ("minutes", "tokens_per_second")
    found = [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]
    return {int(line["epoch"]): line for line in found}


def test_a_killed_run_goes_on_as_if_nothing_had_happened(world: Path, tmp_path: Path) -> None:
    steady, killed = tmp_path / "steady", tmp_path / "killed"
    process = subprocess.Popen(
        command(world, killed), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 200
        while len(metrics(killed)) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    interrupted = load_checkpoint(killed / LAST)[1]["progress"]["epoch"]
    shown = train(world, steady)
    expected = metrics(steady)
    assert 2 <= interrupted < max(expected) == len(expected)
    assert " tokens/s" in shown and "best validation NDCG@10" in shown

    train(world, killed, "--resume")
    found = metrics(killed)
    assert max(found) == max(expected)
    # The line of an epoch that was saved a moment before the kill may be missing, no other.
    assert set(expected) - set(found) <= {interrupted}
    for epoch, line in found.items():
        assert line == expected[epoch], epoch
    mine, progress = load_checkpoint(killed / LAST)
    theirs, steadily = load_checkpoint(steady / LAST)
    for name in ("epoch", "step", "best_score", "best_epoch", "losses"):
        assert progress["progress"][name] == steadily["progress"][name], name
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    again = subprocess.run(
        command(world, killed), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert again.returncode == 2 and "holds a run already" in again.stderr


@pytest.mark.parametrize("recipe", ["nonsense"])
def test_an_unknown_recipe_is_refused(world: Path, tmp_path: Path, recipe: str) -> None:
    wrong = [*command(world, tmp_path / "run"), "--recipe", recipe]
    done = subprocess.run(wrong, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no recipe is called 'nonsense'; there are: default, demo, movielens" in done.stderr
    assert not (tmp_path / "run").exists()


def test_who_interrupts_a_run_is_told_how_to_go_on(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    given = command(world, run, "--set", "epochs=500", "--set", "dim=16")
    process = subprocess.Popen(
        given,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Of tests that run in the background, the child would inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 200
        while not metrics(run):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGINT)
        shown = " ".join(process.communicate(timeout=60)[0].split())
    assert "The last whole epoch is kept; go on with: penchant train" in shown
    assert f"--out '{run}'" in shown
    assert "--set epochs=500 --set dim=16 --resume" in shown
