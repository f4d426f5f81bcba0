"""The value model: how likely a user is to click, view long, follow or buy what is shown.

Two networks that are trained together and run apart. The *item side* turns an item into a vector of
E numbers, once, when a bundle is exported or an item is upserted. The *request side* reads such
vectors, those of the user's history and those of the candidates, and gives a probability a head for
each candidate, whatever other candidates there are.

Knows nothing of what is retrieved, of labels or of files. Imports torch alone.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import freshness
from model.config import ValueConfig
from model.features import FeatureMixer
from model.towers import TimeEmbedding
from model.value_bottoms import bottom_of

_INIT_STD = 0.02


class Standardise(nn.Module):
    """x → (x − mean) / scale, by numbers that were measured once and are kept with the weights."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def measure(self, x: Tensor) -> None:
        """Take mean and scale from x: [N, size]. A column that never varies is only shifted."""
        deviation = x.std(dim=0, unbiased=False)
        cast(Tensor, self.mean).copy_(x.mean(dim=0))
        cast(Tensor, self.scale).copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., size] float32. Returns the same shape."""
        return (x - cast(Tensor, self.mean)) / cast(Tensor, self.scale)


class ItemSide(nn.Module):
    """An item's retrieval vector, features and statistics → its vector in the value model."""

    def __init__(self, config: ValueConfig) -> None:
        super().__init__()
        dim = config.dim
        self.standard_vector = Standardise(config.vector_dim)
        self.standard_stats = Standardise(len(config.stats))
        self.vector = nn.Linear(config.vector_dim, 2 * dim)
        self.stats = nn.Linear(len(config.stats), 2 * dim)
        self.content = (
            FeatureMixer(config.item_features, prefix="item", dim=dim)
            if config.item_features
            else None
        )
        self.widen = nn.Linear(dim, 2 * dim, bias=False) if config.item_features else None
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, vector: Tensor, stats: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """vector: [B, D] float32 from the item tower, frozen. stats: [B, S] float32.
        features: arrays of Encoder.encode_items. Returns [B, E] float32.
        """
        x = self.vector(self.standard_vector(vector)) + self.stats(self.standard_stats(stats))
        if self.content is not None and self.widen is not None:
            x = x + self.widen(self.content(features))
        out: Tensor = self.out(self.dropout(F.relu(x)))
        return out


class TargetAttention(nn.Module):
    """Each candidate asks the history what in it resembles the candidate (Zhou et al., Deep
    Interest Network, KDD 2018; here with inner products, which cost a tenth of its network).
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.start = nn.Parameter(torch.randn(dim) * _INIT_STD)
        """Stands before every history, so that an empty one has something to look at."""

    def forward(self, candidates: Tensor, events: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """candidates: [B, C, E]. events: [B, L, E], the history. mask: [B, L] bool.

        Returns what each candidate found, [B, C, E], and per attention head the most that anything
        in the history resembled it, [B, C, heads]; 0 for an empty history.
        """
        batch, length, dim = events.shape
        heads, width = self.num_heads, dim // self.num_heads
        events = torch.cat([self.start.expand(batch, 1, dim), events], dim=1)
        seen = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        query = self.query(candidates).view(batch, -1, heads, width).transpose(1, 2)
        key = self.key(events).view(batch, length + 1, heads, width).permute(0, 2, 3, 1)
        value = self.value(events).view(batch, length + 1, heads, width).transpose(1, 2)
        likeness = query @ key / math.sqrt(width)
        likeness = likeness.masked_fill(~seen[:, None, None, :], -1e4)
        found = likeness.softmax(dim=-1) @ value
        # Beside the start token, which is always seen, so that the most is never a mask.
        most = likeness.amax(dim=-1) - likeness[..., 0]
        return found.transpose(1, 2).reshape(batch, -1, dim), most.transpose(1, 2)


class ValueFeatures(nn.Module):
    """A request's arrays → what is known of the user, and of each candidate for that user."""

    def __init__(self, config: ValueConfig) -> None:
        super().__init__()
        dim = config.dim
        self.max_history, self.num_events = config.max_history, config.num_events
        self.events = nn.Parameter(torch.randn(config.num_events + 1, dim) * _INIT_STD)
        self.positions = (
            nn.Parameter(torch.zeros(config.max_history, dim)) if config.has_order else None
        )
        self.age = TimeEmbedding(dim) if config.has_times else None
        self.idle = TimeEmbedding(dim) if config.has_times else None
        self.standard_interests = Standardise(config.vector_dim)
        self.interests = nn.Linear(config.vector_dim, dim)
        self.standard_scores = Standardise(1)
        self.profile = (
            FeatureMixer(config.profile_features, prefix="profile", dim=dim)
            if config.profile_features
            else None
        )
        self.profile_dropout = nn.Dropout(config.profile_dropout)
        self.attention = TargetAttention(dim, config.attention_heads)
        self.user_size = (3 if config.profile_features else 2) * dim + config.num_events
        self.candidate_size = 4 * dim + config.attention_heads + 3
        self.candidate_size += (1 + len(config.kin)) * config.num_events
        self.candidate_size += freshness.SIZE if config.reads_age else 0
        self.taste = nn.Linear(self.user_size, dim)

    def forward(
        self,
        history: Tensor,
        events: Tensor,
        gaps: Tensor | None,
        mask: Tensor,
        idle: Tensor | None,
        interests: Tensor,
        profile: Mapping[str, Tensor],
        candidates: Tensor,
        scores: Tensor,
        past: Tensor,
        kin: Tensor | None = None,
        age: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See RequestSide.forward. Returns the user [B, user_size] and the candidates
        [B, C, candidate_size]."""
        length = history.shape[1]
        x = history + F.embedding(events, self.events)
        if self.positions is not None:
            place = torch.arange(length, device=x.device) + (self.max_history - length)
            x = x + F.embedding(place, self.positions)
        if self.age is not None and gaps is not None and idle is not None:
            # How long ago: the time since the last event, and the gaps after this one. Added from
            # the newest on, so that seconds are not lost in months.
            after = torch.cat([idle.unsqueeze(1), gaps[:, 1:].flip(1)], dim=1)
            x = x + self.age(after.cumsum(dim=1).flip(1))
        real = mask.to(x.dtype).unsqueeze(-1)
        x = x * real
        pooled = x.sum(dim=1) / real.sum(dim=1).clamp(min=1)
        # How much a user did of each kind tells more of rare heads than what it was done to.
        codes = torch.arange(1, self.num_events + 1, device=x.device)
        counts = ((events.unsqueeze(-1) == codes).to(x.dtype) * real).sum(dim=1)
        if self.idle is not None and idle is not None:
            pooled = pooled + self.idle(idle)
        wishes = self.interests(self.standard_interests(interests))
        known = [pooled, wishes.mean(dim=1), torch.log1p(counts)]
        if self.profile is not None:
            known.append(self.profile_dropout(self.profile(profile)))
        user = torch.cat(known, dim=-1)
        found, most = self.attention(candidates, x, mask)
        likings = candidates @ wishes.transpose(1, 2)
        taste = self.taste(user).unsqueeze(1)
        candidate = torch.cat(
            [
                candidates,
                found,
                candidates * taste,
                candidates * found,
                most,
                likings.amax(dim=-1, keepdim=True),
                (candidates * taste).sum(dim=-1, keepdim=True),
                self.standard_scores(scores.unsqueeze(-1)),
                # Not standardised: nearly all are 0, so that their scale would say what is rare.
                past,
                *(part for part in (kin, age) if part is not None),
            ],
            dim=-1,
        )
        return user, candidate


class LinearHeads(nn.Module):
    """One linear output a head."""

    def __init__(self, num_heads: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_heads, size) * _INIT_STD)
        self.bias = nn.Parameter(torch.zeros(num_heads))

    def forward(self, states: Tensor) -> Tensor:
        """states: [B, C, 1 or T, H]. Returns logits [B, C, T]."""
        if states.shape[2] == 1:
            return F.linear(states.squeeze(2), self.weight, self.bias)
        logits: Tensor = (states * self.weight).sum(dim=-1) + self.bias
        return logits


class RequestSide(nn.Module):
    """A user's history and interests, and candidates → a logit a candidate and head."""

    def __init__(self, config: ValueConfig) -> None:
        super().__init__()
        self.features = ValueFeatures(config)
        self.bottom = bottom_of(config, self.features.user_size, self.features.candidate_size)
        self.heads = LinearHeads(len(config.heads), config.hidden[-1])

    def forward(
        self,
        history: Tensor,
        events: Tensor,
        gaps: Tensor | None,
        mask: Tensor,
        idle: Tensor | None,
        interests: Tensor,
        profile: Mapping[str, Tensor],
        candidates: Tensor,
        scores: Tensor,
        past: Tensor,
        kin: Tensor | None = None,
        age: Tensor | None = None,
    ) -> Tensor:
        """history: [B, L, E] item-side vectors, oldest first, padded on the left, L at most
        max_history. events: [B, L] int64 codes from 1, 0 where padded. gaps: [B, L] float32 seconds
        since the event before. mask: [B, L] bool, True on real events. idle: [B] float32 seconds
        since the last event; gaps and idle are None where the dataset has no times. interests:
        [B, M, D] from the user tower. profile: encoded user features. candidates: [B, C, E]
        item-side vectors. scores: [B, C] float32, the best inner product with the interests. past:
        [B, C, num_events] float32, log1p of how often the user did each kind of event with the
        candidate, in all of the history (model/past.py). kin: [B, C, len(config.kin) * num_events],
        the same with all items of the candidate's creator, or what else config.kin names; None
        where it names none. age: [B, C, 2] of model/freshness.py; None where it is not read.

        Returns logits [B, C, T].
        """
        user, candidate = self.features(
            history,
            events,
            gaps,
            mask,
            idle,
            interests,
            profile,
            candidates,
            scores,
            past,
            kin,
            age,
        )
        logits: Tensor = self.heads(self.bottom(user, candidate))
        return logits


class ValueNetwork(nn.Module):
    """Both sides, trained together."""

    def __init__(self, config: ValueConfig) -> None:
        super().__init__()
        self.config = config
        self.item_side = ItemSide(config)
        self.request_side = RequestSide(config)
