"""Small inputs for the tests of training: histories, a run without files, a silent reporter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.config import TowerConfig
from model.encode import Encoder
from model.schema import Event, Schema, TimeKind
from training.batches import Batch, training_batch, training_windows
from training.config import RunConfig
from training.dataset import Interactions
from training.loop import Progress
from training.run import Run
from training.splits import split_events
from training.step_loss import ItemInputs

Int64 = npt.NDArray[np.int64]
SECOND = 1_000_000

TINY = RunConfig(
    recipe="tiny",
    dim=16,
    num_interests=2,
    max_history=8,
    num_layers=1,
    feedforward=2,
    loss="sampled",
    num_uniform=64,
    num_in_batch=32,
    epochs=3,
    batch_tokens=64,
    learning_rate=5e-3,
    warmup_steps=2,
)
"""A run of a few seconds; everything that a full run has."""


def schema(*, time: TimeKind = "exact", num_events: int = 2) -> Schema:
    """A schema whose events are event-0, event-1, ..."""
    events = {f"event-{i}": Event(role="engagement", weight=1.0 + i) for i in range(num_events)}
    return Schema(name="tiny", time=time, events=events)


def interactions(
    lengths: Sequence[int],
    *,
    num_items: int,
    time: TimeKind = "exact",
    num_events: int = 2,
    seed: int = 0,
) -> Interactions:
    """Random histories of these lengths; every fourth event has the time of the one before."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    spans = np.where(rng.random(total) < 0.25, 0, rng.exponential(3e4, total) * SECOND)
    declared = schema(time=time, num_events=num_events)
    events = rng.integers(1, num_events + 1, total).astype(np.int32)
    return Interactions(
        declared,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rng.integers(0, num_items, total).astype(np.int32),
        events,
        np.cumsum(spans).astype(np.int64) if declared.has_times else np.zeros(total, np.int64),
        events.astype(np.float32),
        np.zeros(total, np.int8),
        num_items,
    )


def whole_batch(data: Interactions, *, max_history: int, **options: Any) -> Batch:
    """All windows of all users in one batch, told from the whole catalogue."""
    return training_batch(
        data,
        training_windows(data.starts, max_history=max_history),
        max_history=max_history,
        num_items=data.num_items,
        sampler=None,
        correction=0.0,
        rng=np.random.default_rng(1),
        **options,
    )


def run_of(
    tower: TowerConfig,
    data: Interactions,
    *,
    config: RunConfig = TINY,
    profiles: Mapping[str, Tensor] | None = None,
    dataset: Path = Path("nowhere"),
) -> Run:
    """A run that was never on disk, of an item tower without content."""
    split = split_events(data, config)
    trained = split.training.popularity() > 0
    codes = torch.from_numpy(np.where(trained, np.arange(1, data.num_items + 1), 0))
    return Run(
        path=Path("nowhere"),
        dataset=dataset,
        config=config,
        tower=tower,
        encoder=Encoder({}, {}),
        data=data,
        split=split,
        items=ItemInputs({}, codes, torch.device("cpu")),
        profiles=dict(profiles or {}),
    )


class Silent:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        """(share of the epoch that is done, mean loss) after each step."""
        self.metrics: list[Mapping[str, float] | None] = []
        """What each epoch's validation found; None where there was none."""

    def step(
        self, progress: Progress, *, done: float, loss: float, tokens_per_second: float
    ) -> None:
        self.steps.append((done, loss))

    def epoch(
        self, progress: Progress, *, loss: float, metrics: Mapping[str, float] | None
    ) -> None:
        self.metrics.append(metrics)
