"""The weight of never-trained items: the share of lists that it gives them, by brute force."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.training.conftest import Trained
from training.new_items import FIRST, weigh_new_items, weight_for
from training.run import load_best
from training.splits import filtered
from training.tower_ranker import TowerRanker, item_vectors

Float32 = npt.NDArray[np.float32]


def scores(values: Any) -> Float32:
    """Each row falling."""
    falling: Float32 = -np.sort(-values.astype(np.float32), axis=1)
    return falling


def share_of_new(trained: Float32, new: Float32, weight: float) -> float:
    """How much of the best K of both is new, by sorting them together."""
    places = trained.shape[1]
    both = np.concatenate([trained, new * weight], axis=1)
    best = np.argsort(-both, axis=1, kind="stable")[:, :places]
    return float((best >= places).mean())


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6])
def test_the_weight_gives_new_items_their_share(share: float) -> None:
    rng = np.random.default_rng(int(share * 100))
    trained = scores(rng.uniform(0.4, 1.0, (200, 20)))
    new = scores(rng.uniform(0.2, 0.4, (200, 20)))
    assert share_of_new(trained, new, 1.0) < share
    weight = weight_for(trained, new, share)
    assert 1 < weight < 4
    assert share_of_new(trained, new, weight * 0.999) <= share + 0.005
    assert share_of_new(trained, new, weight * 1.001) >= share - 0.005


def test_new_items_that_have_their_share_are_left_alone() -> None:
    trained, new = scores(np.full((3, 4), 1.0)), scores(np.full((3, 4), 2.0))
    assert weight_for(trained, new, 0.5) == 1


def test_no_weight_lifts_what_scores_below_zero_or_is_not_there() -> None:
    trained = scores(np.full((2, 4), 1.0))
    for nothing in (-1.0, -np.inf):
        assert weight_for(trained, scores(np.full((2, 4), nothing)), 0.5) == 1
    # Where trained items run out, new ones need no weight.
    short = scores(np.array([[1.0, -np.inf, -np.inf, -np.inf]]))
    assert weight_for(short, scores(np.full((1, 4), 0.5)), 0.5) == 1
    # Nor where they are ahead, though below zero: a weight would take them back.
    below = scores(np.array([[-1.0, -2.0, -3.0, -4.0]]))
    assert weight_for(below, scores(np.full((1, 4), -0.5)), 0.5) == 1


def test_the_share_is_of_all_places_where_some_scores_lie_below_zero() -> None:
    rng = np.random.default_rng(5)
    trained = scores(rng.uniform(0.4, 1.0, (300, 20)))
    new = scores(rng.uniform(0.2, 0.39, (300, 20)))
    new[:, 10:] -= 1  # half of them no weight lifts
    weight = weight_for(trained, new, 0.25)
    assert share_of_new(trained, new, weight) == pytest.approx(0.25, abs=0.005)


def test_a_handful_of_new_items_has_the_share_of_itself_and_not_of_the_places() -> None:
    """Three new items cannot fill a quarter of fifty places, and are not to lead every list."""
    rng = np.random.default_rng(4)
    trained = scores(rng.uniform(0.4, 1.0, (300, 50)))
    few = np.full((300, 50), -np.inf)
    few[:, :3] = rng.uniform(0.2, 0.38, (300, 3))
    weight = weight_for(trained, scores(few), 0.25)
    assert 1 < weight < 2
    assert share_of_new(trained, scores(few), weight) == pytest.approx(0.25 * 3 / 50, abs=0.002)


def test_a_run_gives_its_new_items_the_share_it_names(trained: Trained) -> None:
    run = trained.open()
    model, _ = load_best(run)
    weight = model.item_tower.new_item_weight
    is_new = (run.items.id_codes == 0).numpy()

    def share() -> float:
        asked = run.split.questions("validation", seen=run.config.seen)
        ranker = TowerRanker(model, item_vectors(run.items, model), asked, profiles=run.profiles)
        gone = filtered(asked.histories, run.config.seen)
        left_out = [
            np.unique(gone.items[gone.starts[u] : gone.starts[u + 1]]).astype(np.int64)
            for u in asked.users
        ]
        found = ranker.find(asked.histories, asked.users, FIRST, excluded=left_out)
        return float(is_new[found.rows].mean())

    assert weight == 1  # the recipe names no share
    before = share()
    assert 0 < before < 0.8
    wanted = before + 0.1
    weigh_new_items(run, model, wanted)
    assert 1 < weight <= 4
    # Some scores of this small world are below zero, which no weight lifts.
    assert share() == pytest.approx(wanted, abs=0.05)
    for less in (before / 2, 0.0):
        weigh_new_items(run, model, less)
        assert weight == 1
