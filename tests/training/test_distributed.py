"""Two gloo processes learn what one does."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.errors import ConfigError
from tests.training.tiny import TINY, Silent
from training.checkpoint import load_checkpoint
from training.config import run_to_json
from training.distributed import Rank, join
from training.run import LAST, start_run

ROOT = Path(__file__).resolve().parents[2]


def test_one_process_is_alone() -> None:
    rank = join("cpu")
    assert rank == Rank(0, 1, torch.device("cpu")) and rank.leads
    assert rank.total(torch.tensor(3.0)).item() == 3 and rank.agree(True) and not rank.agree(False)
    rank.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ConfigError, match="torch finds no CUDA device; use cpu or auto"):
        join("cuda")


def test_two_processes_learn_what_one_does(world: Path, tmp_path: Path) -> None:
    # Nothing random but what all share: no dropout, and the whole catalogue as negatives. Few
    # steps: float32 sums in another order drift apart, and Adam makes much of little.
    config = replace(
        TINY, dropout=0.0, id_dropout=0.0, loss="full", epochs=2, learning_rate=1e-3, max_history=5
    )
    start_run(world, tmp_path / "one", config, rank=join("cpu"), reporter=Silent())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = [str(Path(__file__).parent / "train_with.py"), str(world), str(tmp_path / "two")]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", *script, json.dumps(run_to_json(config))],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    one, alone = load_checkpoint(tmp_path / "one" / LAST)
    two, together = load_checkpoint(tmp_path / "two" / LAST)
    assert alone["progress"]["step"] == together["progress"]["step"] >= 4
    assert alone["progress"]["losses"] == pytest.approx(together["progress"]["losses"], abs=1e-4)
    assert alone["progress"]["losses"][1] < alone["progress"]["losses"][0]
    weights = [name for name in one if not name.startswith("optimizer.")]
    assert weights and set(one) == set(two)
    for name in weights:
        gap = (one[name] - two[name]).abs()
        if name.endswith("qkv.bias"):
            # A key's bias moves all scores of a query alike: its gradient is rounding noise, which
            # Adam blows up to steps of full size.
            query, _, value = gap.chunk(3)
            gap = torch.cat([query, value])
        assert gap.max() < 1e-4, name
