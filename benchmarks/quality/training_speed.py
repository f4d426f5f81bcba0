"""Real tokens a second in training, beside a bare torch loop and RecTools' SASRec; and who is first
to an HR@10 of 0.25 in validation.

    python benchmarks/quality/training_speed.py ML-1M-FOLDER --work DIR [--rectools PYTHON]

ML-1M-FOLDER as for benchmarks/quality/ml1m.py. The bare loop is what one writes in an afternoon:
padded batches, item embeddings, two transformer blocks with fused causal attention, 1,024 shared
uniform negatives, cross-entropy, AdamW; no checkpoints, no logQ, no content. PYTHON is one with
`pip install 'rectools[torch]'`. All count real history events only (padding and start tokens are
work, not tokens) and take turns on the same machine, with the same d, blocks, heads and length.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))

from commands import penchant
from peers import read_log, run_peer, speed_of_sasrec, write_split
from results import write_result

from model.towers import TwoTower
from training.batches import epoch_batches, training_batch, training_windows
from training.config import RunConfig
from training.distributed import join
from training.loop import make_optimizer
from training.memory import keep_freed_memory
from training.negatives import NegativeSampler
from training.optimizer import clip_gradients
from training.recipes import movielens
from training.run import open_run, prepare_run
from training.step_loss import StepLoss

DIM, LAYERS, HEADS, LENGTH, NEGATIVES, BATCH = 64, 2, 2, 200, 1024, 128
RACE_TO = 0.25
BARE = "bare torch loop (1,024 uniform negatives)"
OURS_SAMPLED = "Penchant, same shapes, ID-only, 1,024 uniform negatives"
OURS_FULL = "Penchant, same shapes, ID-only, full softmax"
PEERS = {
    "RecTools SASRec, 1,024 negatives": "sampled_softmax",
    "RecTools SASRec, full softmax": "softmax",
}


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
            clip_gradients(model.parameters(), config.clip_norm)
            optimizer.step()
            tokens += len(batch.tokens) - len(batch.users)
            if step > 3 and time.perf_counter() - started > seconds:
                break
        return tokens / (time.perf_counter() - started)
    finally:
        shutil.rmtree(folder)


def speed_of_peer(python: str, peers: Path, loss: str, seconds: float) -> float:
    """Real tokens a second of RecTools' SASRec; NaN where the kernel killed it for its memory."""
    try:
        return speed_of_sasrec(python, peers, loss, seconds)
    except subprocess.CalledProcessError as error:
        if error.returncode != -signal.SIGKILL:
            raise
        return float("nan")


def rounds(values: list[float]) -> str:
    """Each round's speed, for the table."""
    return ", ".join(f"{value:,.0f}" if value > 0 else "out of memory" for value in values)


def first_to(log: list[dict[str, float]], metric: str, level: float) -> str:
    """The minute of the first validation at this level, or the best there was."""
    for line in log:
        if line.get(metric, 0.0) >= level:
            return f"{line['minutes']:.1f} minutes"
    best = max(line.get(metric, 0.0) for line in log)
    return f"not in {log[-1]['minutes']:.0f} minutes (best {best:.3f})"


def race(dataset: Path, work: Path, rectools: str, minutes: float) -> dict[str, str]:
    """Our recipe and RecTools' SASRec, one after the other, until 0.25 or the minutes are over."""
    folder = work / "race"
    resume = ["--resume"] if (folder / "run.json").exists() else []
    given = ["--recipe", "movielens", "--max-minutes", minutes, *resume]
    penchant("train", dataset, "--out", folder, *given)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = {"Penchant": first_to([json.loads(line) for line in lines], "hr@10", RACE_TO)}
    write_split(open_run(folder), folder / "peers", minutes=minutes, batch_size=BATCH)
    for model, name in {"sasrec": "RecTools SASRec", "esasrec": "RecTools eSASRec"}.items():
        run_peer(rectools, folder / "peers", model)
        found[name] = first_to(read_log(folder / "peers", model), "hr@10", RACE_TO)
    return found


def main() -> None:
    """Time all in turns and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where dataset and runs are kept")
    parser.add_argument("--rectools", help="a Python that has rectools[torch]")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0, help="of each in the race; 0: none")
    args = parser.parse_args()
    keep_freed_memory()  # for all alike: the peers get it by their environment
    join("cpu")
    dataset = args.work / "dataset"
    if not dataset.exists():
        penchant("import", "movielens", args.source, dataset)
    full = RunConfig(
        recipe="same shapes", content=False, id_dropout=0.0, loss="full", batch_tokens=12_800
    )
    sampled = replace(full, loss="sampled", num_uniform=NEGATIVES, num_in_batch=0)
    configs = {
        OURS_SAMPLED: sampled,
        OURS_FULL: full,
        "Penchant, content, 1,024 uniform + 1,024 in-batch": replace(
            sampled, content=True, id_dropout=0.1, num_in_batch=1024
        ),
        "Penchant, recipe `movielens` (content, full softmax)": movielens(),
    }
    with tempfile.TemporaryDirectory() as folder:
        prepare_run(dataset, Path(folder), full)
        run = open_run(Path(folder))
        data = run.targets
        peers = Path(folder) / "peers"
        write_split(run, peers, minutes=0, batch_size=BATCH, num_negatives=NEGATIVES)
        contests: dict[str, Callable[[], float]] = {
            BARE: lambda: time_bare(data, data.num_items, args.seconds),
            **{
                name: lambda config=config: time_ours(dataset, config, args.seconds)  # type: ignore[misc]
                for name, config in configs.items()
            },
        }
        if args.rectools:
            for name, loss in PEERS.items():
                contests[name] = lambda loss=loss: speed_of_peer(  # type: ignore[misc]
                    args.rectools, peers, loss, args.seconds
                )
        speeds: dict[str, list[float]] = {name: [] for name in contests}
        for _ in range(args.rounds):
            for name, contest in contests.items():
                speeds[name].append(contest())
    ran = {name: [value for value in values if value > 0] for name, values in speeds.items()}
    middle = {name: median(values) if values else 0.0 for name, values in ran.items()}
    figures: dict[str, Any] = {
        f"{name}: tokens_per_second": round(value) for name, value in middle.items() if value > 0
    }
    figures["ratio_to_bare"] = round(middle[OURS_SAMPLED] / middle[BARE], 3)
    rows = [
        [name, f"{value:,.0f}", f"{value / middle[BARE]:.2f}", rounds(speeds[name])]
        if value > 0
        else [name, "out of memory", "", ""]
        for name, value in middle.items()
    ]
    notes = (
        f"d = {DIM}, {LAYERS} layers, {HEADS} heads, L = {LENGTH}, AdamW, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}. Padding counts as work "
        "and not as tokens. All take turns. Penchant packs sequences, so that nothing is computed "
        "on padding, shares its negatives over the batch, and its softmax walks over rows in "
        "cache-sized chunks, in bfloat16 where the processor has it. "
    )
    if args.rectools:
        ratios: dict[str, float] = {}
        for loss, ours in (("softmax", OURS_FULL), ("sampled_softmax", OURS_SAMPLED)):
            peer = next(name for name, of in PEERS.items() if of == loss)
            if middle[peer] > 0:
                ratios[loss] = round(middle[ours] / middle[peer], 2)
                figures[f"ratio_to_rectools_{loss}"] = ratios[loss]
        times = race(dataset, args.work, args.rectools, args.minutes) if args.minutes else {}
        figures["race"] = times
        rows += [
            [f"{name}: to validation HR@10 {RACE_TO}", took, "", ""] for name, took in times.items()
        ]
        notes += (
            "Same shapes, same loss: Penchant is "
            + " and ".join(f"{ratio} times RecTools with {loss}" for loss, ratio in ratios.items())
            + f". Of {NEGATIVES:,} negatives, RecTools draws those for each position, Penchant for "
            "the batch."
        )
        if times:
            notes += " The race: minutes of training and validation, on one core each."
    figures["rounds"] = ran
    write_result(
        "training_speed",
        title="Training speed on MovieLens-1M, real tokens a second",
        figures=figures,
        table=[
            ["", "real tokens a second (median)", "ratio to the bare loop", "each round"],
            *rows,
        ],
        notes=notes,
        command=(
            "python benchmarks/quality/training_speed.py ML-1M-FOLDER --work DIR --rectools PYTHON "
            f"--rounds {args.rounds} --minutes {args.minutes:g}"
        ),
    )


if __name__ == "__main__":
    main()
