"""A sealed segment that is too large to be scored row by row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.ann import exact_search, recall_at
from model.bundle import open_bundle
from model.manifest import open_verified
from serving.index.ivf_index import SCAN_ROWS
from serving.live.segment import INDEX, Contents, Segment, write_segment
from tests.serving.tiny import World

NUM_ROWS = SCAN_ROWS + 1000


def contents(world: World, rng: np.random.Generator) -> Contents:
    """Items of the bundle's columns, in some thirty directions, one in ten not to be retrieved."""
    bundle = open_bundle(world.bundle)
    table = bundle.items.table.schema.empty_table()
    given = {
        "item_id": pa.array([f"live-{row}" for row in range(NUM_ROWS)]),
        "circle": np.zeros(NUM_ROWS, np.int32),
        "retired": np.zeros(NUM_ROWS, bool),
    }
    columns = [
        pa.array(given[field.name], field.type)
        if field.name in given
        else pa.nulls(NUM_ROWS, field.type)
        for field in table.schema
    ]
    centres = rng.normal(size=(30, bundle.dim))
    vectors = centres[rng.integers(30, size=NUM_ROWS)] + rng.normal(
        scale=0.5, size=(NUM_ROWS, bundle.dim)
    )
    return Contents(
        table=pa.table(columns, schema=table.schema),
        vectors=vectors.astype(np.float32),
        value_vectors=np.zeros((NUM_ROWS, 0), np.float32),
        alive=rng.random(NUM_ROWS) > 0.1,
        expires=np.zeros(NUM_ROWS, np.int64),
        replaced=np.empty(0, np.int64),
        sequence=7,
    )


@pytest.mark.parametrize("num_beside", [0, 10 * NUM_ROWS])
def test_a_large_segment_is_searched_in_lists_of_its_own(
    world: World, tmp_path: Path, num_beside: int
) -> None:
    """Beside a large bundle few of the best are expected here, and all are found all the same."""
    rng = np.random.default_rng(5)
    made = contents(world, rng)
    bundle = open_bundle(world.bundle)
    users = rng.normal(size=(200, bundle.dim)).astype(np.float32)
    folder = tmp_path / "segment"
    write_segment(folder, made, schema=bundle.schema, bundle_version="a bundle", queries=users)
    assert (folder / INDEX).exists()
    lists = open_verified(folder, kind="segment").body["lists"]
    segment = Segment(
        folder, schema=bundle.schema, bundle_version="a bundle", num_beside=num_beside
    )
    assert lists["probes"] <= 128  # there are 2^7 lists

    k = 50
    exact, scores = exact_search(users, made.vectors, k, allowed=made.alive)
    none = np.full(len(users), -np.inf, np.float32)
    found = segment.better(users, none, k, (), ())
    rows = np.stack([row[np.argsort(-score)] for row, score in found])
    assert recall_at(rows, exact) > 0.985
    # Only what is better than what was found elsewhere.
    floors = ((scores[:, 9] + scores[:, 10]) / 2).astype(np.float32)
    for (few, few_scores), floor in zip(
        segment.better(users, floors, k, (), ()), floors, strict=True
    ):
        assert len(few) <= 10 and (few_scores > floor).all()


def test_a_segment_without_user_vectors_is_scored_row_by_row(world: World, tmp_path: Path) -> None:
    made = contents(world, np.random.default_rng(6))
    bundle = open_bundle(world.bundle)
    folder = tmp_path / "segment"
    write_segment(folder, made, schema=bundle.schema, bundle_version="a bundle", queries=None)
    assert not (folder / INDEX).exists()
    segment = Segment(folder, schema=bundle.schema, bundle_version="a bundle", num_beside=0)
    query = made.vectors[:1]
    ((rows, _),) = segment.better(query, np.array([-np.inf], np.float32), 10, (), ())
    exact, _ = exact_search(query, made.vectors, 10, allowed=made.alive)
    assert set(rows.tolist()) == set(exact[0].tolist())
