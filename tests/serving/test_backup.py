"""penchant backup and restore: one moment of a state that is written to, whole or not at all."""

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from model.errors import BundleRejected, ConfigError
from serving.client import Client
from serving.domain import Event, ItemChange
from serving.errors import StoreUnavailable
from serving.store.backup import back_up, restore
from serving.store.database import Database
from serving.store.event_log import SqliteEventLog
from serving.store.export import export_events
from serving.store.sqlite import SqliteStore
from tests.serving.processes import penchant, serve
from tests.serving.tiny import World, item_id


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state with some events."""
    store = SqliteStore(Database(tmp_path / "state" / "store.db"))
    record(store, range(50))
    store.database.close()
    return tmp_path / "state"


def record(store: SqliteStore, numbers: range) -> None:
    events = [Event("u", item_id(i), "watch", f"e{i}", 1000 + i) for i in numbers]
    store.record(events, since_us=0, negative=frozenset()).result(10)


def stored(state: Path) -> list[str]:
    """The event ids of user u."""
    with sqlite3.connect(state / "store.db") as db:
        rows = db.execute("SELECT event_ids FROM chunks ORDER BY chunk").fetchall()
    db.close()
    return [name for (text,) in rows for name in json.loads(text)]


def test_a_backup_that_is_restored_twice_loses_no_event_from_exports(
    state: Path, tmp_path: Path
) -> None:
    """The exports know events by their numbers, which no two events may have."""
    back_up(state, tmp_path / "backup")
    exported: list[int] = []
    for life in range(2):
        again = tmp_path / f"life-{life}"
        restore(tmp_path / "backup", again)
        database = Database(again / "store.db")
        events = [Event("v", item_id(i), "watch", f"{life}-{i}", 5000 + i) for i in range(3)]
        SqliteStore(database).record(events, since_us=0, negative=frozenset()).result(10)
        rows = database.read("SELECT number FROM event_log ORDER BY number DESC LIMIT 3")
        exported += [number for (number,) in rows]
        database.close()
    assert len(set(exported)) == 6


def test_what_was_backed_up_is_restored(state: Path, tmp_path: Path) -> None:
    done = penchant("backup", str(tmp_path / "backup"), "--state", str(state))
    assert done.returncode == 0, done.stderr
    assert "1 users, 0 live items and 50 events to export" in done.stdout
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == [
        "backup.json",
        "store.db",
    ]
    done = penchant("restore", str(tmp_path / "backup"), "--state", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path / "new") == stored(state) == [f"e{i}" for i in range(50)]


def test_a_state_is_backed_up_while_it_is_written_to(world: World, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serve(world.bundle, state, tmp_path / "log", "--workers", "2") as served:
        stopped = threading.Event()
        acknowledged: list[list[int]] = [[], []]

        def tell(number: int) -> None:
            with Client(served.address, timeout=10) as client:
                while not stopped.is_set():
                    name = len(acknowledged[number])
                    event = Event(f"user-{number}", item_id(name % 600), "watch", str(name))
                    assert client.record_events(event).num_taken == 1
                    acknowledged[number].append(name)

        threads = [threading.Thread(target=tell, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        with Client(served.address, timeout=20) as client:
            client.upsert_items([ItemChange(item_id="lamp", kind="product")])
        patience = time.monotonic() + 20
        while not all(acknowledged):
            assert time.monotonic() < patience, "nothing was acknowledged"
            time.sleep(0.01)
        least = []
        for number in range(3):
            least.append([len(names) for names in acknowledged])
            back_up(state, tmp_path / f"backup-{number}")
        stopped.set()
        for thread in threads:
            thread.join()
    for number, before in enumerate(least):
        restored = tmp_path / f"restored-{number}"
        restore(tmp_path / f"backup-{number}", restored)
        with (
            serve(world.bundle, restored, tmp_path / "log2") as served,
            Client(served.address, timeout=20) as client,
        ):
            page = client.list_users()
            counts = dict(zip(page.user_ids, page.num_events.tolist(), strict=True))
            for user, num in enumerate(before):
                # All that was acknowledged before, and nothing with a gap before it.
                assert counts[f"user-{user}"] >= num
                names = [str(name) for name in range(counts[f"user-{user}"])]
                again = [Event(f"user-{user}", item_id(0), "watch", name) for name in names[-900:]]
                assert client.record_events(again).num_duplicates == len(again)
            assert client.find_similar("lamp", k=3).item_ids
            if number:
                break  # starting servers is slow; the first and the second say enough


@pytest.fixture
def backup(state: Path, tmp_path: Path) -> Iterator[Path]:
    back_up(state, tmp_path / "backup")
    yield tmp_path / "backup"


def test_exports_go_on_after_a_restore_without_gap_or_repeat(
    state: Path, backup: Path, tmp_path: Path
) -> None:
    """Exported, backed up, exported further; lost, restored, written to, exported again."""
    out = tmp_path / "out"
    store = SqliteStore(Database(state / "store.db"))
    record(store, range(50, 70))
    export_events(SqliteEventLog(store.database), out)
    store.database.close()
    restore(backup, tmp_path / "new")
    store = SqliteStore(Database(tmp_path / "new" / "store.db"))
    record(store, range(70, 90))
    export_events(SqliteEventLog(store.database), out)
    store.database.close()
    names = [pl.read_parquet(path)["event_id"] for path in sorted((out / "events").iterdir())]
    assert pl.concat(names).to_list() == [f"u/e{i}" for i in range(90)]


def test_a_damaged_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    data = bytearray((backup / "store.db").read_bytes())
    data[len(data) // 2] ^= 1
    (backup / "store.db").write_bytes(data)
    done = penchant("restore", str(backup), "--state", str(tmp_path / "new"))
    assert done.returncode == 2 and "its SHA-256 does not match" in done.stderr
    assert not (tmp_path / "new").exists()
    (backup / "store.db").write_bytes(data[:-100])
    with pytest.raises(BundleRejected, match="truncated"):
        restore(backup, tmp_path / "new")
    (backup / "backup.json").write_text("{}")
    with pytest.raises(BundleRejected, match="is no backup"):
        restore(backup, tmp_path / "new")


def test_a_backup_of_another_format_is_refused(backup: Path, tmp_path: Path) -> None:
    manifest = json.loads((backup / "backup.json").read_text())
    (backup / "backup.json").write_text(json.dumps({**manifest, "store_format": 1}))
    with pytest.raises(BundleRejected, match="store of format 1"):
        restore(backup, tmp_path / "new")


def test_a_store_that_is_damaged_gives_no_backup(state: Path, tmp_path: Path) -> None:
    data = bytearray((state / "store.db").read_bytes())
    data[4096 * 2 : 4096 * 40] = bytes(4096 * 38)
    (state / "store.db").write_bytes(data)
    with pytest.raises(StoreUnavailable):
        back_up(state, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_state_that_is_not_empty_gives_way_only_when_told(
    state: Path, backup: Path, tmp_path: Path
) -> None:
    store = SqliteStore(Database(state / "store.db"))
    record(store, range(50, 60))
    with pytest.raises(ConfigError, match="is not empty"):
        restore(backup, state)
    with pytest.raises(ConfigError, match="is in use"):
        restore(backup, state, overwrite=True)
    assert len(stored(state)) == 60
    store.database.close()
    restore(backup, state, overwrite=True)
    assert len(stored(state)) == 50
    shutil.rmtree(state)
    state.mkdir()
    (state / "store.db").write_text("no store " * 1000)
    restore(backup, state, overwrite=True)
    assert len(stored(state)) == 50


def test_a_folder_that_is_taken_or_no_state_is_refused(
    state: Path, backup: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        back_up(state, backup)
    with pytest.raises(ConfigError, match="there is no store"):
        back_up(tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "nothing").exists()
