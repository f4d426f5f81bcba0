"""A bag from training to what is embedded with it, on a world that has order and times."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from model.bundle import Bundle, open_bundle
from model.snapshot import HISTORIES
from tests.training.conftest import Exported
from tests.training.tiny import TINY, Silent
from training.distributed import join
from training.embed import UserEmbedder
from training.export import export_run
from training.onnx_graphs import MAX_ERROR
from training.run import load_best, open_run, start_run

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def bag(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("bag")
    config = replace(TINY, reader="bag", event_heads=True, new_item_share=0.8, epochs=3, patience=3)
    progress = start_run(world, folder / "run", config, rank=join("cpu"), reporter=Silent())
    assert progress.losses[-1] < progress.losses[0]
    run = open_run(folder / "run")
    assert (run.tower.has_order, run.tower.has_times) == (False, False)
    assert run.data.schema.has_times
    model, _ = load_best(run)
    # The share that the config names was asked for at validation, and kept with the weights.
    assert model.item_tower.new_item_weight > 1
    bundle, snapshot = folder / "bundle", folder / "snapshot"
    return Exported(bundle, snapshot, export_run(run, model, bundle=bundle, snapshot=snapshot))


@pytest.fixture(scope="module")
def bundle(bag: Exported) -> Bundle:
    return open_bundle(bag.bundle)


def test_its_graph_reads_no_order_and_no_times(bag: Exported, bundle: Bundle) -> None:
    inputs = {name for name in bundle.user_tower_inputs if not name.startswith("profile.")}
    assert inputs == {"history", "events", "mask", "objective"}
    assert bag.report.user_tower_error < MAX_ERROR
    assert bag.report.item_tower_error < MAX_ERROR
    # A head for each event, the conversion first.
    assert bundle.objectives == ("order", "watch", "click", "like", "follow", "cart")


def test_later_events_count_for_nothing(bag: Exported, bundle: Bundle) -> None:
    """The events have times, though the graph has none."""
    assert bundle.manifest.as_of is not None
    histories = pq.read_table(bag.snapshot / HISTORIES)
    now = int(bundle.manifest.as_of.timestamp() * 1e6)
    counts = [
        UserEmbedder(bundle, now=moment)(histories)["num_events"].to_numpy().sum()
        for moment in (now, now - 2 * DAY, 0)
    ]
    assert counts[0] > counts[1] > counts[2] == 0


def test_objectives_rank_unlike(bag: Exported, bundle: Bundle) -> None:
    histories = pq.read_table(bag.snapshot / HISTORIES)
    now = int(bundle.manifest.as_of.timestamp() * 1e6) if bundle.manifest.as_of else 0
    order, watch = (
        UserEmbedder(bundle, now=now, objective=code)(histories)["interests"].to_pylist()
        for code in (0, 1)
    )
    assert order != watch
