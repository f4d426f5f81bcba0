"""penchant export-events: every taken event once, as a dataset that training reads."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError, DatasetError
from model.schema import Schema, write_schema
from serving.client import Client
from serving.domain import Event
from serving.store.database import Database
from serving.store.event_log import SqliteEventLog
from serving.store.export import export_events, trim_log
from serving.store.sqlite import SqliteStore
from tests.serving.processes import ROOT, environment, penchant, serve
from tests.serving.tiny import SCHEMA, World, item_id
from training.validate import validate_dataset

START = 1_780_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(Database(tmp_path / "state" / "store.db"))
    yield opened
    opened.database.close()


def record(store: SqliteStore, *events: Event) -> None:
    store.record(events, since_us=0, negative=frozenset()).result(10)


def some(num: int, *, first: int = 0, user: str = "u") -> list[Event]:
    return [
        Event(user, item_id(i % 600), "watch", f"e{i}", START + i)
        for i in range(first, first + num)
    ]


def exported(out: Path) -> pl.DataFrame:
    parts = sorted((out / "events").glob("part-live-*.parquet"))
    return pl.concat([pl.read_parquet(part) for part in parts]) if parts else pl.DataFrame()


def dataset(folder: Path, schema: Schema = SCHEMA, **columns: pl.Series) -> Path:
    """A dataset of the world's items with one event, whose partition has these columns more."""
    (folder / "events").mkdir(parents=True)
    write_schema(schema, folder)
    pl.DataFrame(
        {
            "item_id": [item_id(row) for row in range(600)],
            "kind": ["product"] * 600,
            "title": [""] * 600,
            "craft": ["silver"] * 600,
            "tags": [["a"]] * 600,
            "price": [1.0] * 600,
        }
    ).write_parquet(folder / "items.parquet")
    times = {"timestamp": pl.Series([datetime(2026, 1, 1, tzinfo=UTC)], dtype=TIME)}
    base = {"event_id": ["old"], "user_id": ["u"], "item_id": [item_id(0)], "event": ["order"]}
    pl.DataFrame({**base, **(times if schema.time != "none" else {}), **columns}).write_parquet(
        folder / "events" / "part-00000.parquet"
    )
    return folder


TIME = pl.Datetime("us", "UTC")


def test_an_event_is_exported_as_it_came(store: SqliteStore, tmp_path: Path) -> None:
    full = Event(
        "竹/ann",
        item_id(1),
        "order",
        "e",
        START,
        sequence=7,
        value=88.5,
        exposure_id="x-1",
        source_item_id=item_id(2),
        position=3,
        propensity=0.25,
    )
    record(store, full, Event("bob", item_id(3), "watch", "e", START + 1))
    done = export_events(SqliteEventLog(store.database), tmp_path / "out")
    assert (done.num_events, done.num_parts, done.left_out) == (2, 1, {})
    first, second = exported(tmp_path / "out").to_dicts()
    assert first == {
        "event_id": "%E7%AB%B9%2Fann/e",
        "user_id": "竹/ann",
        "item_id": item_id(1),
        "event": "order",
        "timestamp": datetime.fromtimestamp(START / 1e6, UTC),
        "sequence": 7,
        "value": 88.5,
        "exposure_id": "x-1",
        "source_item_id": item_id(2),
        "position": 3,
        "propensity": 0.25,
    }
    assert second["event_id"] == "bob/e" and second["sequence"] == 0
    assert [second[name] for name in ("value", "exposure_id", "position")] == [None] * 3


def test_a_dataset_grows_and_stays_valid(store: SqliteStore, tmp_path: Path) -> None:
    out = dataset(
        tmp_path / "out", sequence=pl.Series([0]), value=pl.Series([None], dtype=pl.Float64)
    )
    record(store, *some(50), *some(50, user="v"))  # the same ids, of another user
    export_events(SqliteEventLog(store.database), out)
    summary = validate_dataset(out)
    assert summary.num_events == 101
    record(store, *some(5, first=50))
    export_events(SqliteEventLog(store.database), out)
    assert validate_dataset(out).num_events == 106


def test_columns_that_the_dataset_lacks_are_named_and_never_trimmed(
    store: SqliteStore, tmp_path: Path
) -> None:
    out = dataset(tmp_path / "out", split=pl.Series(["train"]))
    record(store, Event("u", item_id(1), "watch", "e", START, value=3.0))
    arguments = ("export-events", str(out), "--state", str(tmp_path / "state"))
    done = penchant(*arguments, "--trim")
    assert done.returncode == 2 and "Left out: 1 values of value" in done.stdout
    assert "--trim would lose" in done.stderr
    assert exported(out).columns == [
        "event_id",
        "user_id",
        "item_id",
        "event",
        "timestamp",
        "split",
    ]
    assert validate_dataset(out).num_events == 2
    assert store.database.read("SELECT COUNT(*) FROM event_log") == [(1,)]


@pytest.mark.parametrize("time_kind", ["order", "none", "day"])
def test_a_dataset_without_times_is_given_none(
    store: SqliteStore, tmp_path: Path, time_kind: str
) -> None:
    schema = SCHEMA.model_copy(update={"time": time_kind})
    out = dataset(tmp_path / "out", schema, sequence=pl.Series([0]))
    record(store, *some(20))
    export_events(SqliteEventLog(store.database), out)
    validate_dataset(out)
    frame = exported(out)
    if time_kind == "none":
        assert "timestamp" not in frame.columns
    if time_kind == "order":
        assert frame["sequence"].is_sorted() and frame["sequence"].n_unique() == 20
        assert (frame["sequence"] > 0).all()


def test_items_that_the_dataset_lacks_are_counted(store: SqliteStore, tmp_path: Path) -> None:
    out = dataset(tmp_path / "out", source_item_id=pl.Series([None], dtype=pl.String))
    record(store, *some(3), Event("u", "new", "watch", "n", START))
    record(store, Event("u", item_id(1), "watch", "s", START, source_item_id="new room"))
    done = penchant("export-events", str(out), "--state", str(tmp_path / "state"))
    assert "2 events name an item that items.parquet lacks" in done.stdout
    with pytest.raises(DatasetError, match=r"is not in items\.parquet"):
        validate_dataset(out)


def test_parts_are_bounded_and_a_rerun_goes_on(store: SqliteStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for round_ in range(3):
        record(store, *some(25, first=25 * round_))
        done = export_events(SqliteEventLog(store.database), out, part_rows=10)
        assert (done.num_events, done.num_parts) == (25, 3)
        assert export_events(SqliteEventLog(store.database), out, part_rows=10).num_events == 0
    assert exported(out)["event_id"].to_list() == [f"u/e{i}" for i in range(75)]


def test_trimming_deletes_what_is_exported_and_no_more(store: SqliteStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record(store, *some(30))
    export_events(SqliteEventLog(store.database), out)
    record(store, *some(5, first=30))
    assert trim_log(SqliteEventLog(store.database), out) == 30
    assert trim_log(SqliteEventLog(store.database), tmp_path / "elsewhere") == 0
    assert store.database.read("SELECT COUNT(*) FROM event_log") == [(5,)]
    record(store, *some(30))  # still known: trimming is no forgetting
    export_events(SqliteEventLog(store.database), out)
    assert trim_log(SqliteEventLog(store.database), out) == 5
    record(store, *some(2, first=35))
    export_events(SqliteEventLog(store.database), out)
    assert exported(out)["event_id"].to_list() == [f"u/e{i}" for i in range(37)]


def test_a_deleted_users_events_are_exported_no_more(store: SqliteStore, tmp_path: Path) -> None:
    record(store, *some(3), *some(3, user="gone"))
    store.delete_user("gone", now_us=START + 100)
    export_events(SqliteEventLog(store.database), tmp_path / "out")
    assert set(exported(tmp_path / "out")["user_id"]) == {"u"}


def test_two_stores_share_a_folder(store: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(Database(tmp_path / "other" / "store.db"))
    record(store, *some(10))
    record(other, *some(10, user="v"))
    for one in (store, other, store, other):
        export_events(SqliteEventLog(one.database), tmp_path / "out", part_rows=4)
    assert exported(tmp_path / "out").height == 20
    other.database.close()


def test_one_export_at_a_time(store: SqliteStore, tmp_path: Path) -> None:
    record(store, *some(10))
    refused: list[Exception] = []

    def again(done: int) -> None:
        try:
            export_events(SqliteEventLog(store.database), tmp_path / "out")
        except ConfigError as error:
            refused.append(error)

    export_events(SqliteEventLog(store.database), tmp_path / "out", progress=again)
    assert len(refused) == 1 and "another export" in str(refused[0])
    assert exported(tmp_path / "out").height == 10


def test_exports_that_are_killed_lose_nothing_and_repeat_nothing(
    store: SqliteStore, tmp_path: Path
) -> None:
    out, num = tmp_path / "out", 6000
    record(store, *some(num))
    command = [sys.executable, str(ROOT / "penchant.py"), "export-events", str(out)]
    command += ["--state", str(tmp_path / "state"), "--part-rows", "20", "--trim"]
    killed = 0
    for wait in (0.0, 0.05, 0.2):
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        while process.poll() is None and not list((out / "events").glob("part-*")):
            time.sleep(0.01)
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert penchant(*command[2:]).returncode == 0
    assert sorted(exported(out)["event_id"]) == sorted(f"u/e{i}" for i in range(num))
    assert not [path for path in (out / "events").iterdir() if path.name.startswith(".")]
    assert store.database.read("SELECT COUNT(*) FROM event_log") == [(0,)]


def test_a_running_server_is_exported_from(world: World, tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    with serve(world.bundle, state, tmp_path / "log") as served:
        stopped, sent = threading.Event(), [0]

        def tell() -> None:
            with Client(served.address, timeout=10) as client:
                while not stopped.is_set():
                    client.record_events(Event("u", item_id(sent[0] % 600), "watch", str(sent[0])))
                    sent[0] += 1

        thread = threading.Thread(target=tell)
        thread.start()
        for _ in range(4):
            done = penchant("export-events", str(out), "--state", str(state), "--trim")
            assert done.returncode == 0, done.stderr
        stopped.set()
        thread.join()
        assert penchant("export-events", str(out), "--state", str(state)).returncode == 0
    assert sorted(map(int, (name[2:] for name in exported(out)["event_id"]))) == list(
        range(sent[0])
    )
    assert sent[0] > 0


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    done = penchant("export-events", str(tmp_path / "out"), "--state", str(tmp_path / "nothing"))
    assert done.returncode == 2 and "there is no store in" in done.stderr
    assert not (tmp_path / "nothing").exists()
