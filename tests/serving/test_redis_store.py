"""The store in a real Redis: what it refuses, what it keeps, what lies in it, and damage."""

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.errors import ConfigError
from model.items import hash_ids
from serving.config import ServerConfig
from serving.domain import Event, ItemChange
from serving.errors import StoreUnavailable
from serving.store.base import Outcome, StoredHistory, check_store
from serving.store.choice import Store, open_redis
from serving.store.chunks import CHUNK_EVENTS
from serving.store.item_log import Upsert
from serving.store.redis_server import RedisServer, masked
from tests.redis_process import KEEPS_ALL, RedisProcess, running_redis

MOST = 3 * CHUNK_EVENTS
TAKEN, DUPLICATE = Outcome.TAKEN, Outcome.DUPLICATE


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis"), *KEEPS_ALL) as process:
        yield process


@pytest.fixture
def redis(shared: RedisProcess) -> RedisProcess:
    shared.client.flushall()
    return shared


@pytest.fixture
def store(redis: RedisProcess) -> Iterator[Store]:
    opened = open_redis(redis.url, most_events=MOST)
    yield opened
    opened.close()


def event(name: str, time: int, *, user: str = "u", event: str = "watch") -> Event:
    return Event(user, f"item {name}", event, name, time)


def record(store: Store, *events: Event, since: int = 0) -> list[Outcome]:
    return store.users.record(events, since_us=since, negative={"hide"}).result(20)


def stored(store: Store, user: str = "u", limit: int | None = None) -> StoredHistory:
    found = store.users.read(user, limit=limit, others=True)
    assert found is not None
    return found


def upsert(item_id: str) -> Upsert:
    return Upsert(ItemChange(item_id=item_id, kind="product"), False, 0, None, "")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--appendonly", "no"), "appendonly is no"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "appendfsync is everysec"),
        (
            (*KEEPS_ALL, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
            "maxmemory-policy is allkeys-lru",
        ),
    ],
)
def test_a_redis_that_may_lose_writes_is_refused(
    tmp_path: Path, options: tuple[str, ...], fault: str
) -> None:
    with running_redis(tmp_path / "redis", *options) as redis:
        with pytest.raises(ConfigError) as refused:
            open_redis(redis.url)
        assert fault in str(refused.value)
        assert "appendonly yes, appendfsync always" in str(refused.value)
        assert "--store-allows-loss" in str(refused.value)
        opened = open_redis(redis.url, allows_loss=True)
        assert record(opened, event("1", 1)) == [TAKEN]
        opened.close()


def test_a_redis_that_does_not_say_whether_it_keeps_writes_is_refused(redis: RedisProcess) -> None:
    redis.client.acl_setuser(
        "shop",
        enabled=True,
        passwords=["+word"],
        keys="*",
        categories=["+@all"],
        commands=["-config"],
    )
    url = redis.url.replace("redis://", "redis://shop:word@")
    with pytest.raises(ConfigError, match="Allow this user CONFIG GET") as refused:
        open_redis(url)
    assert "word" not in str(refused.value)
    opened = open_redis(url, allows_loss=True)
    assert record(opened, event("1", 1)) == [TAKEN]
    assert "word" not in opened.name
    opened.close()


def test_no_secret_is_shown(redis: RedisProcess) -> None:
    assert masked("rediss://me:secret@host:1/2?password=secret") == "rediss://***@host:1/2"
    url = f"redis://me:secret@127.0.0.1:{redis.port}/0"
    with pytest.raises(StoreUnavailable) as refused:
        open_redis(url)
    assert "secret" not in str(refused.value) and "***@127.0.0.1" in str(refused.value)
    with pytest.raises(ConfigError) as unreadable:
        open_redis("redis://me:sec/ret@host:x/0?password=ret")
    assert "ret" not in str(unreadable.value) and "***@host:x/0 cannot" in str(unreadable.value)
    config = ServerConfig(bundle=Path("b"), state=Path("s"), store=url)
    assert "secret" not in repr(config)
    assert ServerConfig.from_json(config.to_json()).store == url


@pytest.mark.parametrize("given", ["postgres://me:secret@host", "me:secret@host", "redis", ""])
def test_what_names_no_store_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="allowed: sqlite, redis://HOST:PORT/DB") as refused:
        check_store(given)
    assert "secret" not in str(refused.value)


def test_nobody_there(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis", *KEEPS_ALL) as redis:
        redis.kill()
        with pytest.raises(StoreUnavailable, match=f"redis://127.0.0.1:{redis.port}/0"):
            open_redis(redis.url)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'penchant\[redis\]'"):
        open_redis("redis://127.0.0.1:1/0")


def test_a_store_of_another_format_is_refused(redis: RedisProcess) -> None:
    redis.client.hset("penchant:store", mapping={"format": 99, "id": "0" * 16})
    with pytest.raises(StoreUnavailable, match="not a store of format 1"):
        open_redis(redis.url)


def test_all_that_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis", *KEEPS_ALL) as redis:
        store = open_redis(redis.url, most_events=MOST)
        taken: list[str] = []
        items: list[str] = []
        failed: list[Exception] = []

        def write() -> None:
            n = 0
            while not failed:
                try:
                    assert record(store, event(str(n), n, user=f"u{n % 7}")) == [TAKEN]
                    taken.append(str(n))
                    store.items.upsert([upsert(f"i{n}")])
                    items.append(f"i{n}")
                except StoreUnavailable as error:
                    failed.append(error)
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        while len(items) < 150 and writer.is_alive():
            writer.join(0.02)
        redis.kill()
        writer.join()
        assert len(items) >= 150 and str(redis.port) in str(failed[0])
        for ask in (lambda: stored(store, "u0"), store.items.newest, store.items.changes):
            with pytest.raises(StoreUnavailable):
                ask()
        redis.start()
        kept = {one for n in range(7) for one in stored(store, f"u{n}").item_ids}
        assert {f"item {name}" for name in taken} <= kept
        assert set(store.items.read(items)) == set(items)
        logged = [
            json.loads(body)["event_id"] for _, body in store.events.rows(0, 9999, limit=9999)
        ]
        assert set(taken) <= set(logged) and len(set(logged)) == len(logged)
        # What was under way is sent again, and taken once.
        last = int(taken[-1]) + 1
        again = record(store, event(str(last), last, user=f"u{last % 7}"))
        assert again == [DUPLICATE if f"item {last}" in kept else TAKEN]
        store.close()


def test_a_full_redis_takes_a_write_whole_or_not_at_all(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis", *KEEPS_ALL, "--maxmemory", "6mb") as redis:
        store = open_redis(redis.url, most_events=MOST)
        num, text = 0, "x" * 10_000

        def few(number: int) -> list[Event]:
            return [event(f"{number} {n}", n, user=f"u{number} {n} {text}") for n in range(5)]

        with pytest.raises(StoreUnavailable, match="maxmemory"):
            while num < 10_000:
                assert record(store, *few(num)) == [TAKEN] * 5
                num += 1
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            store.items.upsert([upsert("a"), upsert("b" * 500_000)])
        assert store.users.num_users() == 5 * num == store.events.next_part(0, 10**6)[1]  # type: ignore[index]
        assert store.users.read(f"u{num} 0 {text}", limit=1) is None
        assert (store.items.newest(), store.items.read(["a"])) == (0, {})
        assert stored(store, f"u{num - 1} 4 {text}").item_ids == [f"item {num - 1} 4"]
        redis.client.config_set("maxmemory", "0")
        assert record(store, *few(num)) == [TAKEN] * 5
        assert store.items.upsert([upsert("a")]) == (1, {})
        store.close()


def test_a_store_that_was_emptied_is_another_store(redis: RedisProcess, store: Store) -> None:
    record(store, event("1", 1), event("2", 2, event="hide"))
    store.items.upsert([upsert("a"), upsert("b")])
    feed, changes = store.items.feed, store.items.changes()
    redis.client.flushall()
    assert store.users.read("u", limit=1) is None
    assert store.items.changes() != changes and store.items.feed != feed
    assert not store.items.holds(2, "b")
    record(store, event("1", 1, event="hide"))
    assert [store.users.event_names[code] for code in stored(store).events] == ["hide"]


def test_a_feed_that_lost_its_end_does_not_hold_it(redis: RedisProcess, store: Store) -> None:
    number, _ = store.items.upsert([upsert("a"), upsert("b")])
    assert store.items.holds(number, "b") and store.items.holds(number, "")
    assert store.items.holds(number - 1, "a")
    redis.client.set("penchant:sequence", 1)
    redis.client.zrem("penchant:items", "b")
    assert not store.items.holds(number, "")
    store.items.upsert([upsert("c"), upsert("d")])  # and others wrote since
    assert not store.items.holds(number, "b") and store.items.holds(number + 1, "d")


def test_many_writers_of_one_user(redis: RedisProcess, store: Store) -> None:
    stores = [store, *(open_redis(redis.url, most_events=MOST) for _ in range(3))]
    futures = [
        one.users.record([event(str(n), n)], since_us=0, negative=())
        for n in range(200)
        for one in stores
    ]
    outcomes = [future.result(30)[0] for future in futures]
    assert outcomes.count(TAKEN) == 200 and outcomes.count(DUPLICATE) == 600
    assert stored(store).item_ids == [f"item {n}" for n in range(200)]
    for one in stores[1:]:
        one.close()


def test_every_thread_of_a_worker_may_wait_at_once(redis: RedisProcess) -> None:
    server = RedisServer(redis.url)
    with ThreadPoolExecutor(150) as threads:
        found = threads.map(lambda n: server.ask("BLPOP", f"nothing {n}", 1), range(150))
        assert list(found) == [None] * 150
    server.close()


def test_a_deleted_user_is_in_no_key(redis: RedisProcess, store: Store) -> None:
    store.users.put_profiles([("ann", '{"city": "Guiyang"}')])
    record(store, *[event(f"secret-{n}", n, user="ann") for n in range(2 * MOST)])
    record(store, event("1", 1, user="bob"))
    assert store.users.delete_user("ann", now_us=10_000)
    keys = sorted(key for key in redis.client.scan_iter())
    dumps = b"".join(bytes(redis.client.dump(key) or b"") for key in keys)
    assert b"secret-" not in dumps and b"Guiyang" not in dumps and b"ann" not in dumps
    assert not any(b"ann" in key for key in keys)


def chunks(redis: RedisProcess, letter: str) -> dict[str, bytes]:
    """Of the user u, by their number, the values of one of their columns."""
    fields: dict[bytes, bytes] = redis.client.hgetall("penchant:user:u")  # type: ignore[assignment]
    return {
        k.decode()[:-1]: v
        for k, v in fields.items()
        if k.endswith(letter.encode()) and k[:-1].isdigit()
    }


def test_late_events_move_no_more_than_they_must(redis: RedisProcess, store: Store) -> None:
    record(store, *[event(f"{n:04d}", 10 * n) for n in range(300)])
    before = chunks(redis, "d")
    record(store, event("late", 2005))
    after = chunks(redis, "d")
    assert [number for number in sorted(after) if after[number] != before[number]] == ["1", "2"]
    assert sorted(len(json.loads(text)) for text in after.values()) == [45, 128, 128]


def test_only_what_reaches_into_the_horizon_is_compared(redis: RedisProcess, store: Store) -> None:
    record(store, *[event(f"old {n}", n) for n in range(2 * CHUNK_EVENTS)])
    redis.client.hset("penchant:user:u", "0d", b"no JSON")
    assert record(store, event("new", 10**6), since=10**5) == [TAKEN]
    assert record(store, event("new", 10**6 + 1), since=10**5) == [DUPLICATE]


def test_what_is_let_go_of_is_summed_up(redis: RedisProcess, store: Store) -> None:
    for start in range(0, 1000, 37):
        end = min(start + 37, 1000)
        record(store, *[event(str(n), 100 + n) for n in range(start, end)])
    num_gone = 1000 - len(stored(store).item_ids)
    about = json.loads(redis.client.hget("penchant:user:u", "let_go") or b"")
    assert about["num_events"] == num_gone > 0 and json.loads(about["counts"]) == {
        "watch": num_gone
    }
    assert (about["first_us"], about["last_us"]) == (100, 100 + num_gone - 1)
    seen = stored(store, limit=None).others
    assert seen.tolist() == hash_ids([f"item {n}" for n in range(num_gone)]).tolist()
    assert sorted(map(int, chunks(redis, "e"))) == list(range(num_gone // CHUNK_EVENTS, 8))


@pytest.mark.parametrize(
    ("field", "value"),
    [("0i", b'["i0", '), ("0i", b'["i0"]'), ("0e", b"\x01\x02\x03"), ("0t", None), ("0i", b"\xff")],
)
def test_damage_is_one_users(
    redis: RedisProcess, store: Store, field: str, value: bytes | None
) -> None:
    for user in ("u", "v"):
        record(store, *[event(str(n), n, user=user) for n in range(3)])
    if value is None:
        redis.client.hdel("penchant:user:v", field)
    else:
        redis.client.hset("penchant:user:v", field, value)
    with pytest.raises(StoreUnavailable, match="is damaged where it holds user 'v'"):
        store.users.read("v", limit=None)
    late = [event("late", 1, user=user, event="gift") for user in ("v", "u")]
    assert record(store, *late) == [Outcome.DAMAGED, TAKEN]
    assert [store.users.event_names[code] for code in stored(store).events[-2:]] == [
        "gift",
        "watch",
    ]
