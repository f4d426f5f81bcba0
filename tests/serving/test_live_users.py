"""What is known of a user at this moment: all that they have seen, what they rejected, and what
the request says that they did just now."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import open_bundle
from serving.domain import (
    EmbedRequest,
    Event,
    History,
    RerankRequest,
    RetrieveRequest,
    UserQuery,
)
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.moment import with_moment
from serving.pipeline import Answer, Pipeline
from serving.rank.given import given_candidates
from serving.store.chunks import CHUNK_EVENTS
from serving.store.database import Database
from serving.store.sqlite import SqliteStore
from tests.serving.tiny import MAX_HISTORY, NUM_ITEMS, World, item_id

NEGATIVE = frozenset({"hide"})


@pytest.fixture(scope="module")
def generation(world: World) -> Generation:
    return Generation(open_bundle(world.bundle))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(Database(tmp_path / "store.db"), most_events=2 * CHUNK_EVENTS)
    yield store
    store.database.close()


def acts(store: SqliteStore, rows: list[int], event: str = "watch", start: int = 1000) -> None:
    events = [
        Event("u", item_id(row), event, f"{event}/{start + i}", start + i)
        for i, row in enumerate(rows)
    ]
    store.record(events, since_us=0, negative=NEGATIVE).result(10)


def answer(
    generation: Generation, store: SqliteStore, request: RetrieveRequest | EmbedRequest
) -> Answer:
    (found,) = Pipeline(Catalogue(generation), store).answer([request])
    assert isinstance(found, Answer), found
    return found


def shown(
    generation: Generation, store: SqliteStore, query: UserQuery, **options: object
) -> set[int]:
    """The rows of all items that are not left out."""
    request = RetrieveRequest(queries=[query], k=NUM_ITEMS, **options)  # type: ignore[arg-type]
    found = answer(generation, store, request).candidates
    assert found is not None
    return set(found.rows.tolist())


@pytest.mark.parametrize("num_seen", [3, CHUNK_EVENTS + 3, 550])
def test_every_item_ever_seen_is_left_out(
    generation: Generation, store: SqliteStore, world: World, num_seen: int
) -> None:
    everything = set(range(world.num_active))
    acts(store, [*range(num_seen), *[571] * 40])
    assert shown(generation, store, UserQuery("u")) == everything
    left = shown(generation, store, UserQuery("u"), exclude_seen=True)
    assert left == everything - set(range(num_seen)) - {571}


def test_seen_is_what_was_seen_by_the_time_that_is_asked_for(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    acts(store, list(range(CHUNK_EVENTS)))
    left = shown(generation, store, UserQuery("u"), exclude_seen=True, time_us=1000 + 49)
    assert left == set(range(50, world.num_active))


def test_a_rejected_item_is_not_shown_whatever_is_asked(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    everything = set(range(world.num_active))
    acts(store, [7, 8], "hide")
    acts(store, [1] * 400)  # and the history has let go of it since
    assert shown(generation, store, UserQuery("u")) == everything - {7, 8}
    assert shown(generation, store, UserQuery("u", moment=History([item_id(9)], ["hide"]))) == (
        everything - {7, 8, 9}
    )
    of_then = RetrieveRequest(queries=[UserQuery("u")], k=NUM_ITEMS, time_us=999)
    assert answer(generation, store, of_then).readers[0].rows.tolist() == []


def test_a_rejection_counts_from_its_time_on(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    acts(store, [7], "hide", start=10)
    acts(store, [8], "hide", start=20)
    everything = set(range(world.num_active))
    assert shown(generation, store, UserQuery("u"), time_us=15) == everything - {7}
    assert shown(generation, store, UserQuery("u"), time_us=5) == everything


def test_rerank_leaves_rejected_candidates_aside_and_names_them(
    generation: Generation, store: SqliteStore
) -> None:
    acts(store, [2], "hide")
    query = EmbedRequest(queries=[UserQuery("u"), UserQuery("other")])
    found = answer(generation, store, query)
    ids = [item_id(1), item_id(2), "nothing"]
    request = RerankRequest(queries=query.queries, item_ids=ids + ids, counts=[3, 3])
    candidates, places, errors = given_candidates(
        request, found.vectors, found.readers, found.catalogue
    )
    assert candidates.rows.tolist() == [1, 1, 2] and candidates.counts.tolist() == [1, 2]
    assert places.tolist() == [0, 0, 1]
    assert [(error.index, error.code, error.field) for error in errors] == [
        (0, "REJECTED_ITEM", "item_ids[1]"),
        (0, "UNKNOWN_ITEM", "item_ids[2]"),
        (1, "UNKNOWN_ITEM", "item_ids[5]"),
    ]


def interests(
    generation: Generation, store: SqliteStore, query: UserQuery, *, time_us: int = 0
) -> npt.NDArray[np.float32]:
    request = EmbedRequest(queries=[query], time_us=time_us)
    return answer(generation, store, request).vectors[0]


def test_the_moment_comes_after_what_is_stored(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    acts(store, [1, 2, 3])
    moment = History([item_id(4), item_id(5)], ["watch", "order"], [2000, 2001])
    found = interests(generation, store, UserQuery("u", moment=moment))
    np.testing.assert_allclose(found, world.interests([1, 2, 3, 4, 5]), atol=1e-6)
    timeless = UserQuery("u", moment=History([item_id(4), item_id(5)]))
    found = interests(generation, store, timeless)
    np.testing.assert_allclose(found, world.interests([1, 2, 3, 4, 5]), atol=1e-6)
    cold = UserQuery("nobody", moment=History([item_id(4)]))
    np.testing.assert_allclose(interests(generation, store, cold), world.interests([4]), atol=1e-6)
    full = UserQuery("u", moment=History([item_id(i) for i in range(20, 40)]))
    np.testing.assert_allclose(
        interests(generation, store, full), world.interests([*range(20, 40)]), atol=1e-6
    )


def test_the_moment_ends_at_the_time_that_is_asked_for(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    acts(store, [1, 2, 3])
    moment = History([item_id(4), item_id(5)], [], [1500, 2001])
    found = interests(generation, store, UserQuery("u", moment=moment), time_us=2000)
    np.testing.assert_allclose(found, world.interests([1, 2, 3, 4]), atol=1e-6)


def test_an_act_that_the_store_has_already_counts_once(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    acts(store, [1, 2])  # at 1000 and 1001
    same = History([item_id(1), item_id(2), item_id(6), item_id(6)], [], [1000, 1001, 1001, 1001])
    request = RetrieveRequest(
        queries=[UserQuery("u", moment=same)], k=5, num_history=9, exclude_seen=True
    )
    found = answer(generation, store, request)
    history = found.readers[0].shown
    assert history is not None
    assert list(history.item_ids) == [item_id(1), item_id(2), item_id(6)]
    assert list(history.timestamps_us) == [1000, 1001, 1001]
    assert found.readers[0].rows.tolist() == [1, 2, 6]
    assert found.candidates is not None
    assert not {1, 2, 6} & set(found.candidates.rows.tolist())


def test_another_event_or_another_time_is_another_act() -> None:
    past = History(["a", "a", "a"], ["watch"] * 3, [-(2**63)] * 2 + [5])
    moment = History(["a", "a", "b", "a"], ["watch", "order", "watch", "watch"], [5, 5, 5, 6])
    both = with_moment(past, moment)
    assert list(zip(both.item_ids, both.events, both.timestamps_us, strict=True)) == [
        ("a", "watch", -(2**63)),
        ("a", "watch", -(2**63)),
        ("a", "watch", 5),
        ("a", "order", 5),
        ("b", "watch", 5),
        ("a", "watch", 6),
    ]


def test_what_of_the_moment_cannot_be_used_is_named(
    generation: Generation, store: SqliteStore
) -> None:
    acts(store, [1])
    moment = History([item_id(2), "new", item_id(3)], ["impression", "watch", "hide"], [1, 2, 3])
    found = answer(generation, store, EmbedRequest(queries=[UserQuery("u", moment=moment)]))
    assert [(error.code, error.field) for error in found.readers[0].errors] == [
        ("UNKNOWN_ITEM", "queries[0].moment.item_ids[1]"),
        ("EVENT_NOT_IN_HISTORY", "queries[0].moment.events[0]"),
    ]
    assert found.readers[0].rows.tolist() == [1]
    assert found.readers[0].rejected.tolist() == [3]


def test_events_that_enter_no_history_do_not_crowd_out_those_that_do(
    generation: Generation, store: SqliteStore
) -> None:
    acts(store, list(range(MAX_HISTORY)))
    acts(store, [9] * 200, "impression", start=5000)
    (reader,) = answer(generation, store, EmbedRequest(queries=[UserQuery("u")])).readers
    assert reader.rows.tolist() == list(range(MAX_HISTORY))


def test_a_moment_may_be_ahead_of_the_clock_as_events_may(
    generation: Generation, store: SqliteStore, world: World
) -> None:
    now = time.time_ns() // 1000
    moment = History([item_id(4), item_id(9)], ["watch", "hide"], [now - 5, now + 2_000_000])
    query = UserQuery("nobody", moment=moment)
    assert 9 not in shown(generation, store, query)
    np.testing.assert_allclose(interests(generation, store, query), world.interests([4]), atol=1e-6)
    far = History([item_id(4), item_id(9)], ["watch", "hide"], [now, now + 3_600_000_000])
    request = EmbedRequest(queries=[UserQuery("nobody", moment=far)])
    (reader,) = answer(generation, store, request).readers
    assert [(e.code, e.field) for e in reader.errors] == [
        ("CLOCK_SKEW", "queries[0].moment.timestamps_us[1]")
    ]
