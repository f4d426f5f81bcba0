"""Packed histories → users' interests: the user tower over tokens, in training and after it.

Imports torch, numpy and the networks alone, as the loop does. Knows no losses and no files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.towers import TwoTower
from training.batches import Histories, Tokens, user_tokens


@dataclass(slots=True)
class States:
    """What the user tower makes of T tokens before it reads out one objective's interests."""

    states: Tensor
    idle: Tensor
    profile: Tensor | None

    def read_out(self, model: TwoTower, objective: int | Tensor) -> Tensor:
        """Interests [T, M, D] for the objective of this code, or of these codes [T]."""
        code = torch.as_tensor(objective, device=self.states.device).expand(len(self.states))
        return model.user_tower.read_out(
            self.states, idle=self.idle, objective=code, profile=self.profile
        )


def read_interests(
    model: TwoTower,
    vectors: Tensor,
    tokens: Tokens,
    profiles: Mapping[str, Tensor],
    *,
    only_last: bool = False,
    objective: int = 0,
) -> Tensor:
    """Interests [T, M, D] of every token, or [B, M, D] of each sequence's last one.

    vectors: [I, D] of tokens.item_rows. profiles: encoded user features [U, ...], by user row.
    objective: its position in the tower's objectives.
    """
    states = read_states(model, vectors, tokens, profiles, only_last=only_last)
    return states.read_out(model, objective)


def read_states(
    model: TwoTower,
    vectors: Tensor,
    tokens: Tokens,
    profiles: Mapping[str, Tensor],
    *,
    only_last: bool = False,
) -> States:
    """What comes before the objective; see read_interests."""
    tower = model.user_tower
    states = tower.packed(
        vectors, tokens.tokens, tokens.events, tokens.positions, tokens.gaps, tokens.layout
    )
    idle, owners = tokens.idle, tokens.owners
    if only_last:
        last = tokens.last
        states, idle, owners = states[last], idle[last], owners[last]
    # A user's features are encoded once, not once a token.
    profile = tower.encode_profiles(
        {name: value.index_select(0, tokens.users) for name, value in profiles.items()}
    )
    if profile is not None:
        profile = F.embedding(owners, profile)
    return States(states, idle, profile)


@torch.no_grad()
def encode_users(
    model: TwoTower,
    item_vectors: Tensor,
    data: Histories,
    users: Any,
    idle: Any,
    *,
    profiles: Mapping[str, Tensor],
    batch_users: int = 256,
    objective: int = 0,
) -> Iterator[tuple[Any, Any]]:
    """Yield (user rows [b], interests [b, M, D] float32 numpy) batch by batch, longest first.

    item_vectors: [V, D] on the model's device. idle: [len(users)] float32 seconds until now.
    objective: its position in the tower's objectives.
    """
    model.eval()
    device = item_vectors.device
    lengths = data.starts[users + 1] - data.starts[users]
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_users):
        chosen = order[start : start + batch_users]
        tokens = user_tokens(
            data,
            users[chosen],
            idle[chosen],
            max_history=model.config.max_history,
            reader=model.config.reader,
        ).to(device)
        vectors = item_vectors.index_select(0, tokens.item_rows)
        interests = read_interests(
            model, vectors, tokens, profiles, only_last=True, objective=objective
        )
        yield tokens.users.cpu().numpy(), interests.float().cpu().numpy()
