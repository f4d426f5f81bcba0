"""What value.onnx takes for one request: one user with a full history, on one thread."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

from model.value import ValueNetwork
from training.value.onnx import export_request_side

CANDIDATES = 500


def request_milliseconds(network: ValueNetwork) -> float:
    """The median of 300 runs."""
    config = network.config
    with TemporaryDirectory() as folder:
        path = Path(folder) / "value.onnx"
        export_request_side(network, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    length = config.max_history
    varying = {"history": [1, length], "events": [1, length], "gaps": [1, length]}
    varying |= {"mask": [1, length], "candidates": [1, CANDIDATES], "scores": [1, CANDIDATES]}
    varying |= {name: [1, CANDIDATES] for name in ("past", "kin", "age")}
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
    given = {}
    for entry in session.get_inputs():
        first = varying.get(entry.name, [1])
        rest = [side if isinstance(side, int) else 3 for side in entry.shape[len(first) :]]
        given[entry.name] = np.ones(first + rest, kinds.get(entry.type, np.int32))
    spent = []
    for _ in range(300):
        started = time.perf_counter()
        (found,) = session.run(None, given)
        spent.append(time.perf_counter() - started)
    assert found.shape == (1, CANDIDATES, len(config.heads))
    return float(np.median(spent) * 1000)
