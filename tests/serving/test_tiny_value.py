"""The hand-made value model computes what its docstring says; a bundle holds it or rejects it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from model.bundle import VALUE_ITEM, VALUE_ITEMS, open_bundle
from model.errors import BundleRejected
from model.manifest import DIGEST, MANIFEST, write_folder
from tests.serving.tiny import DIM, SCHEMA, START, World
from tests.serving.tiny_value import (
    HEADS,
    PRIOR,
    STATS,
    VALUE_DIM,
    VALUE_MAX_HISTORY,
    item_vectors,
    probabilities,
    stats_of,
)


def test_a_bundle_may_have_a_value_model(world: World, value_bundle: Path) -> None:
    assert open_bundle(world.bundle).value is None
    bundle = open_bundle(value_bundle)
    value = bundle.value
    assert value is not None
    assert tuple(head.name for head in value.heads) == HEADS
    assert (value.dim, value.max_history, value.stats) == (VALUE_DIM, VALUE_MAX_HISTORY, STATS)
    assert value.prior.tolist() == PRIOR.tolist() and isinstance(value.items, np.memmap)
    assert value.items.shape == (bundle.items.num_items, VALUE_DIM)
    assert value.inputs[:2] == ("history", "events") and value.item_inputs[0] == "vector"


def test_the_item_side_gives_the_rows(value_bundle: Path) -> None:
    bundle = open_bundle(value_bundle)
    assert bundle.value is not None
    session = onnxruntime.InferenceSession(str(bundle.value.item_path))
    arrays = bundle.encoder.encode_items(bundle.items.table)
    stats = stats_of(bundle.items.num_items)
    given = {
        "vector": np.asarray(bundle.vectors),
        "stats": stats,
        "item.craft": arrays["item.craft"],
    }
    (found,) = session.run(None, given)
    np.testing.assert_allclose(found, bundle.value.items, atol=1e-5)
    expected = item_vectors(np.asarray(bundle.vectors), arrays["item.craft"], stats)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("num_candidates", [1, 7])
def test_the_request_side_is_the_sum_of_the_docstring(
    value_bundle: Path, length: int, num_candidates: int
) -> None:
    bundle = open_bundle(value_bundle)
    assert bundle.value is not None
    rng = np.random.default_rng(length)
    items = np.asarray(bundle.value.items)
    width = max(length, 1)
    history = items[rng.integers(0, 500, width)]
    events, gaps = rng.integers(1, 3, width), rng.exponential(1e4, width).astype(np.float32)
    interests = rng.normal(size=(2, DIM)).astype(np.float32)
    candidates = items[rng.integers(0, 500, num_candidates)]
    scores = rng.normal(size=num_candidates).astype(np.float32)
    past = np.log1p(rng.integers(0, 3, (num_candidates, 2))).astype(np.float32)
    given: dict[str, npt.NDArray[Any]] = {
        "history": history[None],
        "events": events[None],
        "gaps": gaps[None],
        "mask": np.full((1, width), length > 0),
        "idle": np.array([3600.0], np.float32),
        "interests": interests[None],
        "profile.city": np.array([2], np.int32),
        "candidates": candidates[None],
        "scores": scores[None],
        "past": past[None],
    }
    (found,) = onnxruntime.InferenceSession(str(bundle.value.path)).run(None, given)
    read = (history[:length], events[:length].tolist(), gaps[:length].tolist())
    expected = probabilities(*read, 3600.0, interests, 2, candidates, scores, past)
    assert found.shape == (1, num_candidates, len(HEADS))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("broken", ["no file", "no section", "too few rows", "NaN"])
def test_a_value_model_in_part_is_rejected(value_bundle: Path, tmp_path: Path, broken: str) -> None:
    body = dict(open_bundle(value_bundle).manifest.body)
    if broken == "no section":
        del body["value"]
    with write_folder(
        tmp_path / "bundle", kind="bundle", schema=SCHEMA, as_of=START, body=body
    ) as folder:
        for path in value_bundle.rglob("*"):
            name = path.relative_to(value_bundle)
            if path.is_file() and path.name not in (MANIFEST, DIGEST):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(path.read_bytes())
        rows = np.load(folder / VALUE_ITEMS)
        if broken == "no file":
            (folder / VALUE_ITEM).unlink()
        elif broken == "too few rows":
            np.save(folder / VALUE_ITEMS, rows[1:])
        elif broken == "NaN":
            rows[3, 1] = np.nan
            np.save(folder / VALUE_ITEMS, rows)
    said = {
        "no file": "value_item.onnx is missing; a value model is",
        "no section": "the manifest's section `value` is missing",
        "too few rows": "value_items.npy holds float32 of shape",
        "NaN": "value_items.npy, row 3: item 'item-0003' has no vector",
    }
    with pytest.raises(BundleRejected, match=said[broken]):
        open_bundle(tmp_path / "bundle")
    assert "value" in json.loads((value_bundle / MANIFEST).read_text())
