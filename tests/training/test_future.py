"""Two objectives in one run and one bundle, on the tiny world."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from model.bundle import USER_TOWER, open_bundle
from model.errors import ConfigError
from tests.training.conftest import Trained
from tests.training.tiny import TINY, Silent
from training.attribution.attribute import attribute
from training.attribution.config import AttributionConfig
from training.attribution.log import read_log
from training.cli import app
from training.dataset import load_user_ids
from training.distributed import join
from training.export import export_run
from training.future import credit_weights, event_credit, objectives_of
from training.onnx_towers import run_user_tower
from training.run import Run, load_best, open_run, start_run
from training.tower_ranker import item_vectors

BOTH = replace(TINY, split="time", holdout_days=1.0, objectives=("interest", "direct"), epochs=4)


@pytest.fixture(scope="module")
def path(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("both") / "run"
    start_run(world, out, BOTH, rank=join("cpu"), reporter=Silent())
    return out


@pytest.fixture(scope="module")
def run(path: Path) -> Run:
    return open_run(path)


def test_both_heads_learn_and_answer_apart(run: Run, tmp_path: Path) -> None:
    model, progress = load_best(run)
    assert run.tower.objectives == ("interest", "direct")
    assert len(progress.losses) >= 1 and np.isfinite(progress.losses).all()
    heads = model.user_tower.heads
    assert heads is not None and (heads.flatten(1).abs().amax(1) > 0).all()
    report = export_run(run, model, bundle=tmp_path / "bundle", snapshot=tmp_path / "snapshot")
    assert report.user_tower_error < 1e-4  # of both heads
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.objectives == ("interest", "direct")
    session = onnxruntime.InferenceSession(str(bundle.path / USER_TOWER))
    vectors, users = item_vectors(run.items, model).numpy(), np.arange(5)
    found = [
        run_user_tower(session, run, vectors, users, np.zeros(5, np.float32), objective=code)
        for code in (0, 1)
    ]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_evaluation_reports_both(path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(path), "--baseline", "popularity"])
    assert done.exit_code == 0, done.output
    metrics = json.loads((path / "test.json").read_text())["metrics"]
    assert list(metrics) == ["towers", "towers, direct", "popularity"]


def test_a_run_learns_the_same_again(path: Path, world: Path, tmp_path: Path) -> None:
    again = start_run(world, tmp_path / "run", BOTH, rank=join("cpu"), reporter=Silent())
    _, best = load_best(open_run(path))
    assert again.losses[: len(best.losses)] == best.losses


def test_only_training_events_are_ahead(run: Run) -> None:
    objectives = objectives_of(run)
    assert objectives is not None
    data = run.split.training
    following = np.arange(len(data.items))
    for drawn in objectives.draw(following, np.random.default_rng(1)):
        assert drawn.targets.max() < len(data.items)
        assert (data.owners[drawn.targets] == data.owners).all()
        assert (drawn.targets >= following).all() and (drawn.weights > 0).any()


def test_repeats_are_nobodys_targets_where_they_are_not_learned(run: Run) -> None:
    first = replace(run, config=replace(run.config, learn_repeats=False))
    objectives, weights = objectives_of(first), first.targets.weights
    assert objectives is not None and (weights == 0).any()
    for drawn in objectives.draw(np.arange(len(weights)), np.random.default_rng(1)):
        assert (weights[drawn.targets[drawn.weights > 0]] > 0).all()


def test_credit_goes_to_the_engagement_that_came_before_the_order(run: Run) -> None:
    data = run.split.training
    end = int(data.times.max())
    config = AttributionConfig(model="last-touch")
    log = read_log(run.dataset, config, interactions=data, until=end + 1)
    found = attribute(log, config)
    credit = event_credit(found, data, load_user_ids(run.arrays))
    weight = data.schema.events["order"].weight
    engaged = log.episodes.depth[found.touches.episode] > 0
    assert credit.sum() == pytest.approx(weight * found.credit[engaged].sum()) and credit.sum() > 0
    # None of it is on an event after the user's last order.
    orders = pl.DataFrame({"user": log.users.gather(log.orders.user), "time": log.orders.time})
    last = dict(orders.group_by("user").agg(pl.col("time").max()).iter_rows())
    ids = load_user_ids(run.arrays)
    for place in np.flatnonzero(credit):
        assert data.times[place] < last[ids[data.owners[place]]]
    assert (log.orders.time <= end).all()


def test_credit_of_the_run_adds_no_more_than_its_orders(run: Run) -> None:
    data = run.split.training
    credit = credit_weights(run, end=int(data.times.max()))
    code = data.schema.history_events.index("order") + 1
    most = float((data.events == code).sum()) * data.schema.events["order"].weight
    assert (credit >= 0).all() and credit.sum() <= most


def test_no_objective_is_the_run_of_before(trained: Trained) -> None:
    run = trained.open()
    assert objectives_of(run) is None and run.tower.objectives == ("interest",)
    assert torch.equal(run.items.id_codes, trained.open().items.id_codes)


def test_objectives_need_a_split_by_time(world: Path, tmp_path: Path) -> None:
    config = replace(BOTH, split="leave-one-out")
    with pytest.raises(ConfigError, match="objectives = interest,direct is not allowed with the"):
        start_run(world, tmp_path / "run", config, rank=join("cpu"), reporter=Silent())


def test_the_command_names_objectives_that_are_not_there(world: Path, tmp_path: Path) -> None:
    arguments = ["train", str(world), "--out", str(tmp_path / "run"), "--objectives", "likes"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 0
    assert isinstance(done.exception, ConfigError)
    assert "each of interest, direct at most once" in str(done.exception)
