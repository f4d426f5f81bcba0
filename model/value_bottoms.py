"""What lies between the value model's inputs and its heads: layers they share, or choose among.

Heads that pull one layer in different directions spoil it for each other, the rare ones first.
Experts let each head mix layers of its own choice. Knows what ValueFeatures gives; no heads' names,
no histories. Imports torch alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ValueConfig

_INIT_STD = 0.02


class SharedBottom(nn.Module):
    """Two layers that all heads share."""

    def __init__(
        self, user_size: int, candidate_size: int, *, hidden: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        self.user = nn.Linear(user_size, hidden[0])
        # One layer, split: the user's part is computed once, not once a candidate.
        self.candidate = nn.Linear(candidate_size, hidden[0], bias=False)
        self.second = nn.Linear(hidden[0], hidden[1])
        self.dropout = nn.Dropout(dropout)

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """user: [B, U]. candidates: [B, C, P]. Returns [B, C, 1, H]."""
        x = self.candidate(candidates) + self.user(user).unsqueeze(1)
        x = self.dropout(F.relu(x))
        states: Tensor = self.dropout(F.relu(self.second(x))).unsqueeze(2)
        return states


class Experts(nn.Module):
    """N small networks over one input, as wide in all as the shared bottom is: [B, C, N, H]."""

    def __init__(
        self,
        user_size: int,
        candidate_size: int,
        *,
        num: int,
        hidden: tuple[int, int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.num, self.width = num, max(hidden[0] // num, 1)
        # The first layers of all experts are one product; the user's part once a user.
        self.user = nn.Linear(user_size, num * self.width)
        self.candidate = nn.Linear(candidate_size, num * self.width, bias=False)
        scale = self.width**-0.5
        self.second = nn.Parameter(torch.empty(num, self.width, hidden[1]).uniform_(-scale, scale))
        self.bias = nn.Parameter(torch.zeros(num, 1, hidden[1]))
        self.dropout = nn.Dropout(dropout)

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """user: [B, U]. candidates: [B, C, P]. Returns [B, C, N, H]."""
        x = self.candidate(candidates) + self.user(user).unsqueeze(1)
        x = self.dropout(F.relu(x))
        batch, num = x.shape[0], x.shape[1]
        x = x.reshape(batch * num, self.num, self.width).transpose(0, 1)
        x = self.dropout(F.relu(torch.baddbmm(self.bias, x, self.second)))
        states: Tensor = x.transpose(0, 1).reshape(batch, num, self.num, -1)
        return states


class Gates(nn.Module):
    """How much each of T heads takes of each of N experts, for each candidate: [B, C, T, N]."""

    def __init__(self, user_size: int, candidate_size: int, *, heads: int, experts: int) -> None:
        super().__init__()
        self.heads, self.experts = heads, experts
        self.user = nn.Linear(user_size, heads * experts)
        self.candidate = nn.Linear(candidate_size, heads * experts, bias=False)
        for layer in (self.user, self.candidate):
            nn.init.normal_(layer.weight, std=_INIT_STD)  # at first all experts count alike

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """user: [B, U]. candidates: [B, C, P]. Returns logits [B, C, T, N]."""
        x = self.candidate(candidates) + self.user(user).unsqueeze(1)
        logits: Tensor = x.reshape(*x.shape[:2], self.heads, self.experts)
        return logits


class MixtureOfExperts(nn.Module):
    """Each head mixes experts that all share (MMoE: Ma et al., KDD 2018, section 4.2)."""

    def __init__(self, user_size: int, candidate_size: int, config: ValueConfig) -> None:
        super().__init__()
        num = config.num_experts
        self.experts = Experts(
            user_size, candidate_size, num=num, hidden=config.hidden, dropout=config.dropout
        )
        self.gates = Gates(user_size, candidate_size, heads=len(config.heads), experts=num)

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """user: [B, U]. candidates: [B, C, P]. Returns [B, C, T, H]."""
        shares = self.gates(user, candidates).softmax(dim=-1)
        mixed: Tensor = shares @ self.experts(user, candidates)
        return mixed


class ProgressiveExperts(nn.Module):
    """Each head mixes experts that all share and one of its own (one extraction layer of PLE, which
    its authors call CGC: Tang et al., RecSys 2020, section 3.2)."""

    def __init__(self, user_size: int, candidate_size: int, config: ValueConfig) -> None:
        super().__init__()
        self.num_shared, hidden = config.num_experts, config.hidden
        num = config.num_experts + len(config.heads)
        self.experts = Experts(
            user_size,
            candidate_size,
            num=num,
            # As wide in all as with shared experts alone, or a little more.
            hidden=(max(hidden[0], 16 * num), hidden[1]),
            dropout=config.dropout,
        )
        self.gates = Gates(
            user_size,
            candidate_size,
            heads=len(config.heads),
            experts=config.num_experts + 1,
        )

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """user: [B, U]. candidates: [B, C, P]. Returns [B, C, T, H]."""
        states = self.experts(user, candidates)
        shared, own = states.split([self.num_shared, states.shape[2] - self.num_shared], dim=2)
        shares = self.gates(user, candidates).softmax(dim=-1)
        of_all, of_own = shares.split([self.num_shared, 1], dim=-1)
        mixed: Tensor = of_all @ shared + of_own * own
        return mixed


def bottom_of(config: ValueConfig, user_size: int, candidate_size: int) -> nn.Module:
    """The bottom that a config names: takes user [B, U] and candidates [B, C, P], returns a state a
    candidate, [B, C, 1, H], or one a candidate and head, [B, C, T, H]."""
    if config.bottom == "shared":
        return SharedBottom(user_size, candidate_size, hidden=config.hidden, dropout=config.dropout)
    kind = MixtureOfExperts if config.bottom == "mmoe" else ProgressiveExperts
    return kind(user_size, candidate_size, config)
