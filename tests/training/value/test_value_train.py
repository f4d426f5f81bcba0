"""From exposures to a value model, and what goes wrong on the way."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from model.config import ValueConfig, value_from_json, value_to_json
from model.encode import pad_histories
from model.errors import CheckpointError, ConfigError
from tests.training.tiny import TINY, Silent
from tests.training.value.conftest import CONFIG, Shown
from tests.training.value.shown import write_taste
from training.dataset import read_items_table
from training.distributed import join
from training.export import export_run
from training.run import BEST, load_best, open_run, start_run
from training.value.config import ValueRunConfig
from training.value.evaluate import evaluate_value
from training.value.exposures import ExposureLog, heads_of
from training.value.fit import fit_network, predict
from training.value.inputs import item_arrays, make_examples
from training.value.item_stats import PRIOR_TRIES, count_stats
from training.value.kin import kin_codes
from training.value.stored import REPORT, WEIGHTS, load_value
from training.value.train import network_config, train_value


def test_it_learns_what_the_users_click(shown: Shown) -> None:
    """Those who know the rule would reach an AUC of about 0.85 for clicks."""
    found = evaluate_value(shown.run, load_best(shown.run)[0], load_value(shown.run))
    click = found["heads"]["click"]
    assert click["value"]["auc"]["value"] > 0.75 and click["value"]["gauc"]["low"] > 0.7
    assert click["num_exposures"] == 120 * 15
    gap = abs(click["mean_probability"] - click["num_positives"] / click["num_exposures"])
    assert gap < 0.05
    for metric in ("auc", "gauc", "ndcg"):
        above = click["value_above"]["retrieval"][metric]
        assert above["low"] < above["value"] < above["high"]
    assert (found["part"], found["split"]) == ("test", "time")


def test_what_is_stored_is_what_was_trained(shown: Shown) -> None:
    stored, trained = load_value(shown.run), shown.report.value
    assert stored.config == trained.config == CONFIG
    assert [head.name for head in stored.heads] == ["click", "long_watch"]
    assert stored.heads[1].threshold == 30
    assert stored.network.config == trained.network.config
    for name, tensor in trained.network.state_dict().items():
        assert torch.equal(stored.network.state_dict()[name], tensor), name
    np.testing.assert_array_equal(stored.stats.values, trained.stats.values)
    body = json.loads((shown.run.path / REPORT).read_text())
    assert body["config"]["dim"] == 16 and body["network"]["max_history"] == 10
    parts = body["parts"]
    # Of 12 days, 3 are test, 3 validation, and a quarter of these chooses.
    assert parts["before"]["exposures"] == 120 * 5 * 6
    assert parts["fit"]["exposures"] + parts["choose"]["exposures"] == 120 * 5 * 3
    assert parts["choose"]["exposures"] == 120 * 5
    assert body["choosing_day"]["click"]["value"]["auc"] > 0.7
    assert 1 <= body["best_epoch"] <= len(body["losses"]) <= CONFIG.epochs
    config = ValueConfig(vector_dim=4, num_interests=1, num_events=1, heads=("a",), stats=("s",))
    assert value_from_json(json.loads(json.dumps(value_to_json(config)))) == config


def test_item_statistics_are_counted_before_what_is_fitted(shown: Shown) -> None:
    run = shown.run
    before = ExposureLog(run).read("before")
    training = run.split.training
    popularity = training.popularity()
    stats = count_stats(training, before)
    rates, events = ("rate.click", "rate.long_watch"), ("click", "watch", "order")
    assert stats.names == (
        *(*rates, "exposures", "popularity"),
        *(f"count.{name}" for name in events),
    )
    mean = before.labels[:, 0].mean()
    for row in (0, 17):
        mine = before.items == row
        rate = (before.labels[mine, 0].sum() + PRIOR_TRIES * mean) / (mine.sum() + PRIOR_TRIES)
        expected = [rate, np.log1p(mine.sum()), np.log1p(popularity[row])]
        np.testing.assert_allclose(stats.values[row, [0, 2, 3]], expected, rtol=1e-6)
        clicks = (training.items[training.events == 1] == row).sum()
        assert stats.values[row, 4] == pytest.approx(np.log1p(clicks))
    prior = [mean, before.labels[:, 1].mean(), 0, 0, 0, 0, 0]
    np.testing.assert_allclose(stats.prior, prior, rtol=1e-6)
    np.testing.assert_array_equal(stats.values, load_value(run).stats.values)
    # Whatever happens from the first fitted exposure on changes nothing.
    assert before.times.max() < ExposureLog(run).read("fit").times.min()


def test_the_same_seed_gives_the_same_model(shown: Shown) -> None:
    run, config = shown.run, replace(CONFIG, epochs=2)
    model, stats = load_best(run)[0], shown.report.value.stats
    items = item_arrays(run, model, stats)
    log = ExposureLog(run)
    kin = shown.report.value.network.config.kin
    assert kin == ("circle",)  # the dataset has no creators
    table = read_items_table(run.dataset)
    codes = kin_codes(table, kin, vectors=items.vectors.numpy(), seed=run.config.seed)
    fit, choose = (
        make_examples(run, model, log.read(p), items.vectors, kin=codes, created=None)
        for p in ("fit", "choose")
    )
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = shown.report.value.network.__class__(
            network_config(run, config, ("click", "long_watch"), stats, kin=kin, reads_age=False)
        )
        seeded = replace(config, seed=seed)
        fit_network(network, items, fit, choose, seeded, progress=lambda done, what: None)
        found.append(predict(network, items, choose, max_history=config.max_history))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_interests_and_scores_are_those_of_the_moment(shown: Shown) -> None:
    """A user's history at an exposure, given to the padded tower as a server would."""
    run, model = shown.run, load_best(shown.run)[0]
    items = item_arrays(run, model, shown.report.value.stats)
    examples = make_examples(
        run, model, ExposureLog(run).read("choose"), items.vectors, kin=(), created=None
    )
    exposures, data = examples.exposures, run.data
    for n in (0, 100, 333):
        row = exposures.rows[exposures.owners[n]]
        span = slice(data.starts[row], exposures.stops[n])
        assert (data.times[span] < exposures.times[n]).all()
        assert data.times[exposures.stops[n]] >= exposures.times[n] or (
            exposures.stops[n] == data.starts[row + 1]
        )
        batch = pad_histories(
            [data.items[span].astype(np.int64)],
            [data.events[span].astype(np.int64)],
            [data.times[span]],
            now=int(exposures.times[n]),
            max_history=run.tower.max_history,
        )
        history = items.vectors[torch.from_numpy(np.maximum(batch.rows, 0))]
        profile = {name: value[row : row + 1] for name, value in run.profiles.items()}
        arrays = (batch.events, batch.gaps, batch.mask, batch.idle, np.zeros(1, np.int64))
        with torch.no_grad():
            tensors = [torch.from_numpy(array) for array in arrays]
            interests = model.user_tower(history, *tensors, profile)[0].numpy()
        np.testing.assert_allclose(examples.interests[examples.moments[n]], interests, atol=1e-4)
        score = (interests @ items.vectors[exposures.items[n]].numpy()).max()
        assert examples.scores[n] == pytest.approx(score, abs=1e-3)


def test_a_value_model_of_other_towers_is_refused(shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(shown.run.path, path)
    start_run(
        shown.run.dataset,
        tmp_path / "other",
        replace(TINY, split="time", holdout_days=3, max_history=20, epochs=1, seed=5),
        rank=join("cpu"),
        reporter=Silent(),
    )
    shutil.copy(tmp_path / "other" / BEST, path / BEST)
    run = open_run(path, dataset=shown.run.dataset)
    with pytest.raises(ConfigError, match=r"trained further since\. Train it again"):
        export_run(run, load_best(run)[0], bundle=tmp_path / "b", snapshot=tmp_path / "s")
    assert not (tmp_path / "b").exists()


def test_the_test_part_is_labelled_for_the_heads_that_were_learned(
    shown: Shown, tmp_path: Path
) -> None:
    """dataset.toml was edited since: one head gone, another with a lower threshold."""
    dataset, path = tmp_path / "dataset", tmp_path / "run"
    shutil.copytree(shown.run.dataset, dataset)
    shutil.copytree(shown.run.path, path)
    run = open_run(path, dataset=dataset)
    value, model = load_value(run), load_best(run)[0]
    before = evaluate_value(run, model, value)
    text = (dataset / "dataset.toml").read_text()
    edited = text.replace('name = "click"', 'name = "tap"').replace("30.0", "3.0")
    assert edited.count("tap") == 1 and edited.count("threshold = 3.0") == 1
    (dataset / "dataset.toml").write_text(edited)
    run = open_run(path, dataset=dataset)
    assert [head.name for head in heads_of(run.data.schema)] == ["tap", "long_watch"]
    assert evaluate_value(run, model, value) == before


def test_each_exposure_event_is_judged_alone(shown: Shown, tmp_path: Path) -> None:
    """Every exposure that was clicked is called another event than the rest, here."""
    value, model = load_value(shown.run), load_best(shown.run)[0]
    before = evaluate_value(shown.run, model, value)
    assert before["shown_as"] == {}
    dataset = tmp_path / "dataset"
    shutil.copytree(shown.run.dataset, dataset)
    text = (dataset / "dataset.toml").read_text()
    declared = text.replace("[events]\n", '[events]\nrandom_show = { role = "exposure" }\n')
    assert declared != text
    (dataset / "dataset.toml").write_text(declared)
    part = dataset / "events/part-00000.parquet"
    events = pl.read_parquet(part)
    clicked = events.filter(pl.col("event") == "click")["exposure_id"].implode()
    is_random = (pl.col("event") == "show") & pl.col("exposure_id").is_in(clicked)
    name = pl.when(is_random).then(pl.lit("random_show")).otherwise("event")
    events.with_columns(event=name).write_parquet(part)
    found = evaluate_value(open_run(shown.run.path, dataset=dataset), model, value)
    assert found["heads"] == before["heads"]
    both = before["heads"]["click"]
    random, chosen = (found["shown_as"][way]["click"] for way in ("random_show", "show"))
    assert random["num_positives"] == random["num_exposures"] == both["num_positives"]
    assert chosen["num_positives"] == 0
    assert chosen["num_exposures"] == both["num_exposures"] - both["num_positives"]
    assert chosen["mean_probability"] < random["mean_probability"]


def test_damage_is_noticed(shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(shown.run.path, path)
    content = bytearray((path / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (path / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_value(open_run(path, dataset=shown.run.dataset))


def test_without_a_choosing_day_that_tells_all_epochs_are_trained(tmp_path: Path) -> None:
    """A window of a day and a half is over for some of what is fitted, and for none of the last
    day."""
    dataset = write_taste(tmp_path / "d", num_users=20)
    text = (dataset / "dataset.toml").read_text()
    only = text[: text.index("[[heads]]")]
    only += '[[heads]]\nname = "click"\nevent = "click"\nwindow_days = 1.5\n'
    (dataset / "dataset.toml").write_text(only)
    config = replace(TINY, split="time", holdout_days=3, epochs=1)
    start_run(dataset, tmp_path / "run", config, rank=join("cpu"), reporter=Silent())
    run = open_run(tmp_path / "run")
    report = train_value(run, load_best(run)[0], replace(CONFIG, epochs=6, patience=1))
    assert report.value.facts["best_epoch"] == len(report.value.facts["losses"]) == 6
    assert report.value.facts["parts"]["choose"]["known"] == {"click": 0}
    assert any("trained for all 6 epochs" in note for note in report.notes)
    assert report.choosing["click"].to_json()["value"]["auc"] is None


def test_heads_that_cannot_be_learned_are_left_out_and_named(tmp_path: Path) -> None:
    dataset = write_taste(tmp_path / "d", num_users=20)
    text = (dataset / "dataset.toml").read_text()
    more = '\n[[heads]]\nname = "hide"\nevent = "hide"\n'
    more += '\n[[heads]]\nname = "order"\nevent = "order"\nwindow_days = 7.0\n'
    (dataset / "dataset.toml").write_text(text + more)
    config = replace(TINY, split="time", holdout_days=3, epochs=1)
    start_run(dataset, tmp_path / "run", config, rank=join("cpu"), reporter=Silent())
    run = open_run(tmp_path / "run")
    report = train_value(run, load_best(run)[0], replace(CONFIG, epochs=1))
    assert [head.name for head in report.value.heads] == ["click", "long_watch"]
    said = " ".join(report.notes)
    assert "head 'hide' is left out: none of" in said
    assert "head 'order' is left out: its window of 7 days is over for no exposure" in said
    only = text[: text.index("[[heads]]")] + '[[heads]]\nname = "hide"\nevent = "hide"\n'
    (dataset / "dataset.toml").write_text(only)
    run = open_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"no head can be learned\. head 'hide' is left out"):
        train_value(run, load_best(run)[0], CONFIG)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("final_learning_rate", 2.0),
        ("max_history", 0),
        ("seed", -1),
        ("seed", 1 << 63),
    ],
)
def test_a_config_that_is_not_allowed_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} = "):
        replace(ValueRunConfig(), **{field: value})  # type: ignore[arg-type]
