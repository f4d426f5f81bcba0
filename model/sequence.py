"""A causal transformer over a history of item vectors, packed for training and padded for ONNX.

Training runs on packed tokens: every token-wise layer sees real tokens only, and attention runs on
groups of sequences of similar length (CPU) or as one varlen kernel (CUDA, bf16). The ONNX graph
runs on a left-padded batch. One set of weights, one parity test. Imports torch and numpy alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUP_WASTE = 0.10
"""Sequences share an attention group while padding them to its longest wastes less than this."""


@dataclass(slots=True)
class PackedLayout:
    """Where B sequences lie among T packed tokens, longest sequence first."""

    starts: Tensor
    """[B + 1] int32: sequence b is tokens starts[b]..starts[b+1]."""
    longest: int
    padded: Tensor
    """[P] int64: the token at each place of the padded groups, laid end to end; padding, on the
    right, names an arbitrary token: causal attention never lets a real token see it."""
    places: Tensor
    """[T] int64: the place among P of each token."""
    pads: Tensor
    """[P - T] int64: the places that are padding."""
    groups: tuple[tuple[int, int], ...]
    """(sequences, padded length) of each group."""

    def to(self, device: torch.device) -> "PackedLayout":
        """The same layout on a device."""
        return PackedLayout(
            self.starts.to(device),
            self.longest,
            self.padded.to(device),
            self.places.to(device),
            self.pads.to(device),
            self.groups,
        )


def pack(lengths: npt.NDArray[np.int64]) -> PackedLayout:
    """Lay out sequences of these lengths ([B] int64, each >= 1, in descending order)."""
    if not len(lengths) or (np.diff(lengths) > 0).any() or lengths[-1] < 1:
        raise ValueError("lengths must be in descending order, each at least 1")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.empty(starts[-1], np.int64)
    padded, pads, groups, offset, first = [], [], [], 0, 0
    while first < len(lengths):
        width = int(lengths[first])
        # Grow the group while its padding stays a small share of its places.
        total = np.cumsum(lengths[first:])
        allowed = total >= (1 - _GROUP_WASTE) * width * np.arange(1, len(total) + 1)
        count = int(allowed.argmin()) if not allowed.all() else len(total)
        grid = starts[first : first + count, None] + np.arange(width)
        real = np.arange(width) < lengths[first : first + count, None]
        where = offset + np.arange(count * width).reshape(count, width)
        places[grid[real]] = where[real]
        pads.append(where[~real])
        padded.append(np.where(real, grid, starts[first]).ravel())
        groups.append((count, width))
        offset += count * width
        first += count
    return PackedLayout(
        torch.from_numpy(starts.astype(np.int32)),
        int(lengths[0]),
        torch.from_numpy(np.concatenate(padded)),
        torch.from_numpy(places),
        torch.from_numpy(np.concatenate(pads)),
        tuple(groups),
    )


class _Pad(torch.autograd.Function):
    """Packed tokens [T, ...] → padded groups [P, ...].

    Its gradient is a gather as well, where index_select's would be a scatter-add, several times
    slower on a CPU: padding has no gradient, since no real token sees it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (places,) = ctx.saved_tensors
        return grads[0].index_select(0, places), None, None


class _Unpad(torch.autograd.Function):
    """Padded groups [P, ...] → packed tokens [T, ...]; the inverse of _Pad on real tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Tensor, places: Tensor, pads: Tensor) -> Tensor:
        ctx.save_for_backward(padded, pads)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        padded, pads = ctx.saved_tensors
        return grads[0].index_select(0, padded).index_fill_(0, pads, 0.0), None, None, None


class Attention(nn.Module):
    """Multi-head causal self-attention.

    No dropout on attention weights: torch's fused CPU attention has none, and falling back to the
    unfused one costs more than the whole feed-forward layer. The block drops its residuals instead.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def packed(self, x: Tensor, layout: PackedLayout) -> Tensor:
        """x: [T, D] packed tokens. Returns [T, D]."""
        qkv = self.qkv(x)
        heads = self.num_heads
        if qkv.is_cuda and qkv.dtype in (torch.bfloat16, torch.float16):
            from torch.nn.attention.varlen import varlen_attn

            q, k, v = qkv.view(len(x), 3, heads, -1).unbind(1)
            starts, longest = layout.starts, layout.longest
            mixed = varlen_attn(q, k, v, starts, starts, longest, longest, window_size=(-1, 0))
            return self.out(mixed.reshape(len(x), -1))  # type: ignore[no-any-return, union-attr]
        groups: Tensor = _Pad.apply(  # type: ignore[no-untyped-call]
            qkv, layout.padded, layout.places
        )
        outputs, offset = [], 0
        for count, width in layout.groups:
            block = groups[offset : offset + count * width].view(count, width, 3, heads, -1)
            q, k, v = block.permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            outputs.append(mixed.transpose(1, 2).reshape(count * width, -1))
            offset += count * width
        packed: Tensor = _Unpad.apply(  # type: ignore[no-untyped-call]
            torch.cat(outputs), layout.padded, layout.places, layout.pads
        )
        return self.out(packed)  # type: ignore[no-any-return]

    def padded(self, x: Tensor, visible: Tensor) -> Tensor:
        """x: [B, S, D]; visible: [B, 1, S, S] bool, True where a query may see a key."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, dim))  # type: ignore[no-any-return]

    def last(self, x: Tensor, last: Tensor, visible: Tensor) -> Tensor:
        """What `padded` gives for one query a sequence: no other output is wanted of a last layer.

        x: [B, S, D]; last: [B, D], the queries' own states; visible: [B, 1, 1, S]. Returns [B, D].
        """
        batch, length, dim = x.shape
        shape = (batch, length, 2, self.num_heads, dim // self.num_heads)
        k, v = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:]).view(shape).unbind(2)
        q = F.linear(last, self.qkv.weight[:dim], self.qkv.bias[:dim])
        q = q.view(batch, 1, self.num_heads, dim // self.num_heads)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible
        )
        return self.out(mixed.reshape(batch, dim))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a feed-forward layer."""

    def __init__(self, dim: int, num_heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward = nn.Sequential(
            nn.Linear(dim, feedforward * dim),
            nn.GELU(),
            nn.Linear(feedforward * dim, dim),
        )
        self.dropout = nn.Dropout(dropout)

    def packed(self, x: Tensor, layout: PackedLayout) -> Tensor:
        """x: [T, D] packed tokens. Returns [T, D]."""
        x = x + self.dropout(self.attention.packed(self.attention_norm(x), layout))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))  # type: ignore[no-any-return]

    def padded(self, x: Tensor, visible: Tensor) -> Tensor:
        """x: [B, S, D]; visible as in Attention.padded. Returns [B, S, D]."""
        x = x + self.attention.padded(self.attention_norm(x), visible)
        return x + self.feedforward(self.feedforward_norm(x))  # type: ignore[no-any-return]

    def last(self, x: Tensor, last: Tensor, visible: Tensor) -> Tensor:
        """x, last, visible as in Attention.last. Returns [B, D]."""
        normed = self.attention_norm(x)
        last = last + self.attention.last(normed, self.attention_norm(last), visible)
        return last + self.feedforward(self.feedforward_norm(last))  # type: ignore[no-any-return]
