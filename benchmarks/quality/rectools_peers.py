"""RecTools' sequential models on one split: trained for so many minutes, then asked for lists.

    python benchmarks/quality/rectools_peers.py FOLDER --model esasrec

Runs under any Python that has `rectools[torch]`; knows nothing of Penchant. FOLDER holds what
benchmarks/quality/peers.py wrote: `settings.json` and `split.npz`, int64 arrays: `train` and
`histories` [E, 3] (user, item, place: a user's events are in the order of place), `validation`
[n, 2] (user, item: what followed `train`) and `users` [Q]. It writes `lists-MODEL.npz` (`users`
[Q], `items` [Q, 50], best first, -1 where nothing is left) and `MODEL.json`, the log.

The model sees `train` alone. After each epoch it is asked for the validation items of a sample of
users, and the weights of the best epoch by NDCG@10 make the lists: the peers get the early stopping
that Penchant has. Minutes count training and validation.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

DEPTH = 50
MODELS = ("sasrec", "sasrec-sampled", "esasrec", "bert4rec")
EVENT = ["user", "item", "place"]
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def dataset_of(events: pd.DataFrame) -> Dataset:
    """RecTools' form of user, item, place."""
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: events["user"],
                Columns.Item: events["item"],
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(events["place"], unit="s"),
            }
        )
    )


class Watch(Callback):  # type: ignore[misc]
    """After each epoch: validation, the best weights so far, and whether the time is over."""

    model: Any = None

    def __init__(self, train: Dataset, validation: pd.DataFrame, settings: dict[str, Any]) -> None:
        self.train, self.settings = train, settings
        self.wanted = validation.set_index("user")["item"]
        sample = min(settings["validation_users"], len(validation))
        self.users = validation["user"].sample(sample, random_state=17).to_numpy()
        self.started, self.best, self.weights = time.perf_counter(), -1.0, None
        self.epochs: list[dict[str, float]] = []

    def __deepcopy__(self, memo: Any) -> "Watch":
        """Itself: RecTools copies its trainer before each fit."""
        return self

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        epoch = trainer.current_epoch + 1
        minutes = (time.perf_counter() - self.started) / 60
        over = minutes >= self.settings["minutes"]
        if epoch % self.settings["evaluate_every"] and not over:
            return
        self.model.is_fitted, was = True, self.model.is_fitted
        module.eval()
        lists = ask(self.model, self.train, self.users, 10)
        module.train()
        self.model.is_fitted = was
        hits = lists[lists[Columns.Item] == self.wanted.reindex(lists[Columns.User]).to_numpy()]
        ndcg = float((1 / np.log2(hits[Columns.Rank] + 1)).sum() / len(self.users))
        minutes = (time.perf_counter() - self.started) / 60
        self.epochs.append(
            {
                "epoch": epoch,
                "minutes": minutes,
                "hr@10": len(hits) / len(self.users),
                "ndcg@10": ndcg,
            }
        )
        print(json.dumps(self.epochs[-1]), flush=True)
        if ndcg > self.best:
            self.best, self.weights = ndcg, copy.deepcopy(module.state_dict())
            self.since = 0
        else:
            self.since += 1
        if over or self.since >= self.settings["patience"]:
            trainer.should_stop = True


def ask(model: Any, dataset: Dataset, users: Any, k: int) -> pd.DataFrame:
    """The k best unseen items of each user."""
    return model.recommend(users=users, dataset=dataset, k=k, filter_viewed=True)


def make(name: str, settings: dict[str, Any]) -> Any:
    """One of the peers, at the size that Penchant's towers have."""
    size = {
        "n_blocks": settings["num_layers"],
        "n_heads": settings["num_heads"],
        "n_factors": settings["dim"],
        "session_max_len": settings["max_history"],
        "dropout_rate": settings["dropout"],
        "lr": settings["learning_rate"],
        "batch_size": settings["batch_size"],
    }
    if name == "sasrec":
        return SASRecModel(loss="softmax", **size)
    if name == "sasrec-sampled":
        return SASRecModel(loss="sampled_softmax", n_negatives=settings["num_negatives"], **size)
    if name == "esasrec":  # RecTools' own recommendation: LiGR layers and sampled softmax
        return SASRecModel(
            loss="sampled_softmax",
            n_negatives=settings["num_negatives"],
            transformer_layers_type=LiGRLayers,
            use_pos_emb=True,
            **size,
        )
    return BERT4RecModel(loss="softmax", mask_prob=0.2, **size)


def main() -> None:
    """Train one model, write its lists."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=MODELS, required=True)
    args = parser.parse_args()
    settings = json.loads((args.folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"])
    split = np.load(args.folder / "split.npz")
    train, histories = (pd.DataFrame(split[n], columns=EVENT) for n in ("train", "histories"))
    validation = pd.DataFrame(split["validation"], columns=EVENT[:2])
    known = dataset_of(train)
    watch = Watch(known, validation, settings)
    watch.model = model = make(args.model, settings)
    # The documented way to give a trainer that is no function of a module.
    model._trainer = Trainer(
        max_epochs=10_000,
        accelerator="cpu",
        callbacks=[watch],
        enable_checkpointing=False,
        **QUIET,
    )
    model.fit(known)
    model.lightning_model.load_state_dict(watch.weights)
    lists = ask(model, dataset_of(histories), split["users"], DEPTH)
    items = np.full((len(split["users"]), DEPTH), -1)
    place = pd.Series(np.arange(len(items)), index=split["users"])
    items[place[lists[Columns.User]], lists[Columns.Rank] - 1] = lists[Columns.Item]
    np.savez(args.folder / f"lists-{args.model}.npz", users=split["users"], items=items)
    (args.folder / f"{args.model}.json").write_text(json.dumps(watch.epochs))


if __name__ == "__main__":
    main()
