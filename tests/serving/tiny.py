"""A tiny bundle and snapshot made by hand.

The towers are small enough to work out by hand: interest 0 is the mean of the history's vectors
(or COLD for an empty one), interest 1 its newest vector; the objective `direct` turns both round;
a user's city adds CITY_SHIFT times its code to both.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from model.ann import build_exact, write_index
from model.bundle import (
    ENCODER,
    GATE,
    ID_VECTORS,
    INDEX,
    ITEM_TOWER,
    ITEMS,
    USER_TOWER,
    VECTORS,
)
from model.circles import CIRCLES
from model.encode import fit_encoder
from model.items import write_items
from model.manifest import write_folder
from model.schema import KINDS, Event, Feature, Schema
from model.snapshot import HISTORIES, HISTORY_SCHEMA, USERS

DIM, NUM_ITEMS, NUM_RETIRED = 8, 600, 20
MAX_HISTORY = 6
CITIES = ("Chengdu", "Suzhou")
CITY_SHIFT = 0.25
COLD = np.eye(DIM, dtype=np.float32)[0]
START = datetime(2026, 1, 1, tzinfo=UTC)

SCHEMA = Schema(
    name="bamboo",
    time="exact",
    item_features={
        "title": Feature(type="text"),
        "craft": Feature(type="category", filterable=True),
        "tags": Feature(type="categories", filterable=True),
        "price": Feature(type="number", filterable=True),
    },
    user_features={"city": Feature(type="category")},
    events={
        "watch": Event(role="engagement"),
        "order": Event(role="conversion", weight=3.0),
        "impression": Event(role="exposure"),
        "hide": Event(role="negative"),
    },
)


def item_id(row: int) -> str:
    return f"item-{row:04d}"


@dataclass(frozen=True)
class World:
    """The fixture bundle's truth, for working answers out by hand."""

    bundle: Path
    snapshot: Path
    vectors: npt.NDArray[np.float32]
    crafts: list[str | None]
    tags: list[list[str]]
    prices: list[float | None]
    kinds: list[str]
    histories: dict[str, list[int]]

    @property
    def num_active(self) -> int:
        return len(self.vectors) - NUM_RETIRED

    def interests(self, rows: list[int], *, city: str = "") -> npt.NDArray[np.float32]:
        """[2, D], what the tower gives for a history."""
        shift = CITY_SHIFT * (CITIES.index(city) + 1 if city else 0)
        if not rows:
            return np.stack([COLD, np.zeros(DIM, np.float32)]) + np.float32(shift)
        window = self.vectors[rows[-MAX_HISTORY:]]
        return np.stack([window.mean(axis=0), window[-1]]) + np.float32(shift)

    def nearest(self, query: npt.NDArray[np.float32], allowed: list[int]) -> list[str]:
        """Every allowed item, nearest to one vector first."""
        scores = self.vectors[allowed] @ query
        return [item_id(allowed[i]) for i in np.argsort(-scores, kind="stable")]


def user_tower() -> onnx.ModelProto:
    """The tower of this module's docstring."""
    cities = np.arange(len(CITIES) + 1, dtype=np.float32)[:, None, None] * np.full(
        (1, 1, DIM), CITY_SHIFT, np.float32
    )
    constants = {
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "one": np.array(1.0, np.float32),
        "two": np.array(2.0, np.float32),
        "cold": COLD[None, :],
        "cities": cities,
        "newest": np.array(-1, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["mask"], ["mask_f"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask_f", "axis2"], ["mask_3"]),
        node("Mul", ["history", "mask_3"], ["known"]),
        node("ReduceSum", ["known", "axis1"], ["total"], keepdims=0),
        node("ReduceSum", ["mask_3", "axis1"], ["count"], keepdims=0),
        node("Max", ["count", "one"], ["divisor"]),
        node("Div", ["total", "divisor"], ["mean"]),
        node("Min", ["count", "one"], ["has_any"]),
        node("Sub", ["one", "has_any"], ["has_none"]),
        node("Mul", ["has_none", "cold"], ["cold_part"]),
        node("Add", ["mean", "cold_part"], ["first"]),
        node("Gather", ["known", "newest"], ["second"], axis=1),
        node("Unsqueeze", ["first", "axis1"], ["first_3"]),
        node("Unsqueeze", ["second", "axis1"], ["second_3"]),
        node("Concat", ["first_3", "second_3"], ["both"], axis=1),
        node("Gather", ["cities", "profile.city"], ["city"], axis=0),
        node("Squeeze", ["city", "axis1"], ["city_2"]),
        node("Unsqueeze", ["city_2", "axis1"], ["city_3"]),
        node("Add", ["both", "city_3"], ["shifted"]),
        node("Cast", ["objective"], ["objective_f"], to=TensorProto.FLOAT),
        node("Mul", ["objective_f", "two"], ["turn"]),
        node("Sub", ["one", "turn"], ["sign"]),
        node("Unsqueeze", ["sign", "axis1"], ["sign_2"]),
        node("Unsqueeze", ["sign_2", "axis2"], ["sign_3"]),
        node("Mul", ["shifted", "sign_3"], ["interests"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("history", TensorProto.FLOAT, ["B", "L", DIM]),
        value("events", TensorProto.INT64, ["B", "L"]),
        value("gaps", TensorProto.FLOAT, ["B", "L"]),
        value("mask", TensorProto.BOOL, ["B", "L"]),
        value("idle", TensorProto.FLOAT, ["B"]),
        value("objective", TensorProto.INT64, ["B"]),
        value("profile.city", TensorProto.INT64, ["B"]),
    ]
    graph = helper.make_graph(
        nodes,
        "user_tower",
        inputs,
        [value("interests", TensorProto.FLOAT, ["B", 2, DIM])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def item_tower() -> onnx.ModelProto:
    """The code of the craft in number 0, of the kind in number 1, the price as it is encoded in
    numbers 2 and 3, the id vector's first number in number 4, and how many n-grams the title has in
    number 5."""
    node = helper.make_node
    nodes = [
        node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT)
        for name in ("item.craft", "item.kind", "item.title")
    ]
    nodes += [
        node("Sign", ["item.title_f"], ["real"]),
        node("ReduceSum", ["real", "axis1"], ["count"], keepdims=1),
        *(
            node("Unsqueeze", [f"{name}_f", "axis1"], [f"{name}_2"])
            for name in ("item.craft", "item.kind")
        ),
        node("Slice", ["id_vector", "axis0", "axis1", "axis1"], ["id_2"]),
        node(
            "Concat",
            ["item.craft_2", "item.kind_2", "item.price", "id_2", "count"],
            ["known"],
            axis=1,
        ),
        node("MatMul", ["known", "widen"], ["vectors"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("id_vector", TensorProto.FLOAT, ["B", DIM]),
        value("item.kind", TensorProto.INT32, ["B"]),
        value("item.craft", TensorProto.INT32, ["B"]),
        value("item.price", TensorProto.FLOAT, ["B", 2]),
        value("item.title", TensorProto.INT32, ["B", "W"]),
    ]
    graph = helper.make_graph(
        nodes,
        "item_tower",
        inputs,
        [value("vectors", TensorProto.FLOAT, ["B", DIM])],
        [
            numpy_helper.from_array(np.array([0], np.int64), "axis0"),
            numpy_helper.from_array(np.array([1], np.int64), "axis1"),
            numpy_helper.from_array(np.eye(6, DIM, dtype=np.float32), "widen"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def make_world(
    folder: Path, *, seed: int = 7, asked: npt.NDArray[np.float32] | None = None
) -> World:
    """Write bundle/ and snapshot/ into `folder`.

    asked: the vectors whose nearest items are the targets of gate.parquet; None: the bundle's own.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = range(NUM_ITEMS)
    crafts = [None if i % 11 == 0 else ("silver", "bamboo", "leather")[i % 3] for i in rows]
    tags = [[] if i % 7 == 0 else [f"t{i % 5}", f"t{i % 3}"] for i in rows]
    prices = [None if i % 13 == 0 else float(i) for i in rows]
    kinds: list[str] = [KINDS[i % len(KINDS)] for i in rows]
    items = pa.table(
        {
            "item_id": [item_id(i) for i in rows],
            "kind": kinds,
            "title": [f"题 {i}" for i in rows],
            "craft": pa.array(crafts, pa.string()),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "price": pa.array(prices, pa.float64()),
            "popularity": pa.array(rows, pa.int64()),
            "retired": [i >= NUM_ITEMS - NUM_RETIRED for i in rows],
            "circle": pa.array([i % 4 - 1 for i in rows], pa.int32()),
        }
    )
    histories: dict[str, list[int]] = {
        f"user-{u:03d}": rng.integers(0, NUM_ITEMS, size=u % 40).tolist() for u in range(120)
    }
    users = pa.table(
        {
            "user_id": list(histories),
            "city": pa.array([None, *CITIES][u % 3] for u in range(len(histories))),
        }
    )
    body = {
        "dim": DIM,
        "num_interests": 2,
        "max_history": MAX_HISTORY,
        "event_codes": {"watch": 1, "order": 2},
        "ann": {"kind": "exact", "metric": "inner_product", "recall@100": 1.0},
        "objectives": ["interest", "direct"],
        "user_tower": {
            "inputs": [entry.name for entry in user_tower().graph.input],
            "outputs": ["interests"],
        },
        "item_tower": {
            "inputs": [entry.name for entry in item_tower().graph.input],
            "outputs": ["vectors"],
        },
        "metrics": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with write_folder(
        folder / "bundle", kind="bundle", schema=SCHEMA, as_of=START, body=body
    ) as path:
        onnx.save(user_tower(), str(path / USER_TOWER))
        onnx.save(item_tower(), str(path / ITEM_TOWER))
        write_items(items, path / ITEMS)
        np.save(path / VECTORS, vectors)
        np.save(path / ID_VECTORS, vectors[::-1])
        write_index(build_exact(vectors[: NUM_ITEMS - NUM_RETIRED]), path / INDEX)
        (path / ENCODER).parent.mkdir()
        fit_encoder(SCHEMA, items, users).write(path / ENCODER)
        pq.write_table(circles(), path / CIRCLES)
        pq.write_table(gate(vectors, vectors if asked is None else asked), path / GATE)
    with write_folder(
        folder / "snapshot", kind="snapshot", schema=SCHEMA, as_of=START, body={}
    ) as path:
        pq.write_table(users, path / USERS)
        pq.write_table(history_table(histories), path / HISTORIES)
    return World(
        folder / "bundle", folder / "snapshot", vectors, crafts, tags, prices, kinds, histories
    )


def circles() -> pa.Table:
    return pa.table(
        {
            "circle_id": pa.array(range(3), pa.int32()),
            "name": ["flutes", "银饰", "mushrooms"],
            "top_features": [["a"], ["b"], ["c"]],
            "size": pa.array([200, 200, 200], pa.int64()),
            "centroid": pa.array([[0.0] * DIM] * 3, pa.list_(pa.float32())),
            "neighbours": pa.array([[1], [2], [0]], pa.list_(pa.int32())),
        }
    )


def gate(vectors: npt.NDArray[np.float32], asked: npt.NDArray[np.float32]) -> pa.Table:
    """gate.parquet: 120 users who watched one item, and then the ten nearest to it in `asked`."""
    rows = range(0, 480, 4)
    nearest = [np.argsort(-(asked[:580] @ asked[row]), kind="stable")[1:11] for row in rows]
    return pa.table(
        {
            "user_id": [f"user-{row:03d}" for row in rows],
            "item_ids": [[item_id(row)] for row in rows],
            "events": [["watch"]] * len(rows),
            "times_us": [[1_000_000]] * len(rows),
            "idle_seconds": pa.array([60.0] * len(rows), pa.float32()),
            "targets": [[item_id(one) for one in some.tolist()] for some in nearest],
            "target_popularity": [some.tolist() for some in nearest],
            "interests": [np.concatenate([vectors[row]] * 2) for row in rows],
        }
    )


def history_table(histories: dict[str, list[int]]) -> pa.Table:
    """histories.parquet: every third event an order, one event an hour."""
    return pa.Table.from_pylist(
        [
            {
                "user_id": user,
                "item_ids": [item_id(row) for row in rows],
                "events": ["order" if i % 3 == 2 else "watch" for i in range(len(rows))],
                "timestamps": [START + timedelta(hours=i) for i in range(len(rows))],
                "event_ids": [f"{user}/{i}" for i in range(len(rows))],
                # Some snapshots know the order among equal times, some leave it to the list.
                "sequences": None if user.endswith("5") else list(range(len(rows))),
            }
            for user, rows in histories.items()
        ],
        schema=HISTORY_SCHEMA,
    )
