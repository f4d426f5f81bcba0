"""Experts and gates, against what one works out of them by hand."""

from dataclasses import replace

import pytest
import torch

from model.config import ValueConfig
from model.errors import ConfigError
from model.value_bottoms import MixtureOfExperts, ProgressiveExperts, bottom_of

CONFIG = ValueConfig(
    vector_dim=4, num_interests=1, num_events=1, heads=("a", "b", "c"), stats=("s",), hidden=(8, 5)
)


def test_a_mixture_is_the_gates_shares_of_the_experts_states() -> None:
    torch.manual_seed(0)
    bottom = MixtureOfExperts(3, 2, CONFIG).eval()
    user, candidates = torch.randn(2, 3), torch.randn(2, 6, 2)
    states = bottom(user, candidates)
    assert states.shape == (2, 6, 3, 5)
    # Of one candidate, expert by expert: two units each of the first layer.
    x, width = torch.cat([user[1], candidates[1, 4]]), 2
    experts, gates = bottom.experts, bottom.gates
    first = torch.cat([experts.user.weight, experts.candidate.weight], 1) @ x + experts.user.bias
    outs = []
    for number in range(4):
        mine = first[number * width : (number + 1) * width].relu()
        outs.append((mine @ experts.second[number] + experts.bias[number, 0]).relu())
    logits = torch.cat([gates.user.weight, gates.candidate.weight], 1) @ x + gates.user.bias
    for head in range(3):
        shares = logits[head * 4 : head * 4 + 4].softmax(0)
        by_hand = sum(share * out for share, out in zip(shares, outs, strict=True))
        torch.testing.assert_close(states[1, 4, head], by_hand)


def test_a_head_never_reads_another_heads_own_expert() -> None:
    torch.manual_seed(0)
    bottom = ProgressiveExperts(3, 2, replace(CONFIG, num_experts=2)).eval()
    user, candidates = torch.randn(2, 3), torch.randn(2, 6, 2)
    states = bottom(user, candidates)
    states[:, :, 1].sum().backward()
    grads = bottom.experts.second.grad
    assert grads is not None
    moved = grads.abs().sum(dim=(1, 2)) > 0
    assert moved.tolist() == [True, True, False, True, False]  # two shared, then a, b, c


@pytest.mark.parametrize(("kind", "states"), [("shared", 1), ("mmoe", 3), ("ple", 3)])
def test_a_config_names_its_bottom(kind: str, states: int) -> None:
    bottom = bottom_of(replace(CONFIG, bottom=kind), 3, 2).eval()
    assert bottom(torch.randn(2, 3), torch.randn(2, 6, 2)).shape == (2, 6, states, 5)


def test_a_bottom_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bottom.*'deep'.*shared, mmoe, ple"):
        replace(CONFIG, bottom="deep")
