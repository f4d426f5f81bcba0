"""The loop itself: when it stops, what it validates, and that it survives odd batches."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import TowerConfig
from model.errors import ConfigError
from model.towers import TwoTower
from tests.training.tiny import TINY, Silent, interactions, run_of
from training.config import RunConfig, run_from_json, run_to_json
from training.dataset import Interactions
from training.distributed import join
from training.loop import Diverged, Progress, make_optimizer, train
from training.recipes import RECIPES, find_recipe
from training.run import start_run

DATA = interactions([3, 5, 4, 8, 6, 9, 3, 7], num_items=30)


class Trial:
    """Trains on DATA with validation scores that a test dictates; keeps what was saved."""

    def __init__(self, config: RunConfig, scores: list[float], data: Interactions = DATA) -> None:
        tower = config.tower(
            num_items=data.num_items,
            num_events=2,
            item_features=(),
            profile_features=(),
            has_order=True,
            has_times=True,
        )
        run = run_of(tower, data, config=config)
        torch.manual_seed(config.seed)
        self.model = TwoTower(tower)
        self.reporter, self.saved = Silent(), list[tuple[int, bool]]()
        self._scores = iter(scores)
        self.progress = train(
            self.model,
            data,
            run.items,
            config,
            profiles={},
            popularity=data.popularity().astype(np.float64),
            rank=join("cpu"),
            validate=lambda model: {"ndcg@10": next(self._scores)},
            save=self._save,
            report=self.reporter,
            progress=Progress(),
            optimizer=make_optimizer(self.model, config),
        )

    def _save(
        self,
        weights: Mapping[str, Tensor],
        moments: dict[str, Tensor],
        progress: Progress,
        is_best: bool,
    ) -> None:
        assert set(weights) == set(self.model.state_dict())
        learned = {name for name, _ in self.model.named_parameters()}
        assert {name.split(".", 2)[2] for name in moments} == learned < set(weights)
        self.saved.append((progress.epoch, is_best))


CONFIG = replace(TINY, epochs=9, patience=2)


def test_it_stops_when_validation_is_no_longer_better() -> None:
    trial = Trial(CONFIG, [0.1, 0.3, 0.3, 0.2, 9.9])
    # Best at epoch 2; epochs 3 and 4 are not better, an equal score among them: stop before 5.
    assert (trial.progress.epoch, trial.progress.best_epoch) == (4, 2)
    assert trial.progress.best_score == 0.3
    assert trial.saved == [(1, True), (2, True), (3, False), (4, False)]
    assert len(trial.progress.losses) == 4


def test_patience_counts_validations_not_epochs() -> None:
    trial = Trial(replace(CONFIG, evaluate_every=3, epochs=20), [0.5, 0.4, 0.3])
    # Validated after 3, 6 and 9; the second without a better score is the one after 9.
    assert (trial.progress.epoch, trial.progress.best_epoch) == (9, 3)
    assert [m is not None for m in trial.reporter.metrics] == [False, False, True] * 3


def test_it_ends_with_its_epochs_and_validates_the_last() -> None:
    trial = Trial(replace(CONFIG, evaluate_every=2, epochs=3), [0.5, 0.6])
    assert trial.saved == [(1, False), (2, True), (3, True)]


def test_a_run_out_of_minutes_is_validated_so_that_it_has_best_weights() -> None:
    trial = Trial(replace(CONFIG, evaluate_every=5, max_minutes=1e-9), [0.5])
    assert trial.saved == [(1, True)]
    assert trial.progress.seconds > 0


def test_steps_are_reported_as_shares_of_the_epoch() -> None:
    trial = Trial(replace(CONFIG, epochs=2, batch_tokens=16), [0.1, 0.2])
    per_epoch = len(trial.reporter.steps) // 2
    assert per_epoch >= 2 and trial.progress.step == 2 * per_epoch
    assert [done for done, _ in trial.reporter.steps[:per_epoch]] == [
        pytest.approx((i + 1) / per_epoch) for i in range(per_epoch)
    ]
    # The epoch's loss is what its last step reported: the mean over all its tokens.
    assert trial.reporter.steps[-1][1] == trial.progress.losses[-1]


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_a_seed_repeats_and_another_differs(loss: Any) -> None:
    config = replace(CONFIG, epochs=2, loss=loss, dropout=0.3)
    first, again = Trial(config, [0.1, 0.2]), Trial(config, [0.1, 0.2])
    assert first.progress.losses == again.progress.losses
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    other = Trial(replace(config, seed=18), [0.1, 0.2])
    assert other.progress.losses != first.progress.losses


def test_it_learns() -> None:
    # Everyone goes round the same circle of 12 items, so the next item is certain.
    data = interactions([12] * 20, num_items=12, seed=2)
    circle = np.concatenate([(np.arange(12) + u) % 12 for u in range(20)]).astype(np.int32)
    config = replace(CONFIG, loss="full", epochs=40, patience=40, dropout=0.0, learning_rate=1e-2)
    trial = Trial(config, [0.1] * 40, replace(data, items=circle))
    # The first event of a history stays a guess among 12: of 12 targets one costs ln 12 = 2.48.
    assert trial.progress.losses[0] > 1.5 and trial.progress.losses[-1] < 0.6


def test_large_catalogues_are_updated_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, epochs=6, patience=6, loss="sampled", num_uniform=4, num_in_batch=2)
    dense = Trial(config, [0.1] * 6)
    assert not dense.model.item_tower.sparse_ids
    monkeypatch.setattr("training.loop.ROW_WISE_FROM", DATA.num_items)
    rows = Trial(config, [0.1] * 6)
    assert rows.model.item_tower.sparse_ids
    # What an untouched row's old momentum would have moved it is all that differs.
    assert rows.progress.losses == pytest.approx(dense.progress.losses, rel=0.01)
    assert not Trial(replace(config, loss="full"), [0.1] * 6).model.item_tower.sparse_ids


def test_a_batch_in_which_nothing_counts_harms_nothing() -> None:
    weightless = replace(DATA, weights=np.zeros_like(DATA.weights))
    trial = Trial(replace(CONFIG, epochs=1), [0.1], weightless)
    assert trial.progress.losses == [0.0]
    assert all(torch.isfinite(value).all() for value in trial.model.state_dict().values())


def test_every_recipe_is_a_whole_config() -> None:
    for name in RECIPES:
        config = find_recipe(name)
        assert config.recipe == name and run_from_json(run_to_json(config)) == config
    with pytest.raises(ConfigError, match="no recipe is called 'demmo'; there are: default, demo"):
        find_recipe("demmo")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": -1}, "seed = -1 is not allowed; allowed: 0 to"),
        ({"epochs": 0}, "epochs = 0 is not allowed; allowed: 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 is not allowed; allowed: above 0"),
        ({"logq_correction": 1.5}, "logq_correction = 1.5 is not allowed; allowed: 0 to 1"),
        ({"num_uniform": 0, "num_in_batch": 0}, "a loss needs negatives"),
        ({"num_in_batch": -1}, "num_in_batch = -1"),
        ({"reader": "set"}, "reader = 'set' is not allowed; allowed: sequence or bag"),
        ({"reader": "bag", "objectives": ("direct",)}, "objectives = 'direct' is not allowed"),
        ({"event_heads": True, "objectives": ("direct",)}, "event_heads = True is not allowed"),
        ({"new_item_share": 1.0}, "new_item_share = 1.0 is not allowed; allowed: 0 to below 1"),
        ({"other_weight": -0.5}, "other_weight = -0.5 is not allowed; allowed: 0 or more"),
        ({"other_weight": float("inf")}, "other_weight = inf is not allowed; allowed: 100 or"),
        ({"other_weight": 0.5, "objectives": ("direct",)}, "other_weight = 0.5 is not allowed"),
    ],
)
def test_a_run_config_that_is_not_allowed_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        RunConfig(**changes)
    with pytest.raises(ConfigError, match="unknown field 'epoch'"):
        run_from_json({"epoch": 3})


def test_a_tower_without_content_hides_no_ids() -> None:
    tower = replace(TINY, id_dropout=0.5, content=False).tower(
        num_items=3,
        num_events=1,
        item_features=(),
        profile_features=(),
        has_order=True,
        has_times=True,
    )
    assert isinstance(tower, TowerConfig) and tower.id_dropout == 0
    assert RunConfig(full_softmax_items=10).uses_full_softmax(10)
    assert not RunConfig(full_softmax_items=10).uses_full_softmax(11)
    assert RunConfig(loss="full", full_softmax_items=1).uses_full_softmax(11)


def test_small_datasets_get_small_batches() -> None:
    config = RunConfig(batch_tokens=1000, min_steps_per_epoch=10)
    # A tenth of the dataset, but no less than 64 tokens and no more than batch_tokens.
    sizes = {n: config.batch_tokens_for(n) for n in (100, 5000, 99_999)}
    assert sizes == {100: 64, 5000: 500, 99_999: 1000}
    assert replace(config, batch_tokens=16).batch_tokens_for(100) == 16
    assert replace(config, min_steps_per_epoch=0).batch_tokens_for(900) == 900


def test_a_diverging_run_stops_with_a_clear_error(world: Path, tmp_path: Path) -> None:
    wild = replace(TINY, learning_rate=1e30, clip_norm=1e30, warmup_steps=0)
    with pytest.raises(Diverged, match="lower learning_rate"):
        start_run(world, tmp_path / "run", wild, rank=join("cpu"), reporter=Silent())
