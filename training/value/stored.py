"""RUN/value: the trained value model of a run, whole in one checkpoint, and its figures in JSON.

run/value/best.safetensors   weights, item statistics, and in its header all that value.json says
run/value/value.json         the same for people: configs, heads, parts, metrics of the choosing day
run/value/test.json          written by `penchant evaluate-value`
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from model.atomic import write_text
from model.config import value_from_json, value_to_json
from model.errors import CheckpointError, ConfigError
from model.schema import Head
from model.value import ValueNetwork
from training.checkpoint import load_checkpoint, save_checkpoint
from training.run import BEST, Run
from training.value.config import ValueRunConfig, run_from_json, run_to_json
from training.value.item_stats import ItemStats

FOLDER, WEIGHTS = "value", "value/best.safetensors"
REPORT, TEST = "value/value.json", "value/test.json"
PLOT = "value/reliability.svg"
_STATS = "item_stats"


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A trained value model."""

    network: ValueNetwork
    """In evaluation mode, on the CPU."""
    config: ValueRunConfig
    heads: tuple[Head, ...]
    stats: ItemStats
    facts: dict[str, Any]
    """What training found: parts, heads left out, the choosing day's metrics, the best epoch."""


def has_value(run: Run) -> bool:
    """Whether a value model was trained on the run."""
    return (run.path / WEIGHTS).exists()


def save_value(run: Run, value: StoredValue) -> None:
    """Write RUN/value, each file whole or not at all. Test figures of another model are removed."""
    body = {
        "config": run_to_json(value.config),
        "network": value_to_json(value.network.config),
        "heads": [head.model_dump(exclude_none=True) for head in value.heads],
        "stats": {"names": list(value.stats.names), "prior": value.stats.prior.tolist()},
        "towers": _towers(run),
        "torch": torch.__version__,
        **value.facts,
    }
    (run.path / TEST).unlink(missing_ok=True)
    tensors = {**value.network.state_dict(), _STATS: torch.from_numpy(value.stats.values)}
    save_checkpoint(run.path / WEIGHTS, tensors, body)
    write_text(run.path / REPORT, json.dumps(body, indent=1) + "\n")


def load_value(run: Run) -> StoredValue:
    """The value model of a run.

    Raises ConfigError if there is none, or it was trained on other weights of the towers or by a
    version with another network; CheckpointError if it is damaged.
    """
    path = run.path / WEIGHTS
    if not path.exists():
        raise ConfigError(
            f"{run.path} has no value model. Train one: penchant train-value {run.path}"
        )
    tensors, body = load_checkpoint(path)
    if body["towers"] != _towers(run):
        raise ConfigError(
            f"the value model in {path.parent} reads vectors of towers that have been trained "
            f"further since. Train it again: penchant train-value {run.path} --overwrite"
        )
    stats = ItemStats(
        names=tuple(body["stats"]["names"]),
        values=tensors.pop(_STATS).numpy(),
        prior=torch.tensor(body["stats"]["prior"], dtype=torch.float32).numpy(),
    )
    if len(stats.values) != run.data.num_items:
        raise CheckpointError(f"{path} is of {len(stats.values):,} items, the run of others.")
    network = ValueNetwork(value_from_json(body["network"]))
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise ConfigError(
            f"the value model in {path.parent} was trained by another version of Penchant, and has "
            f"other layers. Train it again: penchant train-value {run.path} --overwrite"
        ) from None
    fixed = {"config", "network", "heads", "stats", "towers", "torch"}
    return StoredValue(
        network=network.eval(),
        config=run_from_json(body["config"]),
        heads=tuple(Head.model_validate(head) for head in body["heads"]),
        stats=stats,
        facts={name: fact for name, fact in body.items() if name not in fixed},
    )


def _towers(run: Run) -> str:
    """The hash of the towers' weights."""
    path = run.path / BEST
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint. Train the towers first.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
