"""Every ItemLog: the newest state of each item, and a feed that misses nothing."""

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.domain import ItemChange
from serving.store.item_log import ItemLog, Upsert, all_since
from tests.conformance.stores import Stores


@pytest.fixture
def log(stores: Stores) -> ItemLog:
    return stores.open().items


def upsert(item_id: str, *, assumed: int = 0, in_bundle: bool = False, **change: Any) -> Upsert:
    values = {"kind": "product", **change}
    return Upsert(
        ItemChange(item_id=item_id, **values), in_bundle, assumed, b"vector of " + b"\xff", "bundle"
    )


def test_an_empty_log(log: ItemLog) -> None:
    assert (log.newest(), log.num_since(0), log.since(0, limit=10)) == (0, 0, [])
    assert log.read(["a"]) == {} and log.holds(0, "")
    assert log.delete(["a", "b"], [False, False]) == ([False, False], 0)


def test_an_item_is_read_as_it_was_written(log: ItemLog) -> None:
    features = {
        "title": "竹 \x00 🎋",
        "price": 1.5,
        "tags": ["a"],
        "vector": np.ones(2, np.float32),
    }
    number, _ = log.upsert(
        [
            upsert(
                "a\nb", features=features, links=[("on_air", "p")], available=False, expires_at_us=7
            )
        ]
    )
    (item,) = log.since(0, limit=10)
    assert log.read(["a\nb", "c"]) == {"a\nb": item}
    assert item.features == {**features, "vector": [1.0, 1.0]}
    assert (item.item_id, item.sequence, item.kind) == ("a\nb", number, "product")
    assert (item.links, item.expires_us) == ((("on_air", "p"),), 7)
    assert (item.is_available, item.is_deleted, item.is_whole) == (False, False, True)
    assert (item.encoded, item.encoded_by) == (b"vector of \xff", "bundle")
    assert item.updated_us > 1_600_000_000_000_000


def test_a_change_is_laid_over_what_there_was(log: ItemLog) -> None:
    first, _ = log.upsert([upsert("a", features={"x": 1, "y": 2}, links=[("on_air", "p")])])
    second, _ = log.upsert([upsert("a", assumed=first, kind="", features={"y": None})])
    (item,) = log.since(first, limit=10)
    assert second > first == log.newest() - 1
    assert item.features == {"x": 1, "y": None} and item.kind == "product"
    assert item.links == (("on_air", "p"),) and item.encoded is not None


def test_an_item_keeps_when_it_came_until_it_is_deleted(log: ItemLog) -> None:
    first, _ = log.upsert([upsert("a", features={"x": 1})])
    came = log.read(["a"])["a"].created_us
    assert came == log.read(["a"])["a"].updated_us > 1_600_000_000_000_000
    log.upsert([upsert("a", assumed=first, features={"x": 2})])
    changed = log.read(["a"])["a"]
    assert changed.created_us == came < changed.updated_us
    log.delete(["a"], [False])
    log.upsert([upsert("a")])
    assert log.read(["a"])["a"].created_us > changed.updated_us  # another item


def test_what_was_made_of_another_state_is_not_kept(log: ItemLog) -> None:
    first, _ = log.upsert([upsert("a", features={"x": 1})])
    log.upsert([upsert("a", assumed=first, features={"y": 1})])
    log.upsert([upsert("a", assumed=first, features={"z": 1})])
    item = log.read(["a"])["a"]
    assert item.features == {"x": 1, "y": 1, "z": 1}
    assert (item.encoded, item.encoded_by) == (None, "")


def test_what_nobody_has_said_stays_unsaid(log: ItemLog) -> None:
    log.upsert([upsert("a", kind="", in_bundle=True), upsert("b", available=False)])
    items = log.read(["a", "b"])
    assert (items["a"].is_available, items["a"].expires_us, items["a"].is_whole) == (
        None,
        None,
        False,
    )
    assert (items["b"].is_available, items["b"].expires_us, items["b"].is_whole) == (False, 0, True)
    log.upsert([upsert("a", kind="", in_bundle=True, expires_at_us=5)])
    assert (log.read(["a"])["a"].is_available, log.read(["a"])["a"].expires_us) == (None, 5)


def test_two_changes_of_one_item_in_a_call(log: ItemLog) -> None:
    changes = [upsert("a", features={"x": 1}), upsert("b"), upsert("a", features={"y": 2})]
    last, _ = log.upsert(changes)
    items = log.since(0, limit=10)
    assert [item.item_id for item in items] == ["b", "a"]
    assert items[1].features == {"x": 1, "y": 2} and items[1].sequence == last
    assert items[1].encoded is None  # it was made of the first change alone


def test_a_deleted_item_is_in_the_feed_and_begins_anew(log: ItemLog) -> None:
    log.upsert([upsert("a", features={"x": 1})])
    existed, number = log.delete(["a", "nobody", "of-bundle", "a"], [False, False, True, False])
    assert existed == [True, False, True, False] and number == log.newest()
    gone = log.read(["a", "of-bundle", "nobody"])
    assert set(gone) == {"a", "of-bundle"}
    assert all(item.is_deleted and item.is_whole and not item.features for item in gone.values())
    assert log.delete(["a"], [True]) == ([False], number)
    # What cannot stand alone is refused; the rest of the batch is taken.
    newest, refused = log.upsert([upsert("b"), upsert("a", kind=""), upsert("c")])
    assert list(refused) == [1] and "a new item needs a kind" in str(refused[1])
    assert newest == number + 2 and set(log.read(["a", "b", "c"])) == {"a", "b", "c"}
    assert log.read(["a"])["a"].is_deleted
    assert log.upsert([upsert("a", kind="")])[0] == log.newest() == newest
    log.upsert([upsert("a", features={"y": 1})])
    assert log.read(["a"])["a"].features == {"y": 1}


def test_the_feed_in_parts(log: ItemLog) -> None:
    for start in range(0, 100, 20):
        log.upsert([upsert(f"i{n}") for n in range(start, start + 20)])
    log.upsert([upsert("i3")])
    order = [*(f"i{n}" for n in range(100) if n != 3), "i3"]
    assert [item.item_id for item in log.since(0, limit=1000)] == order
    parts = list(all_since(log, 0, most=1 << 62, at_once=7))
    assert [item.item_id for part in parts for item in part] == order
    assert {len(part) for part in parts[:-1]} == {7}
    assert [item.item_id for item in log.since(10, limit=2, most=12)] == ["i10", "i11"]
    assert log.since(10, limit=2, most=10) == []
    assert (log.num_since(0), log.num_since(95), log.num_since(101)) == (100, 6, 0)


def test_whoever_writes_all_see_that_there_is_something_new(stores: Stores) -> None:
    one, other = stores.open().items, stores.open().items
    seen = other.changes()
    assert other.changes() == seen
    for write in (
        lambda: one.upsert([upsert("a")]),
        lambda: one.delete(["a"], [False]),
    ):
        write()
        assert other.changes() != seen
        seen = other.changes()
        assert other.changes() == seen
    assert one.feed == other.feed and other.holds(one.newest(), "a")


def test_writers_of_the_same_items_lose_no_change(stores: Stores) -> None:
    logs = [stores.open().items for _ in range(3)]

    def write(number: int) -> None:
        for n in range(20):
            changes = [upsert(f"i{k}", features={f"{number} {n}": k}) for k in range(5)]
            logs[number].upsert(changes if number else changes[::-1])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    read: list[int] = []
    while any(thread.is_alive() for thread in threads):
        read += [item.sequence for item in logs[0].since(read[-1] if read else 0, limit=4)]
    for thread in threads:
        thread.join()
    items = logs[1].since(0, limit=10)
    assert read == sorted(set(read))
    assert logs[0].newest() == 300 and len(items) == 5
    names = {f"{number} {n}" for number, n in itertools.product(range(3), range(20))}
    assert all(set(item.features) == names for item in items)


CHANGE = st.tuples(
    st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 5), st.booleans()
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # renewed by each example
)
@given(st.lists(st.lists(CHANGE, min_size=1, max_size=6), max_size=8))
def test_any_changes_equal_a_plain_dictionary(
    stores: Stores, calls: list[list[tuple[str, str, int, bool]]]
) -> None:
    stores.renew()
    log = stores.open().items
    plain: dict[str, dict[str, int] | None] = {}
    follower: dict[str, dict[str, Any] | None] = {}
    seen = 0
    for call in calls:
        gone = [item_id for item_id, *_, deletes in call if deletes]
        kept = [(item_id, name, value) for item_id, name, value, deletes in call if not deletes]
        if kept:
            log.upsert([upsert(one, features={name: value}) for one, name, value in kept])
        for one, name, value in kept:
            plain[one] = {**(plain.get(one) or {}), name: value}
        if gone:
            existed, _ = log.delete(gone, [False] * len(gone))
            for one, there in zip(gone, existed, strict=True):
                assert there == (plain.get(one) is not None)
                if one in plain:
                    plain[one] = None
        for item in log.since(seen, limit=100):
            follower[item.item_id] = None if item.is_deleted else item.features
            seen = item.sequence
        assert follower == plain and seen == log.newest()
