"""The two losses of the value model, worked out by hand."""

import math

import numpy as np
import torch

from tests.training.tiny import interactions
from training.value.config import ValueRunConfig
from training.value.exposures import Exposures
from training.value.fit import loss_of
from training.value.inputs import ShownExamples
from training.value.losses import head_weights, log_losses, ranking_losses, same_user_pairs


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_log_loss_is_the_mean_over_what_is_known() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0], [3.0, 5.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    known = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    expected = [(softplus(0) + softplus(1)) / 2, (softplus(-2) + softplus(-1)) / 2]
    torch.testing.assert_close(log_losses(logits, labels, known), torch.tensor(expected))
    assert log_losses(logits, labels, torch.zeros_like(known)).tolist() == [0, 0]


def test_the_pairs_are_those_of_one_user_of_which_the_first_came_true() -> None:
    came_true = np.array([True, True, False, True])
    first, second, weights = same_user_pairs(np.array([7, 3, 7, 7]), came_true)
    found = dict(
        zip(zip(first.tolist(), second.tolist(), strict=True), weights.tolist(), strict=True)
    )
    sevens = {(i, j): 1 / 3 for i in (0, 3) for j in (0, 2, 3)}
    assert {pair: round(w, 6) for pair, w in found.items()} == {
        pair: round(w, 6) for pair, w in {**sevens, (1, 1): 1.0}.items()
    }


def test_the_ranking_loss_compares_one_users_exposures() -> None:
    """Of user 0 the first came true, the second did not, of the third it is not known; user 1 has
    one that came true and nothing to compare it with."""
    owners = np.array([0, 0, 1, 0])
    logits = torch.tensor([[1.0], [3.0], [9.0], [7.0]])
    labels = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    known = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    came_true = np.array([True, False, True, False])
    found = ranking_losses(logits, labels, known, same_user_pairs(owners, came_true))
    # One pair, its difference 1 - 3, with weight 1 of 3 exposures; four exposures in all.
    torch.testing.assert_close(found, torch.tensor([softplus(2) / 3 / 4]))
    # What is added to all of a user's logits changes nothing.
    shifted = logits + torch.tensor([[5.0], [5.0], [-2.0], [5.0]])
    again = ranking_losses(shifted, labels, known, same_user_pairs(owners, came_true))
    torch.testing.assert_close(again, found)


def test_a_loss_in_pieces_is_the_whole_one_where_no_user_is_cut() -> None:
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(8), 4)  # two users fill a piece of 8
    rng.shuffle(owners)
    labels, known = rng.random((32, 2)) < 0.5, rng.random((32, 2)) < 0.8
    nobody, nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
    exposures = Exposures(
        (), [], nobody, owners, owners, owners, owners, labels & known, known, (), owners
    )
    histories = interactions([1], num_items=2)
    examples = ShownExamples(
        exposures, histories, {}, nothing, nobody, nothing, nothing, None, None
    )
    logits = rng.normal(size=(32, 2)).astype(np.float32)
    weights = torch.tensor([1.0, 3.0])
    whole, pieces = (
        loss_of(logits, examples, weights, ValueRunConfig(batch_exposures=size)) for size in (32, 8)
    )
    np.testing.assert_allclose(pieces, whole, rtol=1e-6)
    alone = loss_of(logits, examples, weights, ValueRunConfig(ranking_weight=0))
    assert whole > alone > 0
    # Head by head: the second counts three times.
    first, second = (
        loss_of(logits, examples, torch.tensor(one), ValueRunConfig())
        for one in ([1.0, 0.0], [0.0, 1.0])
    )
    np.testing.assert_allclose(whole, first + 3 * second, rtol=1e-6)


def test_what_is_rare_counts_more() -> None:
    """Entropies in bits: of 1/2, 1; of 1/4 and 3/4, 2 - 3/4 × log2(3) = 0.811278."""
    rates = torch.tensor([0.25, 0.5, 0.75])
    assert head_weights(rates, 0.0).tolist() == [1, 1, 1]
    quarter = 2 - 0.75 * math.log2(3)
    for power in (0.5, 1.0):
        expected = [quarter**-power, 1, quarter**-power]
        torch.testing.assert_close(head_weights(rates, power), torch.tensor(expected))
