"""One small dataset of exposures with a run, its value model and its export."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.training.tiny import TINY, Silent
from tests.training.value.shown import write_taste
from training.distributed import join
from training.export import ExportReport, export_run
from training.run import Run, load_best, open_run, start_run
from training.value.config import ValueRunConfig
from training.value.train import ValueReport, train_value

CONFIG = ValueRunConfig(
    dim=16, max_history=10, hidden=(32, 16), epochs=12, learning_rate=5e-3, patience=4
)


@dataclass(frozen=True)
class Shown:
    """A run whose value model is trained."""

    run: Run
    report: ValueReport


@pytest.fixture(scope="session")
def taste(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_taste(tmp_path_factory.mktemp("taste") / "dataset")


@pytest.fixture(scope="session")
def towers(taste: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with towers alone."""
    path = tmp_path_factory.mktemp("towers") / "run"
    config = replace(TINY, split="time", holdout_days=3, max_history=20, epochs=3)
    start_run(taste, path, config, rank=join("cpu"), reporter=Silent())
    return path


@pytest.fixture(scope="session")
def shown(towers: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    path = tmp_path_factory.mktemp("shown") / "run"
    shutil.copytree(towers, path)
    run = open_run(path)
    return Shown(run, train_value(run, load_best(run)[0], CONFIG))


@dataclass(frozen=True)
class ExportedValue:
    """What an export of that run wrote."""

    bundle: Path
    report: ExportReport


@pytest.fixture(scope="session")
def exported_value(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> ExportedValue:
    folder = tmp_path_factory.mktemp("exported-value")
    bundle, model = folder / "bundle", load_best(shown.run)[0]
    report = export_run(shown.run, model, bundle=bundle, snapshot=folder / "snapshot")
    return ExportedValue(bundle, report)
