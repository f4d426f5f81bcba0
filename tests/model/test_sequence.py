"""Packing, and that the packed path computes and learns what a plain implementation does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import TowerConfig
from model.sequence import pack
from model.towers import TwoTower
from tests.model.reference import plain_states, randomise

CONFIG = TowerConfig(
    num_items=20,
    num_events=3,
    dim=8,
    num_heads=2,
    num_layers=2,
    max_history=40,
    dropout=0.0,
    id_dropout=0.0,
)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_groups_hold_every_token_once_and_waste_little(lengths: list[int]) -> None:
    lengths.sort(reverse=True)
    layout = pack(np.array(lengths))
    tokens, places = sum(lengths), sum(count * width for count, width in layout.groups)
    assert layout.starts.tolist() == [0, *np.cumsum(lengths)]
    assert layout.longest == lengths[0]
    # Every place holds a token or is padding, and each token has one place that names it.
    assert len(layout.padded) == places == tokens + len(layout.pads)
    taken = sorted(layout.places.tolist() + layout.pads.tolist())
    assert taken == list(range(places))
    assert layout.padded[layout.places].tolist() == list(range(tokens))
    # Within a group, a sequence's tokens stand side by side from the left of its line.
    first = offset = 0
    for count, width in layout.groups:
        for sequence in range(first, first + count):
            line = offset + (sequence - first) * width
            own = layout.places[layout.starts[sequence] : layout.starts[sequence + 1]]
            assert own.tolist() == list(range(line, line + lengths[sequence]))
        assert sum(lengths[first : first + count]) >= 0.9 * count * width
        first, offset = first + count, offset + count * width
    assert first == len(lengths)


@pytest.mark.parametrize("lengths", [[], [2, 3], [2, 0]])
def test_lengths_out_of_order_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="descending order, each at least 1"):
        pack(np.array(lengths, np.int64))


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], [30, 29, 12, 11, 4, 4, 1, 1, 0, 0]])
def test_states_and_gradients_are_those_of_a_plain_tower_in_float64(lengths: list[int]) -> None:
    """lengths: events a user; each sequence has the start token more."""
    model = randomise(TwoTower(CONFIG), seed=1).double()
    rng = np.random.default_rng(len(lengths))
    vectors = torch.from_numpy(rng.normal(size=(20, 8))).requires_grad_()
    items = [torch.from_numpy(rng.integers(0, 20, n)) for n in lengths]
    events = [torch.from_numpy(rng.integers(1, 4, n)) for n in lengths]
    gaps = [torch.from_numpy(rng.exponential(1e4, n)).float() for n in lengths]
    weight = torch.from_numpy(rng.normal(size=(sum(lengths) + len(lengths), 8)))
    learned = [vectors, *model.user_tower.parameters()]

    start, zero = torch.tensor([20]), torch.tensor([0])
    places = [torch.arange(CONFIG.max_history - n, CONFIG.max_history) for n in lengths]
    packed = model.user_tower.packed(
        vectors,
        torch.cat([t for own in items for t in (start, own)]),
        torch.cat([t for own in events for t in (zero, own)]),
        torch.cat([t for own in places for t in (torch.tensor([-1]), own)]),
        torch.cat([t for own in gaps for t in (zero.float(), own)]),
        pack(np.array(lengths) + 1),
    )
    plain = torch.cat(
        [
            plain_states(model, vectors[own], event, gap)
            for own, event, gap in zip(items, events, gaps, strict=True)
        ]
    )
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-11)
    found = torch.autograd.grad((packed * weight).sum(), learned, allow_unused=True)
    expected = torch.autograd.grad((plain * weight).sum(), learned, allow_unused=True)
    names = ["vectors", *(name for name, _ in model.user_tower.named_parameters())]
    for name, mine, theirs in zip(names, found, expected, strict=True):
        if theirs is None:
            assert mine is None, name
            continue
        assert mine is not None, name
        assert (mine - theirs).abs().max() < 1e-10, name


def test_a_token_never_sees_what_comes_after_it() -> None:
    model = randomise(TwoTower(CONFIG), seed=2)
    rng = np.random.default_rng(3)
    vectors = torch.from_numpy(rng.normal(size=(20, 8)).astype(np.float32))
    tokens = torch.from_numpy(np.concatenate([[20], rng.integers(0, 20, 11), [20], [1, 2]]))
    events = torch.from_numpy(np.concatenate([[0], rng.integers(1, 4, 11), [0], [1, 1]]))
    positions = torch.from_numpy(np.concatenate([[-1], np.arange(29, 40), [-1], [38, 39]]))
    gaps = torch.rand(15)

    def states(tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.user_tower.packed(
                vectors, tokens, events, positions, gaps, pack(np.array([12, 3]))
            )

    before = states(tokens)
    changed = tokens.clone()
    changed[6] = (changed[6] + 1) % 20
    after = states(changed)
    moved = (before != after).any(dim=1).nonzero().squeeze(1).tolist()
    assert moved == list(range(6, 12))  # that token and those after it, in its own sequence only
