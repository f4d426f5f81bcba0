"""Training batches: what each token reads and predicts, held to model/encode.py row by row."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from model.encode import pad_histories
from tests.training.tiny import SECOND, interactions, schema
from training.batches import (
    Batch,
    Tokens,
    epoch_batches,
    shuffled,
    training_batch,
    training_windows,
    user_tokens,
)
from training.dataset import Interactions
from training.negatives import NegativeSampler

MAX_HISTORY = 6


def batch_of(
    data: Interactions, users: list[int], *, sampler: NegativeSampler | None = None
) -> Batch:
    """All windows of these users, in this order."""
    windows = training_windows(data.starts, max_history=MAX_HISTORY)
    chosen = np.concatenate([np.flatnonzero(windows.users == user) for user in users])
    return training_batch(
        data,
        windows[chosen],
        max_history=MAX_HISTORY,
        num_items=data.num_items,
        sampler=sampler,
        correction=0.5,
        rng=np.random.default_rng(1),
    )


def rows_of(batch: Tokens) -> list[int]:
    """The item row of every token, -1 for a start token."""
    rows = [*batch.item_rows.tolist(), -1]
    return [rows[token] for token in batch.tokens.tolist()]


def test_a_batch_by_hand() -> None:
    # User 0 did items 3, 1, 4 at 10, 15 and 15 seconds; user 1 item 2 alone.
    data = Interactions(
        schema(),
        np.array([0, 3, 4]),
        np.array([3, 1, 4, 2], np.int32),
        np.array([1, 2, 2, 1], np.int32),
        np.array([10, 15, 15, 99]) * SECOND,
        np.array([1, 2, 2, 1], np.float32),
        np.zeros(4, np.int8),
        num_items=5,
    )
    batch = batch_of(data, [1, 0])  # packed with the longest first
    assert batch.users.tolist() == [0, 1]
    assert batch.owners.tolist() == [0, 0, 0, 1]
    assert rows_of(batch) == [-1, 3, 1, -1]
    assert batch.targets.tolist() == [3, 1, 4, 2]
    assert batch.weights.tolist() == [1, 2, 2, 1]  # of the target's event
    assert batch.events.tolist() == [0, 1, 2, 0]
    assert batch.positions.tolist() == [-1, 4, 5, -1]  # the newest stands last: 6 - 1
    assert batch.gaps.tolist() == [0, 0, 5, 0]
    assert batch.idle.tolist() == [0, 5, 0, 0]
    assert batch.last.tolist() == [2, 3]
    # The full softmax: candidates are all items, and each row's own target is the hit.
    assert batch.candidates is None and batch.item_rows.tolist() == [0, 1, 2, 3, 4]
    assert batch.hits.tolist() == batch.targets.tolist()


@pytest.mark.parametrize("time", ["exact", "order"])
def test_every_token_reads_what_serving_would_have_read(time: str) -> None:
    """A token's inputs are those of pad_histories for the history up to it, at its target's time.

    Only the position differs: it is counted from the end of the window that training packs.
    """
    lengths = [1, 2, 3, 5, 6, 7, 8, 20, 1, 7]
    data = interactions(lengths, num_items=40, time="exact" if time == "exact" else "order")
    users = [9, 0, 7, 3, 5, 1, 2, 4, 6, 8]
    sampler = NegativeSampler(np.ones(40), num_uniform=5, num_in_batch=5, batch_tokens=40)
    batch = batch_of(data, users, sampler=sampler)
    rows, targets = rows_of(batch), batch.item_rows[batch.targets].tolist()
    learned: list[int] = []
    ends = {user: int(data.starts[user + 1]) - 1 for user in users}  # the last one: a target only
    for place, user in enumerate(batch.users.tolist()):
        tokens = np.flatnonzero(batch.owners.numpy() == place)
        first = int(data.starts[user])
        end, ends[user] = ends[user], ends[user] - MAX_HISTORY  # the newest window comes first
        begin = max(first, end - MAX_HISTORY)
        assert len(tokens) == end - begin + 1
        for step, token in enumerate(tokens):
            window = slice(begin, begin + step)
            padded = pad_histories(
                [data.items[window].astype(np.int64)],
                [data.events[window].astype(np.int64)],
                [data.times[window]] if time == "exact" else None,
                now=int(data.times[begin + step]),
                max_history=MAX_HISTORY,
            )
            assert targets[token] == data.items[begin + step]
            if step or begin == first:
                assert batch.weights[token] == data.weights[begin + step]
                learned.append(begin + step)
            else:  # a start token stands for no history, and here there is one
                assert batch.weights[token] == 0
            assert batch.idle[token] == padded.idle[0]
            if step:
                so_far = tokens[1 : step + 1]
                assert [rows[t] for t in so_far] == padded.rows[0].tolist()
                assert batch.events[so_far].tolist() == padded.events[0].tolist()
                assert batch.gaps[so_far].tolist() == padded.gaps[0].tolist()
        whole = np.arange(MAX_HISTORY - len(tokens) + 1, MAX_HISTORY)
        assert batch.positions[tokens].tolist() == [-1, *whole]
        assert rows[tokens[0]] == -1 and not batch.events[tokens[0]] and not batch.gaps[tokens[0]]
    assert sorted(learned) == list(range(len(data.items)))
    assert batch.gaps.any() == batch.idle.any() == (time == "exact")


def test_users_are_read_as_serving_reads_them() -> None:
    data = interactions([4, 0, 9, 1, 6], num_items=30)
    users, idle = np.array([4, 1, 0, 2, 3]), np.array([5, 0, 1e6, 7, 3], np.float32)
    tokens = user_tokens(data, users, idle, max_history=MAX_HISTORY)
    rows = rows_of(tokens)
    spans = [slice(data.starts[u], data.starts[u + 1]) for u in tokens.users]
    padded = pad_histories(
        [data.items[s].astype(np.int64) for s in spans],
        [data.events[s].astype(np.int64) for s in spans],
        [data.times[s] for s in spans],
        max_history=MAX_HISTORY,
    )
    for place, user in enumerate(tokens.users.tolist()):
        own = np.flatnonzero(tokens.owners.numpy() == place)
        real, history = padded.mask[place], own[1:]
        assert [rows[t] for t in history] == padded.rows[place][real].tolist()
        assert tokens.events[history].tolist() == padded.events[place][real].tolist()
        assert tokens.gaps[history].tolist() == padded.gaps[place][real].tolist()
        # Columns of the padded batch are places that count back from the newest.
        columns = MAX_HISTORY - padded.rows.shape[1] + np.flatnonzero(real)
        assert tokens.positions[history].tolist() == columns.tolist()
        assert tokens.last[place] == own[-1]
        assert tokens.idle[own[-1]] == idle[users.tolist().index(user)]


def test_sampled_candidates_hits_and_their_biases() -> None:
    data = interactions([9, 5, 3, 12], num_items=15, seed=4)
    sampler = NegativeSampler(
        1 + data.popularity().astype(np.float64), num_uniform=6, num_in_batch=4, batch_tokens=29
    )
    batch = batch_of(data, [0, 1, 2, 3], sampler=sampler)
    assert batch.candidates is not None
    items = batch.item_rows
    assert len(items.unique()) == len(items)
    candidates, targets = items[batch.candidates].tolist(), items[batch.targets].tolist()
    assert len(set(candidates)) == len(candidates)
    for target, hit in zip(targets, batch.hits.tolist(), strict=True):
        assert hit == (candidates.index(target) if target in candidates else -1)
    assert {hit >= 0 for hit in batch.hits.tolist()} == {True, False}
    log_q = torch.from_numpy(sampler.log_q)
    assert batch.positive_bias is not None and batch.candidate_bias is not None
    torch.testing.assert_close(batch.positive_bias, -0.5 * log_q[targets])
    torch.testing.assert_close(batch.candidate_bias, -0.5 * log_q[candidates])


@pytest.mark.parametrize("length", [0, 1, 6, 7, 8, 13, 14, 40])
def test_windows_hold_each_event_as_a_target_once(length: int) -> None:
    windows = training_windows(np.array([0, 3, 3 + length, 5 + length]), max_history=MAX_HISTORY)
    mine = windows[windows.users == 1]
    assert (mine.lengths <= MAX_HISTORY + 1).all() and (mine.lengths >= 1).all()
    targets = [
        list(range(end + 1 - tokens, end + 1))
        for end, tokens in zip(mine.ends.tolist(), mine.lengths.tolist(), strict=True)
    ]
    # All but the oldest window do not learn the target of their start token.
    learned = [t for i, w in enumerate(targets) for t in (w if i == len(targets) - 1 else w[1:])]
    assert sorted(learned) == list(range(3, 3 + length))
    assert (windows.users == 0).sum() == (windows.users == 2).sum() == 1


def test_an_epoch_holds_every_window_once_in_batches_of_the_size_asked_for() -> None:
    lengths = np.random.default_rng(1).integers(0, 9, 300)
    windows = training_windows(np.concatenate([[0], np.cumsum(lengths)]), max_history=MAX_HISTORY)
    batches = list(epoch_batches(windows, batch_tokens=50, rng=np.random.default_rng(2)))
    ends = np.concatenate([batch.ends for batch in batches])
    assert sorted(ends.tolist()) == sorted(windows.ends.tolist())
    sizes = [int(batch.lengths.sum()) for batch in batches]
    assert max(sizes) < 50 + 7 and sum(sizes) / len(sizes) > 40
    again = epoch_batches(windows, batch_tokens=50, rng=np.random.default_rng(2))
    assert [b.ends.tolist() for b in again] == [b.ends.tolist() for b in batches]
    other = epoch_batches(windows, batch_tokens=50, rng=np.random.default_rng(3))
    assert np.concatenate([batch.ends for batch in other]).tolist() != ends.tolist()


def test_shuffled_histories_hold_the_same_events_of_the_same_users() -> None:
    data = interactions([1, 30, 2, 40], num_items=500, seed=8)
    mixed = shuffled(data, np.random.default_rng(3))
    assert mixed.items.tolist() != data.items.tolist()
    for start, end in pairwise(data.starts.tolist()):
        span = slice(start, end)
        rows = [
            sorted(zip(h.items[span], h.events[span], h.times[span], h.weights[span], strict=True))
            for h in (data, mixed)
        ]
        assert rows[0] == rows[1]
    again = shuffled(data, np.random.default_rng(3))
    assert mixed.items.tolist() == again.items.tolist()
