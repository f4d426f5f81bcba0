"""Runs for the benchmarks of this folder: trained once by `penchant train`, then ranked with."""

import json
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from commands import PENCHANT, penchant
from results import ROOT, write_result
from serving_load import pinned

from model.merge import How
from model.towers import TwoTower
from training.dataset import Interactions
from training.new_items import weigh_new_items
from training.ranking import Ranker
from training.run import Run, load_best, open_run
from training.splits import Int64, Part, Questions
from training.tower_ranker import TowerRanker, item_vectors

__all__ = [
    "PENCHANT",
    "ROOT",
    "Named",
    "Trained",
    "imported",
    "penchant",
    "pinned",
    "trained",
    "write_result",
]
"""Some are of the modules beside this folder, which are found once this one is imported."""


@dataclass(frozen=True)
class Trained:
    """A run and its best weights."""

    run: Run
    model: TwoTower
    epochs: int
    minutes: float

    def questions(self, part: Part) -> Questions:
        """What the run's split asks."""
        return self.run.split.questions(part, seen=self.run.config.seen)

    def ranker(
        self,
        questions: Questions,
        name: str,
        *,
        new_item_share: float | None = None,
        how: How = "quota",
    ) -> "Named":
        """The towers under a name; new_item_share: another than they were trained with; how:
        interests are merged."""
        model = self.model
        if new_item_share is not None:
            model = deepcopy(model)
            weigh_new_items(self.run, model, new_item_share)
        vectors = item_vectors(self.run.items, model)
        profiles = self.run.profiles
        return Named(name, TowerRanker(model, vectors, questions, profiles=profiles, how=how))


@dataclass(frozen=True)
class Named:
    """A ranker under another name."""

    name: str
    ranker: Ranker

    def top(self, histories: Interactions, users: Int64, k: int, *, excluded: Any) -> Int64:
        """See Ranker.top."""
        return self.ranker.top(histories, users, k, excluded=excluded)


def imported(importer: str, source: Path, dataset: Path, *options: object) -> Path:
    """The dataset folder, made by `penchant import` where it is not there yet."""
    if not dataset.exists():
        penchant("import", importer, source, dataset, *options)
    return dataset


def trained(
    dataset: Path,
    folder: Path,
    recipe: str,
    settings: Mapping[str, object] | None = None,
    *options: object,
) -> Trained:
    """Train, or go on where an earlier call stopped, and open the best weights."""
    given = [
        word for name, value in (settings or {}).items() for word in ("--set", setting(name, value))
    ]
    resume = ["--resume"] if (folder / "checkpoints").exists() else []
    penchant("train", dataset, "--out", folder, "--recipe", recipe, *given, *options, *resume)
    run = open_run(folder)
    model, _ = load_best(run)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return Trained(run, model, last["epoch"], last["minutes"])


def setting(name: str, value: object) -> str:
    """`NAME=VALUE` as --set reads it."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"
