"""The value model in a bundle: it computes there what it computed in training."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from model.bundle import open_bundle
from model.errors import ConfigError, NoVector
from tests.training.value.conftest import ExportedValue, Shown
from training.run import load_best, open_run
from training.value.export import export_value
from training.value.exposures import ExposureLog
from training.value.fit import predict
from training.value.inputs import item_arrays, make_examples
from training.value.kin import kin_codes
from training.value.stored import load_value


def test_the_bundle_holds_the_value_model(shown: Shown, exported_value: ExportedValue) -> None:
    bundle, stored = open_bundle(exported_value.bundle), load_value(shown.run)
    value, errors = bundle.value, exported_value.report.value_errors
    assert value is not None and errors is not None
    assert [head.name for head in value.heads] == ["click", "long_watch"]
    assert (value.dim, value.max_history) == (16, 10)
    assert value.stats == stored.stats.names
    np.testing.assert_allclose(value.prior, stored.stats.prior, rtol=1e-6)
    section = bundle.manifest.body["value"]
    assert section["metrics"]["click"]["auc"] > 0.7
    assert section["metrics"]["click"]["num_exposures"] == 120 * 5
    assert bundle.manifest.body["parity"]["value"] == errors.request_side < 1e-4
    assert bundle.manifest.body["parity"]["value_item"] == errors.item_side < 1e-4
    assert value.inputs == (
        *("history", "events", "gaps", "mask", "idle", "interests", "profile.city"),
        *("candidates", "scores", "past", "kin"),
    )
    assert value.item_inputs == ("vector", "stats", "item.kind", "item.group")  # no text
    # An upsert: the item tower's vector, the encoder's arrays, the statistics of the item.
    rows = shown.run.read_items()["item_id"].to_pylist()
    places = bundle.items.rows_of(rows)
    arrays = bundle.encoder.encode_items(shown.run.read_items())
    given = {**arrays, "vector": bundle.vectors[places], "stats": stored.stats.values}
    session = onnxruntime.InferenceSession(str(value.item_path))
    (found,) = session.run(None, {name: given[name] for name in value.item_inputs})
    np.testing.assert_allclose(found, value.items[places], atol=1e-4)


def test_the_bundle_ranks_exposures_as_training_did(
    shown: Shown, exported_value: ExportedValue
) -> None:
    """Row by row from the bundle's own files, as a server will, against the network's logits."""
    run, model = shown.run, load_best(shown.run)[0]
    stored, bundle = load_value(run), open_bundle(exported_value.bundle)
    assert bundle.value is not None and bundle.value.kin == ("circle",)
    items = item_arrays(run, model, stored.stats)
    kin = kin_codes(
        run.read_items(), bundle.value.kin, vectors=items.vectors.numpy(), seed=run.config.seed
    )
    examples = make_examples(
        run, model, ExposureLog(run).read("test"), items.vectors, kin=kin, created=None
    )
    assert examples.kin is not None
    expected = predict(stored.network, items, examples, max_history=10)
    session = onnxruntime.InferenceSession(str(bundle.value.path))
    names = run.read_items()["item_id"].to_pylist()
    exposures, vectors = examples.exposures, np.asarray(bundle.value.items)
    row_of = bundle.items.rows_of(names)
    for n in (0, 700, 1500):
        padded = examples.padded(np.array([n]), max_history=bundle.value.max_history)
        given = {
            "history": vectors[row_of[np.maximum(padded.rows, 0)]],
            "events": padded.events,
            "gaps": padded.gaps,
            "mask": padded.mask,
            "idle": padded.idle,
            "interests": examples.interests[examples.moments[[n]]],
            "profile.city": examples.profiles["profile.city"][exposures.owners[[n]]].numpy(),
            "candidates": vectors[row_of[exposures.items[[n]]]][:, None],
            "scores": examples.scores[[n], None],
            "past": examples.past[[n], None],
            "kin": examples.kin[[n], None],
        }
        (found,) = session.run(None, given)
        np.testing.assert_allclose(found[0, 0], 1 / (1 + np.exp(-expected[n])), atol=1e-4)


def test_a_run_without_a_value_model_says_how_to_train_one(towers: Path, taste: Path) -> None:
    run = open_run(towers, dataset=taste)
    with pytest.raises(ConfigError, match=r"has no value model\. Train one: penchant train-value"):
        load_value(run)


def test_an_item_without_a_vector_is_refused(shown: Shown, tmp_path: Path) -> None:
    run, model = shown.run, load_best(shown.run)[0]
    with torch.no_grad():  # an item tower that gives NaN for all
        model.item_tower.ids.fill_(float("nan"))
    order = np.arange(run.data.num_items)
    with pytest.raises(NoVector, match="the item tower gives NaN or infinity"):
        export_value(run, model, load_value(run), order, tmp_path)
