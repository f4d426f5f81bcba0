"""The commands of a serving machine, as a person runs them."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from serving.cli import parse_filter
from serving.domain import AnyOf, Filter, Not, Range
from serving.errors import BadRequest
from serving.store.base import NewHistory
from serving.store.database import Database
from serving.store.sqlite import SqliteStore
from tests.serving.processes import Served, penchant, serve
from tests.serving.tiny import World, item_id


def test_query_shows_what_and_why(server: Served) -> None:
    done = penchant("query", "user-005", "--address", server.address, "-k", "4")
    assert done.returncode == 0, done.stderr
    for heading in (
        "What user-005 did last",
        "For user-005",
        "title",
        "kind",
        "score",
        "circle",
        "interest",
    ):
        assert heading in done.stdout
    assert done.stdout.count("题") == 5 + 4
    assert "2026-01-01 02:00" in done.stdout and "order" in done.stdout
    assert "4 items" in done.stdout


def test_query_with_filters_and_history(server: Served) -> None:
    done = penchant(
        *("query", "--address", server.address, "--history", f"{item_id(1)},nothing"),
        *("--kind", "video", "--filter", "price=100..200", "--exclude", item_id(106)),
    )
    assert done.returncode == 0, done.stderr
    body = done.stdout[done.stdout.index("For this history") :]
    assert "video" in body and "product" not in body and "live" not in body
    assert "题 106 " not in body
    assert "no item 'nothing'" in done.stdout
    # What was filtered on is shown, and the ids that other questions need.
    assert "price" in body and item_id(0)[:3] in body


def test_query_for_anyone(server: Served) -> None:
    done = penchant("query", "--any", "--address", server.address)
    assert done.returncode == 0, done.stderr
    assert "What user-" in done.stdout
    both = penchant("query", "user-005", "--any", "--address", server.address)
    assert both.returncode == 2 and "--any" in both.stderr


def test_query_for_a_stranger(server: Served) -> None:
    done = penchant("query", "stranger", "--address", server.address, "-k", "2")
    assert done.returncode == 0 and "cold" in done.stdout and "2 items" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["u", "-k", "0"], "allowed: 1 to 1000"),
        (["u", "--kind", "vidio"], "no kind 'vidio'"),
        (["u", "--filter", "colour=red"], "no filterable column 'colour'"),
        (["u", "--filter", "colour=red"], "--filter colour=red: "),
        (["u", "--filter", "price=cheap"], "write COLUMN=MIN..MAX"),
        (["u", "--filter", "craft=1..2"], "write COLUMN=VALUE,VALUE"),
        (["u", "--filter", "colour"], "COLUMN=VALUE"),
        (["u", "--kind", "vidio", "--filter", "craft=silver"], "--kind: no kind"),
        (["--history", "i" * 300], "--history: "),
        ([], "give one of USER, --history and --any"),
    ],
)
def test_query_says_what_is_wrong(server: Served, arguments: list[str], message: str) -> None:
    done = penchant("query", *arguments, "--address", server.address)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_state_of_another_catalogue_is_named(world: World, tmp_path: Path) -> None:
    store = SqliteStore(Database(tmp_path / "state" / "store.db"))
    store.merge_histories(
        [
            NewHistory(
                "guest",
                ["x1", "x2"],
                ["watch"] * 2,
                np.array([1, 2]),
                np.array([0, 0]),
                ["g1", "g2"],
            )
        ]
    )
    store.database.close()
    with serve(world.bundle, tmp_path / "state", tmp_path / "log", "--drain-pause", "0") as server:
        done = penchant("query", "guest", "--address", server.address)
    assert done.returncode == 0 and "(cold)" in done.stdout
    assert "none of the 2 stored events is about an item of this bundle" in done.stdout


def test_status(server: Served) -> None:
    done = penchant("status", "--address", server.address)
    assert done.returncode == 0
    for words in ("580 retrievable of 600", "120 in sqlite", "interest, direct", "bamboo"):
        assert words in done.stdout
    gone = penchant("status", "--address", "127.0.0.1:1", "--timeout", "1")
    assert gone.returncode == 2 and gone.stderr.startswith(
        "Error: no server answers at 127.0.0.1:1"
    )


def test_load_users_twice(world: World, tmp_path: Path) -> None:
    arguments = ("load-users", str(world.snapshot), "--state", str(tmp_path / "state"))
    num_events = sum(map(len, world.histories.values()))
    first, second = penchant(*arguments), penchant(*arguments)
    assert f"120 users, {num_events:,} events, {num_events:,} of them new" in first.stdout
    assert f"120 users, {num_events:,} events, 0 of them new" in second.stdout
    store = SqliteStore(Database(tmp_path / "state" / "store.db"))
    for user, rows in world.histories.items():
        stored = store.read(user, limit=None)
        assert stored is not None
        assert stored.item_ids == [item_id(row) for row in rows]
    stored = store.read("user-005", limit=None)
    assert stored is not None and json.loads(stored.profile) == {"city": "Suzhou"}
    store.database.close()


def test_a_damaged_snapshot_is_refused_before_anything_is_written(
    world: World, tmp_path: Path
) -> None:
    import shutil

    snapshot = Path(shutil.copytree(world.snapshot, tmp_path / "snapshot"))
    data = bytearray((snapshot / "histories.parquet").read_bytes())
    data[100] ^= 4
    (snapshot / "histories.parquet").write_bytes(data)
    done = penchant("load-users", str(snapshot), "--state", str(tmp_path / "state"))
    assert done.returncode == 2 and "histories.parquet is damaged" in done.stderr
    database = sqlite3.connect(tmp_path / "state" / "store.db")
    assert database.execute("SELECT COUNT(*) FROM users").fetchone() == (0,)
    database.close()


def test_record_and_delete_user(world: World, tmp_path: Path) -> None:
    with serve(world.bundle, tmp_path / "state", tmp_path / "log") as server:
        address = ("--address", server.address)
        done = penchant("record", "ann", item_id(3), "watch", "--event-id", "e1", *address)
        assert (done.returncode, done.stdout) == (0, f"Recorded: ann watch {item_id(3)}\n")
        again = penchant("record", "ann", item_id(3), "watch", "--event-id", "e1", *address)
        assert (again.returncode, again.stdout) == (0, "Known already.\n")
        assert item_id(3) in penchant("query", "ann", *address).stdout
        old = ("--seconds-ago", str(30 * 86_400))
        for arguments, words in (
            (("ann", item_id(3), "wacth"), "event: no event 'wacth'"),
            (("ann", item_id(3), "watch", *old), "timestamp_us: 30.0 days old"),
        ):
            done = penchant("record", *arguments, *address)
            assert done.returncode == 2 and words in done.stderr
        assert penchant("delete-user", "ann", *address).stdout == "Forgotten: ann\n"
        assert penchant("delete-user", "ann", *address).stdout == "Nothing was known of ann.\n"
        assert "(cold)" in penchant("query", "ann", *address).stdout


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "load-users", "query", "status", "record", "delete-user"),
        *("export-events", "backup", "restore"),
    ],
)
def test_help_teaches(command: str) -> None:
    done = penchant(command, "--help")
    assert done.returncode == 0
    assert f"penchant {command}" in done.stdout and "Example" in done.stdout


@pytest.mark.parametrize(
    ("text", "filter_"),
    [
        ("craft=silver", AnyOf("craft", ("silver",))),
        ("craft=silver, bamboo", AnyOf("craft", ("silver", "bamboo"))),
        ("craft!=silver", Not(AnyOf("craft", ("silver",)))),
        ("price=10..50", Range("price", 10, 50)),
        ("price=..50.5", Range("price", None, 50.5)),
        ("price=-1e3..", Range("price", -1000, None)),
        ("price!=10..50", Not(Range("price", 10, 50))),
        ("name=a..b", AnyOf("name", ("a..b",))),
        ("name=a=b", AnyOf("name", ("a=b",))),
        ("name=..", AnyOf("name", ("..",))),
    ],
)
def test_filters_on_the_command_line(text: str, filter_: Filter) -> None:
    assert parse_filter(text) == filter_


@pytest.mark.parametrize("text", ["", "craft", "craft=", "=silver", "craft= ,"])
def test_filters_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BadRequest, match="COLUMN=VALUE"):
        parse_filter(text)
