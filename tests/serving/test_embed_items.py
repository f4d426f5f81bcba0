"""EmbedItems: the bundle's items as they are served, others through the item tower."""

from collections.abc import Iterator

import numpy as np
import pytest

from serving.client import Client
from serving.domain import FeatureValue, ItemFeatures
from serving.errors import BadRequest, BadVector, UnknownField, UnknownItem
from tests.serving.processes import Served
from tests.serving.tiny import World, item_id


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.address, timeout=10) as client:
        yield client


def test_items_of_the_bundle(client: Client, world: World) -> None:
    found = client.embed_items([item_id(3), item_id(599), item_id(3)])
    np.testing.assert_array_equal(found.vectors, world.vectors[[3, 599, 3]])
    assert client.embed_items(item_id(7)).vectors.shape == (1, 8)


def test_items_by_their_features(client: Client) -> None:
    found = client.embed_items(
        [
            ItemFeatures("video", {"craft": "silver", "price": 10.0, "title": "竹笛"}),
            ItemFeatures("product", {}),
        ]
    ).vectors
    # tests/serving/tiny.py: craft, kind, price (value, present), id, n-grams of the title.
    assert found[0, 0] > 0 and found[0, 3] == 1 and found[0, 5] == 3  # 竹, 笛, 竹笛
    assert found[1, 0] == 0 and found[1, 3] == 0 and found[1, 5] == 0
    assert found[0, 1] != found[1, 1] and (found[:, 4] == 0).all()


BAD: list[tuple[ItemFeatures, type[BadRequest], str]] = [
    (ItemFeatures("car"), BadRequest, "items[0].kind"),
    (ItemFeatures("video", {"colour": "red"}), UnknownField, "items[0].features"),
    (ItemFeatures("video", {"price": float("nan")}), BadRequest, "items[0].features"),
    (ItemFeatures("video", {"price": "3"}), BadRequest, "items[0].features"),
    (ItemFeatures("video", {"tags": ["a", ""]}), BadRequest, "items[0].features[1]"),
    (ItemFeatures("video", {"title": "x" * 5000}), BadRequest, "items[0].features"),
]


@pytest.mark.parametrize(("item", "error", "field"), BAD)
def test_what_is_refused(
    client: Client, item: ItemFeatures, error: type[BadRequest], field: str
) -> None:
    with pytest.raises(error) as refused:
        client.embed_items([item])
    assert refused.value.field == field


def test_lists_that_say_nothing_or_two_things(client: Client) -> None:
    with pytest.raises(BadRequest, match="either item_ids or items"):
        client.embed_items([])
    with pytest.raises(BadRequest, match="not both"):
        client.embed_items([item_id(1), ItemFeatures("video")])
    with pytest.raises(UnknownItem, match="'ghost'") as refused:
        client.embed_items([item_id(1), "ghost"])
    assert refused.value.field == "item_ids[1]"
    with pytest.raises(BadRequest, match="1001 items"):
        client.embed_items([item_id(1)] * 1001)
    values: dict[str, FeatureValue] = {"price": np.ones(2, np.float32)}
    with pytest.raises((BadVector, BadRequest), match="price"):
        client.embed_items([ItemFeatures("video", values)])
