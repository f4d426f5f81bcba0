"""Histories become packed batches of tensors: what a training step and a user encoding read.

A history longer than the model reads is cut into windows, so that every event is learned from. A
batch is a pure function of its windows and of a random generator made from (seed, step), so a
resumed run sees the batches that the interrupted one would have. Imports torch and numpy alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.bag import BagLayout
from model.config import Reader
from model.sequence import PackedLayout, pack
from training.config import Objective
from training.negatives import NegativeSampler
from training.objectives import Drawn, FutureWindows

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
    layout: PackedLayout | BagLayout

    def to(self, device: torch.device) -> Any:
        """The same tokens on a device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor | PackedLayout | BagLayout)
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
    heads: Tensor | None = None
    """[T] int64: the head that each target is asked of; None: the first."""
    goals: tuple["Goal", ...] = ()
    """One an objective of the config; none: the event after each token is its only target."""

    def to(self, device: torch.device) -> Any:
        """The same batch on a device."""
        moved = Tokens.to(self, device)
        return replace(moved, goals=tuple(goal.to(device) for goal in self.goals))


@dataclass(slots=True)
class Goal:
    """What each token should predict for one objective; see Batch for the fields."""

    targets: Tensor
    weights: Tensor
    hits: Tensor
    positive_bias: Tensor | None

    def to(self, device: torch.device) -> "Goal":
        """The same goal on a device."""
        bias = None if self.positive_bias is None else self.positive_bias.to(device)
        return Goal(self.targets.to(device), self.weights.to(device), self.hits.to(device), bias)


@dataclass(frozen=True, slots=True)
class Objectives:
    """What tokens learn from where the config names objectives."""

    windows: FutureWindows
    names: tuple[Objective, ...]

    def draw(self, following: Int64, rng: np.random.Generator) -> list[Drawn]:
        """What tokens learn from, one an objective; following: [T] the event after each token."""
        return [self.windows.draw(name, following, rng) for name in self.names]


@dataclass(frozen=True, slots=True)
class Windows:
    """W stretches of histories, each of at most max_history events."""

    users: Int64
    """[W] user rows."""
    ends: Int64
    """[W] the event after the window's newest: in training, the last target."""
    lengths: Int64
    """[W] tokens: the start token and the window's events."""

    def __getitem__(self, chosen: Any) -> "Windows":
        """Some of the windows."""
        return Windows(self.users[chosen], self.ends[chosen], self.lengths[chosen])


def training_windows(starts: Int64, *, max_history: int) -> Windows:
    """Cut U histories so that each event is a target once: user by user, the newest window first.

    starts: [U + 1], of training data. The newest window ends with the user's last event; where it
    does not reach back to the first, older ones of max_history targets follow.
    """
    lengths = np.diff(starts)
    older = np.maximum(lengths - (max_history + 1), 0)
    num_windows = np.where(lengths > 0, 1 + -(-older // max_history), 0)
    users = np.repeat(np.arange(len(lengths)), num_windows)
    number = np.arange(len(users)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    ends = starts[users + 1] - 1 - number * max_history
    return Windows(users, ends, np.minimum(ends - starts[users], max_history) + 1)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Histories whose events were put into another order within each user."""

    starts: Any
    items: Any
    events: Any
    times: Any
    weights: Any


def shuffled(data: Histories, rng: np.random.Generator) -> Shuffled:
    """The same histories in a random order, for data whose order means nothing: learned in one
    order alone, the network would take that order for a pattern."""
    owners = np.repeat(np.arange(len(data.starts) - 1), np.diff(data.starts))
    order = np.lexsort((rng.random(len(owners)), owners))
    return Shuffled(
        data.starts, data.items[order], data.events[order], data.times[order], data.weights[order]
    )


def _read_windows(
    data: Histories, windows: Windows, *, max_history: int
) -> tuple[dict[str, Any], Int64, Int64]:
    """Token arrays of windows, but for their layout; see Tokens. Returns arrays, the event after
    each token, order."""
    order = np.argsort(-windows.lengths, kind="stable")
    windows = windows[order]
    users, lengths = windows.users, windows.lengths
    first = np.cumsum(lengths) - lengths
    step = np.arange(lengths.sum()) - np.repeat(first, lengths)
    following = np.repeat(windows.ends + 1 - lengths, lengths) + step  # the event after each token
    own = np.maximum(following - 1, 0)
    is_start = step == 0
    times = data.times
    after = np.minimum(following, len(data.items) - 1)
    gaps = np.where(step >= 2, times[own] - times[np.maximum(own - 1, 0)], 0)
    idle = np.where(is_start, 0, times[after] - times[own])
    arrays = {
        "rows": np.where(is_start, -1, data.items[own]).astype(np.int64),
        "events": np.where(is_start, 0, data.events[own]).astype(np.int64),
        "positions": np.where(is_start, -1, max_history - np.repeat(lengths, lengths) + step),
        "gaps": (np.maximum(gaps, 0) / 1e6).astype(np.float32),
        "idle": (np.maximum(idle, 0) / 1e6).astype(np.float32),
        "owners": np.repeat(np.arange(len(users)), lengths),
        "last": first + lengths - 1,
        "users": users,
    }
    return arrays, following, order


def _bag_layout(rows: Int64, owners: Int64, *, leave_out_own: bool) -> BagLayout:
    """rows, owners: [T] of tokens, -1 the row of start tokens."""
    num_owners = int(owners[-1]) + 1
    if not leave_out_own:
        return BagLayout(torch.from_numpy(owners), num_owners, None, 0)
    items = owners * (rows.max() + 2) + rows  # one number for each item of each sequence
    held, groups = np.unique(items, return_inverse=True)
    return BagLayout(torch.from_numpy(owners), num_owners, torch.from_numpy(groups), len(held))


def user_tokens(
    data: Histories,
    users: Int64,
    idle: npt.NDArray[np.float32],
    *,
    max_history: int,
    reader: Reader = "sequence",
) -> Tokens:
    """Tokens that encode users as of now: all their events are inputs, read at `last`.

    idle: [B] seconds from each user's last event to now.
    """
    ends = data.starts[users + 1]
    lengths = np.minimum(ends - data.starts[users], max_history) + 1
    arrays, _, order = _read_windows(data, Windows(users, ends, lengths), max_history=max_history)
    arrays["idle"][arrays["last"]] = idle[order]
    rows = arrays.pop("rows")
    arrays["layout"] = (
        pack(lengths[order])
        if reader == "sequence"
        else _bag_layout(rows, arrays["owners"], leave_out_own=False)
    )
    item_rows = np.unique(rows[rows >= 0])
    return Tokens(
        item_rows=torch.from_numpy(item_rows),
        tokens=_places(rows, item_rows),
        **_tensors(arrays),
    )


def training_batch(
    data: Histories,
    windows: Windows,
    *,
    max_history: int,
    num_items: int,
    sampler: NegativeSampler | None,
    correction: float,
    rng: np.random.Generator,
    reader: Reader = "sequence",
    objectives: Objectives | None = None,
    heads: Int64 | None = None,
) -> Batch:
    """One batch in which every token predicts the event after it, or what its objectives ask for.

    windows: of training_windows. sampler: None for the full softmax over num_items. reader: a
    sequence predicts an event from those before it, a bag from all others of the window. heads:
    [E + 1] the head that learns from each event code.
    """
    is_bag = reader == "bag"
    if is_bag:  # the last event is an input as well: it says something of the others
        windows = Windows(windows.users, windows.ends + 1, windows.lengths + 1)
    arrays, following, _ = _read_windows(data, windows, max_history=max_history)
    rows, owners = arrays.pop("rows"), arrays["owners"]
    users = arrays["users"][owners]
    # The first event of a window that cuts a history off is the last target of the next window, and
    # so not learned here. A start token stands for the empty history: it learns what users begin
    # with.
    first = following[rows < 0][owners]
    if is_bag:
        following = np.where(rows < 0, following, following - 1)  # a token is told itself
    learns = (following != first) | (first == data.starts[users])
    targets = data.items[following].astype(np.int64)
    arrays["layout"] = (
        _bag_layout(rows, owners, leave_out_own=True) if is_bag else pack(np.bincount(owners))
    )
    weights = torch.from_numpy(np.where(learns, data.weights[following], 0).astype(np.float32))
    asked = None if heads is None else torch.from_numpy(heads[data.events[following]])
    goals = [] if objectives is None else objectives.draw(following, rng)
    ahead = [
        (data.items[goal.targets].astype(np.int64), np.where(learns, goal.weights, 0))
        for goal in goals
    ]
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
            heads=asked,
            goals=tuple(
                Goal(torch.from_numpy(rows), torch.from_numpy(w), torch.from_numpy(rows), None)
                for rows, w in ahead
            ),
            **_tensors(arrays),
        )
    drawn = sampler.draw(targets, rng)
    item_rows = np.unique(
        np.concatenate([rows[rows >= 0], targets, drawn, *(found for found, _ in ahead)])
    )
    return Batch(
        item_rows=torch.from_numpy(item_rows),
        tokens=_places(rows, item_rows),
        targets=_places(targets, item_rows),
        weights=weights,
        candidates=_places(drawn, item_rows),
        hits=_hits(drawn, targets),
        positive_bias=torch.from_numpy(-correction * sampler.log_q[targets]),
        candidate_bias=torch.from_numpy(-correction * sampler.log_q[drawn]),
        heads=asked,
        goals=tuple(
            Goal(
                _places(found, item_rows),
                torch.from_numpy(w),
                _hits(drawn, found),
                torch.from_numpy(-correction * sampler.log_q[found]),
            )
            for found, w in ahead
        ),
        **_tensors(arrays),
    )


def _hits(drawn: Int64, targets: Int64) -> Tensor:
    """[T] which of the sorted candidates is the row's own target, -1 if none."""
    place = np.minimum(np.searchsorted(drawn, targets), len(drawn) - 1)
    return torch.from_numpy(np.where(drawn[place] == targets, place, -1))


def epoch_batches(
    windows: Windows, *, batch_tokens: int, rng: np.random.Generator
) -> Iterator[Windows]:
    """Shuffle windows and cut them into batches of about batch_tokens tokens."""
    windows = windows[rng.permutation(len(windows.lengths))]
    batch_of = (np.cumsum(windows.lengths) - windows.lengths) // batch_tokens
    cuts = np.flatnonzero(np.diff(batch_of)) + 1
    for begin, end in pairwise([0, *cuts.tolist(), len(batch_of)]):
        yield windows[begin:end]


def _places(rows: Int64, item_rows: Int64) -> Tensor:
    """Where each row stands in item_rows; len(item_rows) for -1."""
    return torch.from_numpy(np.where(rows < 0, len(item_rows), np.searchsorted(item_rows, rows)))


def _tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }
