"""Bags: each token's sum, what it leaves out, and that what is learned is what is read."""

import numpy as np
import pytest
import torch

from model.bag import BagLayout
from model.config import TowerConfig
from model.towers import TwoTower
from tests.model.reference import plain_bag, randomise
from tests.training.tiny import interactions
from training.batches import training_batch, training_windows, user_tokens
from training.user_states import encode_users, read_states

CONFIG = TowerConfig(
    num_items=9,
    num_events=3,
    reader="bag",
    has_order=False,
    has_times=False,
    dim=8,
    max_history=7,
    dropout=0.0,
    id_dropout=0.0,
)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_event_is_told_from_all_others_but_those_on_its_item(dropout: float) -> None:
    """Nine items and up to fourteen events a user, so that many items come twice in a window."""
    model = randomise(TwoTower(CONFIG), seed=1).double()
    assert model.user_tower.bag is not None
    data = interactions([1, 2, 5, 8, 14], num_items=9, num_events=3, seed=3)
    windows = training_windows(data.starts, max_history=CONFIG.max_history)
    batch = training_batch(
        data,
        windows,
        max_history=CONFIG.max_history,
        num_items=9,
        sampler=None,
        correction=0.0,
        rng=np.random.default_rng(1),
        reader="bag",
    )
    rng = np.random.default_rng(2)
    vectors = torch.from_numpy(rng.normal(size=(9, 8))).requires_grad_()
    kept = torch.ones(len(batch.tokens))
    if dropout:
        model.user_tower.bag.dropout = dropout
        model.train()
        torch.manual_seed(7)
        kept = (torch.rand(len(batch.tokens), 1, dtype=torch.float64) >= dropout).squeeze(1)
        kept = kept / (1 - dropout)
        torch.manual_seed(7)
    found = read_states(model, vectors, batch, {}).states
    expected, repeated = [], 0
    for token, target in enumerate(batch.targets.tolist()):
        own = (batch.owners == batch.owners[token]) & (batch.events > 0)
        left = own & (batch.tokens != target)
        repeated += int((own & ~left).sum()) > 1
        # A dropped event adds nothing and still counts.
        history = vectors[batch.tokens[left]] * kept[left].unsqueeze(1)
        expected.append(plain_bag(model, history, batch.events[left]))
    assert 3 < repeated < len(expected) - 3
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    weight = torch.from_numpy(rng.normal(size=found.shape))
    learned = [vectors, model.user_tower.start, model.user_tower.bag.kinds]
    mine = torch.autograd.grad((found * weight).sum(), learned)
    theirs = torch.autograd.grad((torch.stack(expected) * weight).sum(), learned)
    for got, want in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_an_item_that_no_window_holds_leaves_nothing_out() -> None:
    """A target's item need not be in its window, and a start token is in no group of an item."""
    data = interactions([1, 4, 4], num_items=40, num_events=3, seed=5)
    windows = training_windows(data.starts, max_history=7)
    batch = training_batch(
        data,
        windows,
        max_history=7,
        num_items=40,
        sampler=None,
        correction=0.0,
        rng=np.random.default_rng(1),
        reader="bag",
    )
    layout = batch.layout
    assert isinstance(layout, BagLayout)
    for token, target in enumerate(batch.targets.tolist()):
        own = (batch.owners == batch.owners[token]) & (batch.tokens == target)
        group = int(layout.left_out[token])
        assert (group >= 0) == bool(own.any())
        if group >= 0:
            assert ((layout.groups == group) == own).all()
            assert layout.sizes[group] == own.sum()


def test_the_order_of_a_history_changes_nothing() -> None:
    model = randomise(TwoTower(CONFIG), seed=2)
    data = interactions([6], num_items=9, num_events=3, seed=4)
    turned = interactions([6], num_items=9, num_events=3, seed=4)
    turned.items[:], turned.events[:] = data.items[::-1].copy(), data.events[::-1].copy()
    vectors = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32))
    users, idle = np.array([0]), np.zeros(1, np.float32)
    (_, before), (_, after) = (
        next(encode_users(model, vectors, given, users, idle, profiles={}))
        for given in (data, turned)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert len(user_tokens(data, users, idle, max_history=7, reader="bag").tokens) == 7
