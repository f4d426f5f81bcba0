"""What was written live, over what one bundle says and the next one has learned."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model.bundle import ITEMS, open_bundle
from model.items import write_items
from model.schema import Event, Feature, Schema
from serving.config import Limits, ServerConfig
from serving.domain import NO_LIMIT, ItemChange
from serving.errors import BadRequest
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.compactor import Compactor
from serving.live.encode import ItemEncoder
from serving.live.follower import Follower, apply_items, vectors_from
from serving.live.ingest import Taken, UpsertRequest, check_change, delete_items, upsert_items
from serving.live.sealed import put_sealed, sealed
from serving.store.base import segments_path, store_path
from serving.store.database import Database
from serving.store.item_log import ItemLog, StoredItem, changed
from serving.store.sqlite_items import SqliteItemLog
from tests.serving.rewritten import rewritten
from tests.serving.tiny import NUM_ITEMS, NUM_RETIRED, World, item_id

NUM_ACTIVE = NUM_ITEMS - NUM_RETIRED
SOON, LATER = 5, 6
"""Rows of the bundle that expire in a moment, and in a year."""
RETIRED, EXPIRED, BOTH = NUM_ACTIVE, NUM_ACTIVE + 1, NUM_ACTIVE + 2
"""Rows that were not available when the bundle was made, that had expired then, and both."""


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's bundle with times at which some items expire."""
    opened = open_bundle(world.bundle)
    as_of = opened.manifest.as_of
    assert as_of is not None
    times: list[datetime | None] = [None] * NUM_ITEMS
    times[SOON], times[LATER] = as_of + timedelta(hours=1), datetime.now(UTC) + timedelta(days=365)
    times[EXPIRED] = times[BOTH] = as_of - timedelta(hours=1)
    expires = pa.array(times, pa.timestamp("us", "UTC"))
    available = pa.array([row not in (RETIRED, BOTH) for row in range(NUM_ITEMS)])

    def change(folder: Path, body: dict[str, Any]) -> None:
        table = opened.items.table.append_column("expires_at", expires)
        write_items(table.append_column("available", available), folder / ITEMS)

    return rewritten(world.bundle, tmp_path_factory.mktemp("expiring") / "bundle", change)


class Shop:
    """A store and workers on it."""

    def __init__(self, bundle: Path, state: Path) -> None:
        self.database = Database(store_path(state))
        self.log: ItemLog = SqliteItemLog(self.database)
        self.generation = Generation(open_bundle(bundle))
        self.one, self.two = (Follower(self.generation, self.database, self.log) for _ in range(2))

    def write(self, *changes: ItemChange, by: Follower | None = None) -> Taken:
        request = UpsertRequest(changes=changes, budget=NO_LIMIT)
        return upsert_items(request, self.log, by or self.one, Limits())

    def shown(self, *ids: str) -> list[bool]:
        self.one.look()
        shown: list[bool] = self.one.catalogue.shown_of(ids)[1].tolist()
        return shown

    def vector(self, item: str, *, by: Follower | None = None) -> Any:
        worker = by or self.one
        worker.look()
        return worker.catalogue.vectors_of(worker.catalogue.rows_of([item]))[0]


@pytest.fixture
def shop(bundle: Path, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(bundle, tmp_path)
    yield shop
    shop.database.close()


def price(item: str, amount: float = 9.0, **rest: Any) -> ItemChange:
    return ItemChange(item_id=item, features={"price": amount}, **rest)


def test_a_change_leaves_what_it_does_not_name(shop: Shop) -> None:
    rows = (0, SOON, LATER, RETIRED, EXPIRED, BOTH)
    ids = [item_id(row) for row in rows]
    before = shop.shown(*ids)
    assert before == [True, False, True, False, False, False]
    shop.write(*(price(one) for one in ids))
    assert shop.shown(*ids) == before
    # What is named counts.
    shop.write(price(item_id(RETIRED), available=True), price(item_id(0), available=False))
    shop.write(*(price(item_id(row), expires_at_us=0) for row in (SOON, EXPIRED, BOTH)))
    assert shop.shown(*ids) == [False, True, True, True, True, False]


def test_an_item_of_the_bundle_still_expires_after_a_change(shop: Shop) -> None:
    shop.write(price(item_id(LATER)))
    shop.one.look()
    year = round((datetime.now(UTC) + timedelta(days=366)).timestamp() * 1e6)
    assert shop.shown(item_id(LATER)) == [True]
    shop.one.catalogue.expire(year)
    _, shown = shop.one.catalogue.shown_of([item_id(LATER), item_id(0)])
    assert shown.tolist() == [False, True]


def test_what_the_next_bundle_has_learned_of_a_live_item_counts(shop: Shop) -> None:
    """It was new at a time from which on the bundle learned; a reborn one only if it was before."""
    generation, encoder = shop.generation, ItemEncoder(shop.generation)
    as_of = generation.bundle.manifest.as_of
    assert as_of is not None
    then = round(as_of.timestamp() * 1e6)

    def stored(row: int, created_us: int) -> StoredItem:
        kind, features = "product", {"price": 3.0}
        return StoredItem(
            item_id(row), 1, kind, features, (), True, False, True, 0, then, None, "", created_us
        )

    items = [stored(10, then - 1), stored(11, then + 1), stored(12, 0)]
    catalogue = Catalogue(generation)
    apply_items(catalogue, encoder, items, shop.log)
    rows = catalogue.rows_of([one.item_id for one in items])
    assert (rows >= NUM_ITEMS).all()
    popularity = generation.items.table["popularity"].to_pylist()
    assert catalogue.column("popularity", rows).to_pylist() == [popularity[10], 0, 0]
    bare = encoder.encode([stored(13, 0)], vectors_from(catalogue, encoder, shop.log)).vectors
    np.testing.assert_allclose(catalogue.vectors_of(rows[2:]), bare, atol=1e-6)
    assert not np.allclose(catalogue.vectors_of(rows[:1]), bare, atol=1e-3)


def test_a_change_of_an_item_that_the_next_bundle_lacks_shows_nothing(shop: Shop) -> None:
    """Of "gone" a price was changed while a bundle knew it; this one does not."""
    cheap = {"price": 1.0}
    for kind in ("", "product"):
        partial = StoredItem("gone", 1, kind, cheap, (), False, False, None, None, 1, None, "", 1)
        catalogue = Catalogue(shop.generation)
        apply_items(catalogue, ItemEncoder(shop.generation), [partial], shop.log)
        assert catalogue.rows_of(["gone"]).tolist() == [-1]
        # With its kind it is given whole, with what was said of it before.
        needs_kind = price("gone", 2.0)
        with pytest.raises(BadRequest, match="needs a kind"):
            changed(partial, needs_kind, in_bundle=False, now_us=0)
        given = ItemChange(item_id="gone", kind="product", features={"title": "t"})
        item = changed(partial, given, in_bundle=False, now_us=0)
        assert item.is_whole and item.features == {"price": 1.0, "title": "t"}
    refused = shop.write(price("gone"))
    assert [error.field for error in refused.errors] == ["items[0].kind"]


def test_a_room_finds_a_product_that_another_worker_took(shop: Shop) -> None:
    product = ItemChange(item_id="tea", kind="product", features={"price": 40.0})
    alone = price("alone", 1.0, kind="live")
    led = price("led", 1.0, kind="live", links=[("on_air", "tea")])
    shop.write(product, by=shop.one)
    assert shop.two.catalogue.rows_of(["tea"]).tolist() == [-1]  # it has not looked yet
    shop.write(alone, led, by=shop.two)
    assert not np.allclose(shop.vector("alone"), shop.vector("led"), atol=1e-3)
    once = shop.vector("led")
    shop.write(led, by=shop.one)
    np.testing.assert_allclose(shop.vector("led"), once, atol=1e-6)


def test_a_room_keeps_its_product_when_all_is_read_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product has changed last, more than a block of the feed after its room."""
    monkeypatch.setattr("serving.live.follower._AT_ONCE", 4)
    led = ItemChange(item_id="led", kind="live", features={"price": 1.0}, links=[("on_air", "tea")])
    shop.write(ItemChange(item_id="tea", kind="product", features={"price": 40.0}), led)
    before = shop.vector("led")
    shop.write(*(ItemChange(item_id=f"n{i}", kind="product") for i in range(20)))
    shop.write(price("tea", 40.0))
    # As under another bundle: what the store has of the networks is of no use.
    shop.database.write(lambda db: db.execute("UPDATE items SET encoded_by = 'another'"))
    anew = Follower(shop.generation, shop.database, shop.log)
    np.testing.assert_allclose(shop.vector("led", by=anew), before, atol=1e-6)


def test_a_delete_at_the_same_time_refuses_one_change(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write(ItemChange(item_id="brief", kind="product"))
    usual = shop.log.upsert

    def upsert(upserts: Any) -> Any:
        delete_items(["brief"], shop.log, shop.two, Limits())
        return usual(upserts)

    monkeypatch.setattr(shop.log, "upsert", upsert)
    new = [ItemChange(item_id=f"n{i}", kind="product") for i in range(3)]
    taken = shop.write(new[0], price("brief"), *new[1:])
    assert taken.num_taken == 3
    assert [(error.index, error.field) for error in taken.errors] == [(1, "items[1].kind")]
    assert shop.shown("n0", "n1", "n2", "brief") == [True, True, True, False]


def test_segments_let_go_of_what_was_deleted(shop: Shop, bundle: Path) -> None:
    config = ServerConfig(bundle=bundle, state=shop.database.path.parent, seal_rows=1)
    compactor = Compactor(config, shop.database, shop.log, generation=shop.generation)
    shop.write(ItemChange(item_id="kept", kind="product"), price(item_id(0)))
    for number in range(3):
        ids = [f"n{number}-{i}" for i in range(20)]
        shop.write(*(ItemChange(item_id=one, kind="product") for one in ids))
        compactor.seal_all()
        delete_items([*ids, item_id(1 + number)], shop.log, shop.two, Limits())
        compactor.seal_all()
        segment = compactor._opened()
        assert segment is not None
        assert sorted(segment.ids_of(np.arange(segment.num_rows))) == [item_id(0), "kept"]
    shop.one.look()
    assert shop.shown("kept", "n0-1", *(item_id(row) for row in range(5))) == (
        [True, False, True, False, False, False, True]
    )
    anew = Follower(shop.generation, shop.database, shop.log)
    assert anew.catalogue.rows_of(["n0-1"]).tolist() == [-1]
    assert anew.catalogue.shown_of([item_id(1), item_id(4)])[1].tolist() == [False, True]


def test_segments_of_bundles_that_are_gone_are_removed(shop: Shop, bundle: Path) -> None:
    state = shop.database.path.parent
    config = ServerConfig(bundle=bundle, state=state, seal_rows=1)
    compactor = Compactor(config, shop.database, shop.log, generation=shop.generation)
    shop.write(ItemChange(item_id="kept", kind="product"))
    compactor.seal_all()
    version = shop.generation.version
    other = segments_path(state) / f"{'f' * 12}-000000000001"
    other.mkdir()
    put_sealed(shop.database, shop.log, "f" * 64, other.name, 1)
    compactor.keep_only({version, "f" * 64})
    assert other.exists()
    compactor.keep_only({version})
    assert [one.name[:12] for one in segments_path(state).iterdir()] == [version[:12]]
    assert sealed(shop.database, shop.log, "f" * 64) is None
    assert sealed(shop.database, shop.log, version) is not None


def test_a_vector_of_a_wrong_length_is_refused() -> None:
    schema = Schema(
        name="vectors",
        time="none",
        item_features={"look": Feature(type="vector", dim=4)},
        user_features={},
        events={"view": Event(role="engagement")},
    )
    for given in (np.ones(2, np.float32), np.ones(5, np.float32)):
        with pytest.raises(BadRequest, match="4"):
            check_change(
                ItemChange(item_id="a", kind="product", features={"look": given}), schema, Limits()
            )
    check_change(
        ItemChange(item_id="a", kind="product", features={"look": np.ones(4, np.float32)}),
        schema,
        Limits(),
    )
