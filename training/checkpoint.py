"""Checkpoints in safetensors: one file holds tensors and, in its header, the run's place. Atomic.

Nothing random is stored: every step's draws are a function of (seed, step).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.atomic import sync
from model.errors import CheckpointError


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-ready state under `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dict(state))
    save_file(ready, str(partial), metadata={"state": text, "digest": _digest(ready, text)})
    sync(partial)
    partial.rename(path)
    sync(path.parent)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what save_checkpoint wrote. Raises CheckpointError if it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["digest"] != _digest(tensors, metadata["state"]):
            raise ValueError("its content is not what was written")
        return tensors, json.loads(metadata["state"])
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such checkpoint. Train first, without --resume."
        ) from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged or not a Penchant checkpoint ({error}). Delete it and train again."
        ) from None


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    """A hash of all that a checkpoint holds: safetensors itself has none."""
    hashed = xxhash.xxh3_128(state.encode())
    for name in sorted(tensors):
        hashed.update(name.encode())
        hashed.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]
) -> None:
    """Put back tensors named `optimizer.KEY.PARAMETER`; names: the parameters, in order."""
    saved: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for full, value in tensors.items():
        if full.startswith("optimizer."):
            _, key, name = full.split(".", 2)
            saved[name][key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        optimizer.state[parameter] = {
            key: value.clone() if key == "step" else value.to(parameter.device)
            for key, value in saved[name].items()
        }
