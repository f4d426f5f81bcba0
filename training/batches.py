"""Histories become packed batches of tensors: what a training step and a user encoding read.

A batch is a pure function of its users and of a random generator made from (seed, step), so a
resumed run sees the batches that the interrupted one would have. Imports torch and numpy alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.sequence import PackedLayout, pack
from training.negatives import NegativeSampler

Int64 = npt.NDArray[np.int64]


class Histories(Protocol):
    """What a batch needs of training/dataset.py's Interactions."""

    @property
    def starts(self) -> Any: ...
    @property
    def items(self) -> Any: ...
    @property
    def events(self) -> Any: ...
    @property
    def times(self) -> Any: ...
    @property
    def weights(self) -> Any: ...


@dataclass(slots=True)
class Tokens:
    """B packed sequences of T tokens: each the start token, then a window of a user's events."""

    item_rows: Tensor
    """[I] int64: the distinct items that the item tower must encode for this batch."""
    tokens: Tensor
    """[T] int64 into item_rows; I is the start token."""
    events: Tensor
    positions: Tensor
    gaps: Tensor
    idle: Tensor
    """[T] float32 seconds from the token's event to the next one (the target, in training)."""
    owners: Tensor
    """[T] int64: the sequence, 0 to B - 1, of each token."""
    last: Tensor
    """[B] int64: each sequence's last token."""
    users: Tensor
    """[B] int64: user rows in packed order (longest window first)."""
    layout: PackedLayout

    def to(self, device: torch.device) -> Any:
        """The same tokens on a device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor | PackedLayout)
        }
        return replace(self, **moved)


@dataclass(slots=True)
class Batch(Tokens):
    """Tokens with what each should predict."""

    targets: Tensor
    """[T] int64 into item_rows."""
    weights: Tensor
    """[T] float32."""
    candidates: Tensor | None
    """[N] int64 into item_rows; None: all of item_rows, in order (full softmax)."""
    hits: Tensor
    """[T] int64: the candidate that is the row's own target, -1 if none."""
    positive_bias: Tensor | None
    candidate_bias: Tensor | None


def _windows(
    data: Histories, users: Int64, *, max_history: int, hold_last: bool
) -> tuple[dict[str, Any], Int64, Int64]:
    """Token arrays of each user's newest window; see Tokens. Returns arrays, target events, order.

    hold_last: the last event is a target only, not an input.
    """
    starts, ends = data.starts[users], data.starts[users + 1] - int(hold_last)
    counts = np.minimum(ends - starts, max_history)
    order = np.argsort(-counts, kind="stable")
    users, ends, counts = users[order], ends[order], counts[order]
    lengths = counts + 1
    first = np.cumsum(lengths) - lengths
    step = np.arange(lengths.sum()) - np.repeat(first, lengths)
    following = np.repeat(ends - counts, lengths) + step  # the event after each token
    own = np.maximum(following - 1, 0)
    is_start = step == 0
    times = data.times
    after = np.minimum(following, len(data.items) - 1)
    gaps = np.where(step >= 2, times[own] - times[np.maximum(own - 1, 0)], 0)
    idle = np.where(is_start, 0, times[after] - times[own])
    arrays = {
        "rows": np.where(is_start, -1, data.items[own]).astype(np.int64),
        "events": np.where(is_start, 0, data.events[own]).astype(np.int64),
        "positions": np.where(is_start, -1, max_history - np.repeat(counts, lengths) + step - 1),
        "gaps": (np.maximum(gaps, 0) / 1e6).astype(np.float32),
        "idle": (np.maximum(idle, 0) / 1e6).astype(np.float32),
        "owners": np.repeat(np.arange(len(users)), lengths),
        "last": first + lengths - 1,
        "users": users,
        "layout": pack(lengths),
    }
    return arrays, after, order


def user_tokens(
    data: Histories, users: Int64, idle: npt.NDArray[np.float32], *, max_history: int
) -> Tokens:
    """Tokens that encode users as of now: all their events are inputs, read at `last`.

    idle: [B] seconds from each user's last event to now.
    """
    arrays, _, order = _windows(data, users, max_history=max_history, hold_last=False)
    arrays["idle"][arrays["last"]] = idle[order]
    rows = arrays.pop("rows")
    item_rows = np.unique(rows[rows >= 0])
    return Tokens(
        item_rows=torch.from_numpy(item_rows),
        tokens=_places(rows, item_rows),
        **_tensors(arrays),
    )


def training_batch(
    data: Histories,
    users: Int64,
    *,
    max_history: int,
    num_items: int,
    sampler: NegativeSampler | None,
    correction: float,
    rng: np.random.Generator,
) -> Batch:
    """One batch in which every token predicts the event after it.

    users: rows of users with at least one event. sampler: None for the full softmax over num_items.
    """
    arrays, following, _ = _windows(data, users, max_history=max_history, hold_last=True)
    rows = arrays.pop("rows")
    targets = data.items[following].astype(np.int64)
    weights = torch.from_numpy(data.weights[following].astype(np.float32))
    if sampler is None:
        item_rows = np.arange(num_items)
        target_places = torch.from_numpy(targets)
        return Batch(
            item_rows=torch.from_numpy(item_rows),
            tokens=torch.from_numpy(np.where(rows < 0, num_items, rows)),
            targets=target_places,
            weights=weights,
            candidates=None,
            hits=target_places,
            positive_bias=None,
            candidate_bias=None,
            **_tensors(arrays),
        )
    drawn = sampler.draw(targets, rng)
    item_rows = np.unique(np.concatenate([rows[rows >= 0], targets, drawn]))
    place = np.minimum(np.searchsorted(drawn, targets), len(drawn) - 1)
    return Batch(
        item_rows=torch.from_numpy(item_rows),
        tokens=_places(rows, item_rows),
        targets=_places(targets, item_rows),
        weights=weights,
        candidates=_places(drawn, item_rows),
        hits=torch.from_numpy(np.where(drawn[place] == targets, place, -1)),
        positive_bias=torch.from_numpy(-correction * sampler.log_q[targets]),
        candidate_bias=torch.from_numpy(-correction * sampler.log_q[drawn]),
        **_tensors(arrays),
    )


def epoch_batches(
    lengths: Int64, *, batch_tokens: int, rng: np.random.Generator
) -> Iterator[Int64]:
    """Shuffle users and cut them into batches of about batch_tokens tokens.

    lengths: [U] tokens a user will give, 0 for users who are left out. Yields arrays of user rows.
    """
    users = np.flatnonzero(lengths > 0)
    users = users[rng.permutation(len(users))]
    batch_of = (np.cumsum(lengths[users]) - lengths[users]) // batch_tokens
    yield from np.split(users, np.flatnonzero(np.diff(batch_of)) + 1)


def _places(rows: Int64, item_rows: Int64) -> Tensor:
    """Where each row stands in item_rows; len(item_rows) for -1."""
    return torch.from_numpy(np.where(rows < 0, len(item_rows), np.searchsorted(item_rows, rows)))


def _tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }
