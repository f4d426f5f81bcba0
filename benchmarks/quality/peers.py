"""Hands a run's split to peers that live in another Python, and ranks by the lists they return.

Knows files of events and lists; no peer by name.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from training.dataset import Interactions
from training.ranking import fill, popularity_order
from training.run import Run

Int64 = npt.NDArray[np.int64]

KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""What training/memory.py asks of glibc, for the peers too."""


@dataclass(frozen=True)
class ListRanker:
    """A peer, known by its lists. What a list lacks, popularity fills."""

    name: str
    lists: Int64
    """[Q, 50] item rows, best first, -1 where nothing is left."""
    place: Int64
    """[U] each user's list, -1 for none."""
    order: Int64
    """All item rows, the most popular first."""

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """The k best item rows of each user; see Ranker.top."""
        rows = np.where(self.place[users, np.newaxis] >= 0, self.lists[self.place[users], :k], -1)
        return fill(rows, self.order, excluded=excluded)


def write_split(
    run: Run, folder: Path, *, minutes: float, batch_size: int, num_negatives: int = 256
) -> None:
    """What a peer may see: training events, validation targets, and the histories of test."""
    folder.mkdir(parents=True, exist_ok=True)
    validation = run.split.questions("validation", seen=run.config.seen)
    test = run.split.questions("test", seen=run.config.seen)
    np.savez(
        folder / "split.npz",
        train=_events(run.split.training),
        validation=np.stack([validation.users[validation.owners], validation.targets], axis=1),
        histories=_events(test.histories),
        users=test.users,
    )
    config = run.config
    settings = {
        "minutes": minutes,
        "batch_size": batch_size,
        "validation_users": config.validation_users,
        "evaluate_every": 1,
        "patience": config.patience * config.evaluate_every,
        "threads": torch.get_num_threads(),
        "num_negatives": num_negatives,
        **{
            name: getattr(config, name)
            for name in ("seed", "dim", "num_layers", "num_heads", "max_history", "dropout")
        },
        "learning_rate": 1e-3,
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1))


def run_peer(python: str, folder: Path, model: str) -> None:
    """Train a peer and let it write its lists, where it has not."""
    if not (folder / f"lists-{model}.npz").exists():
        script = Path(__file__).with_name("rectools_peers.py")
        command = [python, str(script), str(folder), "--model", model]
        subprocess.run(command, check=True, env=os.environ | KEEP_FREED_MEMORY)


def read_log(folder: Path, model: str) -> list[dict[str, float]]:
    """A peer's validations: epoch, minutes, hr@10, ndcg@10."""
    log: list[dict[str, float]] = json.loads((folder / f"{model}.json").read_text())
    return log


def speed_of_sasrec(python: str, folder: Path, loss: str, seconds: float) -> float:
    """Real tokens a second of RecTools' SASRec with this loss."""
    script = Path(__file__).with_name("rectools_speed.py")
    command = [python, str(script), str(folder), "--loss", loss, "--seconds", str(seconds)]
    environment = os.environ | KEEP_FREED_MEMORY
    out = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout
    found = json.loads(out.strip().splitlines()[-1])
    return float(found["tokens"] / found["seconds"])


def read_peer(folder: Path, model: str, training: Interactions, *, name: str) -> ListRanker:
    """The peer's lists as a ranker."""
    found = np.load(folder / f"lists-{model}.npz")
    place = np.full(training.num_users, -1)
    place[found["users"]] = np.arange(len(found["users"]))
    return ListRanker(name, found["items"], place, popularity_order(training))


def _events(data: Interactions) -> Int64:
    """[E, 3]: user, item, place of every event."""
    place = np.arange(len(data.items)) - np.repeat(data.starts[:-1], data.lengths)
    return np.stack([data.owners, data.items.astype(np.int64), place], axis=1)
