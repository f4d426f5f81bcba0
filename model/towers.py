"""The two towers: items to vectors, histories of item vectors to interest vectors.

The user tower has no table of items: it reads the vectors that the item tower made, so its graph
does not grow with the catalogue and an item a second old counts in a history at once.
Imports torch alone.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.bag import Bag, BagLayout
from model.config import TowerConfig
from model.features import FeatureMixer
from model.interests import Interests
from model.sequence import Block, PackedLayout

_INIT_STD = 0.02
_NUM_TIME_KNOTS = 27
"""Knots at 0, 1, 3, 7, ... 2^26 - 1 seconds (about two years)."""


class ItemTower(nn.Module):
    """Id and content of an item → its vector."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.ids = nn.Parameter(torch.randn(config.num_items + 1, config.dim) * _INIT_STD)
        self.sparse_ids = False
        """Whether the gradient of `ids` names the rows of a batch alone (training/optimizer.py)."""
        self.new_item_weight: Tensor
        """[] What the vector of an item that was never trained is multiplied by outside training
        (training/new_items.py)."""
        self.register_buffer("new_item_weight", torch.ones(()))
        self.content = (
            FeatureMixer(config.item_features, prefix="item", dim=config.dim)
            if config.item_features
            else None
        )

    def forward(self, ids: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """ids: [B] int64 item codes, 0 = never trained. features: arrays of Encoder.encode_items.

        Returns [B, D] float32. In training, hides each id with chance id_dropout.
        """
        known = ids != 0
        if self.training and self.config.id_dropout:
            known = known & (torch.rand(ids.shape, device=ids.device) >= self.config.id_dropout)
        return self.combine(
            F.embedding(ids, self.ids, sparse=self.sparse_ids)
            * known.to(self.ids.dtype).unsqueeze(-1),
            features,
        )

    def combine(self, vectors: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """vectors: [B, D] what the ids stand for, zeros where there is none. Returns [B, D]."""
        is_new = (vectors == 0).all(dim=-1, keepdim=True)
        if self.content is not None:
            parts = self.content.parts(features)
            # What the features mean together, and the looked-up ones as they are: the plain sum
            # keeps the geometry that texts begin with (training/text_init.py). Numbers and vectors
            # have the dataset's own scale, and go through the network alone.
            plain = [
                part
                for spec, part in zip(self.content.specs, parts, strict=True)
                if spec.type not in ("number", "vector")
            ]
            vectors = torch.stack([vectors, self.content.mixed(parts), *plain]).sum(dim=0)
        if self.config.similarity == "cosine":
            vectors = F.normalize(vectors, dim=-1)
        if self.content is not None and not self.training:
            vectors = torch.where(is_new, vectors * self.new_item_weight, vectors)
        return vectors


class TimeEmbedding(nn.Module):
    """Seconds → a vector, linear between learned knots on a log scale.

    Continuous, so that two runtimes whose logarithms differ in the last bit agree; zero at first,
    so that a span that training never saw adds nothing.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.knots = nn.Parameter(torch.zeros(_NUM_TIME_KNOTS, dim))
        self.register_buffer("place", torch.arange(float(_NUM_TIME_KNOTS)), persistent=False)

    def forward(self, seconds: Tensor) -> Tensor:
        """seconds: [...] float32, >= 0. Returns [..., D]."""
        place = torch.log2(1 + seconds).clamp(0, _NUM_TIME_KNOTS - 1).unsqueeze(-1)
        return F.relu(1 - (place - cast(Tensor, self.place)).abs()) @ self.knots


class UserTower(nn.Module):
    """A history of item vectors → M interest vectors."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.start = nn.Parameter(torch.randn(dim) * _INIT_STD)
        """Stands before every history, and alone for the empty one."""
        is_bag = config.reader == "bag"
        self.bag = Bag(dim, config.num_events, config.dropout) if is_bag else None
        self.events = (
            nn.Parameter(torch.randn(config.num_events + 1, dim) * _INIT_STD)
            if config.num_events > 1 and not is_bag
            else None
        )
        self.positions = (
            nn.Parameter(torch.randn(config.max_history, dim) * _INIT_STD)
            if config.has_order
            else None
        )
        self.gap = TimeEmbedding(dim) if config.has_times else None
        self.idle = TimeEmbedding(dim) if config.has_times else None
        self.profile = (
            FeatureMixer(config.profile_features, prefix="profile", dim=dim)
            if config.profile_features
            else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.feedforward, config.dropout)
            for _ in range(0 if is_bag else config.num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.interests = Interests(dim, config.num_interests)
        self.heads = (
            nn.Parameter(torch.zeros(len(config.objectives), dim, dim))
            if len(config.objectives) > 1
            else None
        )

    def packed(
        self,
        vectors: Tensor,
        tokens: Tensor,
        events: Tensor,
        positions: Tensor,
        gaps: Tensor,
        layout: PackedLayout | BagLayout,
    ) -> Tensor:
        """Run packed sequences, each beginning with the start token.

        vectors: [I, D] item vectors. tokens: [T] int64 into them, I for the start token.
        events: [T] int64, 0 at starts. positions: [T] int64, from max_history - n for the oldest of
        n events to max_history - 1; -1 at starts. gaps: [T] float32 seconds. layout: a BagLayout
        where the reader is a bag.
        Returns states [T, D].
        """
        if self.bag is not None:
            assert isinstance(layout, BagLayout)
            table = torch.cat([vectors, torch.zeros_like(self.start).unsqueeze(0)])
            return self.start + self.bag.packed(F.embedding(tokens, table), events, layout)
        assert isinstance(layout, PackedLayout)
        table = torch.cat([vectors * self.config.dim**0.5, self.start.unsqueeze(0)])
        x = F.embedding(tokens, table)
        # Row 0 of the event table is not used by a real event, so it may serve the start token.
        if self.events is not None:
            x = x + F.embedding(events, self.events)
        if self.positions is not None:
            known = (positions >= 0).to(x.dtype).unsqueeze(-1)
            x = x + F.embedding(positions.clamp(min=0), self.positions) * known
        if self.gap is not None:
            x = x + self.gap(gaps)
        x = self.dropout(x)
        for block in self.blocks:
            x = cast(Block, block).packed(x, layout)
        return x

    def read_out(
        self,
        states: Tensor,
        *,
        idle: Tensor,
        objective: Tensor,
        profile: Tensor | None,
    ) -> Tensor:
        """states: [T, D]; idle: [T] float32 seconds until the request (or the next event);
        objective: [T] int64; profile: [T, D] from encode_profiles, or None.

        Returns interests [T, M, D].
        """
        if self.idle is not None:
            states = states + self.idle(idle)
        if profile is not None:
            states = states + profile
        states = self.norm(states)
        if self.heads is not None:
            # Each head over all states: a matrix for every state would take D times their room.
            asked = F.one_hot(objective, len(self.heads)).to(states.dtype)
            views = torch.stack([states @ head for head in self.heads])
            states = states + (views * asked.T.unsqueeze(2)).sum(dim=0)
        interests = self.interests(states)
        return F.normalize(interests, dim=-1) if self.config.similarity == "cosine" else interests

    def forward(
        self,
        history: Tensor,
        events: Tensor,
        gaps: Tensor,
        mask: Tensor,
        idle: Tensor,
        objective: Tensor,
        profile: Mapping[str, Tensor],
    ) -> Tensor:
        """The padded graph that ONNX exports.

        history: [B, L, D] float32 item vectors, oldest first, padded on the left. events: [B, L]
        int64. gaps: [B, L] float32 seconds. mask: [B, L] bool, True on real events. idle: [B].
        objective: [B] int64. profile: encoded user features. Returns interests [B, M, D].
        """
        if self.bag is not None:
            return self._read_last(
                self.start + self.bag.padded(history, events, mask), idle, objective, profile
            )
        _, length, dim = history.shape
        x = history * dim**0.5
        if self.events is not None:
            x = x + F.embedding(events, self.events)
        if self.positions is not None:
            place = torch.arange(length, device=x.device) + (self.config.max_history - length)
            x = x + F.embedding(place, self.positions)
        if self.gap is not None:
            x = x + self.gap(gaps)
        x = torch.cat([self._start(history), x], dim=1)
        # Column 0 is the start token, which every query may see, so no row is wholly masked.
        keys = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        place = torch.arange(length + 1, device=x.device)
        causal = place.unsqueeze(0) <= place.unsqueeze(1)
        visible = causal.unsqueeze(0).unsqueeze(0) & keys.unsqueeze(1).unsqueeze(1)
        *inner, final = (cast(Block, block) for block in self.blocks)
        for block in inner:
            x = block.padded(x, visible)
        # An empty history's last column is padding; its state is the start token's.
        last = torch.where(~mask[:, -1:], x[:, 0], x[:, -1])
        last = final.last(x, last, keys.unsqueeze(1).unsqueeze(1))
        return self._read_last(last, idle, objective, profile)

    def _read_last(
        self, state: Tensor, idle: Tensor, objective: Tensor, profile: Mapping[str, Tensor]
    ) -> Tensor:
        return self.read_out(
            state, idle=idle, objective=objective, profile=self.encode_profiles(profile)
        )

    def encode_profiles(self, profile: Mapping[str, Tensor]) -> Tensor | None:
        """Encoded user features of B users → [B, D]; None where users have no features."""
        return None if self.profile is None else self.profile(profile)

    def _start(self, history: Tensor) -> Tensor:
        start = self.start.expand(history.shape[0], 1, -1)
        if self.events is not None:
            start = start + self.events[0]
        if self.gap is not None:
            start = start + self.gap(torch.zeros(1, device=history.device))
        return start


class TwoTower(nn.Module):
    """Both towers, trained together."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.item_tower = ItemTower(config)
        self.user_tower = UserTower(config)
