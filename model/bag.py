"""A history as a bag: the sum of its items' vectors, each through a matrix of its kind of event.

For data whose order says nothing or is not known. In training, an event is told from all the others
of its window, before it and after, and never from those on its own item. Imports torch alone.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(slots=True)
class BagLayout:
    """Which of T packed tokens (see Tokens of training/batches.py) are summed together."""

    owners: Tensor
    """[T] int64: the sequence, 0 to B - 1, of each token."""
    counts: Tensor
    """[B] int64: the events of each sequence, its start token not counted."""
    groups: Tensor
    """[T] int64: tokens of one sequence on one item have the same, 0 to G - 1."""
    sizes: Tensor
    """[G] int64: tokens of each group."""
    left_out: Tensor
    """[T] int64: the group that a token's sum leaves out, -1 for none."""

    def to(self, device: torch.device) -> "BagLayout":
        """The same layout on a device."""
        return BagLayout(*(getattr(self, f.name).to(device) for f in fields(self)))


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

        Returns [T, D]: for each token the sum over its sequence but for the group it leaves out.
        """
        if self.training and self.dropout:
            kept = torch.rand(len(x), 1, device=x.device, dtype=x.dtype) >= self.dropout
            x = x * kept / (1 - self.dropout)
        x = torch.stack(
            [
                (x * (events == kind).unsqueeze(1).to(x.dtype)) @ matrix
                for kind, matrix in enumerate(self.kinds, 1)
            ]
        ).sum(dim=0)
        zeros = x.new_zeros
        sums = zeros(len(layout.counts), x.shape[1]).index_add(0, layout.owners, x)
        own = zeros(len(layout.sizes), x.shape[1]).index_add(0, layout.groups, x)
        leaves = (layout.left_out >= 0).unsqueeze(1)
        group = layout.left_out.clamp(min=0)
        x = F.embedding(layout.owners, sums) - F.embedding(group, own) * leaves.to(x.dtype)
        count = layout.counts[layout.owners] - layout.sizes[group] * leaves.squeeze(1)
        return self._scaled(x, count.unsqueeze(1))

    def padded(self, history: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """history: [B, L, D] item vectors; events: [B, L] int64; mask: [B, L] bool, True on real
        events. Returns [B, D], the sum over each row."""
        real = mask.to(history.dtype)
        if len(self.kinds) == 1:
            events = torch.ones_like(events)
        total = torch.stack(
            [
                (history * (real * (events == kind).to(real.dtype)).unsqueeze(2)).sum(dim=1)
                @ matrix
                for kind, matrix in enumerate(self.kinds, 1)
            ]
        ).sum(dim=0)
        return self._scaled(total, real.sum(dim=1, keepdim=True))

    def _scaled(self, total: Tensor, count: Tensor) -> Tensor:
        # Vectors that have nothing in common add up to a length of the root of their number.
        dim = total.shape[1]
        scaled: Tensor = total * (dim / count.clamp(min=1).to(total.dtype)).sqrt()
        return scaled
