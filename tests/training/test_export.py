"""The bundle and the snapshot that an export writes, held to the run they came from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ann import exact_search, open_index
from model.bundle import Bundle, open_bundle
from model.errors import BundleRejected, ConfigError
from model.manifest import open_verified
from model.snapshot import HISTORY_SCHEMA, open_snapshot, read_histories
from tests.training.conftest import Exported, Trained
from tests.training.tiny import TINY, Silent
from training.circles.previous import read_previous
from training.dataset import read_items_table
from training.distributed import join
from training.evaluate import evaluate_run
from training.export import export_run
from training.onnx_graphs import MAX_ERROR, ParityError
from training.run import load_best, open_run, start_run
from training.tower_ranker import item_vectors


@pytest.fixture(scope="module")
def bundle(exported: Exported) -> Bundle:
    return open_bundle(exported.bundle)


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_bundle_has_just_its_files(exported: Exported) -> None:
    assert files(exported.bundle) == [
        "MANIFEST.sha256",
        "circles.parquet",
        "districts.parquet",
        "gate.parquet",
        "id_hashes.npy",
        "id_rows.npy",
        "id_vectors.npy",
        "index.faiss",
        "item_tower.onnx",
        "item_tower.onnx.data",
        "items.arrow",
        "manifest.json",
        "user_tower.onnx",
        "vectors.npy",
        "vocab/encoder.json",
    ]
    assert files(exported.snapshot) == [
        "MANIFEST.sha256",
        "histories.parquet",
        "manifest.json",
        "users.parquet",
    ]
    assert [p.name for p in exported.bundle.parent.iterdir() if p.name.startswith(".")] == []


def test_the_manifest_says_how_faithful_the_towers_are(exported: Exported, bundle: Bundle) -> None:
    body, report = bundle.manifest.body, exported.report
    assert body["parity"] == {
        "user_tower": report.user_tower_error,
        "item_tower": report.item_tower_error,
    }
    assert 0 < report.user_tower_error < MAX_ERROR and 0 <= report.item_tower_error < MAX_ERROR
    index = body["ann"]
    assert (index["kind"], index["metric"]) == ("exact", "inner_product")
    assert (index["recall@100"], index["measured_with"]) == (1.0, "users")
    assert index == report.index
    assert body["metrics"] == report.metrics
    assert (bundle.dim, bundle.num_interests, bundle.max_history) == (16, 2, 8)
    assert (body["num_items"], body["num_active"]) == (500, report.num_active)
    assert bundle.objectives == ("interest",)
    assert list(bundle.event_codes) == list(bundle.schema.history_events)
    assert list(bundle.event_codes.values()) == list(range(1, len(bundle.event_codes) + 1))
    assert bundle.user_tower_inputs == (
        *("history", "events", "gaps", "mask", "idle"),
        *("profile.age_band", "profile.city_tier", "profile.channel"),
    )
    assert bundle.item_tower_inputs[0] == "id_vector" and "item.kind" in bundle.item_tower_inputs


def test_the_metrics_are_those_of_the_test_split(exported: Exported, trained: Trained) -> None:
    run = trained.open()
    assert exported.report.metrics == evaluate_run(run, load_best(run)[0]).to_json()


def test_vectors_stand_beside_their_items(
    exported: Exported, bundle: Bundle, trained: Trained
) -> None:
    run = trained.open()
    model, _ = load_best(run)
    raw = read_items_table(run.dataset)
    rows = bundle.items.rows_of(raw["item_id"].to_pylist())
    assert sorted(rows.tolist()) == list(range(500))
    np.testing.assert_array_equal(bundle.vectors[rows], item_vectors(run.items, model).numpy())
    # The columns of items.parquet are there, unchanged, with those that a bundle adds.
    table = bundle.items.table.take(pa.array(rows))
    for name in raw.column_names:
        assert table[name].combine_chunks().equals(raw[name].combine_chunks()), name
    assert set(table.column_names) - set(raw.column_names) == {*("popularity", "retired", "circle")}
    assert table["popularity"].to_pylist() == run.data.popularity().tolist()
    table_of_ids = model.item_tower.ids.detach().numpy().copy()
    table_of_ids[0] = 0.0
    codes = run.items.id_codes.numpy()
    assert 0 < (codes == 0).sum() < 500
    np.testing.assert_array_equal(bundle.id_vectors[rows], table_of_ids[codes])
    assert isinstance(bundle.vectors, np.memmap) and isinstance(bundle.id_vectors, np.memmap)


def test_retired_items_keep_their_vector_outside_the_index(
    bundle: Bundle, trained: Trained
) -> None:
    run = trained.open()
    raw = pl.read_parquet(run.dataset / "items.parquet")
    events = pl.read_parquet(run.dataset / "events/*.parquet")
    newest = events.filter(pl.col("event").is_in(run.data.schema.history_events))["timestamp"].max()
    gone = raw.filter(~pl.col("available") | (pl.col("expires_at") <= newest))
    assert 0 < len(gone) < len(raw)
    assert bundle.manifest.as_of == newest
    items = bundle.items
    retired = np.array(items.table["retired"].to_pylist())
    assert set(items.ids_of(np.flatnonzero(retired))) == set(gone["item_id"])
    assert items.num_active == 500 - len(gone) == int(retired.argmax())
    assert retired[items.num_active :].all()
    index = open_index(bundle.index_path)
    assert index.ntotal == items.num_active
    queries = np.array(bundle.vectors[-3:])
    found = index.search(queries, 20)[1]
    expected = exact_search(queries, np.array(bundle.vectors[: items.num_active]), 20)[0]
    assert [set(row) for row in found.tolist()] == [set(row) for row in expected.tolist()]


def test_the_graphs_compute_what_the_towers_do(bundle: Bundle, trained: Trained) -> None:
    run = trained.open()
    raw = read_items_table(run.dataset)
    session = onnxruntime.InferenceSession(
        str(bundle.item_tower_path), providers=["CPUExecutionProvider"]
    )
    rows = bundle.items.rows_of(raw["item_id"].to_pylist())
    # As an upsert will: raw columns through the bundle's own encoder, one item at a time too.
    for part in (raw, raw.slice(7, 1), raw.slice(400, 3)):
        arrays = bundle.encoder.encode_items(part)
        place = bundle.items.rows_of(part["item_id"].to_pylist())
        (vectors,) = session.run(None, {"id_vector": bundle.id_vectors[place], **arrays})
        assert np.abs(vectors - bundle.vectors[place]).max() < MAX_ERROR
    nothing = np.zeros((500, bundle.dim), np.float32)
    (new,) = session.run(None, {"id_vector": nothing, **bundle.encoder.encode_items(raw)})
    model, _ = load_best(run)
    with torch.no_grad():
        content = model.item_tower(torch.zeros(500, dtype=torch.int64), run.items.features)
    assert np.abs(new - content.numpy()).max() < MAX_ERROR
    assert np.abs(new - bundle.vectors[rows]).max() > 1e-3


def test_the_gate_holds_validation_histories_and_their_user_vectors(
    exported: Exported, bundle: Bundle, trained: Trained
) -> None:
    run, gate = trained.open(), pq.read_table(exported.bundle / "gate.parquet")
    questions = run.split.questions("validation", seen=run.config.seen)
    data, users, idle = questions.histories, questions.users, questions.idle
    ids = read_items_table(run.dataset)["item_id"].to_pylist()
    assert gate.num_rows == len(users)
    assert gate["targets"].to_pylist() == [[ids[t]] for t in questions.targets]
    popularity = run.split.training.popularity()
    expected = [[popularity[t]] for t in questions.targets]
    assert gate["target_popularity"].to_pylist() == expected
    assert gate["idle_seconds"].to_pylist() == idle.tolist()
    for user, listed, times in zip(
        users, gate["item_ids"].to_pylist(), gate["times_us"].to_pylist(), strict=True
    ):
        span = slice(data.starts[user], data.starts[user + 1])
        assert listed == [ids[row] for row in data.items[span]]
        assert times == data.times[span].tolist()
    interests = np.array(gate["interests"].to_pylist(), np.float32)
    assert interests.shape == (len(users), 2 * 16) and np.isfinite(interests).all()


def test_circles_cover_the_catalogue_with_readable_names(bundle: Bundle, trained: Trained) -> None:
    circles, of_item = bundle.circles, bundle.items.table["circle"].to_numpy()
    assert circles["size"].to_pylist() == np.bincount(of_item).tolist()
    items, names = read_items_table(trained.open().dataset), circles["name"].to_pylist()
    ids = set(items["item_id"].to_pylist())
    for name, features in zip(names, circles["top_features"].to_pylist(), strict=True):
        assert name and not set(features) & ids
        assert all(part in name for part in features[:2])
    assert circles["name"].null_count == 0


def test_circles_lie_in_districts_and_grow(bundle: Bundle, exported: Exported) -> None:
    circles, districts = bundle.circles, bundle.districts
    assert exported.report.num_districts == len(districts) < len(circles)
    assert set(circles["district_id"].to_pylist()) == set(districts["circle_id"].to_pylist())
    sizes = dict(
        zip(districts["circle_id"].to_pylist(), districts["size"].to_pylist(), strict=True)
    )
    assert sum(sizes.values()) == sum(circles["size"].to_pylist()) == 500
    shown = set(bundle.items.table["item_id"].to_pylist()[: bundle.items.num_active])
    for samples in circles["sample_items"].to_pylist():
        assert set(samples) <= shown
    section = bundle.manifest.body["circles"]
    assert section["previous"] is None and section["circle"]["born"] == len(circles)
    highest = max(*circles["circle_id"].to_pylist(), *districts["circle_id"].to_pylist())
    assert section["next_id"] == highest + 1


def test_an_export_after_another_keeps_the_ids(
    exported: Exported, bundle: Bundle, trained: Trained, tmp_path: Path
) -> None:
    run = trained.open()
    model, _ = load_best(run)
    report = export_run(
        run,
        model,
        bundle=tmp_path / "next",
        snapshot=tmp_path / "users",
        previous=read_previous(exported.bundle),
    )
    after = open_bundle(tmp_path / "next")
    assert after.manifest.body["circles"]["previous"] == bundle.manifest.version
    for old, new in ((bundle.circles, after.circles), (bundle.districts, after.districts)):
        ids = set(old["circle_id"].to_pylist()) & set(new["circle_id"].to_pylist())
        assert len(ids) >= 0.8 * len(old)
    assert report.circles[0].startswith("districts: ")


def test_a_snapshot_holds_every_history_as_the_events_have_it(
    exported: Exported, trained: Trained, world: Path
) -> None:
    manifest, users = open_snapshot(exported.snapshot)
    schema = trained.open().data.schema
    assert manifest.schema == schema
    assert users.equals(pq.read_table(world / "users.parquet"))
    events = (
        pl.read_parquet(world / "events/*.parquet")
        .filter(pl.col("event").is_in(schema.history_events))
        .sort("user_id", "timestamp", "sequence", maintain_order=True)
    )
    expected = {user: frame for (user,), frame in events.group_by(["user_id"], maintain_order=True)}
    batches = list(read_histories(exported.snapshot, batch_users=10))
    assert max(batch.num_rows for batch in batches) <= 10
    table = pa.Table.from_batches(batches)
    assert table.schema.equals(HISTORY_SCHEMA)
    assert table["user_id"].to_pylist() == list(expected)
    for row in table.to_pylist():
        frame = expected[row["user_id"]]
        assert row["item_ids"] == frame["item_id"].to_list()
        assert row["events"] == frame["event"].to_list()
        assert row["event_ids"] == frame["event_id"].to_list()
        assert row["timestamps"] == frame["timestamp"].to_list()
    assert manifest.body == {"num_users": len(expected), "num_events": len(events)}
    assert exported.report.num_users == len(expected)


@pytest.fixture(scope="module")
def names(exported: Exported) -> list[str]:
    return files(exported.bundle)


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_in_any_file_is_refused_by_name(
    exported: Exported, names: list[str], data: st.DataObject
) -> None:
    for name in names:
        path = exported.bundle / name
        size = path.stat().st_size
        bit = data.draw(st.integers(0, 8 * size - 1), label=name)

        def flip(path: Path = path, bit: int = bit) -> None:
            with path.open("r+b") as file:
                file.seek(bit // 8)
                (byte,) = file.read(1)
                file.seek(bit // 8)
                file.write(bytes([byte ^ 1 << bit % 8]))

        flip()
        try:
            with pytest.raises(BundleRejected) as caught:
                open_bundle(exported.bundle)
            assert name in str(caught.value)
        finally:
            flip()
    open_verified(exported.bundle, kind="bundle")


def test_a_truncated_or_missing_file_is_refused_by_name(
    exported: Exported, names: list[str]
) -> None:
    for name in names:
        path = exported.bundle / name
        content = path.read_bytes()
        try:
            path.write_bytes(content[:-1])
            with pytest.raises(BundleRejected, match=name):
                open_bundle(exported.bundle)
            path.unlink()
            with pytest.raises(BundleRejected, match=f"{name} is missing"):
                open_bundle(exported.bundle)
        finally:
            path.write_bytes(content)
    open_verified(exported.bundle, kind="bundle")
    with pytest.raises(BundleRejected, match="is a snapshot; a bundle is needed here"):
        open_bundle(exported.snapshot)


def test_an_export_that_cannot_be_written_whole_begins_nothing(
    exported: Exported, trained: Trained, tmp_path: Path
) -> None:
    run = trained.open()
    model, _ = load_best(run)
    for bundle, snapshot in (
        (tmp_path / "bundle", exported.snapshot),
        (exported.bundle, tmp_path / "snapshot"),
    ):
        with pytest.raises(ConfigError, match="exists already; name another folder"):
            export_run(run, model, bundle=bundle, snapshot=snapshot)
    for bundle, snapshot in (
        (tmp_path / "a", tmp_path / "b/../a"),
        (tmp_path / "a", tmp_path / "a" / "in"),
        (trained.path, tmp_path / "a"),
        (tmp_path / "a", run.dataset / "snapshot"),
    ):
        with pytest.raises(ConfigError, match="lie one in the other"):
            export_run(run, model, bundle=bundle, snapshot=snapshot, replace=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no snapshot, so --overwrite does not replace it"):
        export_run(run, model, bundle=tmp_path.parent / "b", snapshot=tmp_path, replace=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path.parent / "b").exists()


def test_a_graph_that_differs_from_its_tower_leaves_nothing_behind(
    world: Path, tmp_path: Path
) -> None:
    # Ids only and one interest: the smallest towers there are.
    config = replace(TINY, content=False, num_interests=1, epochs=1)
    start_run(world, tmp_path / "run", config, rank=join("cpu"), reporter=Silent())
    run = open_run(tmp_path / "run")
    model, _ = load_best(run)
    bundle, snapshot = tmp_path / "out" / "bundle", tmp_path / "out" / "snapshot"

    def spoil(_: float, what: str) -> None:
        if what == "compare ONNX with torch":  # the graphs are made
            with torch.no_grad():
                model.user_tower.norm.bias.add_(2 * MAX_ERROR)

    with pytest.raises(ParityError, match=r"user_tower\.onnx differs .* Nothing was written"):
        export_run(run, model, bundle=bundle, snapshot=snapshot, progress=spoil)
    assert list((tmp_path / "out").iterdir()) == []

    told: list[tuple[float, str]] = []
    export_run(
        run, model, bundle=bundle, snapshot=snapshot, progress=lambda *step: told.append(step)
    )
    whole = open_bundle(bundle)
    assert whole.item_tower_inputs == ("id_vector",) and whole.num_interests == 1
    assert whole.value is None and "value" not in whole.manifest.body
    assert told == sorted(told) and told[-1] == (1.0, "done")
