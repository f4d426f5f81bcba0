"""Real tokens a second of the training loop, beside a bare torch loop with the same shapes.

    python benchmarks/training_speed.py ML-1M-DATASET [--seconds 60]

ML-1M-DATASET is an imported dataset (`penchant import movielens`). The bare loop is what one writes
in an afternoon: padded batches, item embeddings, two transformer blocks with fused causal
attention, 1,024 shared uniform negatives, cross-entropy, AdamW; no checkpoints, no logQ, no
content. Both count real history events only (padding and start tokens are work, not tokens). They
take turns on the same machine, three times.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from results import write_result
from torch import nn
from torch.nn import functional as F

from model.towers import TwoTower
from training.batches import epoch_batches, training_batch, training_windows
from training.config import RunConfig
from training.distributed import join
from training.loop import StepLoss, make_optimizer
from training.memory import keep_freed_memory
from training.negatives import NegativeSampler
from training.recipes import movielens
from training.run import open_run, prepare_run

DIM, LAYERS, HEADS, LENGTH, NEGATIVES, BATCH = 64, 2, 2, 200, 1024, 128


class BareBlock(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.ff = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, L, D]."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv, is_causal=True)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, DIM)))
        return x + self.dropout(self.ff(self.norm2(x)))


class BareModel(nn.Module):
    """SASRec with shared uniform negatives, as plainly as it can be written."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, DIM, padding_idx=0)
        self.positions = nn.Embedding(LENGTH, DIM)
        nn.init.normal_(self.items.weight, std=0.02)
        self.blocks = nn.Sequential(*(BareBlock() for _ in range(LAYERS)))
        self.norm, self.dropout = nn.LayerNorm(DIM), nn.Dropout(0.2)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """inputs, targets: [B, L] int64, 0 where padded (on the right). Returns the mean loss."""
        x = self.items(inputs) * DIM**0.5 + self.positions.weight[: inputs.shape[1]]
        x = self.norm(self.blocks(self.dropout(x)))
        real = targets > 0
        states, wanted = x[real], targets[real]
        negatives = torch.randint(1, self.items.num_embeddings, (NEGATIVES,))
        scores = states @ self.items(negatives).T
        scores = scores.masked_fill(negatives == wanted[:, None], float("-inf"))
        positive = (states * self.items(wanted)).sum(-1, keepdim=True)
        logits = torch.cat([positive, scores], dim=1)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))


def bare_batches(data: Any, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Users shuffled, 128 a batch, padded to 200."""
    users = np.random.default_rng(seed).permutation(data.num_users)
    for start in range(0, len(users), BATCH):
        inputs = np.zeros((BATCH, LENGTH), np.int64)
        targets = np.zeros((BATCH, LENGTH), np.int64)
        for row, user in enumerate(users[start : start + BATCH]):
            items = data.items[data.starts[user] : data.starts[user + 1]][-LENGTH - 1 :] + 1
            inputs[row, : len(items) - 1] = items[:-1]
            targets[row, : len(items) - 1] = items[1:]
        yield torch.from_numpy(inputs), torch.from_numpy(targets)


def time_bare(data: Any, num_items: int, seconds: float) -> float:
    """Real tokens a second of the bare loop."""
    torch.manual_seed(0)
    model = BareModel(num_items)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    tokens, started = 0, 0.0
    for step, (inputs, targets) in enumerate(bare_batches(data, seed=0)):
        if step == 3:  # warm
            tokens, started = 0, time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model(inputs, targets)
        loss.backward()
        optimizer.step()
        tokens += int((targets > 0).sum())
        if step > 3 and time.perf_counter() - started > seconds:
            break
    return tokens / (time.perf_counter() - started)


def time_ours(dataset: Path, config: RunConfig, seconds: float) -> float:
    """Real tokens a second of Penchant's step, batches made in the same thread."""
    folder = Path(tempfile.mkdtemp())
    try:
        prepare_run(dataset, folder, config)
        run = open_run(folder)
        data = run.targets
        torch.manual_seed(0)
        model = TwoTower(run.tower).train()
        step_loss = StepLoss(model, run.items, run.profiles, config.temperature)
        optimizer = make_optimizer(model, config)
        windows = training_windows(data.starts, max_history=config.max_history)
        sampler = (
            None
            if config.uses_full_softmax(data.num_items)
            else NegativeSampler(
                data.popularity().astype(np.float64),
                num_uniform=config.num_uniform,
                num_in_batch=config.num_in_batch,
                batch_tokens=config.batch_tokens,
            )
        )
        tokens, started = 0, 0.0
        rng = np.random.default_rng(0)
        batches = epoch_batches(windows, batch_tokens=config.batch_tokens, rng=rng)
        for step, chosen in enumerate(batches):
            if step == 3:
                tokens, started = 0, time.perf_counter()
            batch = training_batch(
                data,
                chosen,
                max_history=config.max_history,
                num_items=data.num_items,
                sampler=sampler,
                correction=config.logq_correction,
                rng=np.random.default_rng(step),
            )
            optimizer.zero_grad(set_to_none=True)
            step_loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            tokens += len(batch.tokens) - len(batch.users)
            if step > 3 and time.perf_counter() - started > seconds:
                break
        return tokens / (time.perf_counter() - started)
    finally:
        shutil.rmtree(folder)


def rounds(values: list[float]) -> str:
    """Each round's speed, for the table."""
    return ", ".join(f"{value:,.0f}" for value in values)


def main() -> None:
    """Time all three in turns and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_freed_memory()  # for all alike, as `penchant train` does
    join("cpu")
    same = RunConfig(
        recipe="same shapes",
        content=False,
        id_dropout=0.0,
        loss="sampled",
        num_uniform=NEGATIVES,
        num_in_batch=0,
        batch_tokens=12_800,
    )
    configs = {
        "Penchant, same shapes (ID-only, 1,024 uniform negatives)": same,
        "Penchant, content tower, 1,024 uniform + 1,024 in-batch": replace(
            same, content=True, id_dropout=0.1, num_in_batch=1024
        ),
        "Penchant, recipe `movielens` (content tower, full softmax)": movielens(),
    }
    with tempfile.TemporaryDirectory() as folder:
        prepare_run(args.dataset, Path(folder), same)
        data = open_run(Path(folder)).targets
        speeds: dict[str, list[float]] = {name: [] for name in ["bare torch loop", *configs]}
        for _ in range(args.rounds):
            speeds["bare torch loop"].append(time_bare(data, data.num_items, args.seconds))
            for name, config in configs.items():
                speeds[name].append(time_ours(args.dataset, config, args.seconds))
    bare = median(speeds["bare torch loop"])
    figures: dict[str, Any] = {
        f"{name}: tokens_per_second": round(median(values)) for name, values in speeds.items()
    }
    first = next(iter(configs))
    figures["ratio_to_bare"] = round(median(speeds[first]) / bare, 3)
    figures["rounds"] = speeds
    write_result(
        "training_speed",
        title="Training speed on MovieLens-1M, real tokens a second",
        figures=figures,
        table=[
            ["", "real tokens a second (median)", "ratio to the bare loop", "each round"],
            *(
                [name, f"{median(v):,.0f}", f"{median(v) / bare:.2f}", rounds(v)]
                for name, v in speeds.items()
            ),
        ],
        notes=(
            f"d = {DIM}, {LAYERS} layers, {HEADS} heads, L = {LENGTH}, AdamW, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}. Padding counts as work "
            "and not as tokens. The loops take turns. Penchant's packing leaves padding out, which "
            "is most of the difference; its softmax walks over rows in cache-sized chunks."
        ),
        command="python benchmarks/training_speed.py ML-1M-DATASET",
    )


if __name__ == "__main__":
    main()
