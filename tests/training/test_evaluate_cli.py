"""The evaluate command on real runs: files, tables, comparison, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from model.errors import ConfigError
from tests.training.conftest import Trained
from tests.training.tiny import TINY, Silent
from training.baselines import BASELINES
from training.cli import app
from training.distributed import join
from training.run import open_run, start_run


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], catch_exceptions=False
    )


@pytest.fixture(scope="module")
def by_time(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a split by time that asks for orders, and for what was seen too."""
    path = tmp_path_factory.mktemp("by-time") / "run"
    config = replace(TINY, split="time", holdout_days=1.0, seen="converted", epochs=1)
    start_run(world, path, config, rank=join("cpu"), reporter=Silent())
    return path


def test_every_baseline_stands_beside_the_towers(by_time: Path) -> None:
    done = invoke("evaluate", by_time, "--k", 5, "--k", 20)
    assert done.exit_code == 0, done.output
    result = json.loads((by_time / "test.json").read_text())
    assert list(result["metrics"]) == ["towers", *BASELINES]
    assert not result["protocol"]["not_allowed"]
    protocol = result["protocol"]
    assert (protocol["split"], protocol["seen"], protocol["ks"]) == ("time", "converted", [5, 20])
    assert protocol["num_targets"] > protocol["num_users"] > 10
    assert set(result["differences"]) == set(BASELINES)
    assert "unseen" in result["buckets"]["towers"]
    users = pl.read_parquet(by_time / "test.parquet")
    assert len(users) == protocol["num_users"] and users["user_id"].is_unique().all()
    assert users["towers/recall@20"].mean() == pytest.approx(
        result["metrics"]["towers"]["recall@20"]
    )
    assert "<svg" in (by_time / "test.html").read_text()
    for name in result["metrics"]:
        assert name in done.output


def test_what_a_run_asks_for_is_what_it_never_learned(by_time: Path) -> None:
    run = open_run(by_time)
    learned = run.split.training.times.max()
    assert learned < run.data.times[run.split.asked["validation"]].min()
    assert run.data.times[run.split.asked["validation"]].max() < run.split.moments["test"]
    assert run.data.times[run.split.asked["test"]].min() >= run.split.moments["test"]
    codes = run.items.id_codes.numpy()
    assert ((codes > 0) == (run.split.training.popularity() > 0)).all()


def test_runs_are_compared_once_both_are_evaluated(
    trained: Trained, by_time: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"validation\.json is not there"):
        invoke("evaluate", "--compare", by_time, trained.path, "--part", "validation")
    for path in (by_time, trained.path):
        invoke("evaluate", path, "--part", "validation", "--baseline", "none")
    with pytest.raises(ConfigError, match=r"split = 'time' and .* has 'leave-one-out'"):
        invoke("evaluate", "--compare", by_time, trained.path, "--part", "validation")
    same = invoke("evaluate", "--compare", by_time, by_time, "--part", "validation")
    assert same.exit_code == 0 and "no clear difference" in same.output


def test_runs_of_two_seeds_are_compared(trained: Trained, world: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = replace(TINY, seed=5, epochs=1)
    start_run(world, other, config, rank=join("cpu"), reporter=Silent())
    for path in (other, trained.path):
        page = tmp_path / "pages" / f"{path.name}.html"
        done = invoke("evaluate", path, "--baseline", "none", "--sample", 12, "--html", page)
        assert done.exit_code == 0 and "12 of 21 users" in done.output and page.exists()
    compared = invoke("evaluate", "--compare", other, trained.path)
    assert compared.exit_code == 0 and "discovery@10" in compared.output


def test_wrong_arguments_say_what_to_do(by_time: Path) -> None:
    with pytest.raises(ConfigError, match=r"no baseline is called 'bm25'; there are: popularity"):
        invoke("evaluate", by_time, "--baseline", "bm25")
    with pytest.raises(ConfigError, match=r"--k"):
        invoke("evaluate", by_time, "--k", 0)
    with pytest.raises(ConfigError, match=r"--sample"):
        invoke("evaluate", by_time, "--sample", 0)
    with pytest.raises(ConfigError, match=r"name one, or two with --compare"):
        invoke("evaluate", by_time, by_time)
    with pytest.raises(ConfigError, match=r"--compare takes two runs, and 1 were named"):
        invoke("evaluate", "--compare", by_time)
