"""Embedding in batches: the vectors are those that training and serving have, and bad input is
refused by name."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import numpy_helper

from model.bundle import ID_VECTORS, USER_TOWER, Bundle, open_bundle
from model.errors import BundleRejected, ConfigError, NoVector, PenchantError
from model.manifest import open_verified, write_folder
from model.snapshot import HISTORIES, HISTORY_SCHEMA, USERS
from serving.domain import EmbedRequest, UserQuery
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.pipeline import Answer, Pipeline
from serving.store.database import Database
from serving.store.load import load_snapshot
from serving.store.sqlite import SqliteStore
from tests.training.conftest import Exported, Trained
from training.dataset import read_items_table
from training.embed import ItemEmbedder, UserEmbedder
from training.embed_files import embed_items, embed_users
from training.run import load_best

Float32 = npt.NDArray[np.float32]
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def bundle(exported: Exported) -> Bundle:
    return open_bundle(exported.bundle)


def rewritten(folder: Path, out: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a bundle or snapshot in which `change` has changed files, whole again."""
    written = json.loads((folder / "manifest.json").read_text())
    manifest = open_verified(folder, kind=written["kind"])
    with write_folder(
        out,
        kind=manifest.kind,
        schema=manifest.schema,
        as_of=manifest.as_of,
        body=manifest.body,
    ) as partial:
        for name in written["files"]:
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copy(folder / name, partial / name)
        change(partial)
    return out


def changed(items: pa.Table) -> pa.Table:
    """Other titles, so that no vector of the bundle is good for them; but the same words."""
    titles = [f"{title}." for title in items["title"].to_pylist()]
    return items.set_column(items.column_names.index("title"), "title", pa.array(titles))


def vectors_of(table: pa.Table, column: str) -> Float32:
    lists = table[column].combine_chunks()
    return np.asarray(lists.flatten()).reshape(len(lists), -1)


def test_items_have_the_vectors_of_the_bundle_and_new_ones_live_by_their_content(
    bundle: Bundle, trained: Trained, exported: Exported, tmp_path: Path
) -> None:
    run = trained.open()
    model, _ = load_best(run)
    known = read_items_table(run.dataset)
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    shutil.copy(run.dataset / "dataset.toml", dataset)
    new = known.slice(100, 200).set_column(0, "item_id", pa.array([f"new-{i}" for i in range(200)]))
    mixed = pa.concat_tables([new.slice(0, 50), known, new.slice(50)])
    pq.write_table(mixed, dataset / "items.parquet")
    out = tmp_path / "out"
    done = embed_items(exported.bundle, dataset, out, workers=2, part_rows=300)
    assert done.notes == () and done.written is not None
    assert (done.written.num_rows, done.written.num_kept) == (700, 0)

    table = pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("part-*"))])
    assert [f"{f.name} {f.type}" for f in table.schema] == [
        "item_id string",
        "vector fixed_size_list<element: float not null>[16]",
    ]
    assert table["item_id"].to_pylist() == mixed["item_id"].to_pylist()
    vectors = vectors_of(table, "vector")
    rows = bundle.items.rows_of(known["item_id"].to_pylist())
    np.testing.assert_array_equal(vectors[50:550], bundle.vectors[rows])
    with torch.no_grad():
        features = {name: value[100:300] for name, value in run.items.features.items()}
        content = model.item_tower(torch.zeros(200, dtype=torch.int64), features).numpy()
    np.testing.assert_allclose(vectors[[*range(50), *range(550, 700)]], content, atol=TOLERANCE)
    assert np.abs(content - vectors[150:350]).max() > 1e-3  # their twins in the bundle have an id

    assert sorted(p.name for p in out.iterdir()) == [
        "manifest.json",
        *(f"part-0000{i}.parquet" for i in range(3)),
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["kind"], manifest["of"], manifest["dim"]) == ("embeddings", "items", 16)
    assert manifest["bundle"] == bundle.manifest.version and manifest["num_rows"] == 700
    assert [entry["rows"] for entry in manifest["files"].values()] == [300, 300, 100]


@pytest.mark.parametrize("hours_earlier", [0, 40])
def test_users_have_the_interests_that_serving_gives_at_that_moment(
    bundle: Bundle, exported: Exported, tmp_path: Path, hours_earlier: int
) -> None:
    as_of = bundle.manifest.as_of
    assert as_of is not None
    at = as_of - timedelta(hours=hours_earlier)
    done = embed_users(
        exported.bundle,
        exported.snapshot,
        tmp_path / "out",
        at=at if hours_earlier else None,
        workers=1,
        part_rows=25,
    )
    assert done.written is not None
    found = pl.read_parquet(tmp_path / "out/part-*.parquet")
    # Everyone is there: with a history first, as it was exported; then who has none.
    histories = pl.read_parquet(exported.snapshot / HISTORIES)
    users = pl.read_parquet(exported.snapshot / USERS)["user_id"]
    alone = users.filter(~users.is_in(histories["user_id"].implode()))
    assert found["user_id"].to_list() == [*histories["user_id"], *alone]
    assert 0 < len(alone) == done.written.num_rows - len(histories)

    store = SqliteStore(Database(tmp_path / "store.db"))
    load_snapshot(exported.snapshot, store)
    request = EmbedRequest(
        queries=[UserQuery(user_id=user) for user in found["user_id"]],
        time_us=round(at.timestamp() * 1e6),
    )
    (answer,) = Pipeline(Catalogue(Generation(bundle)), store).answer([request])
    store.database.close()
    assert isinstance(answer, Answer)
    np.testing.assert_allclose(
        np.stack(found["interests"].to_list()),
        np.stack(answer.vectors).reshape(len(found), 2 * 16),
        atol=TOLERANCE,
    )
    read = [min(len(reader.rows), bundle.max_history) for reader in answer.readers]
    assert found["num_events"].to_list() == read
    of_all = histories["item_ids"].list.len().clip(upper_bound=bundle.max_history).sum()
    assert (sum(read) < of_all) == bool(hours_earlier)


def test_a_changed_item_goes_through_the_tower_with_its_id(bundle: Bundle, world: Path) -> None:
    items = pq.read_table(world / "items.parquet")
    rows = bundle.items.rows_of(items["item_id"].to_pylist())
    embed = ItemEmbedder(bundle)
    assert list(embed.batches(items, rows)) == []
    # The same words have the same vector, computed again.
    again = vectors_of(embed(changed(items)), "vector")
    np.testing.assert_allclose(again, bundle.vectors[rows], atol=TOLERANCE)
    assert (again != bundle.vectors[rows]).any()
    # One feature of one item is another; and one cell is unknown that was known.
    column = items.column_names.index("price")
    price = items["price"].to_pylist()
    known = [i for i, value in enumerate(price) if value is not None]
    price[known[0]] += 500.0
    price[known[1]] = None
    edited = items.set_column(column, "price", pa.array(price, pa.float64()))
    ((places, _),) = embed.batches(edited, rows)
    assert sorted(places.tolist()) == known[:2]
    vectors = vectors_of(embed(edited), "vector")
    others = np.setdiff1d(np.arange(len(rows)), known[:2])
    np.testing.assert_array_equal(vectors[others], bundle.vectors[rows[others]])
    assert np.abs(vectors[known[:2]] - bundle.vectors[rows[known[:2]]]).max(axis=1).min() > 1e-4


def test_a_user_or_item_alone_has_the_vector_it_has_among_others(
    bundle: Bundle, exported: Exported, world: Path
) -> None:
    items = changed(pq.read_table(world / "items.parquet"))
    embed = ItemEmbedder(bundle)
    together = vectors_of(embed(items), "vector")
    for row in (0, 250, 499):
        alone = vectors_of(embed(items.slice(row, 1)), "vector")
        np.testing.assert_allclose(alone[0], together[row], atol=TOLERANCE)
    users = pq.read_table(exported.snapshot / HISTORIES)
    moment = bundle.manifest.as_of or datetime.now(UTC)
    embed_them = UserEmbedder(bundle, now=round(moment.timestamp() * 1e6))
    together = vectors_of(embed_them(users), "interests")
    for row in (0, 20, 45):
        alone = vectors_of(embed_them(users.slice(row, 1)), "interests")
        np.testing.assert_allclose(alone[0], together[row], atol=TOLERANCE)


def test_items_and_events_that_the_bundle_lacks_are_left_aside(bundle: Bundle) -> None:
    day = timedelta(days=1)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    known = bundle.items.ids_of(np.array([3, 4]))
    names = list(bundle.event_codes)

    def user(name: str, events: list[tuple[str, str, datetime | None]]) -> dict[str, object]:
        ids, what, when = (list(part) for part in zip(*events, strict=True)) if events else [[]] * 3
        return {
            "user_id": name,
            "item_ids": ids,
            "events": what,
            "timestamps": when,
            "event_ids": ids,
            "sequences": list(range(len(ids))),
        }

    both: list[tuple[str, str, datetime | None]]
    both = [(known[0], names[0], start), (known[1], names[1], start + day)]
    users = pa.Table.from_pylist(
        [
            user("plain", both),
            user("foreign item", [both[0], ("no such item", names[0], start + day / 2), both[1]]),
            user("exposure", [both[0], (known[0], "impression", start + day / 2), both[1]]),
            user("later", [*both, (known[0], names[0], start + 3 * day)]),
            # Read as the next known time: the same as an event at the start.
            user("no time", [(known[0], names[0], None), (known[0], names[0], start), both[1]]),
            user("twice", [both[0], both[0], both[1]]),
            user("nothing known", [("no such item", names[0], start)]),
            user("no history", []),
            {"user_id": "null lists"},
        ],
        schema=HISTORY_SCHEMA,
    )
    embed = UserEmbedder(bundle, now=round((start + 2 * day).timestamp() * 1e6))
    table = embed(users)
    assert table["user_id"].to_pylist() == users["user_id"].to_pylist()
    assert table["num_events"].to_pylist() == [2, 2, 2, 2, 3, 3, 0, 0, 0]
    interests = vectors_of(table, "interests")
    plain, *like_plain = interests[:4]
    for other in like_plain:
        np.testing.assert_allclose(other, plain, atol=TOLERANCE)
    np.testing.assert_allclose(interests[4], interests[5], atol=TOLERANCE)
    assert np.abs(interests[4] - plain).max() > 1e-3
    for other in interests[6:]:
        np.testing.assert_allclose(other, interests[7], atol=TOLERANCE)


def test_where_only_days_are_known_midnight_counts(bundle: Bundle, exported: Exported) -> None:
    schema = bundle.schema.model_copy(update={"time": "day"})
    by_day = dataclasses.replace(
        bundle, manifest=dataclasses.replace(bundle.manifest, schema=schema)
    )
    users = pq.read_table(exported.snapshot / HISTORIES).slice(0, 20)
    day = 86_400_000_000
    now = round(datetime(2026, 4, 1, 15, 30, tzinfo=UTC).timestamp() * 1e6)
    found = vectors_of(UserEmbedder(by_day, now=now)(users), "interests")
    stamps = users["timestamps"].combine_chunks()
    floored = np.asarray(stamps.flatten().cast(pa.int64())) // day * day
    midnights = pa.ListArray.from_arrays(
        stamps.offsets, pa.array(floored).cast(pa.timestamp("us", tz="UTC"))
    )
    at_midnight = users.set_column(3, HISTORY_SCHEMA.field("timestamps"), midnights)
    expected = vectors_of(UserEmbedder(bundle, now=now // day * day)(at_midnight), "interests")
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def spoil(path: Path, table: str, row: int) -> None:
    """NaN in one row of one of a tower's tables."""
    graph = onnx.load(str(path))
    (tensor,) = (t for t in graph.graph.initializer if t.name == table)
    values = numpy_helper.to_array(tensor).copy()
    values[row] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, table))
    onnx.save(graph, str(path))


def test_an_item_or_user_without_a_vector_is_named(
    bundle: Bundle, exported: Exported, world: Path, tmp_path: Path
) -> None:
    row = int(np.flatnonzero(bundle.id_vectors.any(axis=1))[5])
    (name,) = bundle.items.ids_of(np.array([row]))

    def change(folder: Path) -> None:
        ids = np.array(bundle.id_vectors)
        ids[row] = np.nan
        np.save(folder / ID_VECTORS, ids)
        spoil(folder / USER_TOWER, "tower.start", 0)

    broken = rewritten(exported.bundle, tmp_path / "bundle", change)
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    shutil.copy(world / "dataset.toml", dataset)
    items = changed(pq.read_table(world / "items.parquet"))
    pq.write_table(items, dataset / "items.parquet")
    with pytest.raises(NoVector, match=rf"NaN or infinity for item '{name}' \(1 of 500 here\)"):
        ItemEmbedder(open_bundle(broken))(items)
    # The same words from another process, and no manifest.
    with pytest.raises(PenchantError, match=f"NaN or infinity for item '{name}'"):
        embed_items(broken, dataset, tmp_path / "items", workers=2, part_rows=100)
    assert not (tmp_path / "items/manifest.json").exists()
    users = pq.read_table(exported.snapshot / HISTORIES)
    first = users["user_id"][0].as_py()
    with pytest.raises(NoVector, match=f"NaN or infinity for user '{first}'"):
        UserEmbedder(open_bundle(broken))(users)


def test_features_that_do_not_fit_the_tower_are_refused_or_noted(
    exported: Exported, world: Path, tmp_path: Path
) -> None:
    schema = (world / "dataset.toml").read_text()
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    items = pl.read_parquet(world / "items.parquet").head(20)

    def written(toml: str, frame: pl.DataFrame) -> Path:
        (dataset / "dataset.toml").write_text(toml)
        frame.write_parquet(dataset / "items.parquet")
        return dataset

    line = 'craft = { type = "category", filterable = true }'
    assert line in schema
    tags = schema.replace(line, 'craft = { type = "categories" }')
    listed = items.with_columns(pl.concat_list("craft").list.drop_nulls())
    with pytest.raises(ConfigError, match=r"'craft' is a categories; .* reads a category"):
        embed_items(exported.bundle, written(tags, listed), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    lacking = written(schema.replace(line, ""), items.drop("craft"))
    done = embed_items(exported.bundle, lacking, tmp_path / "out", workers=1)
    assert done.notes == (
        f"{dataset} has no feature 'craft', which the tower reads: it counts as missing.",
    )
    without = pl.read_parquet(tmp_path / "out/part-00000.parquet")
    embed = ItemEmbedder(open_bundle(exported.bundle))
    expected = embed(items.with_columns(craft=pl.lit(None, pl.String)).to_arrow())
    np.testing.assert_array_equal(
        np.stack(without["vector"].to_list()), vectors_of(expected, "vector")
    )


def test_broken_items_are_refused_by_row(exported: Exported, world: Path, tmp_path: Path) -> None:
    items = pl.read_parquet(world / "items.parquet").head(40)
    for number, (change, words) in enumerate(
        [
            (pl.concat([items, items[7:8]]), "row 40.*Keep one row an id"),
            (items.drop("kind"), "column 'kind': the column is missing"),
            (items.with_columns(price=pl.col("price").cast(pl.Int64)), "type is Int64"),
            (
                items.with_columns(price=pl.Series([1.0] * 33 + [float("inf")] + [1.0] * 6)),
                "column 'price', row 33: NaN or infinite",
            ),
        ]
    ):
        dataset = tmp_path / str(number)
        dataset.mkdir()
        shutil.copy(world / "dataset.toml", dataset)
        change.write_parquet(dataset / "items.parquet")
        with pytest.raises(PenchantError, match=words):
            embed_items(exported.bundle, dataset, tmp_path / "out", workers=1)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_items_of_another_catalogue_are_refused(
    exported: Exported, world: Path, tmp_path: Path
) -> None:
    """Where the tower can read none of their features, it gives them all one vector."""
    (tmp_path / "dataset.toml").write_text(
        'format = 1\nname = "other"\ntime = "none"\n[events]\nwatch = { role = "engagement" }\n'
    )
    items = pl.read_parquet(world / "items.parquet", columns=["item_id", "kind", "title"])
    foreign = items.with_columns(item_id="other-" + pl.col("item_id"))
    foreign.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ConfigError, match="they are of two catalogues"):
        embed_items(exported.bundle, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # One that the bundle knows has its id to go by.
    pl.concat([foreign[:9], items[:1]]).write_parquet(tmp_path / "items.parquet")
    assert embed_items(exported.bundle, tmp_path, tmp_path / "out", workers=1).written is not None


def test_a_snapshot_of_another_catalogue_is_refused(exported: Exported, tmp_path: Path) -> None:
    def rename(folder: Path) -> None:
        histories = pl.read_parquet(folder / HISTORIES)
        others = pl.col("item_ids").list.eval("other-" + pl.element())
        histories.with_columns(others).write_parquet(folder / HISTORIES)

    foreign = rewritten(exported.snapshot, tmp_path / "snapshot", rename)
    with pytest.raises(ConfigError, match="they are of two catalogues"):
        embed_users(exported.bundle, foreign, tmp_path / "out")
    with pytest.raises(ConfigError, match="no objective 'fame'; it has interest"):
        embed_users(exported.bundle, exported.snapshot, tmp_path / "out", objective="fame")
    with pytest.raises(BundleRejected, match="is a bundle; a snapshot is needed here"):
        embed_users(exported.bundle, exported.bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
