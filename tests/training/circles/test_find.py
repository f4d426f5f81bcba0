"""Circles: clusters with a name that a person can read, the same for the same seed."""

import numpy as np
import pyarrow as pa
import pytest

from model.circles import CIRCLE_SCHEMA
from model.schema import Event, Feature, Schema
from training.circles.clusters import num_circles, num_districts
from training.circles.find import find_circles

CRAFTS = ("bamboo flutes", "苏绣", "silver", "leather", "mushrooms", "tea")
SCHEMA = Schema(
    name="crafts",
    time="none",
    item_features={
        "craft": Feature(type="category"),
        "tags": Feature(type="categories"),
        "creator": Feature(type="category"),
        "price": Feature(type="number"),
    },
    events={"watch": Event(role="engagement")},
)


def catalogue(num: int = 300) -> tuple[np.ndarray, pa.Table, np.ndarray]:
    """Items of six crafts, each craft in a corner of the space of its own."""
    rng = np.random.default_rng(1)
    craft = np.arange(num) % len(CRAFTS)
    vectors = (10 * np.eye(8)[craft] + rng.normal(scale=0.5, size=(num, 8))).astype(np.float32)
    items = pa.table(
        {
            "item_id": [f"item-{i}" for i in range(num)],
            "title": [f"Title {i}" for i in range(num)],
            "craft": [CRAFTS[c] for c in craft],
            "tags": [["handmade", f"style {c % 2}"] for c in craft],
            # The creator is itself an item: its id would be no word in a name.
            "creator": [f"item-{c}" for c in craft],
            "price": rng.random(num),
        }
    )
    return vectors, items, rng.permutation(num)


def test_circles_are_named_by_what_is_most_their_own() -> None:
    vectors, items, popularity = catalogue()
    found = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    circles, of_item = found.circles, found.of_item
    assert circles.schema == found.districts.schema == CIRCLE_SCHEMA and of_item.dtype == np.int32
    ids = [*circles["circle_id"].to_pylist(), *found.districts["circle_id"].to_pylist()]
    assert ids == list(range(1, len(ids) + 1)) and found.manifest["next_id"] == len(ids) + 1
    assert circles["size"].to_pylist() == np.bincount(of_item).tolist()
    crafts = np.array(items["craft"].to_pylist())
    for circle, (name, features) in enumerate(
        zip(circles["name"].to_pylist(), circles["top_features"].to_pylist(), strict=True)
    ):
        (own,) = set(crafts[of_item == circle])  # corners this far apart do not mix
        assert features[0] == own and name.startswith(own)
        assert not any("item-" in value for value in features)
    names = circles["name"].to_pylist()
    assert len(set(names)) == len(names) and all(names)


def test_a_district_holds_whole_circles_of_one_corner() -> None:
    vectors, items, popularity = catalogue(900)
    found = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    districts = found.districts["circle_id"].to_pylist()
    assert len(districts) == num_districts(len(found.circles)) < len(found.circles)
    district = np.array(found.circles["district_id"].to_pylist())[found.of_item]
    sizes = [int((district == one).sum()) for one in districts]
    assert found.districts["size"].to_pylist() == sizes and min(sizes) > 0
    names = found.districts["name"].to_pylist()
    assert len(set(names)) == len(names)
    crafts = np.array(items["craft"].to_pylist())
    # There are more districts than corners, so that none has to hold two of them.
    assert len(districts) > len(CRAFTS)
    assert [len(set(crafts[district == one])) for one in districts] == [1] * len(districts)
    centroids = np.array(found.districts["centroid"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-4)
    for one, near in zip(districts, found.districts["neighbours"].to_pylist(), strict=True):
        assert one not in near and set(near) <= set(districts)


def test_an_item_belongs_to_the_nearest_centroid_and_neighbours_are_near() -> None:
    vectors, items, popularity = catalogue()
    found = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    circles = found.circles
    centroids = np.array(circles["centroid"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ centroids.T
    assert (scores[np.arange(300), found.of_item] >= scores.max(axis=1) - 1e-5).all()
    between = centroids @ centroids.T
    row_of = {one: row for row, one in enumerate(circles["circle_id"].to_pylist())}
    for circle, ids in enumerate(circles["neighbours"].to_pylist()):
        neighbours = [row_of[one] for one in ids]
        assert len(neighbours) == min(5, len(circles) - 1) and circle not in neighbours
        near = between[circle][neighbours]
        assert (np.diff(near) <= 1e-6).all()
        others = np.delete(between[circle], [circle, *neighbours])
        assert not len(others) or near.min() >= others.max() - 1e-6


def test_the_same_seed_gives_the_same_circles() -> None:
    vectors, items, popularity = catalogue()
    first = find_circles(vectors, items, SCHEMA, popularity, seed=5)
    again = find_circles(vectors, items, SCHEMA, popularity, seed=5)
    assert first.circles.equals(again.circles) and first.districts.equals(again.districts)
    np.testing.assert_array_equal(first.of_item, again.of_item)


@pytest.mark.parametrize("num", [1, 2, 9])
def test_a_tiny_catalogue_has_circles_too(num: int) -> None:
    vectors, items, popularity = catalogue(num)
    found = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    for table in (found.circles, found.districts):
        assert sum(table["size"].to_pylist()) == num == len(found.of_item)
        assert all(table["name"].to_pylist())


def test_samples_are_well_known_and_near_the_middle() -> None:
    vectors, items, popularity = catalogue(400)
    shown = np.arange(400) % 3 > 0
    found = find_circles(vectors, items, SCHEMA, popularity, seed=1, shown=shown)
    rows = {name: i for i, name in enumerate(items["item_id"].to_pylist())}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for circle, names in enumerate(found.circles["sample_items"].to_pylist()):
        centroid = np.array(found.circles["centroid"][circle].as_py(), np.float32)
        mine = np.flatnonzero((found.of_item == circle) & shown)
        order = mine[np.argsort(-(unit[mine] @ centroid))][: -(-len(mine) // 2)]
        best = order[np.argsort(-popularity[order])][:5]
        assert [rows[name] for name in names] == best.tolist()


def test_without_features_a_circle_has_its_best_known_title_or_its_id() -> None:
    vectors, items, popularity = catalogue(60)
    plain = Schema(name="n", time="none", events={"watch": Event(role="engagement")})
    found = find_circles(vectors, items, plain, popularity, seed=1)
    for circle, name in enumerate(found.circles["name"].to_pylist()):
        rows = np.flatnonzero(found.of_item == circle)
        assert name == f"Title {rows[np.argmax(popularity[rows])]}"
    untitled = items.set_column(1, "title", pa.array([""] * 60))
    nameless = find_circles(vectors, untitled, plain, popularity, seed=1).circles
    ids = nameless["circle_id"].to_pylist()
    assert nameless["name"].to_pylist() == [f"circle {one}" for one in ids]


def test_the_number_of_circles_grows_with_the_root_of_the_catalogue() -> None:
    assert [num_circles(n) for n in (1, 7, 300, 3416, 10**6, 10**12)] == [1, 4, 26, 88, 1500, 8192]
    assert [num_districts(n) for n in (1, 26, 88, 1500, 8192)] == [1, 6, 12, 48, 113]
