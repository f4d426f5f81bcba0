"""Every UserStore and events that happen: taken once, bounded, rejected, logged, deleted."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.histories import NO_TIME
from model.items import hash_ids
from serving.domain import Event
from serving.store.base import NewHistory, Outcome, StoredHistory
from serving.store.choice import Store
from serving.store.chunks import CHUNK_EVENTS
from tests.conformance.stores import Stores

MOST = 3 * CHUNK_EVENTS
TAKEN, DUPLICATE, LET_GO, DELETED = (
    Outcome.TAKEN,
    Outcome.DUPLICATE,
    Outcome.LET_GO,
    Outcome.DELETED,
)


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.open(most_events=MOST)


def event(name: str, time: int, *, item: str = "", user: str = "u", **rest: object) -> Event:
    values = {"event": "watch", "timestamp_us": time, **rest}
    return Event(event_id=name, user_id=user, item_id=item or f"item {name}", **values)  # type: ignore[arg-type]


def record(store: Store, *events: Event, since: int = 0) -> list[Outcome]:
    return store.users.record(events, since_us=since, negative={"hide"}).result(10)


def stored(store: Store, user: str = "u", limit: int | None = None) -> StoredHistory:
    found = store.users.read(user, limit=limit, others=True)
    assert found is not None
    return found


def logged(store: Store) -> list[dict[str, object]]:
    rows = store.events.rows(0, 1 << 40, limit=100_000)
    assert [number for number, _ in rows] == sorted({number for number, _ in rows})
    return [json.loads(body) for _, body in rows]


def test_one_event_id_of_a_user_is_taken_once(store: Store) -> None:
    assert record(store, event("a", 5), event("a", 6), event("a", 5, user="v")) == [
        TAKEN,
        DUPLICATE,
        TAKEN,
    ]
    assert record(store, event("a", 7), event("b", 7)) == [DUPLICATE, TAKEN]
    assert stored(store).item_ids == ["item a", "item b"]
    assert stored(store, "v").item_ids == ["item a"]
    assert [(body["user_id"], body["event_id"]) for body in logged(store)] == [
        ("u", "a"),
        ("v", "a"),
        ("u", "b"),
    ]


def test_two_writers_and_a_restart_take_it_once(store: Store, stores: Stores) -> None:
    other = stores.open(most_events=MOST)
    first = [store.users.record([event(str(i), i)], since_us=0, negative=()) for i in range(200)]
    again = [other.users.record([event(str(i), i)], since_us=0, negative=()) for i in range(200)]
    outcomes = [
        {one.result(30)[0], two.result(30)[0]} for one, two in zip(first, again, strict=True)
    ]
    assert outcomes == [{TAKEN, DUPLICATE}] * 200
    other.close()
    third = stores.open(most_events=MOST)
    assert record(third, *[event(str(i), i) for i in range(200)]) == [DUPLICATE] * 200
    assert stored(third).item_ids == [f"item {i}" for i in range(200)]


def test_ids_that_look_like_the_text_between_ids_are_ids(store: Store) -> None:
    odd = [", ", '", "', '"', "\\", '\\"', 'a", "b', "[", "竹", "\x00"]
    for name in odd:
        assert record(store, event(name, 1), event("x" + name, 1)) == [TAKEN, TAKEN], name
    for name in odd:
        assert record(store, event(name, 2)) == [DUPLICATE], name
        assert record(store, event(name + "y", 2)) == [TAKEN], name


def test_what_a_dataset_calls_an_event_is_the_same_event(store: Store) -> None:
    """An export qualifies ids by their user; a snapshot that was trained on it brings them back."""
    record(store, event("e/1", 10, user="shop/ann"))
    loaded = NewHistory(
        *("shop/ann", ["item e/1", "other"], ["watch", "watch"]),
        *(np.array([10, 11]), np.array([0, 0]), ["shop%2Fann/e/1", "7"]),
    )
    assert store.users.merge_histories([loaded]) == 1
    assert stored(store, "shop/ann").item_ids == ["item e/1", "other"]
    assert record(store, event("7", 11, user="shop/ann")) == [DUPLICATE]


def test_a_bounded_history_keeps_the_latest_and_sums_up_the_rest(store: Store) -> None:
    events = [
        event(str(i), 100 + i, item=f"i{i % 700}", event="watch" if i % 2 else "order")
        for i in range(1000)
    ]
    for start in range(0, 1000, 37):
        record(store, *events[start : start + 37])
        assert len(stored(store).item_ids) <= MOST
    kept = len(stored(store).item_ids)
    assert MOST - CHUNK_EVENTS < kept <= MOST
    assert stored(store).item_ids == [f"i{i % 700}" for i in range(1000)][-kept:]
    gone = {f"i{i % 700}" for i in range(1000 - kept)}
    others = stored(store, limit=None).others
    assert set(others.tolist()) == set(hash_ids(sorted(gone)).tolist())
    assert store.users.list_users(after=0, limit=5)[0][1:] == ("u", 1000)


@pytest.mark.parametrize("limit", [1, 100, CHUNK_EVENTS, None])
@pytest.mark.parametrize("num_events", [1, 100, CHUNK_EVENTS, CHUNK_EVENTS + 1, 350, 900])
def test_the_others_are_all_that_is_not_given(
    store: Store, num_events: int, limit: int | None
) -> None:
    record(store, *[event(str(i), i) for i in range(num_events)])
    found = stored(store, limit=limit)
    everything = set(hash_ids([f"item {i}" for i in range(num_events)]).tolist())
    given = set(hash_ids(found.item_ids).tolist())
    assert given | set(found.others.tolist()) == everything
    if num_events <= (limit or MOST) and num_events <= MOST:
        assert not len(found.others)
    plain = store.users.read("u", limit=limit)
    assert plain is not None and not len(plain.others)


def test_what_is_as_old_as_what_was_let_go_is_refused_not_taken_twice(store: Store) -> None:
    events = [event(str(i), 100 + i) for i in range(2 * MOST)]
    assert record(store, *events) == [TAKEN] * (2 * MOST)
    assert record(store, *events[:5]) == [LET_GO] * 5
    assert record(store, event("late", 100)) == [LET_GO]
    assert len(logged(store)) == 2 * MOST
    # It happened, all the same: its item is not shown again.
    assert hash_ids(["item late"])[0] in stored(store).others


def test_loading_again_what_was_let_go_changes_nothing(store: Store) -> None:
    for times in (np.arange(1000), np.full(1000, NO_TIME)):
        user = f"u{times[0]}"
        history = NewHistory(
            *(user, [f"i{i}" for i in range(1000)], ["watch"] * 1000),
            *(times, np.arange(1000), [f"e{i}" for i in range(1000)]),
        )
        assert store.users.merge_histories([history]) == 1000
        others = stored(store, user).others.tolist()
        assert store.users.merge_histories([history]) == 0
        assert stored(store, user).others.tolist() == others
        assert len(stored(store, user).others) + len(stored(store, user).item_ids) == 1000


def test_rejected_items_are_known_whatever_was_let_go(store: Store) -> None:
    record(store, event("no", 1, event="hide"), event("no 2", 1, event="hide", item="item no"))
    record(store, *[event(str(i), 2 + i) for i in range(2 * MOST)])
    found = store.users.read("u", limit=1)
    assert found is not None
    assert found.rejected.tolist() == hash_ids(["item no"]).tolist()


def test_a_duplicate_rejects_nothing(store: Store) -> None:
    record(store, event("a", 1, item="i"))
    record(store, event("a", 1, item="j", event="hide"))
    assert not len(stored(store).rejected)


def test_a_deleted_user_is_gone(store: Store) -> None:
    store.users.put_profiles([("ann", '{"city": "Guiyang"}')])
    record(store, *[event(str(i), i, user="ann", item=f"secret-{i}") for i in range(2 * MOST)])
    record(store, event("x", 1, user="bob"))
    assert store.users.delete_user("ann", now_us=10_000)
    assert not store.users.delete_user("ann", now_us=10_000)
    assert store.users.read("ann", limit=None) is None
    assert [body["user_id"] for body in logged(store)] == ["bob"]
    assert store.users.num_users() == 1


def test_what_is_older_than_a_deletion_does_not_come_back(store: Store) -> None:
    store.users.put_profiles([("ann", '{"city": "Guiyang"}')])
    store.users.delete_user("ann", now_us=1000)
    old = NewHistory(
        *("ann", ["a", "b", "c"], ["watch"] * 3),
        *(np.array([NO_TIME, 999, 1001]), np.zeros(3, np.int64), ["1", "2", "3"]),
    )
    store.users.put_profiles([("ann", '{"city": "Guiyang"}')], as_of_us=900)
    assert store.users.read("ann", limit=None) is None
    assert record(store, event("late", 1000, user="ann")) == [DELETED]
    assert store.users.read("ann", limit=None) is None
    assert store.users.merge_histories([old]) == 1
    assert record(store, event("new", 1002, user="ann")) == [TAKEN]
    assert stored(store, "ann").item_ids == ["c", "item new"]
    assert stored(store, "ann").profile == ""
    store.users.put_profiles([("ann", "{}")], as_of_us=1100)
    assert stored(store, "ann").profile == "{}"


one_event = st.builds(
    event,
    st.integers(0, 600).map(str),
    st.integers(0, 400),
    user=st.sampled_from("uv"),
    item=st.sampled_from("abcdefgh"),
    event=st.sampled_from(["watch", "order", "hide"]),
    sequence=st.integers(0, 2),
)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # renewed by each example
)
@given(st.lists(st.lists(one_event, max_size=150), max_size=6))
def test_any_events_equal_a_plain_dictionary(stores: Stores, calls: list[list[Event]]) -> None:
    stores.renew()
    store = stores.open()
    plain: dict[tuple[str, str], Event] = {}
    for events in calls:
        want = []
        for one in events:
            key = (one.user_id, one.event_id)
            want.append(DUPLICATE if key in plain else TAKEN)
            plain.setdefault(key, one)
        assert record(store, *events) == want
    for user in {one.user_id for one in plain.values()}:
        # Events equal in time and sequence stay in the order of their arrival.
        mine = sorted(
            (one for one in plain.values() if one.user_id == user),
            key=lambda one: (one.timestamp_us, one.sequence),
        )
        found = stored(store, user)
        assert found.item_ids == [one.item_id for one in mine]
        assert [store.users.event_names[code] for code in found.events] == [
            one.event for one in mine
        ]
        hidden = {one.item_id for one in mine if one.event == "hide"}
        assert set(found.rejected.tolist()) == set(hash_ids(sorted(hidden)).tolist())
    assert len(logged(store)) == len(plain)
