"""Items that change while others search: in every answer once, in the old state or the new."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.bundle import open_bundle
from serving.config import Limits, ServerConfig
from serving.domain import NO_LIMIT, ItemChange
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.compactor import Compactor
from serving.live.encode import ItemEncoder
from serving.live.follower import Follower, apply_items
from serving.live.ingest import UpsertRequest, delete_items, upsert_items
from serving.live.replaced import still_shown
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.item_log import changed
from serving.store.sqlite_items import SqliteItemLog
from tests.serving.tiny import NUM_ITEMS, NUM_RETIRED, World, item_id

NUM_SHOWN = NUM_ITEMS - NUM_RETIRED
NUM_CHANGING = 30
QUERY = np.ones((1, 8), np.float32)


class Shop:
    """A catalogue, and changes of the bundle's items."""

    def __init__(self, bundle: Path, state: Path) -> None:
        self.database = Database(store_path(state))
        self.log = SqliteItemLog(self.database)
        self.generation = Generation(open_bundle(bundle))
        self.catalogue = Catalogue(self.generation)
        self.encoder = ItemEncoder(self.generation)

    def change(self, rows: range, price: float) -> None:
        changes = [ItemChange(item_id=item_id(row), features={"price": price}) for row in rows]
        items = [changed(None, change, in_bundle=True, now_us=0) for change in changes]
        apply_items(self.catalogue, self.encoder, items, self.log)


@pytest.fixture
def shop(world: World, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(world.bundle, tmp_path)
    yield shop
    shop.database.close()


def test_a_changing_item_is_in_every_answer_once(shop: Shop) -> None:
    stopped, written = threading.Event(), threading.Semaphore(0)

    def write() -> None:
        price = 1.0
        while not stopped.is_set():
            shop.change(range(NUM_CHANGING), price := price + 1.0)
            written.release()

    writer = threading.Thread(target=write)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that the two meet at any line
    writer.start()
    try:
        num = 0
        while num < 300:  # changes
            assert writer.is_alive()
            num += written.acquire(blocking=False)
            # Room for both rows of what changes just now, of which one is dropped.
            rows, _ = shop.catalogue.search(QUERY, NUM_SHOWN + NUM_CHANGING)
            ids = shop.catalogue.ids_of(rows[rows >= 0])
            assert len(set(ids)) == len(ids), "an item was there twice"
            assert len(ids) == NUM_SHOWN, "an item was gone for a moment"
            _, shown = shop.catalogue.shown_of([item_id(row) for row in range(NUM_CHANGING)])
            assert shown.all(), "an item that was named was gone for a moment"
    finally:
        stopped.set()
        writer.join()
        sys.setswitchinterval(usual)


def test_an_answer_keeps_what_an_item_was_unless_it_has_the_new_one(shop: Shop) -> None:
    old = shop.catalogue.rows_of([item_id(3), item_id(4), item_id(5)])
    shop.change(range(3, 5), 7.0)
    new = shop.catalogue.rows_of([item_id(3), item_id(4)])
    shop.catalogue.kill([item_id(5)])
    rows = np.array([old[0], old[1], old[2], old[1], new[1]])
    lists = np.array([0, 0, 0, 1, 1])
    # Item 3, and item 4 in the first list, as they were; 5 is gone; 4 in the second list is new.
    assert still_shown(shop.catalogue, rows, lists).tolist() == [True, True, False, False, True]
    shop.change(range(3, 4), 8.0)
    both = np.array([old[0], new[0]])
    assert still_shown(shop.catalogue, both, np.zeros(2, int)).tolist() == [False, True]


@pytest.mark.parametrize("changes_before", [0, 1, 2])
def test_an_excluded_item_that_changes_stays_excluded(shop: Shop, changes_before: int) -> None:
    """Whether the row that was excluded is the bundle's or a live one."""
    for number in range(changes_before):
        shop.change(range(3, 5), float(number))
    known = shop.catalogue.num_known
    excluded = [shop.catalogue.rows_of([item_id(3)])]
    shop.change(range(3, 5), 7.0)
    shop.change(range(3, 5), 8.0)
    rows, _ = shop.catalogue.search(QUERY, NUM_SHOWN, (), excluded, known=known)
    found = shop.catalogue.ids_of(rows[rows >= 0])
    assert item_id(3) not in found and item_id(4) in found and len(found) == NUM_SHOWN - 1


def test_an_item_that_was_not_there_when_exclusions_were_looked_up_waits(shop: Shop) -> None:
    """It may be one of those: its id had no row then."""
    known = shop.catalogue.num_known
    excluded = [shop.catalogue.rows_of([item_id(3)])]
    new = ItemChange(item_id="vase", kind="product", features={"price": 3.0})
    items = [changed(None, new, in_bundle=False, now_us=0)]
    apply_items(shop.catalogue, shop.encoder, items, shop.log)
    for out, at, shown in ((excluded, known, False), ((), known, True), (excluded, None, True)):
        rows, _ = shop.catalogue.search(QUERY, NUM_SHOWN + 1, (), out, known=at)
        assert ("vase" in shop.catalogue.ids_of(rows[rows >= 0])) == shown


def test_a_request_on_the_catalogue_before_a_segment_sees_deletions(
    world: World, tmp_path: Path
) -> None:
    database = Database(store_path(tmp_path))
    log = SqliteItemLog(database)
    generation = Generation(open_bundle(world.bundle))
    follower = Follower(generation, database, log)
    new = UpsertRequest(changes=[ItemChange(item_id="lamp", kind="product")], budget=NO_LIMIT)
    upsert_items(new, log, follower, Limits())
    follower.look()
    before = follower.catalogue
    rows = before.rows_of(["lamp", item_id(2), item_id(3)])
    config = ServerConfig(bundle=world.bundle, state=tmp_path, seal_rows=1)
    assert Compactor(config, database, log, generation=generation).step()
    follower.look()
    assert follower.catalogue is not before and follower.catalogue.num_sealed == 1
    delete_items(["lamp", item_id(2)], log, follower, Limits())
    follower.look()
    assert still_shown(before, rows, np.zeros(3, np.int64)).tolist() == [False, False, True]
    follower.close()
    database.close()
