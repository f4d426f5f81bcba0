"""Two servers with a state folder each, and one Redis: what one was told, the other shows."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from penchant import Client
from serving.domain import Event, ItemChange, UserQuery
from serving.errors import StoreUnavailable
from serving.store.choice import open_redis
from serving.store.item_log import Upsert
from tests.redis_process import KEEPS_ALL, RedisProcess, running_redis
from tests.serving.processes import penchant, serve
from tests.serving.tiny import DIM, World, item_id

ALL = 1000


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with running_redis(tmp_path / "redis", *KEEPS_ALL) as process:
        yield process


@pytest.fixture
def two(world: World, tmp_path: Path, redis: RedisProcess) -> Iterator[tuple[Client, Client]]:
    arguments = ("--store", redis.url, "--drain-pause", "0.1", "--seal-rows", "40")
    with (
        serve(world.bundle, tmp_path / "a", tmp_path / "a.log", *arguments) as one,
        serve(world.bundle, tmp_path / "b", tmp_path / "b.log", *arguments) as other,
        Client(one.address, timeout=10) as first,
        Client(other.address, timeout=10) as second,
    ):
        yield first, second


def until(holds: Callable[[], bool], seconds: float) -> None:
    patience = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < patience, f"not within {seconds:g} seconds"
        time.sleep(0.01)


def shows(client: Client, item: str, there: bool) -> bool:
    return shown(client, item) == there


def shown(client: Client, item: str) -> bool:
    found = client.retrieve(UserQuery(vectors=np.ones((1, DIM), np.float32)), k=ALL)
    return item in found.item_ids


def test_what_one_server_is_told_the_other_shows(
    two: tuple[Client, Client], redis: RedisProcess, world: World, tmp_path: Path
) -> None:
    first, second = two
    done = penchant("load-users", str(world.snapshot), "--store", redis.url)
    assert done.returncode == 0 and f"in {redis.url}" in done.stdout, done.stderr
    before = second.recommend(UserQuery("new"), k=20)
    assert first.record_events([Event("new", item_id(7), "watch", "e1")]).num_taken == 1
    after = second.recommend(UserQuery("new"), k=20)
    assert before.cold[0] and not after.cold[0] and item_id(7) not in after.item_ids
    assert second.record_events([Event("new", item_id(7), "watch", "e1")]).num_duplicates == 1

    lamp = ItemChange(item_id="lamp", kind="product", features={"title": "灯", "price": 7.0})
    assert first.upsert_items(lamp).num_taken == 1
    until(lambda: shown(second, "lamp"), 1.0)
    second.upsert_items(ItemChange(item_id="lamp", available=False))
    until(lambda: not shown(first, "lamp"), 1.0)
    bulk = [ItemChange(item_id=f"n{n}", kind="product") for n in range(100)]
    second.upsert_items(bulk)
    # Each seals for itself.
    until(lambda: min(client.status().live["num_sealed"] for client in two) >= 100, 20.0)
    assert shown(first, "n99") and shown(second, "n99")
    assert len(list((tmp_path / "a" / "segments").iterdir())) >= 1
    assert len(list((tmp_path / "b" / "segments").iterdir())) >= 1

    assert second.delete_user("new").existed
    assert first.recommend(UserQuery("new"), k=20).cold[0]
    first.record_events([Event("other", item_id(3), "watch", "e2")])
    done = penchant("export-events", str(tmp_path / "out"), "--store", redis.url, "--trim")
    assert done.returncode == 0 and "1 events trimmed" in done.stdout, done.stderr
    ids = pq.read_table(tmp_path / "out" / "events", columns=["event_id"])["event_id"]
    assert ids.to_pylist() == ["other/e2"]


def test_a_redis_that_is_killed_comes_back_with_all_that_was_acknowledged(
    two: tuple[Client, Client], redis: RedisProcess
) -> None:
    first, second = two
    events = [Event("u", item_id(n), "watch", f"e{n}") for n in range(20)]
    assert first.record_events(events).num_taken == 20
    first.upsert_items(ItemChange(item_id="kept", kind="video"))
    soon = time.time_ns() // 1000 + 1_000_000
    first.upsert_items(ItemChange(item_id="room", kind="live", expires_at_us=soon))
    until(lambda: shown(second, "kept") and shown(second, "room"), 1.0)
    redis.kill()
    with pytest.raises(StoreUnavailable, match="cannot write redis://"):
        second.record_events([Event("u", item_id(30), "watch", "late")])
    with pytest.raises(StoreUnavailable, match="cannot read redis://"):
        second.recommend(UserQuery("u"), k=5)
    assert shown(second, "kept")  # what needs no store is answered
    until(lambda: not shown(second, "room"), 5.0)  # and what is over is over
    redis.start()
    again = second.record_events([*events, Event("u", item_id(30), "watch", "late")])
    assert (again.num_taken, again.num_duplicates) == (1, 20)
    assert not second.recommend(UserQuery("u"), k=5).cold[0]
    second.upsert_items(ItemChange(item_id="new", kind="video"))
    until(lambda: shown(first, "new") and shown(first, "kept"), 5.0)


def test_a_redis_that_was_emptied_is_read_anew(
    two: tuple[Client, Client], redis: RedisProcess, tmp_path: Path
) -> None:
    first, second = two
    first.upsert_items([ItemChange(item_id=f"old{n}", kind="video") for n in range(60)])
    first.upsert_items(ItemChange(item_id=item_id(1), available=False))
    until(lambda: min(client.status().live["num_sealed"] for client in two) >= 60, 20.0)
    redis.client.flushall()
    for client in two:
        until(partial(shows, client, "old0", False), 5.0)
        until(partial(shows, client, item_id(1), True), 5.0)
    first.upsert_items(ItemChange(item_id="new", kind="video"))
    until(lambda: shown(second, "new") and not shown(second, "old59"), 1.0)
    assert "the store has lost items" in (tmp_path / "b.log").read_text()


def test_a_redis_that_lost_its_end_is_read_anew(
    two: tuple[Client, Client], redis: RedisProcess, tmp_path: Path
) -> None:
    first, second = two
    first.upsert_items([ItemChange(item_id=f"old{n}", kind="video") for n in range(30)])
    shutil.copytree(redis.folder / "appendonlydir", tmp_path / "older")
    first.upsert_items([ItemChange(item_id=f"lost{n}", kind="video") for n in range(60)])
    first.upsert_items(ItemChange(item_id="old0", available=False))
    until(lambda: min(client.status().live["num_sealed"] for client in two) >= 89, 20.0)
    until(lambda: not shown(second, "old0"), 1.0)
    redis.kill()
    shutil.rmtree(redis.folder / "appendonlydir")
    shutil.copytree(tmp_path / "older", redis.folder / "appendonlydir")
    redis.start()
    # Others write at once, beyond the numbers that were lost.
    with contextlib.closing(open_redis(redis.url)) as other:
        changes = [ItemChange(item_id=f"new{n}", kind="video") for n in range(100)]
        other.items.upsert([Upsert(change, False, 0, None, "") for change in changes])
    for client in two:
        for item, there in (("new99", True), ("new0", True), ("old0", True), ("lost59", False)):
            until(partial(shows, client, item, there), 10.0)
    # What is sealed from then on is of what there is.
    until(lambda: min(client.status().live["num_sealed"] for client in two) >= 130, 20.0)
    assert shown(first, "new99") and shown(first, "old0") and not shown(first, "lost0")


def test_a_server_names_what_is_wrong_with_its_store(world: World, tmp_path: Path) -> None:
    with running_redis(tmp_path / "weak", "--appendonly", "no") as weak:
        where = ("--state", str(tmp_path / "s"), "--port", "0", "--store")
        url = weak.url.replace("//", "//default:@")
        done = penchant("serve", str(world.bundle), *where, url)
        assert done.returncode == 2 and "appendonly is no" in done.stderr
        assert "--store-allows-loss" in done.stderr and "***@" in done.stderr
        log = tmp_path / "log"
        with (
            serve(
                *(world.bundle, tmp_path / "s", log, "--store", weak.url, "--store-allows-loss"),
            ) as served,
            Client(served.address) as client,
        ):
            assert client.record_events([Event("u", item_id(1), "watch")]).num_taken == 1
    done = penchant("serve", str(world.bundle), *where, weak.url)
    assert done.returncode == 2 and f"cannot read {weak.url}" in done.stderr
    told = penchant("serve", "--help").stdout
    assert "--store-allows-loss" in told and "[redis]" in told
    done = penchant("load-users", str(world.snapshot))
    assert done.returncode == 2 and "give --state STATE, or a --store" in done.stderr
