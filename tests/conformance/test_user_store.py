"""Every UserStore: what is merged into it, in which order, and what is read back."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.histories import NO_TIME
from serving.errors import StoreUnavailable
from serving.store.base import NewHistory, UserStore
from serving.store.chunks import CHUNK_EVENTS
from tests.conformance.stores import Stores

Event = tuple[str, str, int, int, str]
"""item id, event name, timestamp, sequence, event id"""


def history(user_id: str, events: list[Event]) -> NewHistory:
    items, names, times, sequences, ids = (
        (list(column) for column in zip(*events, strict=True)) if events else ([] for _ in range(5))
    )
    return NewHistory(
        user_id, items, names, np.array(times, np.int64), np.array(sequences, np.int64), ids
    )


def read_back(store: UserStore, user_id: str, limit: int | None = None) -> list[tuple[str, str]]:
    stored = store.read(user_id, limit=limit)
    assert stored is not None
    names = store.event_names
    return [
        (item, names[code])
        for item, code in zip(stored.item_ids, stored.events.tolist(), strict=True)
    ]


@pytest.fixture
def store(stores: Stores) -> UserStore:
    return stores.open().users


def test_unknown_user(store: UserStore) -> None:
    assert store.read("nobody", limit=10) is None
    assert store.num_users() == 0


def test_read_gives_the_latest(store: UserStore) -> None:
    events: list[Event] = [(f"i{n}", "watch", 1000 + n, 0, f"e{n}") for n in range(300)]
    assert store.merge_histories([history("u", events)]) == 300
    for limit in (1, 50, CHUNK_EVENTS, CHUNK_EVENTS + 1, 299, 300, 1000):
        stored = store.read("u", limit=limit)
        assert stored is not None
        assert stored.item_ids == [f"i{n}" for n in range(300)][-limit:]
        assert stored.timestamps_us.tolist() == [1000 + n for n in range(300)][-limit:]
    assert len(read_back(store, "u")) == 300


def test_merging_twice_changes_nothing(store: UserStore) -> None:
    events: list[Event] = [(f"i{n}", "watch", n, 0, f"e{n}") for n in range(200)]
    assert store.merge_histories([history("u", events)]) == 200
    assert store.merge_histories([history("u", events)]) == 0
    assert len(read_back(store, "u")) == 200


def test_one_event_id_twice_in_a_call_is_taken_once(store: UserStore) -> None:
    events: list[Event] = [("a", "watch", 1, 0, "e"), ("b", "watch", 2, 0, "e")]
    assert store.merge_histories([history("u", events)]) == 1
    assert read_back(store, "u") == [("a", "watch")]


def test_late_events_are_placed_by_time_then_sequence(store: UserStore) -> None:
    first: list[Event] = [("a", "watch", 10, 1, "e1"), ("c", "order", 20, 5, "e3")]
    late: list[Event] = [
        ("d", "watch", 20, 6, "e4"),
        ("b", "like", 20, 4, "e2"),
        ("z", "watch", NO_TIME, 0, "e0"),
    ]
    store.merge_histories([history("u", first)])
    assert store.merge_histories([history("u", late)]) == 3
    assert read_back(store, "u") == [
        ("z", "watch"),
        ("a", "watch"),
        ("b", "like"),
        ("c", "order"),
        ("d", "watch"),
    ]


def test_a_failed_call_leaves_nothing(store: UserStore) -> None:
    def histories() -> Iterator[NewHistory]:
        yield history("u", [("a", "new-event", 1, 0, "e1")])
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        store.merge_histories(histories())
    assert store.read("u", limit=1) is None
    assert list(store.event_names) == []
    assert store.merge_histories([history("u", [("a", "other", 1, 0, "e1")])]) == 1
    assert read_back(store, "u") == [("a", "other")]


def test_another_process_sees_users_and_new_event_names(stores: Stores) -> None:
    store, reader = stores.open().users, stores.open().users
    store.merge_histories([history("u", [("a", "watch", 1, 0, "e1")])])
    assert read_back(reader, "u") == [("a", "watch")]
    store.merge_histories([history("u", [("b", "gift", 2, 0, "e2")])])
    assert read_back(reader, "u") == [("a", "watch"), ("b", "gift")]


def test_profiles_with_and_without_a_history(store: UserStore) -> None:
    store.put_profiles([("u", '{"city": "Suzhou"}'), ("v", "{}")], as_of_us=1)
    store.put_profiles([("u", '{"city": "Chengdu"}')], as_of_us=1)
    store.merge_histories([history("u", [("a", "watch", 1, 0, "e1")])])
    for user_id, profile, num_events in (("u", '{"city": "Chengdu"}', 1), ("v", "{}", 0)):
        stored = store.read(user_id, limit=10)
        assert stored is not None
        assert (stored.profile, len(stored.item_ids)) == (profile, num_events)
    assert store.num_users() == 2


def test_ids_are_kept_as_they_are(store: UserStore) -> None:
    odd = ['quote"\\', "line\nbreak", "null\x00", "竹笛", "emoji 🎋"]
    store.merge_histories([history(name, [(name, "watch", 1, 0, name)]) for name in odd])
    assert [read_back(store, name) for name in odd] == [[(name, "watch")] for name in odd]


def test_a_closed_store_is_unavailable(stores: Stores) -> None:
    opened = stores.open()
    opened.close()
    store = opened.users
    with pytest.raises(StoreUnavailable):
        store.read("u", limit=1)


one_event = st.tuples(
    st.sampled_from("abcde"),
    st.sampled_from(["watch", "order"]),
    st.integers(0, 20),
    st.integers(0, 3),
    st.integers(0, 400).map(str),
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # renewed by each example
)
@given(st.lists(st.lists(one_event, max_size=200), max_size=4))
def test_any_merges_equal_a_plain_dictionary(stores: Stores, calls: list[list[Event]]) -> None:
    stores.renew()
    store = stores.open().users
    plain: dict[str, Event] = {}
    for events in calls:
        before = len(plain)
        for event in events:
            plain.setdefault(event[4], event)
        assert store.merge_histories([history("u", events)]) == len(plain) - before
    stored = store.read("u", limit=None)
    if not calls:
        assert stored is None
        return
    assert stored is not None
    # Events equal in time and sequence stay in the order of their arrival.
    want = sorted(plain.values(), key=lambda event: event[2:4])
    assert stored.item_ids == [event[0] for event in want]
    assert stored.timestamps_us.tolist() == [event[2] for event in want]
