"""Every EventLog: parts that follow each other, trimming, and users who leave."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serving.domain import Event
from serving.store.choice import Store
from serving.store.export import export_events, trim_log
from tests.conformance.stores import Stores


def record(store: Store, user: str, start: int, num: int) -> None:
    events = [Event(user, f"i{n}", "watch", f"e{n}", n) for n in range(start, start + num)]
    store.users.record(events, since_us=0, negative=()).result(10)


def numbers(store: Store) -> list[int]:
    return [number for number, _ in store.events.rows(0, 1 << 40, limit=1000)]


def test_an_empty_log(store: Store) -> None:
    assert store.events.next_part(0, 10) is None
    assert store.events.rows(0, 100, limit=10) == []
    assert store.events.trim(0, limit=10) == store.events.trim(100, limit=10) == 0
    assert len(store.events.store_id()) == 16 and int(store.events.store_id(), 16) >= 0


def test_a_store_keeps_its_id_and_another_has_another(stores: Stores) -> None:
    one = stores.open().events.store_id()
    assert stores.open().events.store_id() == one
    stores.renew()
    assert stores.open().events.store_id() != one


def test_parts_follow_each_other(store: Store) -> None:
    record(store, "u", 0, 25)
    parts, after = [], 0
    while (part := store.events.next_part(after, 10)) is not None:
        parts.append(len(store.events.rows(after, part[1], limit=100)))
        assert part[0] == after + 1
        after = part[1]
    assert parts == [10, 10, 5]
    rows = store.events.rows(20, 1000, limit=2)
    assert [json.loads(body)["event_id"] for _, body in rows] == ["e20", "e21"]


def test_numbers_are_not_used_again(store: Store) -> None:
    record(store, "u", 0, 5)
    assert store.events.trim(3, limit=2) == 2
    assert store.events.trim(3, limit=2) == 1
    assert store.events.trim(3, limit=2) == 0
    assert numbers(store) == [4, 5]
    assert store.events.trim(5, limit=10) == 2
    record(store, "u", 5, 1)
    assert numbers(store) == [6]


def test_a_deleted_user_leaves_the_log_also_after_a_trim(store: Store) -> None:
    for user in ("u", "v", "u"):
        record(store, user, len(numbers(store)), 3)
    assert store.events.trim(2, limit=10) == 2
    assert store.users.delete_user("u", now_us=10**6)
    assert numbers(store) == [4, 5, 6]
    assert store.events.next_part(0, 100) == (4, 6)
    assert store.events.next_part(4, 1) == (5, 5)


@pytest.mark.parametrize("part_rows", [4, 1000])
def test_an_export_goes_on_where_it_ended(store: Store, tmp_path: Path, part_rows: int) -> None:
    out = tmp_path / "out"
    record(store, "u", 0, 10)
    record(store, "v", 0, 2)
    store.users.delete_user("v", now_us=10**6)
    assert export_events(store.events, out, part_rows=part_rows).num_events == 10
    assert export_events(store.events, out, part_rows=part_rows).num_events == 0
    assert trim_log(store.events, out) == 10
    record(store, "u", 10, 3)
    assert export_events(store.events, out, part_rows=part_rows).num_events == 3
    ids = pq.read_table(out / "events", columns=["event_id"])["event_id"].to_pylist()
    assert sorted(ids) == sorted(f"u/e{n}" for n in range(13))
