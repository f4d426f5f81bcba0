"""What the two towers would retrieve: the model's side of an evaluation.

Lists are made as serving makes them: an exact search for every interest, merged by model/merge.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.ann import exact_search
from model.merge import How, merge_interests
from model.towers import TwoTower
from training.dataset import Interactions
from training.splits import Questions
from training.step_loss import ItemInputs
from training.user_states import encode_users

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

FAISS_ROWS = 50_000
"""Larger catalogues are scanned by FAISS, which holds no block of scores."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the towers found for B users."""

    rows: Int64
    """[B, k] item rows, best first; -1 where nothing is left."""
    scores: Float32
    """[B, k] the best inner product with the interests; -inf where there is no row."""
    interests: Float32
    """[B, M, D] what they were found with."""


class TowerRanker:
    """The towers of a run as a Ranker (training/ranking.py)."""

    name = "towers"
    """Of the first objective; the others are named behind it."""

    def __init__(
        self,
        model: TwoTower,
        vectors: Tensor,
        questions: Questions,
        *,
        profiles: Mapping[str, Tensor],
        how: How = "quota",
        objective: int = 0,
    ) -> None:
        """vectors: [V, D] of all items, on the model's device. questions: when each user asks. how:
        interests are merged (model/merge.py). objective: its position in the tower's objectives."""
        self._objective = objective
        if objective:
            self.name = f"towers, {model.config.objectives[objective]}"
        self._model, self._vectors, self._profiles, self._how = model, vectors, profiles, how
        self.vectors: Float32 = vectors.float().cpu().numpy()
        """[V, D]"""
        self._idle = np.zeros(questions.histories.num_users, np.float32)
        self._idle[questions.users] = questions.idle

    def top(
        self,
        histories: Interactions,
        users: Int64,
        k: int,
        *,
        excluded: Sequence[Int64] | None,
    ) -> Int64:
        """The k best item rows of each user; see Ranker.top."""
        return self.find(histories, users, k, excluded=excluded).rows

    def find(
        self,
        histories: Interactions,
        users: Int64,
        k: int,
        *,
        excluded: Sequence[Int64] | None,
    ) -> "Found":
        """The k best item rows of each user, and how they were found; see Ranker.top."""
        interests = self.interests(histories, users)
        rows, scores = search_interests(
            interests, self.vectors, k, excluded=excluded, how=self._how
        )
        return Found(rows, scores, interests)

    def interests(self, histories: Interactions, users: Int64) -> Float32:
        """Interest vectors [B, M, D] of these users."""
        config = self._model.config
        place = np.empty(histories.num_users, np.int64)
        place[users] = np.arange(len(users))
        interests = np.empty((len(users), config.num_interests, config.dim), np.float32)
        for rows, found in encode_users(
            self._model,
            self._vectors,
            histories,
            users,
            self._idle[users],
            profiles=self._profiles,
            objective=self._objective,
        ):
            interests[place[rows]] = found
        return interests


@torch.no_grad()
def item_vectors(items: ItemInputs, model: TwoTower, *, batch_items: int = 65_536) -> Tensor:
    """Vectors [V, D] of every item row, on the model's device."""
    model.eval()
    rows = torch.arange(len(items.id_codes), device=items.id_codes.device)
    return torch.cat([items.encode(model, part) for part in rows.split(batch_items)])


def search_interests(
    interests: Float32,
    vectors: Float32,
    k: int,
    *,
    excluded: Sequence[Int64] | None,
    how: How = "quota",
) -> tuple[Int64, Float32]:
    """Merged candidates of users: interests [B, M, D] → rows and scores [B, k], -1 and -inf for
    none. excluded: B arrays of rows."""
    batch, num_interests, dim = interests.shape
    repeated = None if excluded is None else [out for out in excluded for _ in range(num_interests)]
    search = exact_search if len(vectors) <= FAISS_ROWS else _scan
    rows, scores = search(interests.reshape(-1, dim), vectors, k, excluded=repeated)
    shape = (batch, num_interests, k)
    return merge_interests(rows.reshape(shape), scores.reshape(shape), k, how=how)[:2]


def _scan(
    queries: Float32, vectors: Float32, k: int, *, excluded: Sequence[Int64] | None
) -> tuple[Int64, Float32]:
    """As exact_search, but which of several rows that tie for the last place is up to FAISS."""
    most = 0 if excluded is None else max(map(len, excluded), default=0)
    fetch = min(k + most, len(vectors))
    scores, rows = faiss.knn(queries, vectors, fetch, metric=faiss.METRIC_INNER_PRODUCT)
    rows = rows.astype(np.int64)
    if excluded is not None:
        for found, values, out in zip(rows, scores, excluded, strict=True):
            values[np.isin(found, out)] = -np.inf
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    rows, scores = (
        np.take_along_axis(rows, order, axis=1),
        np.take_along_axis(scores, order, axis=1),
    )
    rows[np.isneginf(scores)] = -1
    return rows, scores
