"""What the value network reads of some requests at once, and what it says of their candidates.

An exposure is a request for one candidate, a user's list one for all of it; the network and its
training take both. Knows neither where candidates come from nor what is lost by a wrong order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from model.encode import HistoryBatch
from model.schema import Head
from model.value import ValueNetwork

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class Examples(Protocol):
    """N candidates of requests, each with what the towers say of it and with its labels."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The T heads."""

    @property
    def owners(self) -> Int64:
        """[N] whose candidate it is, a number from 0 to num_owners - 1."""

    @property
    def num_owners(self) -> int:
        """How many users there are, with candidates or without."""

    @property
    def labels(self) -> Bool:
        """[N, T] whether the head came true; False where not known."""

    @property
    def known(self) -> Bool:
        """[N, T] whether that can be told."""

    @property
    def scores(self) -> Float32:
        """[N] each candidate's best inner product with the interests."""

    @property
    def interests(self) -> Float32:
        """[K, M, D], of all moments of asking."""

    def shuffled(self, rng: np.random.Generator) -> Int64:
        """All requests in a random order in which those of one user follow each other."""

    def by_length(self) -> Int64:
        """All requests, those with short histories first."""

    def batches(
        self, order: Int64, *, size: int, max_history: int
    ) -> Iterator[tuple[Int64, "Batch"]]:
        """Cut requests, in this order, into batches of about `size` candidates.

        Yields which of the N candidates a batch has, in the order of its labels, and the batch.
        """


@dataclass(frozen=True, slots=True)
class Batch:
    """B requests for C candidates at most, n in all, as tensors."""

    item_rows: Tensor
    """[I] int64: the distinct items of histories and candidates."""
    history: Tensor
    """[B, L] int64 into item_rows."""
    events: Tensor
    gaps: Tensor | None
    mask: Tensor
    idle: Tensor | None
    interests: Tensor
    profile: dict[str, Tensor]
    candidates: Tensor
    """[B, C] int64 into item_rows; any where there is none."""
    scores: Tensor
    past: Tensor
    """[B, C, num_events] float32."""
    kin: Tensor | None
    """[B, C, G * num_events] float32; None where there are no columns of kin."""
    age: Tensor | None
    """[B, C, 2] float32; None where it is not read."""
    real: Tensor
    """[B, C] bool: True on the n candidates."""
    labels: Tensor
    """[n, T] float32, request after request."""
    known: Tensor
    """[n, T] float32: 1 where the label is known, else 0."""


def make_batch(
    padded: HistoryBatch,
    candidates: Int64,
    scores: Float32,
    past: Float32,
    kin: Float32 | None,
    age: Float32 | None,
    labels: Bool,
    known: Bool,
    *,
    interests: Float32,
    profile: dict[str, Tensor],
    has_times: bool,
) -> Batch:
    """candidates: [B, C] item rows, -1 for none. The others are as in Batch."""
    rows = np.concatenate([padded.rows.reshape(-1), candidates.reshape(-1)])
    item_rows, places = np.unique(np.maximum(rows, 0), return_inverse=True)
    split = padded.rows.size
    return Batch(
        item_rows=torch.from_numpy(item_rows),
        history=torch.from_numpy(places[:split].reshape(padded.rows.shape)),
        events=torch.from_numpy(padded.events),
        gaps=torch.from_numpy(padded.gaps) if has_times else None,
        mask=torch.from_numpy(padded.mask),
        idle=torch.from_numpy(padded.idle) if has_times else None,
        interests=torch.from_numpy(interests),
        profile=profile,
        candidates=torch.from_numpy(places[split:].reshape(candidates.shape)),
        scores=torch.from_numpy(scores),
        past=torch.from_numpy(past),
        kin=None if kin is None else torch.from_numpy(kin),
        age=None if age is None else torch.from_numpy(age),
        real=torch.from_numpy(candidates >= 0),
        labels=torch.from_numpy(labels.astype(np.float32)),
        known=torch.from_numpy(known.astype(np.float32)),
    )


def logits_from(network: ValueNetwork, vectors: Tensor, batch: Batch) -> Tensor:
    """Logits [n, T] of a batch. vectors: [I, E], the item side's output for batch.item_rows."""
    logits: Tensor = network.request_side(
        F.embedding(batch.history, vectors),
        batch.events,
        batch.gaps,
        batch.mask,
        batch.idle,
        batch.interests,
        batch.profile,
        F.embedding(batch.candidates, vectors),
        batch.scores,
        batch.past,
        batch.kin,
        batch.age,
    )
    return logits[batch.real]
