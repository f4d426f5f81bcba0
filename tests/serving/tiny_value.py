"""A value model for the bundle of tests/serving/tiny.py, made by hand and worked out by hand.

item side: the first E numbers of the item's vector, plus 0.1 × its craft's code in the first, plus
the sum of its statistics in the last. Request side, for head t:

    logit = score + likeness + 0.2 × orders − idle days + gap days + 0.1 × interest + 0.5 × city
            + 0.4 × past orders + BIASES[t]

likeness: inner product of the candidate with the mean of the history's item-side vectors. orders:
how many events of code 2 the history has. idle, gap days: in days of 86,400 seconds, gaps added up.
interest: the sum of all numbers of the interests. city: the code of profile.city. past orders: the
candidate's `past` of code 2.

    from tests.serving.tiny import make_world
    from tests.serving.tiny_value import add_value

    world = make_world(folder)
    bundle = add_value(world, folder / "bundle-with-value")
"""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.bundle import VALUE, VALUE_ITEM, VALUE_ITEMS, open_bundle
from model.manifest import DIGEST, MANIFEST, write_folder
from tests.serving.tiny import DIM, SCHEMA, START, World

Float32 = npt.NDArray[np.float32]

VALUE_DIM = 4
VALUE_MAX_HISTORY = 5
HEADS = ("watch", "order")
BIASES = np.array([0.5, -1.0], np.float32)
STATS = ("rate.watch", "rate.order", "popularity")
PRIOR = np.array([0.3, 0.05, 0.0], np.float32)
_DAY = 86_400.0


def stats_of(num_items: int) -> Float32:
    """[N, S] float32: made up; every tenth item has none, and the prior stands for it."""
    rows = np.arange(num_items)
    stats = np.stack([rows % 7 / 10, rows % 5 / 50, np.log1p(rows)], axis=1).astype(np.float32)
    return np.where((rows % 10 == 0)[:, None], PRIOR, stats).astype(np.float32)


def item_vectors(vectors: Float32, craft_codes: npt.NDArray[np.int32], stats: Float32) -> Float32:
    """What the item side gives: vectors [B, D], craft_codes [B], stats [B, S] → [B, E]."""
    out = vectors[:, :VALUE_DIM].copy()
    out[:, 0] += np.float32(0.1) * craft_codes
    out[:, -1] += stats.sum(axis=1)
    return out


def probabilities(
    history: Float32,
    events: list[int],
    gaps: list[float],
    idle: float,
    interests: Float32,
    city_code: int,
    candidates: Float32,
    scores: Float32,
    past: Float32 | None = None,
) -> Float32:
    """What the request side gives for one user: history [L, E] (L of 0 and more), interests
    [M, D], candidates [C, E], scores [C], past [C, 2] (None: zeros) → [C, T]."""
    mean = history.mean(axis=0) if len(history) else np.zeros(VALUE_DIM, np.float32)
    user = 0.2 * events.count(2) + (sum(gaps) - idle) / _DAY + 0.1 * interests.sum()
    orders = 0.0 if past is None else 0.4 * past[:, 1]
    logits = (scores + candidates @ mean + user + 0.5 * city_code + orders)[:, None] + BIASES
    chances: Float32 = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return chances


def add_value(
    world: World,
    target: Path,
    *,
    reads_past: bool = True,
    candidates: dict[str, Any] | None = None,
) -> Path:
    """Write a copy of the world's bundle that has the value model; returns its folder.

    reads_past: without, the graph is one of format 2. candidates: the manifest's section of how
    lists are made, or none.
    """
    request = request_side(reads_past=reads_past)
    bundle = open_bundle(world.bundle)
    body = dict(bundle.manifest.body)
    stats = stats_of(len(world.vectors))
    crafts = bundle.encoder.encode_items(bundle.items.table)["item.craft"]
    body["value"] = {
        "heads": [{"name": name, "event": name} for name in HEADS],
        "dim": VALUE_DIM,
        "max_history": VALUE_MAX_HISTORY,
        "inputs": [entry.name for entry in request.graph.input],
        "item_inputs": [entry.name for entry in item_side().graph.input],
        "stats": {"names": list(STATS), "prior": PRIOR.tolist()},
        "metrics": {},
    }
    if candidates is not None:
        body["value"]["candidates"] = candidates
    with write_folder(target, kind="bundle", schema=SCHEMA, as_of=START, body=body) as folder:
        copytree(world.bundle, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        (folder / DIGEST).unlink()
        onnx.save(request, str(folder / VALUE))
        onnx.save(item_side(), str(folder / VALUE_ITEM))
        np.save(folder / VALUE_ITEMS, item_vectors(world.vectors, crafts, stats))
    assert "value" in json.loads((target / MANIFEST).read_text())
    return target


def item_side() -> onnx.ModelProto:
    """value_item.onnx of this module's docstring."""
    first, last = np.eye(VALUE_DIM, dtype=np.float32)[[0, -1]]
    constants: dict[str, npt.NDArray[Any]] = {
        "pick": np.eye(DIM, VALUE_DIM, dtype=np.float32),
        "sum_to_last": np.tile(last, (len(STATS), 1)),
        "craft_step": 0.1 * first[None, :],
        "axis1": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["vector", "pick"], ["picked"]),
        node("MatMul", ["stats", "sum_to_last"], ["counted"]),
        node("Cast", ["item.craft"], ["craft"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["craft", "axis1"], ["craft_2"]),
        node("MatMul", ["craft_2", "craft_step"], ["made"]),
        node("Add", ["picked", "counted"], ["some"]),
        node("Add", ["some", "made"], ["vectors"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("vector", TensorProto.FLOAT, ["B", DIM]),
        value("stats", TensorProto.FLOAT, ["B", len(STATS)]),
        value("item.craft", TensorProto.INT32, ["B"]),
    ]
    output = value("vectors", TensorProto.FLOAT, ["B", VALUE_DIM])
    return _model("value_item", nodes, inputs, output, constants)


def request_side(*, reads_past: bool = True) -> onnx.ModelProto:
    """value.onnx of this module's docstring."""
    constants: dict[str, npt.NDArray[Any]] = {
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "axes12": np.array([1, 2], np.int64),
        "one": np.array(1.0, np.float32),
        "order": np.array(2, np.int64),
        "per_order": np.array(0.2, np.float32),
        "day": np.array(_DAY, np.float32),
        "per_interest": np.array(0.1, np.float32),
        "per_city": np.array(0.5, np.float32),
        "biases": BIASES,
        "per_past": np.array([[0.0], [0.4]], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["mask"], ["real"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["real", "axis2"], ["real_3"]),
        node("Mul", ["history", "real_3"], ["known"]),
        node("ReduceSum", ["known", "axis1"], ["total"], keepdims=0),
        node("ReduceSum", ["real_3", "axis1"], ["count"], keepdims=0),
        node("Max", ["count", "one"], ["divisor"]),
        node("Div", ["total", "divisor"], ["mean"]),
        node("Unsqueeze", ["mean", "axis2"], ["mean_3"]),
        node("MatMul", ["candidates", "mean_3"], ["likeness_3"]),
        node("Squeeze", ["likeness_3", "axis2"], ["likeness"]),
        node("Equal", ["events", "order"], ["is_order"]),
        node("And", ["is_order", "mask"], ["ordered"]),
        node("Cast", ["ordered"], ["ordered_f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["ordered_f", "axis1"], ["orders"], keepdims=1),
        node("Mul", ["orders", "per_order"], ["user_1"]),
        node("Mul", ["gaps", "real"], ["real_gaps"]),
        node("ReduceSum", ["real_gaps", "axis1"], ["gap"], keepdims=1),
        node("Unsqueeze", ["idle", "axis1"], ["idle_2"]),
        node("Sub", ["gap", "idle_2"], ["seconds"]),
        node("Div", ["seconds", "day"], ["user_2"]),
        node("ReduceSum", ["interests", "axes12"], ["interest"], keepdims=0),
        node("Unsqueeze", ["interest", "axis1"], ["interest_2"]),
        node("Mul", ["interest_2", "per_interest"], ["user_3"]),
        node("Cast", ["profile.city"], ["city"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["city", "axis1"], ["city_2"]),
        node("Mul", ["city_2", "per_city"], ["user_4"]),
        node("Sum", ["user_1", "user_2", "user_3", "user_4"], ["user"]),
        node("Add", ["scores", "likeness"], ["liked" if reads_past else "wanted"]),
        node("Add", ["wanted", "user"], ["logit"]),
        node("Unsqueeze", ["logit", "axis2"], ["logit_3"]),
        node("Add", ["logit_3", "biases"], ["logits"]),
        node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    value = helper.make_tensor_value_info
    did = [
        node("MatMul", ["past", "per_past"], ["past_3"]),
        node("Squeeze", ["past_3", "axis2"], ["past_orders"]),
        node("Add", ["liked", "past_orders"], ["wanted"]),
    ]
    if reads_past:
        place = next(i for i, one in enumerate(nodes) if "wanted" in one.input)
        nodes[place:place] = did
    inputs = [
        value("history", TensorProto.FLOAT, ["B", "L", VALUE_DIM]),
        value("events", TensorProto.INT64, ["B", "L"]),
        value("gaps", TensorProto.FLOAT, ["B", "L"]),
        value("mask", TensorProto.BOOL, ["B", "L"]),
        value("idle", TensorProto.FLOAT, ["B"]),
        value("interests", TensorProto.FLOAT, ["B", 2, DIM]),
        value("profile.city", TensorProto.INT32, ["B"]),
        value("candidates", TensorProto.FLOAT, ["B", "C", VALUE_DIM]),
        value("scores", TensorProto.FLOAT, ["B", "C"]),
        *([value("past", TensorProto.FLOAT, ["B", "C", 2])] if reads_past else []),
    ]
    output = value("probabilities", TensorProto.FLOAT, ["B", "C", len(HEADS)])
    return _model("value", nodes, inputs, output, constants)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    constants: dict[str, npt.NDArray[Any]],
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model
