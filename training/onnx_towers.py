"""The trained towers become ONNX graphs, and the graphs are held to what the towers compute.

Knows nothing of the rest of a bundle.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from model.encode import pad_histories
from model.errors import ConfigError
from model.towers import TwoTower
from training.onnx_graphs import add_features, export_graph, gap, require_parity
from training.run import Run
from training.user_states import encode_users

MAX_BYTES = 2**31 - 2**20
"""What the weights of one graph may take: an ONNX file is a protobuf message, of 2 GiB at most."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class _PaddedUserTower(nn.Module):
    """The user tower with a flat list of tensors as arguments, as ONNX wants it."""

    def __init__(self, model: TwoTower, names: list[str]) -> None:
        super().__init__()
        self.tower, self.names = model.user_tower, names

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        history = given["history"]
        batch = history.shape[:1]
        out: Tensor = self.tower(
            history,
            given.get("events", torch.zeros(history.shape[:2], dtype=torch.int64)),
            given.get("gaps", torch.zeros(history.shape[:2])),
            given["mask"],
            given.get("idle", torch.zeros(batch)),
            given.get("objective", torch.zeros(batch, dtype=torch.int64)),
            {name: value for name, value in given.items() if name.startswith("profile.")},
        )
        return out


class _FlatItemTower(nn.Module):
    """The item tower with a flat list of tensors as arguments, and without its table of ids."""

    def __init__(self, model: TwoTower, names: list[str]) -> None:
        super().__init__()
        self.tower, self.names = model.item_tower, names

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        out: Tensor = self.tower.combine(given.pop("id_vector"), given)
        return out


def require_exportable(model: TwoTower) -> None:
    """Raise ConfigError if the tables of the item tower's features outgrow an ONNX file."""
    config, content = model.config, model.item_tower.content
    size = sum(p.numel() * p.element_size() for p in content.parameters()) if content else 0
    if size > MAX_BYTES:
        dim = int(config.dim * MAX_BYTES / size) // config.num_heads * config.num_heads
        largest = max(config.item_features, key=lambda spec: spec.size)
        raise ConfigError(
            f"the item tower has {size / 2**30:.2f} GiB of weights for features; an ONNX file "
            f"holds 2 at most. Train with a `dim` of {dim} at most instead of {config.dim}, or "
            f"declare fewer features: {largest.name!r} alone has {largest.size:,} values."
        )


def id_vectors(run: Run, model: TwoTower) -> Float32:
    """[N, D] what the id of each item stands for, in the dataset's order; zeros where the item was
    never trained."""
    codes = run.items.id_codes.cpu()
    vectors: Float32 = model.item_tower.ids.detach().cpu().index_select(0, codes).numpy()
    vectors[codes.numpy() == 0] = 0.0
    return vectors


def export_user_tower(model: TwoTower, run: Run, path: Path) -> dict[str, list[str]]:
    """Write user_tower.onnx with just the inputs that this tower reads."""
    config, batch, length = run.tower, 2, 3
    given: dict[str, Tensor] = {"history": torch.randn(batch, length, config.dim)}
    if config.num_events > 1:
        given["events"] = torch.ones(batch, length, dtype=torch.int64)
    if config.has_times:
        given["gaps"] = torch.ones(batch, length)
    given["mask"] = torch.ones(batch, length, dtype=torch.bool)
    if config.has_times:
        given["idle"] = torch.ones(batch)
    if len(config.objectives) > 1:
        given["objective"] = torch.zeros(batch, dtype=torch.int64)
    per_event = {"history", "events", "gaps", "mask"}
    axes = {
        name: {0: "batch", 1: "length"} if name in per_event else {0: "batch"} for name in given
    }
    add_features(given, axes, config.profile_features, prefix="profile")
    export_graph(_PaddedUserTower(model, list(given)), given, axes, "interests", path)
    return {"inputs": list(given), "outputs": ["interests"]}


def export_item_tower(model: TwoTower, run: Run, path: Path) -> dict[str, list[str]]:
    """Write item_tower.onnx, which reads what an id stands for: the table of ids is a file of its
    own, which grows with the catalogue and can be mapped. So are the weights, most of which are
    tables of words."""
    given = {"id_vector": torch.randn(2, run.tower.dim)}
    axes: dict[str, dict[int, str]] = {"id_vector": {0: "batch"}}
    add_features(given, axes, run.tower.item_features, prefix="item")
    module = _FlatItemTower(model, list(given))
    export_graph(module, given, axes, "vectors", path, weights_apart=True)
    return {"inputs": list(given), "outputs": ["vectors"]}


def user_tower_error(run: Run, model: TwoTower, vectors: Float32, path: Path) -> float:
    """Largest |ONNX − torch| over real histories, B of 1, 3 and 64, short, long and empty."""
    data = run.data
    by_length = np.argsort(-data.lengths, kind="stable")
    spread = by_length[np.unique(np.linspace(0, len(by_length) - 1, 64).astype(np.int64))]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for users in (spread[:1], spread[-3:], spread):
        idle = np.linspace(0, 1e6, len(users), dtype=np.float32)
        matrix = torch.from_numpy(vectors)
        for objective in range(len(run.tower.objectives)):
            expected: dict[int, Float32] = {}
            for rows, interests in encode_users(
                model, matrix, data, users, idle, profiles=run.profiles, objective=objective
            ):
                expected.update(zip(rows.tolist(), interests, strict=True))
            found = run_user_tower(session, run, vectors, users, idle, objective=objective)
            worst = max(
                worst, *(gap(expected[u], v) for u, v in zip(users.tolist(), found, strict=True))
            )
    empty = {
        "history": np.zeros((1, 1, run.tower.dim), np.float32),
        "events": np.zeros((1, 1), np.int64),
        "gaps": np.zeros((1, 1), np.float32),
        "mask": np.zeros((1, 1), bool),
        "idle": np.zeros(1, np.float32),
        "objective": np.zeros(1, np.int64),
        **{name: value[:1].numpy() for name, value in run.profiles.items()},
    }
    with torch.no_grad():
        alone = model.user_tower(
            *(
                torch.from_numpy(empty[n])
                for n in ("history", "events", "gaps", "mask", "idle", "objective")
            ),
            {name: torch.from_numpy(empty[name]) for name in run.profiles},
        ).numpy()
    wanted = {i.name for i in session.get_inputs()}
    (found_empty,) = session.run(None, {n: v for n, v in empty.items() if n in wanted})
    return require_parity("user_tower.onnx", max(worst, gap(alone, found_empty)))


def run_user_tower(
    session: Any,
    run: Run,
    vectors: Float32,
    users: Int64,
    idle: Float32,
    *,
    objective: int = 0,
) -> Float32:
    """Interests [B, M, D] of user rows from user_tower.onnx, as serving computes them."""
    data = run.data
    spans = [slice(data.starts[u], data.starts[u + 1]) for u in users]
    batch = pad_histories(
        [data.items[s].astype(np.int64) for s in spans],
        [data.events[s].astype(np.int64) for s in spans],
        [data.times[s] for s in spans] if run.tower.has_times else None,
        max_history=run.tower.max_history,
    )
    given = {
        "history": vectors[np.maximum(batch.rows, 0)] * batch.mask[:, :, None],
        "events": batch.events,
        "gaps": batch.gaps,
        "mask": batch.mask,
        "idle": idle,
        "objective": np.full(len(users), objective),
        **{name: value[users].numpy() for name, value in run.profiles.items()},
    }
    wanted = {i.name for i in session.get_inputs()}
    (interests,) = session.run(None, {n: v for n, v in given.items() if n in wanted})
    out: Float32 = interests
    return out


def item_tower_error(run: Run, ids: Float32, vectors: Float32, path: Path) -> float:
    """Largest |ONNX − vectors.npy| over a spread of items, one by one and together."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = np.unique(np.linspace(0, len(vectors) - 1, 512).astype(np.int64))
    worst = 0.0
    for part in (rows[:1], rows):
        given = {f: v[torch.from_numpy(part)].numpy() for f, v in run.items.features.items()}
        given["id_vector"] = ids[part]
        (found,) = session.run(None, given)
        worst = max(worst, gap(vectors[part], found))
    return require_parity("item_tower.onnx", worst)
