"""Events of items since a bundle was made, counted from the log by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.bundle import open_bundle
from serving.domain import Event
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.live.tally import AT_ONCE, Tally
from serving.store.choice import Store, open_sqlite
from serving.store.database import Database
from tests.serving.tiny import START, World, item_id

START_US = round(START.timestamp() * 1e6)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_sqlite(Database(tmp_path / "store.db"))
    yield opened
    opened.close()


def record(store: Store, *events: tuple[str, str, int]) -> None:
    """(item, event, seconds after the bundle's as_of) of one user."""
    taken = [
        Event("u", item, name, f"e{n}-{seconds}-{item}", START_US + seconds * 1_000_000)
        for n, (item, name, seconds) in enumerate(events)
    ]
    store.users.record(taken, since_us=0, negative=("hide",)).result(10)


def test_counts_what_histories_have_had_since(store: Store, world: World) -> None:
    generation = Generation(open_bundle(world.bundle))
    tally = Tally(store.events, generation)
    catalogue = Catalogue(generation, tally=tally)
    rows = catalogue.rows_of([item_id(5), item_id(6)])
    assert tally.step() is False and catalogue.events_of(rows).tolist() == [5, 6]
    record(
        store,
        (item_id(5), "watch", 1),
        (item_id(5), "order", 2),
        (item_id(5), "watch", 0),  # as old as the bundle, which counts it
        (item_id(5), "watch", -9),
        (item_id(5), "impression", 3),
        (item_id(6), "hide", 3),
        ("new", "watch", 4),
        ("new", "order", 5),
    )
    assert tally.step() is False
    assert tally.of(["new", item_id(5), "ghost", item_id(6)]).tolist() == [2, 2, 0, 0]
    assert catalogue.events_of(rows).tolist() == [7, 6]  # popularity of item row is row
    record(store, ("new", "watch", 6))
    tally.step()
    assert tally.of(["new"]).tolist() == [3]


def test_a_long_log_is_read_in_steps_and_again_after_a_restart(store: Store, world: World) -> None:
    generation = Generation(open_bundle(world.bundle))
    record(store, *[("new", "watch", 1 + n) for n in range(AT_ONCE + 7)])
    for tally in (Tally(store.events, generation), Tally(store.events, generation)):
        assert tally.step() is True
        assert tally.of(["new"]).tolist() == [AT_ONCE]
        assert tally.step() is False
        assert tally.of(["new"]).tolist() == [AT_ONCE + 7]
