"""RecTools' SASRec: real tokens a second in training. Runs under any Python with rectools[torch].

    python benchmarks/quality/rectools_speed.py FOLDER --loss softmax --seconds 20

FOLDER holds what benchmarks/quality/peers.py wrote; knows nothing of Penchant. Prints one line of
JSON. A token is a real target: padding is work, and is not counted. The first batches warm up.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools.models import SASRecModel
from rectools_peers import EVENT, QUIET, dataset_of

WARM_UP = 3


class Clock(Callback):  # type: ignore[misc]
    """Counts real targets, and stops after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.limit, self.tokens, self.started, self.seconds = seconds, 0, 0.0, 0.0

    def __deepcopy__(self, memo: Any) -> "Clock":
        """Itself: RecTools copies its trainer before each fit."""
        return self

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step <= WARM_UP:
            self.started = time.perf_counter()
            return
        self.tokens += int((batch["y"] != 0).sum())
        self.seconds = time.perf_counter() - self.started
        if self.seconds > self.limit:
            trainer.should_stop = True


def main() -> None:
    """Train for so many seconds, print the speed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loss", choices=("softmax", "sampled_softmax"), required=True)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    settings = json.loads((args.folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"])
    train = pd.DataFrame(np.load(args.folder / "split.npz")["train"], columns=EVENT)
    clock = Clock(args.seconds)
    model = SASRecModel(
        n_blocks=settings["num_layers"],
        n_heads=settings["num_heads"],
        n_factors=settings["dim"],
        session_max_len=settings["max_history"],
        dropout_rate=settings["dropout"],
        lr=settings["learning_rate"],
        batch_size=settings["batch_size"],
        loss=args.loss,
        n_negatives=settings["num_negatives"] if args.loss == "sampled_softmax" else 1,
    )
    model._trainer = Trainer(
        max_epochs=10_000, accelerator="cpu", callbacks=[clock], enable_checkpointing=False, **QUIET
    )
    model.fit(dataset_of(train))
    print(json.dumps({"tokens": clock.tokens, "seconds": clock.seconds}))


if __name__ == "__main__":
    main()
