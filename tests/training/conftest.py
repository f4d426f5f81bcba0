"""One tiny world, one run on it and one export of that run, for all tests that only read them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.training.contract import Dataset, good_dataset
from tests.training.tiny import TINY, Silent
from training.distributed import join
from training.export import ExportReport, export_run
from training.loop import Progress
from training.run import Run, load_best, open_run, start_run
from training.world.simulate import WorldConfig, simulate


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 46 people with a history, 210 events in them and 500 items."""
    out = tmp_path_factory.mktemp("tiny") / "world"
    simulate(WorldConfig(num_users=60, num_items=500, num_days=5), out)
    return out


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    path: Path
    progress: Progress
    reporter: Silent

    def open(self) -> Run:
        return open_run(self.path)


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path, reporter = tmp_path_factory.mktemp("trained") / "run", Silent()
    progress = start_run(world, path, TINY, rank=join("cpu"), reporter=reporter)
    return Trained(path, progress, reporter)


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    bundle: Path
    snapshot: Path
    report: ExportReport


@pytest.fixture(scope="session")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, run = tmp_path_factory.mktemp("exported"), trained.open()
    model, _ = load_best(run)
    bundle, snapshot = folder / "bundle", folder / "snapshot"
    return Exported(bundle, snapshot, export_run(run, model, bundle=bundle, snapshot=snapshot))


@pytest.fixture
def good(tmp_path: Path) -> Dataset:
    return good_dataset(tmp_path / "tiny")
