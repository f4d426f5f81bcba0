"""The training loop: CPU, CUDA and torchrun DDP from one piece of code.

It is given its data, its saver, its validation and its reporter, and so imports torch, numpy and
the networks alone: it runs under any machine's own torch. It knows no files.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.errors import PenchantError
from model.towers import TwoTower
from training.batches import (
    Batch,
    Histories,
    Objectives,
    Windows,
    epoch_batches,
    shuffled,
    training_batch,
    training_windows,
)
from training.config import RunConfig
from training.distributed import Rank
from training.negatives import NegativeSampler
from training.optimizer import ROW_WISE_FROM, RowWiseAdamW, clip_gradients
from training.step_loss import ItemInputs, StepLoss

_LOOK_EVERY = 20
"""Steps on a GPU between two looks at the loss."""


class Diverged(PenchantError):
    """The loss is no longer a number; the last checkpoint still holds good weights."""


@dataclass(slots=True)
class Progress:
    """Where a run stands; all of it goes into the checkpoint."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    """Time spent training, over all interruptions."""
    losses: list[float] = field(default_factory=list)
    """Mean loss of each epoch."""


class Reporter(Protocol):
    """What the loop tells while it runs; only rank 0 calls it."""

    def step(
        self, progress: Progress, *, done: float, loss: float, tokens_per_second: float
    ) -> None:
        """After a step; done: share of the epoch, 0 to 1."""

    def epoch(
        self, progress: Progress, *, loss: float, metrics: Mapping[str, float] | None
    ) -> None:
        """After an epoch, and its validation if there was one."""


Saver = Callable[[Mapping[str, Tensor], dict[str, Tensor], Progress, bool], None]
"""save(weights, optimizer tensors, progress, is the best yet)"""


def train(
    model: TwoTower,
    data: Histories,
    items: ItemInputs,
    config: RunConfig,
    *,
    profiles: Mapping[str, Tensor],
    popularity: Any,
    rank: Rank,
    validate: Callable[[TwoTower], Mapping[str, float]],
    save: Saver,
    report: Reporter,
    progress: Progress,
    optimizer: torch.optim.Optimizer,
    objectives: Objectives | None = None,
    has_order: bool = True,
    heads: Any = None,
) -> Progress:
    """Train until the epochs, the patience or the minutes run out; returns where it ended.

    data: histories to learn from, held-out events already cut off. validate: → metrics with
    `ndcg@10`, called on rank 0. progress, optimizer: fresh, or as a checkpoint left them.
    objectives: what the config's objectives learn from; none where it names none.
    has_order: whether the order of a user's events is one; else they are shuffled every epoch.
    heads: [E + 1] the head that learns from each event code; None: one learns from all.
    """
    step_loss: nn.Module = StepLoss(model, items, profiles, config.temperature)
    if rank.size > 1:
        step_loss = DistributedDataParallel(
            step_loss, device_ids=[rank.device.index] if rank.device.type == "cuda" else None
        )
    # Every target is preceded by the start token at least, so one event is enough to learn from.
    windows = training_windows(data.starts, max_history=config.max_history)
    num_tokens = int(windows.lengths.sum())
    batch_tokens = config.batch_tokens_for(num_tokens)
    steps_per_epoch = math.ceil(num_tokens / batch_tokens)
    sampler = (
        None
        if config.uses_full_softmax(len(popularity))
        else NegativeSampler(
            popularity,
            num_uniform=config.num_uniform,
            num_in_batch=config.num_in_batch,
            batch_tokens=max(batch_tokens // rank.size, 1),
        )
    )
    # On a GPU a dense step over millions of items takes milliseconds, and gradients of several
    # processes are averaged as dense ones.
    model.item_tower.sparse_ids = (
        sampler is not None
        and len(popularity) >= ROW_WISE_FROM
        and rank.size == 1
        and rank.device.type == "cpu"
    )
    # To read a number from a GPU is to wait for all that it was told to do.
    look_every = 1 if rank.device.type == "cpu" else _LOOK_EVERY
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=rank.device.type == "cuda")

    def prepare(events: Histories, chosen: Windows, step: int) -> tuple[Batch, int]:
        batch = training_batch(
            events,
            chosen[rank.index :: rank.size],
            max_history=config.max_history,
            num_items=len(popularity),
            sampler=sampler,
            correction=config.logq_correction,
            rng=np.random.default_rng([config.seed, step, rank.index]),
            reader=config.reader,
            objectives=objectives,
            heads=heads,
        )
        return batch.to(rank.device), int(chosen.lengths.sum())

    while not rank.agree(_finished(progress, config)):
        started = time.perf_counter()
        model.train()
        rng = np.random.default_rng([config.seed, 1 << 20, progress.epoch])
        batches = [
            chosen
            for chosen in epoch_batches(windows, batch_tokens=batch_tokens, rng=rng)
            if len(chosen.users) >= rank.size  # every rank needs a share, or the others wait for it
        ]
        events = data if has_order else shuffled(data, rng)
        sums, mean_loss, seen = torch.zeros(2, dtype=torch.float64, device=rank.device), 0.0, 0
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(prepare, events, batches[0], progress.step)
            for number, _ in enumerate(batches):
                batch, batch_size = ahead.result()
                if number + 1 < len(batches):
                    ahead = pool.submit(prepare, events, batches[number + 1], progress.step + 1)
                _set_rate(optimizer, _rate(config, progress.step, steps_per_epoch * config.epochs))
                torch.manual_seed(_seed_of(config.seed, progress.step, rank.index))
                optimizer.zero_grad(set_to_none=True)
                with autocast:
                    loss = step_loss(batch)
                # DDP averages over ranks; each rank's mean counts by its share of the weights.
                mine = batch.weights.sum()
                everyone = rank.total(mine.clone())
                (loss * (mine / everyone.clamp(min=1e-9) * rank.size)).backward()
                sums += torch.stack([rank.total(loss.detach() * mine), everyone])
                looks = (number + 1) % look_every == 0 or number + 1 == len(batches)
                if looks:
                    loss_sum, weight_sum = sums.tolist()
                    mean_loss = loss_sum / max(weight_sum, 1e-9)
                    if not math.isfinite(mean_loss):
                        raise Diverged(
                            f"the loss is {mean_loss} at step {progress.step}: training diverged. "
                            "The last checkpoint is good; train again with a lower learning_rate."
                        )
                clip_gradients(model.parameters(), config.clip_norm)
                optimizer.step()
                progress.step += 1
                seen += batch_size
                if rank.leads and looks:
                    spent = time.perf_counter() - started
                    report.step(
                        progress,
                        done=(number + 1) / len(batches),
                        loss=mean_loss,
                        tokens_per_second=seen / spent,
                    )
        progress.epoch += 1
        progress.losses.append(mean_loss)
        metrics = None
        is_best = False
        progress.seconds += time.perf_counter() - started
        # The last epoch is validated, whatever ends the run: it may be the best, or the only one.
        is_due = progress.epoch % config.evaluate_every == 0 or _finished(progress, config)
        if rank.leads and is_due:
            started = time.perf_counter()
            metrics = validate(model)
            is_best = metrics["ndcg@10"] > progress.best_score
            if is_best:
                progress.best_score, progress.best_epoch = metrics["ndcg@10"], progress.epoch
            progress.seconds += time.perf_counter() - started
        if rank.leads:
            save(model.state_dict(), _optimizer_state(optimizer, model), progress, is_best)
            report.epoch(progress, loss=progress.losses[-1], metrics=metrics)
    return progress


def make_optimizer(model: TwoTower, config: RunConfig) -> RowWiseAdamW:
    """AdamW over every parameter, in the order of model.named_parameters()."""
    return RowWiseAdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        foreach=True,
    )


def _finished(progress: Progress, config: RunConfig) -> bool:
    """Whether the epochs, the patience or the minutes have run out."""
    return (
        progress.epoch >= config.epochs
        or progress.epoch - progress.best_epoch >= config.patience * config.evaluate_every
        or (config.max_minutes is not None and progress.seconds > 60 * config.max_minutes)
    )


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def progress_to_json(progress: Progress) -> dict[str, Any]:
    """A JSON-ready copy; Progress(**copy) reads it back."""
    return asdict(progress)


def _optimizer_state(optimizer: torch.optim.Optimizer, model: TwoTower) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    return state


def _rate(config: RunConfig, step: int, total_steps: int) -> float:
    """Linear warm-up, then a cosine down to final_learning_rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = min((step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1), 1.0)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
