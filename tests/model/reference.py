"""The user tower written out plainly: one user, one loop over heads, no packing and no padding.

It shares the tower's weights and nothing else, and is meant for float64.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.sequence import Block
from model.towers import TwoTower


def randomise(model: TwoTower, *, seed: int, scale: float = 0.3) -> TwoTower:
    """Give every weight a value, also those that begin as zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def time_vector(knots: Tensor, seconds: Tensor) -> Tensor:
    """Linear between knot floor(x) and the next, x = log2(1 + seconds) of float32 seconds."""
    place = torch.log2(1 + seconds.float()).clamp(max=len(knots) - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=len(knots) - 1)
    share = (place - low).to(knots.dtype).unsqueeze(-1)
    return (1 - share) * knots[low] + share * knots[high]


def plain_states(model: TwoTower, history: Tensor, events: Tensor, gaps: Tensor) -> Tensor:
    """history: [n, D] item vectors, oldest first; events: [n]; gaps: [n] → states [n + 1, D]."""
    tower, config = model.user_tower, model.config
    start: Tensor = tower.start
    if tower.bag is not None:
        return plain_bag(model, history, events).expand(len(history) + 1, -1)
    x = history * math.sqrt(config.dim)
    if tower.events is not None:
        x, start = x + tower.events[events], start + tower.events[0]
    if tower.positions is not None:
        x = x + tower.positions[config.max_history - len(history) :]
    if tower.gap is not None:
        x = x + time_vector(tower.gap.knots, gaps)
        start = start + tower.gap.knots[0]
    x = torch.cat([start.unsqueeze(0), x])
    for block in tower.blocks:
        assert isinstance(block, Block)
        x = x + _attend(block, _norm(block.attention_norm, x), config.num_heads)
        first, second = block.feedforward[0], block.feedforward[2]
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        hidden = _norm(block.feedforward_norm, x) @ first.weight.T + first.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ second.weight.T + second.bias
    return x


def plain_bag(model: TwoTower, history: Tensor, events: Tensor) -> Tensor:
    """history: [n, D] item vectors; events: [n] → the state [D] of a tower that reads a bag."""
    tower = model.user_tower
    assert tower.bag is not None
    said = [item @ tower.bag.kinds[event - 1] for item, event in zip(history, events, strict=True)]
    total = torch.stack(said).sum(dim=0) if said else torch.zeros_like(tower.start)
    return tower.start + total * math.sqrt(model.config.dim / max(len(said), 1))


def plain_interests(model: TwoTower, state: Tensor, idle: Tensor, *, objective: int = 0) -> Tensor:
    """state: [D]; idle: [] seconds → interests [M, D]; for towers without profiles."""
    tower = model.user_tower
    assert tower.profile is None
    if tower.idle is not None:
        state = state + time_vector(tower.idle.knots, idle.reshape(1))[0]
    state = _norm(tower.norm, state)
    if tower.heads is not None:
        state = state + state @ tower.heads[objective]
    interests = [state]
    if tower.interests.views is not None:
        interests += [state + state @ view for view in tower.interests.views]
    stacked = torch.stack(interests)
    if model.config.similarity == "cosine":
        stacked = stacked / stacked.norm(dim=-1, keepdim=True)
    return stacked


def _attend(block: Block, x: Tensor, num_heads: int) -> Tensor:
    attention = block.attention
    length, dim = x.shape
    width = dim // num_heads
    qkv = x @ attention.qkv.weight.T + attention.qkv.bias
    mixed = []
    for head in range(num_heads):
        own = slice(head * width, (head + 1) * width)
        q, k, v = (qkv[:, part * dim : (part + 1) * dim][:, own] for part in range(3))
        scores = q @ k.T / math.sqrt(width)
        rows = [F.softmax(scores[i, : i + 1], dim=0) @ v[: i + 1] for i in range(length)]
        mixed.append(torch.stack(rows))
    return torch.cat(mixed, dim=-1) @ attention.out.weight.T + attention.out.bias


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + layer.eps) * layer.weight + layer.bias
