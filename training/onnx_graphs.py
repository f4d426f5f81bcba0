"""torch modules become ONNX graphs, and what a graph computes is compared with its module.

Knows arrays of features and axes that vary; not which networks there are.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.config import FeatureSpec
from model.errors import PenchantError

MAX_ERROR = 1e-4
"""Above this absolute difference between ONNX and torch an export fails."""

Float32 = npt.NDArray[np.float32]


class ParityError(PenchantError):
    """An exported graph does not compute what the trained network computes."""


def add_features(
    given: dict[str, Tensor],
    axes: dict[str, dict[int, str]],
    specs: tuple[FeatureSpec, ...],
    *,
    prefix: str,
) -> None:
    """Add an example of two rows of every feature, and which of its axes vary."""
    for spec in specs:
        name = f"{prefix}.{spec.name}"
        axes[name] = {0: "batch"}
        match spec.type:
            case "category":
                given[name] = torch.zeros(2, dtype=torch.int32)
            case "number" | "vector":
                given[name] = torch.ones(2, spec.size)
            case "categories" | "text":
                # Widths vary with the batch, and torch.export takes a width of 1 for a constant.
                given[name] = torch.zeros(2, 3, dtype=torch.int32)
                axes[name][1] = f"width_{spec.name}"


def export_graph(
    module: nn.Module,
    given: Mapping[str, Tensor],
    axes: Mapping[str, dict[int, str]],
    output: str,
    path: Path,
    *,
    weights_apart: bool = False,
) -> None:
    """Write a module whose arguments are `given`, in that order, as a graph with one output.

    axes: of each input, which axes vary and what each is called; axes of one name are as long.
    weights_apart: in a file beside it, PATH.data, which ONNX Runtime maps instead of copying it.
    """
    module.eval()
    names = sorted({name for axis in axes.values() for name in axis.values()})
    dims = dict.fromkeys(names, torch.export.Dim.DYNAMIC)
    shapes = tuple({axis: dims[name] for axis, name in axes[key].items()} for key in given)
    with warnings.catch_warnings():
        # The exporter's own deprecations, and operators of packages not installed, are no news.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            tuple(given.values()),
            input_names=list(given),
            output_names=[output],
            dynamic_shapes=(shapes,),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=weights_apart)


def gap(expected: Float32, found: Float32) -> float:
    """The largest absolute difference of two arrays; infinity where one of them holds NaN."""
    # NaN on either side must not pass for a small difference.
    largest = float(np.abs(expected - found).max())
    return largest if np.isfinite(largest) else float("inf")


def require_parity(file: str, error: float) -> float:
    """The error, if it is small. Raises ParityError that names the graph's file otherwise."""
    if error > MAX_ERROR:
        raise ParityError(
            f"{file} differs from the trained network by {error:.2e}; at most {MAX_ERROR:.0e} is "
            "allowed. Nothing was written. This is a defect: please report it."
        )
    return error
