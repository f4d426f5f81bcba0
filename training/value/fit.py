"""The value model's training loop: examples in, the weights of the best epoch out.

The towers are frozen. Training stops when the loss on the choosing part no longer falls. Knows
examples as arrays; no datasets and no files.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from model.value import ValueNetwork
from training.loop import Diverged
from training.value.batch import Examples, logits_from
from training.value.calibration import Line, fit_line
from training.value.config import ValueRunConfig
from training.value.inputs import ItemArrays, logits_of
from training.value.losses import head_weights, log_losses, ranking_losses, same_user_pairs

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]

_Tensors = tuple[Tensor, ...] | list[Tensor]

_PREDICTED_TOGETHER = 4096


@dataclass(frozen=True, slots=True)
class Fit:
    """How training went."""

    best_epoch: int
    """From 1."""
    losses: list[float]
    """Mean loss of each epoch."""
    choosing_losses: list[float]
    """The loss on the choosing day after each epoch."""
    seconds: float
    lines: list[Line]
    """Of each head, what made its chances true on the choosing day; the weights have it already."""


def fit_network(
    network: ValueNetwork,
    items: ItemArrays,
    fit: Examples,
    choose: Examples,
    config: ValueRunConfig,
    *,
    progress: Progress,
) -> Fit:
    """Train the network in place; it ends with the weights of the best epoch, in evaluation mode.

    Where no label of the choosing day can be told, no epoch is better than another: the last one's.

    Raises Diverged if the loss is no longer a number.
    """
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    rates = _rates(fit)
    weights = head_weights(rates, config.rare_heads)
    _measure_inputs(network, items, fit, rates)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        foreach=True,
    )
    averaged = AveragedModel(
        network, multi_avg_fn=_running_mean(config.averaging), use_buffers=True
    )
    mean = cast(ValueNetwork, averaged.module)
    num = len(fit.scores)
    size = config.batch_size(num)
    num_steps = math.ceil(num / size) * config.epochs
    step, best = 0, math.inf
    judged = bool(choose.known.any())
    best_epoch, best_weights = 0, copy.deepcopy(network.state_dict())
    losses: list[float] = []
    choosing: list[float] = []
    for epoch in range(1, config.epochs + 1):
        network.train()
        order = fit.shuffled(np.random.default_rng([config.seed, epoch]))
        total = 0.0
        for chosen, batch in fit.batches(order, size=size, max_history=config.max_history):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step, num_steps)
            optimizer.zero_grad(set_to_none=True)
            logits = logits_of(network, items, batch)
            loss = _loss(logits, batch.labels, batch.known, fit.owners[chosen], weights, config)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
            averaged.update_parameters(network)
            total += loss.item() * len(batch.labels)
            step += 1
            progress(step / num_steps, _said(epoch, choosing))
        losses.append(total / num)
        found = predict(mean, items, choose, max_history=config.max_history)
        choosing.append(loss_of(found, choose, weights, config))
        if not math.isfinite(losses[-1] + choosing[-1]):
            raise Diverged(
                f"the loss is {losses[-1]} in epoch {epoch}: training diverged. Nothing was "
                "written; train again with a lower learning_rate."
            )
        if choosing[-1] < best or not judged:
            best, best_epoch = choosing[-1], epoch
            best_weights = copy.deepcopy(mean.state_dict())
        elif epoch - best_epoch >= config.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    lines = _calibrate(network, items, choose, config)
    return Fit(best_epoch, losses, choosing, time.perf_counter() - started, lines)


@torch.no_grad()
def _calibrate(
    network: ValueNetwork, items: ItemArrays, choose: Examples, config: ValueRunConfig
) -> list[Line]:
    """Make chances true on the choosing day; the order of no head's candidates changes."""
    logits = predict(network, items, choose, max_history=config.max_history)
    heads, lines = network.request_side.heads, []
    for place in range(logits.shape[1]):
        known = choose.known[:, place]
        line = fit_line(logits[known, place], choose.labels[known, place])
        lines.append(line)
        heads.weight[place] *= line.slope
        heads.bias[place] = heads.bias[place] * line.slope + line.shift
    return lines


def _running_mean(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """How the running mean of the weights takes in a step's weights.

    It tells the value of a model at a high learning rate without the noise of its last step
    (Polyak and Juditsky, 1992). The first steps are soon forgotten.
    """

    @torch.no_grad()
    def take_in(mean: _Tensors, weights: _Tensors, num_steps: Tensor | int) -> None:
        steps = int(num_steps)
        kept = min(decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(mean, weights, 1 - kept)

    return take_in


@torch.no_grad()
def item_side(network: ValueNetwork, items: ItemArrays) -> Tensor:
    """[V, E] the item side's output for all items."""
    network.eval()
    rows = torch.arange(len(items.vectors))
    return torch.cat([network.item_side(*items.take(part)) for part in rows.split(1 << 14)])


def predict(
    network: ValueNetwork, items: ItemArrays, examples: Examples, *, max_history: int
) -> Float32:
    """Logits [N, T] of all candidates, in their order."""
    vectors = item_side(network, items)
    return predict_from(network, vectors, examples, max_history=max_history)


@torch.no_grad()
def predict_from(
    network: ValueNetwork, vectors: Tensor, examples: Examples, *, max_history: int
) -> Float32:
    """As predict. vectors: [V, E] of item_side."""
    network.eval()
    logits = np.empty((len(examples.scores), len(network.config.heads)), np.float32)
    order = examples.by_length()
    for chosen, batch in examples.batches(order, size=_PREDICTED_TOGETHER, max_history=max_history):
        read = vectors.index_select(0, batch.item_rows)
        logits[chosen] = logits_from(network, read, batch).numpy()
    return logits


def loss_of(logits: Float32, examples: Examples, weights: Tensor, config: ValueRunConfig) -> float:
    """What training makes small, of logits [N, T] of all examples. weights: [T] of the heads."""
    labels = torch.from_numpy(examples.labels.astype(np.float32))
    known = torch.from_numpy(examples.known.astype(np.float32))
    found = torch.from_numpy(logits)
    # User after user, in pieces as large as a batch: the pairs of one user grow with its square.
    order = torch.from_numpy(np.argsort(examples.owners, kind="stable"))
    ranking = 0.0
    for part in order.split(config.batch_size(len(found))):
        pairs = same_user_pairs(examples.owners[part.numpy()], _came_true(labels[part]))
        losses = ranking_losses(found[part], labels[part], known[part], pairs)
        ranking += float(losses @ weights) * len(part) / len(found)
    return float(log_losses(found, labels, known) @ weights) + config.ranking_weight * ranking


def _loss(
    logits: Tensor,
    labels: Tensor,
    known: Tensor,
    owners: Int64,
    weights: Tensor,
    config: ValueRunConfig,
) -> Tensor:
    """The log loss and the ranking loss of all heads. owners: [n] who was shown each. weights: [T]
    of the heads."""
    loss = log_losses(logits, labels, known) @ weights
    if config.ranking_weight:
        ranking = ranking_losses(logits, labels, known, same_user_pairs(owners, _came_true(labels)))
        loss = loss + config.ranking_weight * (ranking @ weights)
    return loss


def _came_true(labels: Tensor) -> Bool:
    """[n] whether any head did."""
    return (labels > 0).any(dim=1).numpy()


@torch.no_grad()
def _measure_inputs(network: ValueNetwork, items: ItemArrays, fit: Examples, rates: Tensor) -> None:
    """Give the network the scales of its inputs, and each head the rate [T] it has on the whole."""
    side, features = network.item_side, network.request_side.features
    side.standard_vector.measure(items.vectors)
    side.standard_stats.measure(items.stats)
    features.standard_interests.measure(
        torch.from_numpy(fit.interests.reshape(-1, fit.interests.shape[-1]))
    )
    features.standard_scores.measure(torch.from_numpy(fit.scores[:, None]))
    network.request_side.heads.bias.copy_(torch.logit(rates))


def _rates(fit: Examples) -> Tensor:
    """[T] float32 how often each head came true, never 0 or 1."""
    positives = (fit.labels & fit.known).sum(axis=0)
    return torch.from_numpy((positives + 0.5) / (fit.known.sum(axis=0) + 1)).float()


def _said(epoch: int, choosing: list[float]) -> str:
    return f"epoch {epoch}" + (f", loss {choosing[-1]:.4f}" if choosing else "")
