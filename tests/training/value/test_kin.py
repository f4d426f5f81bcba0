"""Which columns make kin, and what a history says of a candidate's."""

import numpy as np
import pyarrow as pa

from model.past import Kin
from model.schema import Event, Feature, Schema
from training.value.kin import kin_codes, kin_columns

SCHEMA = Schema(
    name="a shop",
    time="order",
    item_features={
        "creator": Feature(type="category", filterable=True),
        "craft": Feature(type="category", filterable=True),
        "barcode": Feature(type="category", filterable=True),
        "country": Feature(type="category", filterable=True),
        "maker": Feature(type="category"),
        "tags": Feature(type="categories", filterable=True),
    },
    events={"watch": Event(role="engagement")},
)
ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "creator": ["x", "y", None, "z"],
        "craft": ["jade", "jade", "silk", "silk"],
        "barcode": ["1", "2", "3", "4"],
        "country": ["cn"] * 4,
        "maker": ["m", "m", "n", "n"],
        "tags": [["p"], [], ["p"], ["q"]],
    }
)


def test_what_has_one_value_or_one_an_item_makes_no_kin() -> None:
    assert kin_columns(ITEMS, SCHEMA, most=4) == ("circle", "creator", "craft")
    assert kin_columns(ITEMS, SCHEMA, most=2) == ("circle", "creator")
    assert kin_columns(ITEMS, SCHEMA, most=0) == ()
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0, 2]], np.float32)
    circle, creator, craft = kin_codes(
        ITEMS, ("circle", "creator", "craft"), vectors=vectors, seed=1
    )
    assert circle[0] == circle[1] or circle[2] == circle[3]  # three circles of four items
    assert len(set(circle.tolist())) == 3 and circle[0] != circle[2]
    assert creator[2] == -1 and len(set(creator.tolist())) == 4
    assert craft[0] == craft[1] != craft[2] == craft[3]


def test_the_past_with_kin_is_counted_by_event_and_ends_where_it_should() -> None:
    """User 0 did 1, 1, 2 with creators 0, 0, none; user 1 did 2 with creator 1."""
    creators = np.array([0, 0, -1, 1])
    crafts = np.array([5, 6, 5, 5])
    events = np.array([1, 1, 2, 2])
    kin = Kin([creators, crafts], events, np.array([0, 3, 4]), num_events=2)
    users = np.array([0, 1])
    asked = [np.array([[0, 1, -1, 9], [0, 1, -1, 9]]), np.array([[5, 6, 7, -1], [5, 6, 7, -1]])]
    found = np.expm1(kin.of(users, asked)).round().astype(int)
    assert found.shape == (2, 4, 4)
    # creator by event 1, 2, then craft by event 1, 2
    assert found[0].tolist() == [[2, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found[1].tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    before = np.expm1(kin.of(users, asked, stops=np.array([1, 3]))).round().astype(int)
    assert before[0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not before[1].any()
