"""A batch → its loss: items encoded, histories read, targets told from candidates.

Imports torch and the networks alone, as the loop does. Knows no optimizer and no epochs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.towers import TwoTower
from training.batches import Batch, Goal
from training.losses import pick_interest, softmax_loss
from training.user_states import read_states


class ItemInputs:
    """The encoded features of all items as tensors on the device, and which ids were trained."""

    def __init__(
        self, features: Mapping[str, Tensor], id_codes: Tensor, device: torch.device
    ) -> None:
        """features: arrays of Encoder.encode_items. id_codes: [V] int64, 0 = never trained."""
        self.features = {name: value.to(device) for name, value in features.items()}
        self.id_codes = id_codes.to(device)

    def encode(self, model: TwoTower, rows: Tensor) -> Tensor:
        """Item vectors [I, D] of item rows [I]."""
        everything = len(rows) == len(self.id_codes)  # rows are distinct and sorted
        chosen = (
            self.features
            if everything
            else {name: value.index_select(0, rows) for name, value in self.features.items()}
        )
        ids = self.id_codes if everything else self.id_codes.index_select(0, rows)
        vectors: Tensor = model.item_tower(ids, chosen)
        return vectors


class StepLoss(nn.Module):
    """Batch → loss; a module of its own because DDP wraps what it calls."""

    def __init__(
        self,
        model: TwoTower,
        items: ItemInputs,
        profiles: Mapping[str, Tensor],
        temperature: float,
    ) -> None:
        super().__init__()
        self.model = model
        self._items, self._profiles, self._temperature = items, profiles, temperature

    def forward(self, batch: Batch) -> Tensor:
        """The weighted mean loss over the batch's tokens, a scalar."""
        vectors = self._items.encode(self.model, batch.item_rows)
        if batch.goals:
            return self._ahead(batch, vectors)
        states = read_states(self.model, vectors, batch, self._profiles)
        interests = states.read_out(self.model, 0 if batch.heads is None else batch.heads)
        return self._told(batch, interests, vectors, _candidates(batch, vectors), batch)

    def _ahead(self, batch: Batch, vectors: Tensor) -> Tensor:
        """The mean over the objectives of each one's weighted mean loss."""
        candidates = _candidates(batch, vectors)
        states = read_states(self.model, vectors, batch, self._profiles)
        losses = [
            self._told(goal, states.read_out(self.model, code), vectors, candidates, batch)
            for code, goal in enumerate(batch.goals)
        ]
        return torch.stack(losses).mean()

    def _told(
        self,
        goal: Batch | Goal,
        interests: Tensor,
        vectors: Tensor,
        candidates: Tensor,
        batch: Batch,
    ) -> Tensor:
        """How well interests tell the targets of one goal from the batch's candidates."""
        targets, hits, weights, bias = goal.targets, goal.hits, goal.weights, goal.positive_bias
        if weights.device.type == "cpu":  # a GPU would have to be waited for
            # What weighs nothing is not compared with the candidates at all.
            counts = weights.nonzero().squeeze(1)
            interests = interests.index_select(0, counts)
            targets, hits, weights = targets[counts], hits[counts], weights[counts]
            bias = None if bias is None else bias[counts]
        positives = F.embedding(targets, vectors)
        return softmax_loss(
            pick_interest(interests, positives),
            positives,
            candidates,
            hits,
            positive_bias=bias,
            candidate_bias=batch.candidate_bias,
            weights=weights,
            temperature=self._temperature,
        )


def _candidates(batch: Batch, vectors: Tensor) -> Tensor:
    """The vectors that targets are told from."""
    return vectors if batch.candidates is None else vectors.index_select(0, batch.candidates)
