"""FindSimilar through the client."""

from collections.abc import Iterator

import numpy as np
import pytest

from serving.client import Client
from serving.domain import AnyOf
from serving.errors import UnknownItem
from tests.serving.processes import Served
from tests.serving.tiny import NUM_ITEMS, World, item_id


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.address, timeout=10) as client:
        yield client


def test_neighbours_of_items(client: Client, world: World) -> None:
    found = client.find_similar([item_id(4), item_id(9)], k=6, fields=["title"])
    for i, row in enumerate((4, 9)):
        others = [r for r in range(world.num_active) if r != row]
        part = found.query(i)
        assert found.item_ids[part] == world.nearest(world.vectors[row], others)[:6]
        near = found.scores[part]
        assert (np.diff(near) <= 0).all() and near.max() < 1
    assert found.columns["title"] == [f"题 {int(n.removeprefix('item-'))}" for n in found.item_ids]


def test_any_kind_to_any_kind(client: Client, world: World) -> None:
    assert world.kinds[4] == "creator"
    products = [r for r in range(world.num_active) if world.kinds[r] == "product"]
    found = client.find_similar(item_id(4), k=9, filters=[AnyOf("kind", ("product",))])
    assert found.item_ids == world.nearest(world.vectors[4], products)[:9]


def test_neighbours_of_vectors(client: Client, world: World) -> None:
    found = client.find_similar(world.vectors[[4, 9]] * 2, k=3)
    assert found.counts.tolist() == [3, 3]
    assert found.item_ids[0] == item_id(4) and found.item_ids[3] == item_id(9)
    assert found.scores[0] == pytest.approx(2.0, abs=1e-5)


def test_excluded_items(client: Client, world: World) -> None:
    first = client.find_similar(item_id(4), k=5).item_ids
    found = client.find_similar(item_id(4), k=5, exclude_item_ids=first)
    others = [r for r in range(world.num_active) if r != 4 and item_id(r) not in first]
    assert found.item_ids == world.nearest(world.vectors[4], others)[:5]


def test_a_retired_item_has_neighbours_but_is_none(client: Client, world: World) -> None:
    retired = NUM_ITEMS - 1
    found = client.find_similar(item_id(retired), k=1000)
    assert len(found.item_ids) == world.num_active
    assert item_id(retired) not in found.item_ids


def test_an_unknown_item(client: Client) -> None:
    with pytest.raises(UnknownItem, match="no-such-item") as caught:
        client.find_similar([item_id(1), "no-such-item"])
    assert caught.value.field == "item_ids[1]"
