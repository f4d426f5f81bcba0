"""One tower of a bundle, run by ONNX Runtime on the CPU.

Knows which inputs the graph takes and their types; nothing of what they mean, of users or of items.
The only module of `model` that needs onnxruntime.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pyarrow as pa

from model.errors import BundleRejected, NoVector

Float32 = npt.NDArray[np.float32]

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class TowerSession:
    """A loaded ONNX graph with one output. Safe across threads."""

    def __init__(self, path: Path, *, inputs: tuple[str, ...], threads: int = 1) -> None:
        """Load the graph. inputs: what the manifest says it takes.

        Raises BundleRejected where it cannot be loaded or takes anything else.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many types, none of them public
            raise BundleRejected(f"{path.name} cannot be loaded: {error}") from error
        found = {entry.name: entry.type for entry in self._session.get_inputs()}
        if set(found) != set(inputs):
            raise BundleRejected(
                f"{path.name} takes {sorted(found)}, the manifest says {sorted(inputs)}"
            )
        self._dtypes = {name: _DTYPES[kind] for name, kind in found.items()}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what `run` reads."""
        return tuple(self._dtypes)

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Float32:
        """The graph's output. arrays: at least its inputs; what else there is, is left aside."""
        feeds = {
            name: arrays[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()
        }
        (output,) = self._session.run(None, feeds)
        return np.asarray(output)


def require_vectors(vectors: Float32, ids: pa.Array, *, of: Literal["item", "user"]) -> None:
    """Raise NoVector if one of a tower's outputs is not finite, naming its id.

    vectors: [N, D] float32. ids: [N] strings.
    """
    without = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(without):
        name = ids[int(without[0])].as_py()
        raise NoVector(
            f"the {of} tower gives NaN or infinity for {of} {name!r} ({len(without):,} of "
            f"{len(vectors):,} here). Look at the numbers and vectors of its features: one may be "
            "out of all bounds. If none is, the weights are damaged: train again."
        )
