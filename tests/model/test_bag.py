"""Bags: what each event is told from, and that what is learned is what is read."""

import numpy as np
import pytest
import torch

from model.config import TowerConfig
from model.towers import TwoTower
from tests.model.reference import plain_bag, randomise
from tests.training.tiny import interactions, whole_batch
from training.batches import Batch
from training.dataset import Interactions
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


def batch_of(data: Interactions) -> Batch:
    """All windows of all users."""
    return whole_batch(data, max_history=CONFIG.max_history, reader="bag")


def windows_of(data: Interactions) -> list[tuple[int, slice]]:
    """The user and the events of each window: the newest holds max_history + 1, as do all but the
    oldest, and neighbours share one event."""
    found = []
    for user, (begin, end) in enumerate(zip(data.starts[:-1], data.starts[1:], strict=True)):
        while end > begin:
            found.append((user, slice(max(begin, end - CONFIG.max_history - 1), end)))
            end -= CONFIG.max_history
            if end - begin <= 1:  # its first event was in the window before
                break
    return found


def test_each_event_is_told_once_and_the_empty_history_tells_what_users_begin_with() -> None:
    data = interactions([1, 2, 5, 8, 9, 14, 15, 16], num_items=30, num_events=3, seed=2)
    batch = batch_of(data)
    users = batch.users[batch.owners].numpy()
    starts = batch.events.numpy() == 0
    for user in range(8):
        mine = np.flatnonzero((users == user) & ~starts & (batch.weights.numpy() > 0))
        told = slice(data.starts[user], data.starts[user + 1])
        assert sorted(batch.targets[mine].tolist()) == sorted(data.items[told].tolist())
        begun = np.flatnonzero((users == user) & starts & (batch.weights.numpy() > 0))
        assert batch.targets[begun].tolist() == [data.items[told.start]]
    # An event's target is its own item.
    assert torch.equal(batch.targets[~starts], batch.tokens[~starts])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_event_is_told_from_all_others_of_its_window_but_those_on_its_item(
    dropout: float,
) -> None:
    """Nine items and up to fourteen events a user, so that many items come twice in a window."""
    model = randomise(TwoTower(CONFIG), seed=1).double()
    assert model.user_tower.bag is not None
    data = interactions([1, 2, 5, 8, 14], num_items=9, num_events=3, seed=3)
    batch = batch_of(data)
    rng = np.random.default_rng(2)
    vectors = torch.from_numpy(rng.normal(size=(9, 8))).requires_grad_()
    kept = torch.ones(len(batch.tokens), dtype=torch.float64)
    if dropout:
        model.user_tower.bag.dropout = dropout
        model.train()
        torch.manual_seed(7)
        kept = (torch.rand(len(batch.tokens), 1, dtype=torch.float64) >= dropout).squeeze(1)
        kept = kept / (1 - dropout)
        torch.manual_seed(7)
    found = read_states(model, vectors, batch, {}).states
    # Every window, from the data alone, in the order in which the batch has them.
    windows = sorted(windows_of(data), key=lambda w: w[1].start - w[1].stop)
    expected: list[torch.Tensor] = []
    repeated = token = 0
    for _, window in windows:
        items, events = data.items[window].astype(np.int64), data.events[window].astype(np.int64)
        expected.append(model.user_tower.start)
        own = kept[token + 1 : token + 1 + len(items)]
        for item in items:
            left = np.flatnonzero(items != item)
            repeated += len(left) < len(items) - 1
            # A dropped event adds nothing and still counts.
            history = vectors[items[left]] * own[left].unsqueeze(1)
            expected.append(plain_bag(model, history, torch.from_numpy(events[left])))
        token += len(items) + 1
    assert 3 < repeated < len(expected) - 3
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    weight = torch.from_numpy(rng.normal(size=found.shape))
    learned = [vectors, model.user_tower.start, model.user_tower.bag.kinds]
    mine = torch.autograd.grad((found * weight).sum(), learned)
    theirs = torch.autograd.grad((torch.stack(expected) * weight).sum(), learned)
    for got, want in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_the_order_of_a_history_changes_nothing() -> None:
    model = randomise(TwoTower(CONFIG), seed=2)
    data = interactions([6], num_items=9, num_events=3, seed=4)
    turned = interactions([6], num_items=9, num_events=3, seed=4)
    turned.items[:], turned.events[:] = data.items[::-1].copy(), data.events[::-1].copy()
    vectors = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32))
    users, idle = np.array([0]), np.zeros(1, np.float32)
    ((_, before),), ((_, after),) = (
        list(encode_users(model, vectors, given, users, idle, profiles={}))
        for given in (data, turned)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)
