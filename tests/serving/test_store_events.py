"""SqliteStore and events that happen: taken once, in their places, bounded, rejected, deleted."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.histories import NO_TIME
from model.items import hash_ids
from serving.domain import Event
from serving.store.base import NewHistory, Outcome, StoredHistory
from serving.store.chunks import CHUNK_EVENTS
from serving.store.database import Database
from serving.store.sqlite import SqliteStore

MOST = 3 * CHUNK_EVENTS
TAKEN, DUPLICATE, LET_GO, DELETED = (
    Outcome.TAKEN,
    Outcome.DUPLICATE,
    Outcome.LET_GO,
    Outcome.DELETED,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(Database(tmp_path / "store.db"), most_events=MOST)
    yield opened
    opened.database.close()


def event(name: str, time: int, *, item: str = "", user: str = "u", **rest: object) -> Event:
    values = {"event": "watch", "timestamp_us": time, **rest}
    return Event(event_id=name, user_id=user, item_id=item or f"item {name}", **values)  # type: ignore[arg-type]


def record(store: SqliteStore, *events: Event, since: int = 0) -> list[Outcome]:
    return store.record(events, since_us=since, negative={"hide"}).result(10)


def stored(store: SqliteStore, user: str = "u", limit: int | None = None) -> StoredHistory:
    found = store.read(user, limit=limit, others=True)
    assert found is not None
    return found


def logged(store: SqliteStore) -> list[dict[str, object]]:
    rows = store.database.read("SELECT body FROM event_log ORDER BY number")
    return [json.loads(body) for (body,) in rows]


def test_one_event_id_of_a_user_is_taken_once(store: SqliteStore) -> None:
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


def test_two_writers_and_a_restart_take_it_once(store: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(Database(tmp_path / "store.db"), most_events=MOST)
    first = [store.record([event(str(i), i)], since_us=0, negative=()) for i in range(200)]
    again = [other.record([event(str(i), i)], since_us=0, negative=()) for i in range(200)]
    outcomes = [
        {one.result(30)[0], two.result(30)[0]} for one, two in zip(first, again, strict=True)
    ]
    assert outcomes == [{TAKEN, DUPLICATE}] * 200
    other.database.close()
    third = SqliteStore(Database(tmp_path / "store.db"), most_events=MOST)
    assert record(third, *[event(str(i), i) for i in range(200)]) == [DUPLICATE] * 200
    assert stored(third).item_ids == [f"item {i}" for i in range(200)]
    third.database.close()


def test_ids_that_look_like_the_text_between_ids_are_ids(store: SqliteStore) -> None:
    odd = [", ", '", "', '"', "\\", '\\"', 'a", "b', "[", "竹", "\x00"]
    for name in odd:
        assert record(store, event(name, 1), event("x" + name, 1)) == [TAKEN, TAKEN], name
    for name in odd:
        assert record(store, event(name, 2)) == [DUPLICATE], name
        assert record(store, event(name + "y", 2)) == [TAKEN], name


def test_what_a_dataset_calls_an_event_is_the_same_event(store: SqliteStore) -> None:
    """An export qualifies ids by their user; a snapshot that was trained on it brings them back."""
    record(store, event("e/1", 10, user="shop/ann"))
    loaded = NewHistory(
        *("shop/ann", ["item e/1", "other"], ["watch", "watch"]),
        *(np.array([10, 11]), np.array([0, 0]), ["shop%2Fann/e/1", "7"]),
    )
    assert store.merge_histories([loaded]) == 1
    assert stored(store, "shop/ann").item_ids == ["item e/1", "other"]
    assert record(store, event("7", 11, user="shop/ann")) == [DUPLICATE]


def test_only_what_reaches_into_the_horizon_is_compared(store: SqliteStore) -> None:
    old = [event(f"old {i}", i) for i in range(2 * CHUNK_EVENTS)]
    record(store, *old)
    # Whatever the oldest chunk holds, it is not looked at for an event of today.
    store.database.write(
        lambda db: db.execute("UPDATE chunks SET event_ids = '' WHERE chunk & 1048575 = 0")
    )
    assert record(store, event("new", 10**6), since=10**5) == [TAKEN]
    assert record(store, event("new", 10**6 + 1), since=10**5) == [DUPLICATE]


def test_late_events_move_no_more_than_they_must(store: SqliteStore) -> None:
    record(store, *[event(f"{i:04d}", 10 * i) for i in range(300)])
    before = dict(store.database.read("SELECT chunk, event_ids FROM chunks"))
    record(store, event("late", 2005), event("same time", 2000, sequence=-1))
    after = dict(store.database.read("SELECT chunk, event_ids FROM chunks"))
    assert [chunk & 1048575 for chunk in after if after[chunk] != before.get(chunk)] == [1, 2]
    names = [name for chunk in sorted(after) for name in json.loads(after[chunk])]
    assert names[198:204] == ["0198", "0199", "same time", "0200", "late", "0201"]
    assert sorted(map(len, (json.loads(text) for text in after.values()))) == [46, 128, 128]


def test_a_bounded_history_keeps_the_latest_and_sums_up_the_rest(store: SqliteStore) -> None:
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
    ((num, first, last, counts, seen),) = store.database.read(
        "SELECT num_events, first_us, last_us, counts, seen FROM summaries"
    )
    num_gone = 1000 - kept
    assert (num, first, last) == (num_gone, 100, 100 + num_gone - 1)
    assert json.loads(counts) == {"order": num_gone / 2, "watch": num_gone / 2}
    gone = np.frombuffer(seen, np.uint64)
    assert len(gone) == min(num_gone, 700)
    assert set(gone.tolist()) == set(hash_ids([f"i{i % 700}" for i in range(num_gone)]).tolist())
    assert store.list_users(after=0, limit=5)[0][1:] == ("u", 1000)


@pytest.mark.parametrize("limit", [1, 100, CHUNK_EVENTS, None])
@pytest.mark.parametrize("num_events", [1, 100, CHUNK_EVENTS, CHUNK_EVENTS + 1, 350, 900])
def test_the_others_are_all_that_is_not_given(
    store: SqliteStore, num_events: int, limit: int | None
) -> None:
    record(store, *[event(str(i), i) for i in range(num_events)])
    found = stored(store, limit=limit)
    everything = set(hash_ids([f"item {i}" for i in range(num_events)]).tolist())
    given = set(hash_ids(found.item_ids).tolist())
    assert given | set(found.others.tolist()) == everything
    if num_events <= (limit or MOST) and num_events <= MOST:
        assert not len(found.others)
    plain = store.read("u", limit=limit)
    assert plain is not None and not len(plain.others)


def test_what_is_as_old_as_what_was_let_go_is_refused_not_taken_twice(store: SqliteStore) -> None:
    events = [event(str(i), 100 + i) for i in range(2 * MOST)]
    assert record(store, *events) == [TAKEN] * (2 * MOST)
    assert record(store, *events[:5]) == [LET_GO] * 5
    assert record(store, event("late", 100)) == [LET_GO]
    assert len(logged(store)) == 2 * MOST
    # It happened, all the same: its item is not shown again.
    assert hash_ids(["item late"])[0] in stored(store).others


def test_loading_again_what_was_let_go_changes_nothing(store: SqliteStore) -> None:
    for times in (np.arange(1000), np.full(1000, NO_TIME)):
        user = f"u{times[0]}"
        history = NewHistory(
            *(user, [f"i{i}" for i in range(1000)], ["watch"] * 1000),
            *(times, np.arange(1000), [f"e{i}" for i in range(1000)]),
        )
        assert store.merge_histories([history]) == 1000
        rows = store.database.read("SELECT * FROM summaries")
        assert store.merge_histories([history]) == 0
        assert store.database.read("SELECT * FROM summaries") == rows
        assert len(stored(store, user).others) + len(stored(store, user).item_ids) == 1000


def test_rejected_items_are_known_whatever_was_let_go(store: SqliteStore) -> None:
    record(store, event("no", 1, event="hide"), event("no 2", 1, event="hide", item="item no"))
    record(store, *[event(str(i), 2 + i) for i in range(2 * MOST)])
    found = store.read("u", limit=1)
    assert found is not None
    assert found.rejected.tolist() == hash_ids(["item no"]).tolist()


def test_a_duplicate_rejects_nothing(store: SqliteStore) -> None:
    record(store, event("a", 1, item="i"))
    record(store, event("a", 1, item="j", event="hide"))
    assert not len(stored(store).rejected)


def test_a_deleted_user_is_gone_from_every_table(store: SqliteStore, tmp_path: Path) -> None:
    store.put_profiles([("ann", '{"city": "Guiyang"}')])
    record(store, *[event(str(i), i, user="ann", item=f"secret-{i}") for i in range(2 * MOST)])
    record(store, event("x", 1, user="bob"))
    assert store.delete_user("ann", now_us=10_000)
    assert not store.delete_user("ann", now_us=10_000)
    assert store.read("ann", limit=None) is None
    assert [body["user_id"] for body in logged(store)] == ["bob"]
    assert store.num_users() == 1
    checkpoint = sqlite3.connect(tmp_path / "store.db")
    checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    checkpoint.close()
    assert b"secret-" not in (tmp_path / "store.db").read_bytes()


def test_what_is_older_than_a_deletion_does_not_come_back(store: SqliteStore) -> None:
    store.put_profiles([("ann", '{"city": "Guiyang"}')])
    store.delete_user("ann", now_us=1000)
    old = NewHistory(
        *("ann", ["a", "b", "c"], ["watch"] * 3),
        *(np.array([NO_TIME, 999, 1001]), np.zeros(3, np.int64), ["1", "2", "3"]),
    )
    store.put_profiles([("ann", '{"city": "Guiyang"}')], as_of_us=900)
    assert store.read("ann", limit=None) is None
    assert record(store, event("late", 1000, user="ann")) == [DELETED]
    assert store.read("ann", limit=None) is None
    assert store.merge_histories([old]) == 1
    assert record(store, event("new", 1002, user="ann")) == [TAKEN]
    assert stored(store, "ann").item_ids == ["c", "item new"]
    assert stored(store, "ann").profile == ""
    store.put_profiles([("ann", "{}")], as_of_us=1100)
    assert stored(store, "ann").profile == "{}"


def test_damage_is_one_users_and_the_others_events_are_taken(store: SqliteStore) -> None:
    record(store, event("1", 1, user="u"), event("1", 1, user="v"))
    store.database.write(
        lambda db: db.execute("UPDATE chunks SET item_ids = '[' WHERE chunk < 2097152")
    )
    assert record(
        store, event("2", 2, user="u", event="gift"), event("2", 2, user="v", event="gift")
    ) == [Outcome.DAMAGED, TAKEN]
    names, history = store.event_names, stored(store, "v")
    assert [store.event_names[code] for code in history.events] == ["watch", "gift"], names


one_event = st.builds(
    event,
    st.integers(0, 600).map(str),
    st.integers(0, 400),
    user=st.sampled_from("uv"),
    item=st.sampled_from("abcdefgh"),
    event=st.sampled_from(["watch", "order", "hide"]),
    sequence=st.integers(0, 2),
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.lists(one_event, max_size=150), max_size=6))
def test_any_events_equal_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[Event]]
) -> None:
    store = SqliteStore(Database(tmp_path_factory.mktemp("store") / "store.db"))
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
        assert [store.event_names[code] for code in found.events] == [one.event for one in mine]
        hidden = {one.item_id for one in mine if one.event == "hide"}
        assert set(found.rejected.tolist()) == set(hash_ids(sorted(hidden)).tolist())
    assert len(logged(store)) == len(plain)
    store.database.close()
