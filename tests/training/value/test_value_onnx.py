"""The value model in torch and in ONNX: as one, at every shape a server may ask with."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch

from model.config import FeatureSpec, ValueConfig
from model.value import ValueNetwork
from training.onnx_graphs import MAX_ERROR, ParityError
from training.value.onnx import (
    export_item_side,
    export_request_side,
    item_side_error,
    request_side_error,
)

Arrays = dict[str, npt.NDArray[Any]]

MAX_HISTORY = 50
FEATURES = (
    FeatureSpec(name="kind", type="category", size=6),
    FeatureSpec(name="tags", type="categories", size=9),
    FeatureSpec(name="price", type="number", size=2),
)
EVERYTHING = ValueConfig(
    vector_dim=12,
    num_interests=3,
    num_events=4,
    heads=("click", "like", "order"),
    stats=("rate.click", "popularity"),
    item_features=FEATURES,
    profile_features=(
        *FEATURES,
        FeatureSpec(name="about", type="text", size=9),
        FeatureSpec(name="face", type="vector", size=3),
    ),
    kin=("creator", "craft"),
    reads_age=True,
    dim=16,
    max_history=MAX_HISTORY,
    hidden=(32, 16),
)
CASES = {
    "everything": EVERYTHING,
    "least": replace(
        EVERYTHING,
        num_interests=1,
        num_events=1,
        heads=("click",),
        stats=("popularity",),
        item_features=(),
        profile_features=(),
        kin=(),
        reads_age=False,
        has_order=False,
        has_times=False,
        attention_heads=1,
    ),
    "mmoe": replace(
        EVERYTHING,
        bottom="mmoe",
        num_experts=3,
        has_times=False,  # an order is known, and no times
        profile_features=FEATURES[:1],
    ),
    "ple": replace(EVERYTHING, bottom="ple", num_experts=2),
}


@dataclass(frozen=True)
class Case:
    config: ValueConfig
    network: ValueNetwork
    item: Path
    request: Path
    run: Callable[[Path, Arrays], npt.NDArray[np.float32]]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    config = CASES[request.param]
    network = ValueNetwork(config)
    generator = torch.Generator().manual_seed(len(request.param))
    with torch.no_grad():  # every weight and scale has a value, also those that begin as 0 and 1
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator).abs() * 0.2 + 0.05)
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    network.eval()
    folder = tmp_path_factory.mktemp(request.param)
    item, asked = folder / "value_item.onnx", folder / "value.onnx"
    inputs = {
        item: export_item_side(network, item),
        asked: export_request_side(network, asked),
    }
    sessions = {
        path: onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in inputs
    }
    for path, names in inputs.items():
        assert names == [entry.name for entry in sessions[path].get_inputs()]

    def run(path: Path, given: Arrays) -> npt.NDArray[np.float32]:
        (found,) = sessions[path].run(None, {name: given[name] for name in inputs[path]})
        return np.asarray(found)

    return Case(config, network, item, asked, run)


def features(prefix: str, num: int, rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {
        "kind": rng.integers(0, 6, num).astype(np.int32),
        "tags": rng.integers(0, 9, (num, 4)).astype(np.int32),
        "price": rng.normal(size=(num, 2)).astype(np.float32),
        "about": rng.integers(0, 9, (num, 3)).astype(np.int32),
        "face": rng.normal(size=(num, 3)).astype(np.float32),
    }
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def asked(case: Case, batch: int, length: int, num_candidates: int, *, seed: int = 0) -> Arrays:
    """A request; length 0 is the empty history. Beside a full history stand shorter ones."""
    rng, config = np.random.default_rng(seed), case.config
    width = max(length, 1)
    real = np.array([max(length - 7 * b, 0) for b in range(batch)])
    mask = np.arange(width) >= width - real[:, None]

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    def met(num: int) -> npt.NDArray[np.float32]:
        shape = (batch, num_candidates, num * config.num_events)
        return np.log1p(rng.integers(0, 3, shape)).astype(np.float32)

    given: Arrays = {
        "history": normal(batch, width, config.dim),
        "events": rng.integers(1, config.num_events + 1, (batch, width)) * mask,
        "gaps": (10 ** (7 * rng.random((batch, width))) * mask).astype(np.float32),
        "mask": mask,
        "idle": (10 ** (7 * rng.random(batch))).astype(np.float32),
        "interests": normal(batch, config.num_interests, config.vector_dim),
        "candidates": normal(batch, num_candidates, config.dim),
        "scores": normal(batch, num_candidates),
        "past": met(1),
        **features("profile", batch, rng),
    }
    if config.kin:
        given["kin"] = met(len(config.kin))
    if config.reads_age:
        given["age"] = normal(batch, num_candidates, 2)
    return given


@pytest.mark.parametrize(
    ("batch", "length", "num_candidates"),
    list(itertools.product((1, 3), (0, 1, MAX_HISTORY), (1, 500))),
)
def test_both_agree(case: Case, batch: int, length: int, num_candidates: int) -> None:
    given = asked(case, batch, length, num_candidates)
    found = case.run(case.request, given)
    assert found.shape == (batch, num_candidates, len(case.config.heads))
    assert (found >= 0).all() and (found <= 1).all() and 0.01 < found.mean() < 0.99
    assert request_side_error(case.network, case.request, [given]) < MAX_ERROR / 10


@pytest.mark.parametrize("batch", [1, 3])
def test_the_item_sides_agree(case: Case, batch: int) -> None:
    rng = np.random.default_rng(batch)
    given: Arrays = {
        "vector": rng.normal(size=(batch, case.config.vector_dim)).astype(np.float32),
        "stats": rng.random((batch, len(case.config.stats))).astype(np.float32),
        **features("item", batch, rng),
    }
    assert case.run(case.item, given).shape == (batch, case.config.dim)
    assert item_side_error(case.network, case.item, [given]) < MAX_ERROR / 10


def test_a_candidate_does_not_depend_on_the_others(case: Case) -> None:
    given = asked(case, 2, 9, 40)
    together = case.run(case.request, given)
    for place in (0, 17, 39):
        each = [n for n in ("candidates", "scores", "past", "kin", "age") if n in given]
        alone = dict(given)
        alone.update({name: given[name][:, place : place + 1] for name in each})
        found = case.run(case.request, alone)[:, 0]
        np.testing.assert_allclose(found, together[:, place], atol=1e-5)


def test_what_is_under_the_mask_does_not_matter(case: Case) -> None:
    given = asked(case, 3, 20, 5)
    hidden = ~given["mask"]
    assert hidden.any()
    noisy = {
        **given,
        "history": np.where(hidden[:, :, None], np.float32(9), given["history"]),
        "events": np.where(hidden, 1, given["events"]),
    }
    before = case.run(case.request, given)
    np.testing.assert_allclose(case.run(case.request, noisy), before, atol=1e-5)
    # Nor how wide the padding is, up to the longest history that is read.
    wide = ((0, 0), (MAX_HISTORY - 20, 0))
    wider = {
        **given,
        **{name: np.pad(given[name], wide) for name in ("events", "gaps", "mask")},
        "history": np.pad(given["history"], (*wide, (0, 0))),
    }
    np.testing.assert_allclose(case.run(case.request, wider), before, atol=1e-5)


def test_every_input_counts(case: Case) -> None:
    given = asked(case, 2, 9, 5)
    before = case.run(case.request, given)
    session = onnxruntime.InferenceSession(str(case.request), providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}
    if not case.config.has_times:
        assert not names & {"gaps", "idle"}
    one_event = case.config.num_events == 1
    for name in names - {"mask"} - ({"events"} if one_event else set()):
        value = given[name]
        if value.dtype == np.float32:
            other = np.roll(value, 1, axis=-1) if value.shape[2:] > (1,) else value * 2 + 1
        else:
            high = case.config.num_events if name == "events" else 4
            other = (value % high + 1).astype(value.dtype)
        after = case.run(case.request, {**given, name: other})
        assert np.abs(after - before).max() > 1e-5, name


def test_a_graph_of_another_network_is_refused(case: Case) -> None:
    other = ValueNetwork(case.config)
    other.load_state_dict(case.network.state_dict())
    with torch.no_grad():
        other.request_side.heads.bias.add_(0.01)
    with pytest.raises(ParityError, match=r"value\.onnx differs from the trained network"):
        request_side_error(other, case.request, [asked(case, 1, 5, 3)])
