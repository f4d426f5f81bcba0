"""Circles: clusters with a name that a person can read, the same for the same seed."""

import numpy as np
import pyarrow as pa
import pytest

from model.schema import Event, Feature, Schema
from training.circles import CIRCLE_SCHEMA, find_circles, num_circles

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
    circles, of_item = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    assert circles.schema == CIRCLE_SCHEMA and of_item.dtype == np.int32
    assert circles["circle_id"].to_pylist() == list(range(len(circles)))
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


def test_an_item_belongs_to_the_nearest_centroid_and_neighbours_are_near() -> None:
    vectors, items, popularity = catalogue()
    circles, of_item = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    centroids = np.array(circles["centroid"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ centroids.T
    assert (scores[np.arange(300), of_item] >= scores.max(axis=1) - 1e-5).all()
    between = centroids @ centroids.T
    for circle, neighbours in enumerate(circles["neighbours"].to_pylist()):
        assert len(neighbours) == min(5, len(circles) - 1) and circle not in neighbours
        near = between[circle][neighbours]
        assert (np.diff(near) <= 1e-6).all()
        others = np.delete(between[circle], [circle, *neighbours])
        assert not len(others) or near.min() >= others.max() - 1e-6


def test_the_same_seed_gives_the_same_circles() -> None:
    vectors, items, popularity = catalogue()
    first, of_item = find_circles(vectors, items, SCHEMA, popularity, seed=5)
    again, of_item_again = find_circles(vectors, items, SCHEMA, popularity, seed=5)
    assert first.equals(again)
    np.testing.assert_array_equal(of_item, of_item_again)


@pytest.mark.parametrize("num", [1, 2, 9])
def test_a_tiny_catalogue_has_circles_too(num: int) -> None:
    vectors, items, popularity = catalogue(num)
    circles, of_item = find_circles(vectors, items, SCHEMA, popularity, seed=1)
    assert sum(circles["size"].to_pylist()) == num == len(of_item)
    assert all(circles["name"].to_pylist())


def test_without_features_a_circle_has_its_best_known_title_or_its_number() -> None:
    vectors, items, popularity = catalogue(60)
    plain = Schema(name="n", time="none", events={"watch": Event(role="engagement")})
    circles, of_item = find_circles(vectors, items, plain, popularity, seed=1)
    for circle, name in enumerate(circles["name"].to_pylist()):
        rows = np.flatnonzero(of_item == circle)
        assert name == f"Title {rows[np.argmax(popularity[rows])]}"
    untitled = items.set_column(1, "title", pa.array([""] * 60))
    nameless, _ = find_circles(vectors, untitled, plain, popularity, seed=1)
    assert nameless["name"].to_pylist() == [f"circle {c}" for c in range(len(nameless))]


def test_the_number_of_circles_grows_with_the_root_of_the_catalogue() -> None:
    assert [num_circles(n) for n in (1, 7, 300, 3416, 10**6, 10**12)] == [1, 4, 26, 88, 1500, 8192]
