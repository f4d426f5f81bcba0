"""Ids that outlast a retraining: two clusterings of one shop, by way of a bundle on disk."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.bundle import ITEMS
from model.circles import CIRCLES, DISTRICTS
from model.errors import BundleRejected
from model.items import write_items
from model.manifest import write_folder
from tests.training.circles.test_find import SCHEMA, catalogue
from training.circles.find import Circles, find_circles
from training.circles.previous import Previous, read_previous, replaced
from training.circles.report import sentences


def written(found: Circles, items: pa.Table, path: Path, *, first_format: bool = False) -> Previous:
    """As much of a bundle as says what its circles were; first_format: as it was before ids."""
    body = {} if first_format else {"circles": found.manifest}
    with write_folder(path, kind="bundle", schema=SCHEMA, as_of=None, body=body) as folder:
        retired = np.zeros(items.num_rows, bool)
        table = items.append_column("retired", pa.array(retired))
        write_items(table.append_column("circle", pa.array(found.of_item)), folder / ITEMS)
        circles = found.circles
        if first_format:
            rows = pa.array(range(len(circles)), pa.int32())
            circles = circles.select(["name", "top_features", "size", "centroid", "neighbours"])
            circles = circles.add_column(0, "circle_id", rows)
        else:
            pq.write_table(found.districts, folder / DISTRICTS)
        pq.write_table(circles, folder / CIRCLES)
    return read_previous(path)


def retrained(vectors: np.ndarray) -> np.ndarray:
    """The same items in a space that another training might have made: turned, and disturbed."""
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    noisy = vectors @ rotation + rng.normal(scale=0.1, size=vectors.shape)
    turned: np.ndarray = noisy.astype(np.float32)
    return turned


def test_ids_and_names_outlast_a_turn_of_the_space(tmp_path: Path) -> None:
    vectors, items, popularity = catalogue(600)
    first = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    previous = written(first, items, tmp_path / "first")
    again = find_circles(retrained(vectors), items, SCHEMA, popularity, seed=2, previous=previous)
    for level, old, new in (
        ("circle", first.circles, again.circles),
        ("district", first.districts, again.districts),
    ):
        ids = [one for one in new["circle_id"].to_pylist() if one in old["circle_id"].to_pylist()]
        assert len(ids) == again.manifest[level]["kept"] >= 0.8 * len(old)
    # An id means the same items: most of what was in a circle is in the circle of that id.
    before = np.array(first.circles["circle_id"])[first.of_item]
    after = np.array(again.circles["circle_id"])[again.of_item]
    assert (before == after).mean() > 0.85
    assert again.manifest["previous"] == previous.version
    fresh = [one for one in again.names if one not in first.names]
    assert all(first.manifest["next_id"] <= one < again.manifest["next_id"] for one in fresh)
    said = sentences(again.manifest, again.names)
    assert said[0].startswith(f"districts: {again.manifest['district']['kept']} ids kept")
    assert "name the bundle before by --previous" in sentences(first.manifest, first.names)[0]


def test_new_items_and_gone_ones(tmp_path: Path) -> None:
    vectors, items, popularity = catalogue(600)
    first = find_circles(vectors[:540], items[:540], SCHEMA, popularity[:540], seed=1)
    previous = written(first, items[:540], tmp_path / "first")
    again = find_circles(
        retrained(vectors)[60:],
        items[60:],
        SCHEMA,
        popularity[60:],
        seed=1,
        previous=previous,
    )
    assert again.manifest["circle"]["kept"] >= 0.85 * len(first.circles)


def test_another_shop_shares_nothing(tmp_path: Path) -> None:
    vectors, items, popularity = catalogue(100)
    first = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    previous = written(first, items, tmp_path / "first")
    others = items.set_column(0, "item_id", pa.array([f"x{i}" for i in range(100)]))
    again = find_circles(vectors, others, SCHEMA, popularity, seed=1, previous=previous)
    assert not set(again.names) & set(first.names)
    ended = {one["circle_id"] for one in again.manifest["circle"]["ended"]}
    assert ended == set(first.circles["circle_id"].to_pylist())


def test_a_bundle_from_before_there_were_ids(tmp_path: Path) -> None:
    vectors, items, popularity = catalogue(300)
    first = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    previous = written(first, items, tmp_path / "first", first_format=True)
    assert previous.next_id == len(first.circles) and not len(previous.levels["district"].ids)
    again = find_circles(vectors, items, SCHEMA, popularity, seed=1, previous=previous)
    rows = [one for one in again.circles["circle_id"].to_pylist() if one < len(first.circles)]
    assert len(rows) == again.manifest["circle"]["kept"] >= 0.9 * len(first.circles)
    assert min(again.districts["circle_id"].to_pylist()) >= len(first.circles)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected, match="no such bundle"):
        read_previous(tmp_path / "nothing")
    assert replaced(tmp_path / "nothing") is None
