"""Who is in a group that a floor speaks of, by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.bundle import open_bundle
from model.items import ItemTable
from serving.domain import AnyOf, ExposureFloor, NewItems, SmallCreators
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.encode import ItemEncoder
from serving.live.follower import apply_items
from serving.rank.exposure import members
from serving.rank.graduation import GRADUATES_AFTER_DAYS, GRADUATES_AT
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.item_log import StoredItem
from serving.store.sqlite_items import SqliteItemLog
from tests.serving.tiny import World, item_id

DAY_US = 86_400_000_000
NOW_US = 1_800_000_000_000_000
ROWS = np.array([0, 3, 7, 50, 100])


@pytest.fixture
def catalogue(value_bundle: Path) -> Catalogue:
    """The tiny bundle, item row made `row` days before NOW_US; of row 7 that is unknown."""
    bundle = open_bundle(value_bundle)
    times = [NOW_US - row * DAY_US for row in range(bundle.items.num_items)]
    column = pa.array([None if row == 7 else one for row, one in enumerate(times)], pa.int64())
    table = bundle.items.table.append_column("created_at", column.cast(pa.timestamp("us", "UTC")))
    return Catalogue(Generation(dataclasses.replace(bundle, items=ItemTable(table))))


def of(catalogue: Catalogue, group: NewItems | SmallCreators | AnyOf) -> list[int]:
    found = members(catalogue, ExposureFloor(group, 0.1), ROWS, NOW_US)
    return [int(row) for row in ROWS[found]]


def test_new_by_age_and_by_events(catalogue: Catalogue) -> None:
    assert catalogue.created_of(ROWS).tolist()[1] == NOW_US - 3 * DAY_US
    assert catalogue.events_of(ROWS).tolist() == ROWS.tolist()  # popularity of item row is row
    assert of(catalogue, NewItems(max_age_days=3)) == [0, 3]
    assert of(catalogue, NewItems(max_age_days=3.5, max_events=2)) == [0]
    assert of(catalogue, NewItems(max_age_days=60)) == [0, 3, 50]  # nobody knows how old 7 is
    assert of(catalogue, NewItems(max_age_days=36_500)) == [0, 3, 50, 100]
    assert of(catalogue, NewItems(max_events=7)) == [0, 3, 7]
    assert of(catalogue, NewItems(max_events=0)) == [0]


def test_small_creators_have_so_much_of_all_events_together(
    catalogue: Catalogue, world: World
) -> None:
    totals = {
        craft: sum(row for row, one in enumerate(world.crafts) if one == craft)
        for craft in ("silver", "bamboo", "leather")
    }
    order = sorted(totals, key=lambda craft: totals[craft])
    share = totals[order[0]] / sum(totals.values())
    assert of(catalogue, SmallCreators("craft", share * 0.99)) == []
    first = [row for row in ROWS.tolist() if world.crafts[row] == order[0]]
    assert of(catalogue, SmallCreators("craft", share * 1.01)) == first
    both = [row for row in ROWS.tolist() if world.crafts[row] in order[:2]]
    assert of(catalogue, SmallCreators("craft", 0.9)) == both
    # An item without a creator is of no small one.
    assert all(world.crafts[row] is not None for row in both)


def test_a_creator_who_came_after_the_bundle_is_small(catalogue: Catalogue) -> None:
    small = catalogue.generation.small("craft", 0.2)
    assert catalogue.generation.code_of("craft", "a new craft") == len(small) == 3


def test_a_filter(catalogue: Catalogue, world: World) -> None:
    expected = [row for row in ROWS.tolist() if world.kinds[row] == "product"]
    assert of(catalogue, AnyOf("kind", ("product",))) == expected


def test_an_item_is_new_until_it_graduates(catalogue: Catalogue, value_bundle: Path) -> None:
    """By the rule: fewer than 20 events, and at most 14 days old. Row 7's age nobody knows."""
    assert (GRADUATES_AT, GRADUATES_AFTER_DAYS) == (20, 14.0)
    rows = np.array([0, 7, 14, 15, 19, 20])
    new = ExposureFloor(NewItems(), 0.1)
    assert rows[members(catalogue, new, rows, NOW_US)].tolist() == [0, 14]
    assert rows[members(catalogue, new, rows, NOW_US + DAY_US)].tolist() == [0]
    # Without a created_at, events alone count.
    ageless = Catalogue(Generation(open_bundle(value_bundle)))
    assert rows[members(ageless, new, rows, NOW_US)].tolist() == [0, 7, 14, 15, 19]


def test_live_items_age_from_their_first_upsert(catalogue: Catalogue, tmp_path: Path) -> None:
    def stored(name: str, created_us: int, *, is_whole: bool = True) -> StoredItem:
        kind = "product" if is_whole else ""
        return StoredItem(
            name, 1, kind, {}, (), is_whole, False, True, 0, NOW_US, None, "", created_us
        )

    young, old, unsaid = NOW_US - 13 * DAY_US, NOW_US - 15 * DAY_US, 0
    items = [
        stored("young", young),
        stored("old", old),
        stored("unsaid", unsaid),
        stored(item_id(3), old, is_whole=False),  # a change: as old as the bundle says
        stored(item_id(7), young, is_whole=False),  # as unknown as in the bundle
    ]
    database = Database(store_path(tmp_path))
    log = SqliteItemLog(database)
    apply_items(catalogue, ItemEncoder(catalogue.generation), items, log)
    database.close()
    rows = catalogue.rows_of([item.item_id for item in items])
    assert (rows >= catalogue.generation.items.num_items).all()
    known = catalogue.created_of(rows).tolist()
    assert known[:2] == [young, old] and known[3] == NOW_US - 3 * DAY_US
    found = members(catalogue, ExposureFloor(NewItems(), 0.1), rows, NOW_US)
    assert found.tolist() == [True, False, True, True, False]
