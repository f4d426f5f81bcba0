"""Both sides of the value model become ONNX graphs, held to what the trained network computes.

Knows the inputs of the two graphs (docs/bundle.md); not where their arrays come from.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from model import freshness
from model.value import ValueNetwork
from training.onnx_graphs import add_features, export_graph, gap, require_parity

Arrays = Mapping[str, npt.NDArray[Any]]


class _FlatItemSide(nn.Module):
    """The item side with a flat list of tensors as arguments, as ONNX wants it."""

    def __init__(self, network: ValueNetwork, names: list[str]) -> None:
        super().__init__()
        self.side, self.names = network.item_side, names

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        out: Tensor = self.side(given.pop("vector"), given.pop("stats"), given)
        return out


class _FlatRequestSide(nn.Module):
    """The request side with a flat list of tensors as arguments, and chances as its output."""

    def __init__(self, network: ValueNetwork, names: list[str]) -> None:
        super().__init__()
        self.side, self.names = network.request_side, names

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        logits: Tensor = self.side(
            given["history"],
            given["events"],
            given.get("gaps"),
            given["mask"],
            given.get("idle"),
            given["interests"],
            {name: value for name, value in given.items() if name.startswith("profile.")},
            given["candidates"],
            given["scores"],
            given["past"],
            given.get("kin"),
            given.get("age"),
        )
        return logits.sigmoid()


def export_item_side(network: ValueNetwork, path: Path) -> list[str]:
    """Write value_item.onnx. Returns the names of its inputs."""
    config, batch = network.config, 2
    given = {
        "vector": torch.randn(batch, config.vector_dim),
        "stats": torch.ones(batch, len(config.stats)),
    }
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in given}
    add_features(given, axes, config.item_features, prefix="item")
    export_graph(_FlatItemSide(network, list(given)), given, axes, "vectors", path)
    return list(given)


def export_request_side(network: ValueNetwork, path: Path) -> list[str]:
    """Write value.onnx with just the inputs that this network reads. Returns their names."""
    config = network.config
    batch, length, candidates = 2, 3, 4
    given: dict[str, Tensor] = {
        "history": torch.randn(batch, length, config.dim),
        "events": torch.ones(batch, length, dtype=torch.int64),
    }
    if config.has_times:
        given["gaps"] = torch.ones(batch, length)
    given["mask"] = torch.ones(batch, length, dtype=torch.bool)
    if config.has_times:
        given["idle"] = torch.ones(batch)
    given["interests"] = torch.randn(batch, config.num_interests, config.vector_dim)
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in given}
    for name in ("history", "events", "gaps", "mask"):
        if name in axes:
            axes[name][1] = "length"
    add_features(given, axes, config.profile_features, prefix="profile")
    given["candidates"] = torch.randn(batch, candidates, config.dim)
    given["scores"] = torch.ones(batch, candidates)
    given["past"] = torch.ones(batch, candidates, config.num_events)
    if config.kin:
        given["kin"] = torch.ones(batch, candidates, len(config.kin) * config.num_events)
    if config.reads_age:
        given["age"] = torch.ones(batch, candidates, freshness.SIZE)
    each = ("candidates", "scores", "past", "kin", "age")
    for name in [name for name in each if name in given]:
        axes[name] = {0: "batch", 1: "candidates"}
    export_graph(_FlatRequestSide(network, list(given)), given, axes, "probabilities", path)
    return list(given)


def item_side_error(network: ValueNetwork, path: Path, batches: Iterable[Arrays]) -> float:
    """Largest |ONNX − torch| of the item side. batches: arrays of its inputs, by name."""
    return _error(_FlatItemSide, network, path, batches)


def request_side_error(network: ValueNetwork, path: Path, batches: Iterable[Arrays]) -> float:
    """Largest |ONNX − torch| of the request side. batches: arrays of its inputs, by name."""
    return _error(_FlatRequestSide, network, path, batches)


def _error(
    flat: type[_FlatItemSide] | type[_FlatRequestSide],
    network: ValueNetwork,
    path: Path,
    batches: Iterable[Arrays],
) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    module = flat(network, names).eval()
    worst = 0.0
    for arrays in batches:
        (found,) = session.run(None, {name: arrays[name] for name in names})
        with torch.no_grad():
            expected = module(*(torch.from_numpy(arrays[name]) for name in names)).numpy()
        worst = max(worst, gap(expected, found))
    return require_parity(path.name, worst)
