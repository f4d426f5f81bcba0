"""A history as a bag: the sum of its items' vectors, each through a matrix of its kind of event.

For data whose order says nothing or is not known. In training, an event is told from all the others
of its window, before it and after, and never from those on its own item. Imports torch alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(slots=True)
class BagLayout:
    """Which of T packed tokens (see Tokens of training/batches.py) are summed together."""

    owners: Tensor
    """[T] int64: the sequence, 0 to B - 1, of each token."""
    num_owners: int
    groups: Tensor | None
    """[T] int64: tokens of one sequence on one item have the same, 0 to G - 1, and each token's sum
    leaves its own group out; None: nothing is left out."""
    num_groups: int

    def to(self, device: torch.device) -> "BagLayout":
        """The same layout on a device."""
        groups = None if self.groups is None else self.groups.to(device)
        return BagLayout(self.owners.to(device), self.num_owners, groups, self.num_groups)


class Bag(nn.Module):
    """Item vectors of a history's events → one vector, of like length however many there are."""

    def __init__(self, dim: int, num_events: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        """Chance that a step leaves out an event, as a whole."""
        self.kinds = nn.Parameter(torch.eye(dim).repeat(num_events, 1, 1))
        """[E, D, D]: what an event of each kind says of a user."""

    def packed(self, x: Tensor, events: Tensor, layout: BagLayout) -> Tensor:
        """x: [T, D] item vectors, zeros at start tokens. events: [T] int64, 0 at start tokens.

        Returns [T, D]: for each event the sum over its sequence, but for what is left out; zeros
        at start tokens, which stand for the empty history.
        """
        if self.training and self.dropout:
            kept = torch.rand(len(x), 1, device=x.device, dtype=x.dtype) >= self.dropout
            x = x * kept / (1 - self.dropout)
        is_event = (events > 0).unsqueeze(1).to(x.dtype)
        said = [
            (x * (events == kind).unsqueeze(1).to(x.dtype)) @ matrix
            for kind, matrix in enumerate(self.kinds, 1)
        ]
        counted = torch.cat([torch.stack(said).sum(dim=0), is_event], dim=1)  # and of how many
        rest = _summed(counted, layout.owners, layout.num_owners)
        if layout.groups is not None:
            rest = rest - _summed(counted, layout.groups, layout.num_groups)
        return _scaled(rest[:, :-1], rest[:, -1:]) * is_event

    def padded(self, history: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """history: [B, L, D] item vectors; events: [B, L] int64; mask: [B, L] bool, True on real
        events. Returns [B, D], the sum over each row."""
        if len(self.kinds) == 1:  # the graph has no input that says so
            events = torch.ones_like(events)
        said = [
            (history * (mask & (events == kind)).unsqueeze(2).to(history.dtype)).sum(dim=1) @ matrix
            for kind, matrix in enumerate(self.kinds, 1)
        ]
        count = mask.sum(dim=1, keepdim=True).to(history.dtype)
        return _scaled(torch.stack(said).sum(dim=0), count)


def _summed(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """[T, N]: at each row the sum over its group."""
    sums = values.new_zeros(num_groups, values.shape[1]).index_add(0, groups, values)
    return F.embedding(groups, sums)


def _scaled(total: Tensor, count: Tensor) -> Tensor:
    """[..., D] sums of so many vectors [..., 1], by the root of their number: vectors that have
    nothing in common add up to such a length."""
    dim = total.shape[-1]
    scaled: Tensor = total * (dim / count.clamp(min=1)).sqrt()
    return scaled
