"""Packed tokens, padded batches, ONNX Runtime and a plain float64 tower agree on every user."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from torch import Tensor

from model.config import FeatureSpec, TowerConfig
from model.encode import pad_histories
from model.towers import TwoTower
from tests.model.reference import plain_interests, plain_states, randomise
from tests.training.tiny import interactions, run_of
from training.batches import user_tokens
from training.dataset import Interactions
from training.onnx_graphs import MAX_ERROR
from training.onnx_towers import export_user_tower
from training.user_states import read_interests

Float32 = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

MAX_HISTORY, NUM_ITEMS, DIM = 12, 50, 8
PROFILE = (
    FeatureSpec(name="city", type="category", size=4),
    FeatureSpec(name="tags", type="categories", size=6),
    FeatureSpec(name="age", type="number", size=2),
    FeatureSpec(name="about", type="text", size=9),
    FeatureSpec(name="face", type="vector", size=3),
)
EVERYTHING = TowerConfig(
    num_items=NUM_ITEMS,
    num_events=3,
    profile_features=PROFILE,
    dim=DIM,
    num_interests=4,
    max_history=MAX_HISTORY,
    num_layers=2,
    num_heads=2,
    id_dropout=0.0,
    objectives=("interest", "direct"),
)
# Between them, each part of the tower is there and is absent.
CASES = {
    "everything": EVERYTHING,
    "nothing": replace(
        EVERYTHING,
        num_events=1,
        profile_features=(),
        has_times=False,
        has_order=False,
        num_interests=1,
        objectives=("interest",),
        similarity="cosine",
    ),
    "ordered": replace(EVERYTHING, profile_features=(), has_times=False, num_layers=1),
    "timed": replace(EVERYTHING, profile_features=(), num_interests=1, objectives=("interest",)),
    "cosine": replace(
        EVERYTHING,
        profile_features=PROFILE[:2],
        has_order=False,
        similarity="cosine",
        objectives=("interest",),
        num_layers=1,
    ),
    "bag": replace(
        EVERYTHING,
        reader="bag",
        has_order=False,
        has_times=False,
        similarity="cosine",
    ),
    "plain bag": replace(
        EVERYTHING,
        reader="bag",
        num_events=1,
        profile_features=(),
        has_order=False,
        has_times=False,
        num_interests=1,
        objectives=("interest",),
    ),
}


@dataclass(frozen=True)
class Case:
    config: TowerConfig
    model: TwoTower
    data: Interactions
    vectors: Float32
    profiles: dict[str, Tensor]
    run_onnx: Callable[[Arrays], Float32]
    inputs: set[str]


def profiles_of(
    num: int, rng: np.random.Generator, specs: tuple[FeatureSpec, ...]
) -> dict[str, Tensor]:
    arrays: dict[str, npt.NDArray[Any]] = {
        "city": rng.integers(0, 4, num).astype(np.int32),
        "tags": rng.integers(0, 6, (num, 4)).astype(np.int32),
        "age": rng.normal(size=(num, 2)).astype(np.float32),
        "about": rng.integers(0, 9, (num, 4)).astype(np.int32),
        "face": rng.normal(size=(num, 3)).astype(np.float32),
    }
    return {f"profile.{spec.name}": torch.from_numpy(arrays[spec.name]) for spec in specs}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    config = CASES[request.param]
    model = randomise(TwoTower(config), seed=len(request.param))
    rng = np.random.default_rng(5)
    # 64 of each: no event, one, two, as many as the tower reads, and a mixture with longer ones.
    lengths = [0] * 64 + [1] * 64 + [2] * 64 + [MAX_HISTORY] * 64 + list(range(64))
    data = interactions(
        lengths,
        num_items=NUM_ITEMS,
        num_events=config.num_events,
        time="exact" if config.has_times else "order",
        seed=6,
    )
    profiles = profiles_of(len(lengths), rng, config.profile_features)
    path = tmp_path_factory.mktemp(request.param) / "user_tower.onnx"
    names = export_user_tower(model, run_of(config, data, profiles=profiles), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {entry.name for entry in session.get_inputs()}
    assert set(names["inputs"]) == inputs

    def run_onnx(given: Arrays) -> Float32:
        (found,) = session.run(None, {n: v for n, v in given.items() if n in inputs})
        interests: Float32 = found
        return interests

    vectors = rng.normal(scale=0.5, size=(NUM_ITEMS, DIM)).astype(np.float32)
    return Case(config, model, data, vectors, profiles, run_onnx, inputs)


def packed(case: Case, users: npt.NDArray[np.int64], idle: Float32) -> Float32:
    """The training path."""
    tokens = user_tokens(case.data, users, idle, max_history=MAX_HISTORY, reader=case.config.reader)
    vectors = torch.from_numpy(case.vectors)[tokens.item_rows]
    with torch.no_grad():
        found = read_interests(case.model, vectors, tokens, case.profiles, only_last=True)
    place = {user: i for i, user in enumerate(tokens.users.tolist())}
    ordered: Float32 = found.numpy()[[place[user] for user in users.tolist()]]
    return ordered


def arrays_of(case: Case, users: npt.NDArray[np.int64], idle: Float32, *, extra: int = 0) -> Arrays:
    """The serving path's inputs, with `extra` more columns of padding on the left."""
    spans = [slice(case.data.starts[u], case.data.starts[u + 1]) for u in users]
    batch = pad_histories(
        [case.data.items[s].astype(np.int64) for s in spans],
        [case.data.events[s].astype(np.int64) for s in spans],
        [case.data.times[s] for s in spans] if case.config.has_times else None,
        max_history=MAX_HISTORY,
    )
    wide = ((0, 0), (extra, 0))
    history = case.vectors[np.maximum(batch.rows, 0)] * batch.mask[:, :, None]
    return {
        "history": np.pad(history, (*wide, (0, 0))),
        "events": np.pad(batch.events, wide),
        "gaps": np.pad(batch.gaps, wide),
        "mask": np.pad(batch.mask, wide),
        "idle": idle,
        "objective": np.zeros(len(users), np.int64),
        **{name: value[torch.from_numpy(users)].numpy() for name, value in case.profiles.items()},
    }


def padded(case: Case, given: Arrays) -> Float32:
    """The padded graph in torch."""
    names = ("history", "events", "gaps", "mask", "idle", "objective")
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    profile = {name: value for name, value in tensors.items() if name.startswith("profile.")}
    with torch.no_grad():
        found: Float32 = case.model.user_tower(*(tensors[n] for n in names), profile).numpy()
    return found


FIRST = {"empty": 0, "1": 64, "2": 128, "max": 192, "mixed": 256}


@pytest.mark.parametrize(
    ("size", "length"), list(itertools.product((1, 3, 64), FIRST)), ids=lambda value: str(value)
)
def test_all_paths_agree(case: Case, size: int, length: str) -> None:
    begin = FIRST[length] + (64 - size if length == "mixed" else 0)
    users = np.arange(begin, begin + size)
    idle = np.linspace(0, 3e6, size, dtype=np.float32) * case.config.has_times
    trained = packed(case, users, idle)
    given = arrays_of(case, users, idle)
    assert trained.shape == (size, case.config.num_interests, DIM)
    assert np.isfinite(trained).all() and np.abs(trained).max() > 0.05
    for found in (padded(case, given), case.run_onnx(given)):
        assert np.abs(found - trained).max() < MAX_ERROR / 10
    # Further padding changes nothing, up to the longest history that the tower reads.
    room = MAX_HISTORY - given["mask"].shape[1]
    for extra in {min(1, room), room}:
        wider = arrays_of(case, users, idle, extra=extra)
        assert np.abs(padded(case, wider) - trained).max() < MAX_ERROR / 10
        assert np.abs(case.run_onnx(wider) - trained).max() < MAX_ERROR / 10


def test_what_is_under_the_mask_does_not_matter(case: Case) -> None:
    users, idle = np.arange(256, 266), np.ones(10, np.float32)
    given = arrays_of(case, users, idle, extra=2)
    noisy = dict(given)
    hidden = ~given["mask"]
    noisy["history"] = np.where(hidden[:, :, None], np.float32(7), given["history"])
    noisy["events"] = np.where(hidden, 1, given["events"])
    noisy["gaps"] = np.where(hidden, np.float32(1e5), given["gaps"])
    for run in (case.run_onnx, lambda arrays: padded(case, arrays)):
        np.testing.assert_allclose(run(noisy), run(given), atol=1e-5)


def changed(name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Another value that an input may have."""
    if name == "objective":
        return 1 - value
    if value.dtype != np.float32:
        return ((value + 1) % 3).astype(value.dtype)
    # A shift of all of a vector's numbers alike is what the layer norms take out.
    return value + 500 if value.ndim < 3 and "." not in name else np.roll(value, 1, axis=-1)


def test_the_graph_has_just_the_inputs_that_count(case: Case) -> None:
    config, expected = case.config, {"history", "mask"}
    expected |= {"events"} if config.num_events > 1 else set()
    expected |= {"gaps", "idle"} if config.has_times else set()
    expected |= {"objective"} if len(config.objectives) > 1 else set()
    expected |= {f"profile.{spec.name}" for spec in config.profile_features}
    assert case.inputs == expected
    # Each of them moves the result.
    users = np.arange(300, 303)
    given = arrays_of(case, users, np.full(3, 50, np.float32))
    before = case.run_onnx(given)
    for name in expected - {"mask"}:
        after = case.run_onnx({**given, name: changed(name, given[name])})
        assert np.abs(after - before).max() > 1e-3, name


@pytest.mark.parametrize("case", ["everything", "cosine"], indirect=True)
def test_profiles_of_any_width_are_taken(case: Case) -> None:
    """One user has one tag, another ten: encode pads to the widest of the batch at hand."""
    users, idle = np.arange(300, 305), np.zeros(5, np.float32)
    given = arrays_of(case, users, idle)
    before = case.run_onnx(given)
    ragged = case.inputs & {"profile.tags", "profile.about"}
    wider = {n: np.pad(v, ((0, 0), (0, 6))) if n in ragged else v for n, v in given.items()}
    np.testing.assert_allclose(case.run_onnx(wider), before, atol=1e-5)
    narrow = {n: v[:, :1] if n in ragged else v for n, v in given.items()}
    np.testing.assert_allclose(case.run_onnx(narrow), padded(case, narrow), atol=1e-5)


@pytest.mark.parametrize("length", FIRST)
@pytest.mark.parametrize("case", ["nothing", "ordered", "timed", "plain bag"], indirect=True)
def test_the_tower_is_the_plain_one_in_float64(case: Case, length: str) -> None:
    users = np.arange(FIRST[length] + 30, FIRST[length] + 33)
    idle = np.array([0, 40, 1e6], np.float32)
    found = packed(case, users, idle)
    exact = TwoTower(case.config)
    exact.load_state_dict(case.model.state_dict())
    exact.double().eval()
    for user, span_idle, interests in zip(users, idle, found, strict=True):
        events = slice(case.data.starts[user], case.data.starts[user + 1])
        rows = case.data.items[events][-MAX_HISTORY:]
        times = case.data.times[events][-MAX_HISTORY:]
        gaps = torch.from_numpy(np.diff(times, prepend=times[:1]) / 1e6)
        with torch.no_grad():
            states = plain_states(
                exact,
                torch.from_numpy(case.vectors[rows]).double(),
                torch.from_numpy(case.data.events[events][-MAX_HISTORY:].astype(np.int64)),
                gaps,
            )
            plain = plain_interests(exact, states[-1], torch.tensor(span_idle))
        np.testing.assert_allclose(interests, plain.numpy(), atol=2e-5)


def test_one_interest_is_the_first_of_several(case: Case) -> None:
    one = TwoTower(replace(case.config, num_interests=1))
    weights = {k: v for k, v in case.model.state_dict().items() if "views" not in k}
    one.load_state_dict(weights)
    users, idle = np.arange(256, 300), np.full(44, 9, np.float32)
    alone = packed(replace(case, model=one.eval()), users, idle)
    assert alone.shape == (44, 1, DIM)
    np.testing.assert_allclose(alone[:, 0], packed(case, users, idle)[:, 0], atol=1e-6)
