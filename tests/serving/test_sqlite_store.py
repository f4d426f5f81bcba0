"""SqliteStore on real files: what lies in them, what is refused, and damage."""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.items import hash_ids
from serving.domain import Event
from serving.errors import StoreUnavailable
from serving.store.base import NewHistory, Outcome, StoredHistory
from serving.store.chunks import CHUNK_EVENTS
from serving.store.database import Database
from serving.store.sqlite import SqliteStore

MOST = 3 * CHUNK_EVENTS
TAKEN, DUPLICATE = Outcome.TAKEN, Outcome.DUPLICATE


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


def stored(store: SqliteStore, user: str = "u") -> StoredHistory:
    found = store.read(user, limit=None, others=True)
    assert found is not None
    return found


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is not a database, " * 100)
    with pytest.raises(StoreUnavailable, match=r"text\.db"):
        Database(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(StoreUnavailable, match="not a store of format"):
        Database(other)


@pytest.mark.parametrize(
    "damage",
    [
        "item_ids = '[\"i0\", '",
        "item_ids = '[\"i0\"]'",
        "events = x'010203'",
        "timestamps = x'01'",
        "timestamps = zeroblob(8)",
        "events = CAST(hex(events) AS BLOB)",
    ],
)
@pytest.mark.parametrize("num_events", [3, CHUNK_EVENTS + 3])
def test_a_damaged_chunk_fails_its_user_alone(
    store: SqliteStore, tmp_path: Path, damage: str, num_events: int
) -> None:
    for user in ("u", "v"):
        record(store, *[event(str(n), n, user=user) for n in range(num_events)])
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute(f"UPDATE chunks SET {damage} WHERE chunk >= {2 << 20}")
    database.close()
    with pytest.raises(StoreUnavailable, match=r"store\.db is damaged where it holds user 'v'"):
        store.read("v", limit=None)
    with pytest.raises(StoreUnavailable, match="is damaged where it holds user 'v'"):
        store.merge_histories(
            [NewHistory("v", ["i9"], ["watch"], np.array([9]), np.array([0]), ["new"])]
        )
    assert len(stored(store).item_ids) == num_events


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


def test_what_is_let_go_of_is_summed_up(store: SqliteStore) -> None:
    events = [
        event(str(i), 100 + i, item=f"i{i % 700}", event="watch" if i % 2 else "order")
        for i in range(1000)
    ]
    for start in range(0, 1000, 37):
        record(store, *events[start : start + 37])
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


def test_a_deleted_user_is_gone_from_every_table(store: SqliteStore, tmp_path: Path) -> None:
    store.put_profiles([("ann", '{"city": "Guiyang"}')])
    record(store, *[event(str(i), i, user="ann", item=f"secret-{i}") for i in range(2 * MOST)])
    record(store, event("x", 1, user="bob"))
    assert store.delete_user("ann", now_us=10_000)
    assert not store.delete_user("ann", now_us=10_000)
    assert store.read("ann", limit=None) is None
    bodies = store.database.read("SELECT body FROM event_log")
    assert [json.loads(body)["user_id"] for (body,) in bodies] == ["bob"]
    assert store.num_users() == 1
    checkpoint = sqlite3.connect(tmp_path / "store.db")
    checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    checkpoint.close()
    assert b"secret-" not in (tmp_path / "store.db").read_bytes()


def test_nothing_of_a_deleted_user_is_left_in_any_file(store: SqliteStore, tmp_path: Path) -> None:
    names = [b"needle-user", b"needle-item"]
    events = [event(f"n{i}", 1000 + i, user="needle-user", item="needle-item") for i in range(40)]
    record(store, *events)
    record(store, *(event(f"o{i}", 1000 + i, user="other") for i in range(40)))

    def found() -> int:
        files = [path.read_bytes() for path in tmp_path.iterdir()]
        return sum(content.count(name) for content in files for name in names)

    assert found() > 40
    assert store.delete_user("needle-user", now_us=10_000)
    assert found() == 0
    assert len(stored(store, "other").item_ids) == 40


def test_who_is_deleted_while_somebody_reads(store: SqliteStore, tmp_path: Path) -> None:
    """A backup reads for minutes. Nobody waits for it, and the log is emptied afterwards."""
    record(store, event("n", 1000, user="needle-user"), event("o", 1000, user="other"))
    reader = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM users").fetchone()
    begun = time.monotonic()
    assert store.delete_user("needle-user", now_us=10_000)
    record(store, event("p", 2000, user="other"))
    assert time.monotonic() - begun < 5
    assert not store.database.checkpoint()
    reader.execute("ROLLBACK")
    reader.close()
    assert store.database.checkpoint()
    assert not any(b"needle" in path.read_bytes() for path in tmp_path.iterdir())
