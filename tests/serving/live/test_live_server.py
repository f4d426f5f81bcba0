"""Live items and activation on a real server with two workers: what one worker wrote, both show."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from penchant import Client
from serving.domain import (
    AnyOf,
    Event,
    ExposureFloor,
    History,
    ItemChange,
    NewItems,
    SlateRules,
    UserQuery,
)
from serving.errors import BadRequest
from tests.serving.processes import Served, penchant, serve
from tests.serving.tiny import DIM, World, item_id, make_world

Float32 = npt.NDArray[np.float32]

ALL = 600


@pytest.fixture(scope="module")
def server(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("live")
    arguments = ("--workers", "2", "--drain-pause", "0.1")
    with serve(world.bundle, folder / "state", folder / "server.log", *arguments) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.address, num_channels=8, timeout=10) as client:
        yield client


def everywhere(client: Client, holds: Callable[[Client], bool], seconds: float = 20.0) -> None:
    """Wait until it holds on every worker: 16 calls in a row, over 8 connections."""
    patience = time.monotonic() + seconds
    in_a_row = 0
    while in_a_row < 16:
        assert time.monotonic() < patience, "not on every worker in time"
        in_a_row = in_a_row + 1 if holds(client) else 0


def shown(client: Client, item: str) -> bool:
    found = client.retrieve(UserQuery(vectors=np.ones((1, DIM), np.float32)), k=ALL)
    return item in found.item_ids


def test_a_new_item_graduates_by_what_people_do(client: Client) -> None:
    """From its upsert on it is in the floor of new items, on every worker; with 20 events of
    histories, told to whatever worker, it is not any more."""
    client.upsert_items(
        ItemChange(item_id="kite", kind="product", features={"title": "a kite", "craft": "kites"})
    )
    only = (AnyOf("craft", ("kites",)),)
    slate = SlateRules(floors=(ExposureFloor(NewItems(), 1.0),))

    def is_new(client: Client) -> bool | None:
        found = client.recommend("somebody", k=1, filters=only, slate=slate)
        return not found.errors if found.item_ids == ["kite"] else None

    everywhere(client, lambda c: is_new(c) is True)
    now = time.time_ns() // 1000
    for n in range(19):
        client.record_events(Event(f"fan-{n}", "kite", "watch", f"kite-{n}", now + n))
    # An impression is no event of a history, however many there are.
    seen = [Event(f"fan-{n}", "kite", "impression", f"seen-{n}", now) for n in range(40)]
    client.record_events(seen)
    time.sleep(1.5)
    everywhere(client, lambda c: is_new(c) is True)
    client.record_events(Event("fan-19", "kite", "order", "kite-19", now))
    everywhere(client, lambda c: is_new(c) is False)
    client.delete_items("kite")


def test_a_new_item_is_shown_changed_hidden_and_deleted(client: Client) -> None:
    new = ItemChange(
        item_id="lamp", kind="product", features={"title": "灯", "craft": "jade", "price": 7.0}
    )
    written = client.upsert_items(new)
    assert (written.num_taken, written.errors) == (1, ())
    everywhere(client, lambda c: shown(c, "lamp"))
    found = client.retrieve(
        UserQuery(vectors=np.ones((1, DIM), np.float32)),
        k=ALL,
        filters=[AnyOf("craft", ("jade",))],
        fields=["title", "price", "kind"],
    )
    assert found.item_ids == ["lamp"]
    assert found.columns["title"] == ["灯"] and found.columns["kind"] == ["product"]
    assert list(found.columns["price"]) == [7.0]
    # Its vector is the item tower's, and neighbours are found by its id.
    embedded = client.embed_items("lamp")
    assert found.scores[0] == pytest.approx(float(embedded.vectors[0].sum()), rel=1e-5)
    assert client.find_similar("lamp", k=3).counts.tolist() == [3]

    client.upsert_items(ItemChange(item_id="lamp", features={"price": 8.0}))
    everywhere(
        client,
        lambda c: (
            list(
                c.retrieve(
                    UserQuery(vectors=np.ones((1, DIM), np.float32)),
                    k=ALL,
                    filters=[AnyOf("craft", ("jade",))],
                    fields=["price"],
                ).columns["price"]
            )
            == [8.0]
        ),
    )
    client.upsert_items(ItemChange(item_id="lamp", available=False))
    everywhere(client, lambda c: not shown(c, "lamp"))
    client.upsert_items(ItemChange(item_id="lamp", available=True))
    everywhere(client, lambda c: shown(c, "lamp"))
    assert client.delete_items("lamp").num_taken == 1
    everywhere(client, lambda c: not shown(c, "lamp"))
    again = client.delete_items(["lamp", "nobody"])
    assert [error.code for error in again.errors] == ["UNKNOWN_ITEM", "UNKNOWN_ITEM"]


def test_an_item_of_the_bundle_is_replaced_by_what_changed(client: Client) -> None:
    before = client.embed_items(item_id(3)).vectors[0]
    client.upsert_items(ItemChange(item_id=item_id(3), features={"price": 12_345.0}))
    query = UserQuery(vectors=np.ones((1, DIM), np.float32))

    def changed(client: Client) -> bool:
        found = client.retrieve(query, k=ALL, fields=["price", "title"])
        prices = dict(zip(found.item_ids, found.columns["price"], strict=True))
        assert len(set(found.item_ids)) == len(found.item_ids)
        titles = dict(zip(found.item_ids, found.columns["title"], strict=True))
        return bool(prices[item_id(3)] == 12_345.0) and titles[item_id(3)] == "题 3"

    everywhere(client, changed)
    assert not np.allclose(client.embed_items(item_id(3)).vectors[0], before)


def test_an_item_expires_by_itself(client: Client) -> None:
    soon = time.time_ns() // 1000 + 700_000
    client.upsert_items(
        ItemChange(item_id="room", kind="live", expires_at_us=soon, features={"title": "直播"})
    )
    everywhere(client, lambda c: shown(c, "room"), seconds=0.6)
    time.sleep(0.5)
    everywhere(client, lambda c: not shown(c, "room"))


def test_a_room_follows_the_product_on_air(client: Client) -> None:
    room = ItemChange(item_id="room-2", kind="live", features={"title": "on air"})
    goods = [
        ItemChange(item_id=f"goods-{i}", kind="product", features={"price": 10.0**i})
        for i in range(2)
    ]
    client.upsert_items([room, *goods])
    everywhere(client, lambda c: shown(c, "goods-1"))

    def vector(item: str) -> Float32:
        found: Float32 = client.embed_items(item).vectors[0]
        return found

    def follows(goal: Float32) -> Callable[[Client], bool]:
        return lambda _: bool(np.allclose(vector("room-2"), goal, atol=1e-4))

    alone = vector("room-2")
    for product in ("goods-0", "goods-1"):
        client.upsert_items(ItemChange(item_id="room-2", links=[("on_air", product)]))
        goal = 0.5 * alone + 0.5 * vector(product)
        length = 0.5 * np.linalg.norm(alone) + 0.5 * np.linalg.norm(vector(product))
        goal *= length / np.linalg.norm(goal)
        everywhere(client, follows(goal))


def test_one_bad_item_does_not_spoil_the_rest(client: Client) -> None:
    changes = [
        ItemChange(item_id=f"bulk-{i}", kind="product", features={"price": float(i)})
        for i in range(1000)
    ]
    changes[17] = ItemChange(item_id="bulk-17", kind="spoon")
    changes[400] = ItemChange(item_id="bulk-400", kind="product", features={"price": float("nan")})
    changes[500] = ItemChange(item_id="bulk-500", kind="product", features={"colour": "red"})
    changes[600] = ItemChange(item_id="bulk-600", features={"price": 1.0})
    changes[700] = ItemChange(item_id="", kind="product")
    written = client.upsert_items(changes)
    assert written.num_taken == 995
    assert {error.index: (error.code, error.field) for error in written.errors} == {
        17: ("BAD_REQUEST", "items[17].kind"),
        400: ("BAD_REQUEST", "items[400].features"),
        500: ("UNKNOWN_FIELD", "items[500].features"),
        600: ("BAD_REQUEST", "items[600].kind"),
        700: ("BAD_REQUEST", "items[700].item_id"),
    }
    everywhere(client, lambda c: c.status().live["num_delta"] >= 995)
    client.delete_items([f"bulk-{i}" for i in range(1000) if i not in (17, 400, 500, 600, 700)])
    with pytest.raises(BadRequest, match="allowed: 1 to 1000"):
        client.upsert_items([])


def test_a_live_item_in_a_history_counts(client: Client) -> None:
    client.upsert_items(ItemChange(item_id="seen", kind="video", features={"price": 3.0}))
    everywhere(client, lambda c: shown(c, "seen"))
    query = UserQuery(history=History(["seen"]))
    found = client.retrieve(query, k=ALL, exclude_seen=True)
    assert not found.cold[0] and "seen" not in found.item_ids and not found.errors
    interests = client.embed_users(query).interests[0]
    np.testing.assert_allclose(interests[0], client.embed_items("seen").vectors[0], atol=1e-5)


def test_commands(server: Served, tmp_path: Path) -> None:
    lines = [
        {"item_id": "cli-1", "kind": "product", "features": {"title": "one", "tags": ["a"]}},
        {"item_id": "cli-2", "kind": "spoon"},
    ]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = penchant("upsert", str(file), "--address", server.address)
    assert done.returncode == 2 and "1 items written" in done.stdout
    assert "line 2: no kind 'spoon'; kinds: " in done.stderr
    done = penchant("delete-items", "cli-1", "--address", server.address)
    assert done.returncode == 0 and "1 items deleted" in done.stdout
    file.write_text('{"item_id": "a", "colour": 1}', encoding="utf-8")
    done = penchant("upsert", str(file), "--address", server.address)
    assert done.returncode == 2 and "line 1: unknown field 'colour'" in done.stderr


def test_live_items_survive_a_restart_and_a_seal(world: World, tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    arguments = ("--workers", "2", "--drain-pause", "0.1", "--seal-rows", "50")
    items = [
        ItemChange(item_id=f"new-{i}", kind="product", features={"price": float(i)})
        for i in range(300)
    ]
    with (
        serve(world.bundle, state, log, *arguments) as served,
        Client(served.address, num_channels=8) as client,
    ):
        for start in range(0, 300, 50):
            client.upsert_items(items[start : start + 50])
        client.delete_items([item_id(1), "new-0"])
        everywhere(client, lambda c: c.status().live["num_sealed"] >= 299, seconds=20)
        everywhere(client, lambda c: shown(c, "new-299") and not shown(c, item_id(1)))
        served.process.kill()
    with (
        serve(world.bundle, state, log, *arguments) as served,
        Client(served.address, num_channels=8) as client,
    ):
        found = client.retrieve(UserQuery(vectors=np.ones((1, DIM), np.float32)), k=1000)
        live = {one for one in found.item_ids if one.startswith("new-")}
        assert live == {f"new-{i}" for i in range(1, 300)}
        assert item_id(1) not in found.item_ids


def test_bundles_change_under_load_without_a_failure(world: World, tmp_path: Path) -> None:
    other = make_world(tmp_path / "other", seed=8)
    state, log = tmp_path / "state", tmp_path / "log"
    versions: dict[str, set[str]] = {}
    failures: list[Exception] = []
    stopping = threading.Event()
    query = UserQuery(vectors=np.ones((1, DIM), np.float32))

    def load(client: Client) -> None:
        while not stopping.is_set() and not failures:
            try:
                found = client.retrieve(query, k=5)
                versions.setdefault(found.source.bundle_version, set()).add(
                    f"{found.item_ids[0]} {found.scores[0]:.4f}"
                )
            except Exception as error:
                failures.append(error)

    @contextmanager
    def loaded(client: Client) -> Iterator[None]:
        threads = [threading.Thread(target=load, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join()

    with (
        serve(world.bundle, state, log, "--workers", "2", "--drain-pause", "0.1") as served,
        Client(served.address, num_channels=8) as client,
    ):
        client.upsert_items(ItemChange(item_id="kept", kind="video", features={"price": 1.0}))
        first = client.status().source.bundle_version
        with loaded(client):
            address = ("--address", served.address)
            for bundle in (other.bundle, world.bundle):
                done = penchant("activate", str(bundle), *address)
                assert done.returncode == 0, done.stderr
                everywhere(client, lambda c: shown(c, "kept"))
            done = penchant("rollback", *address)
            assert done.returncode == 0, done.stderr
            second = done.stdout.rpartition("(bundle ")[2][:12]
            everywhere(client, lambda c: c.status().source.bundle_version.startswith(second))
            # A worse one is refused, with the figures: its towers do not find what people did next.
            worse = make_world(tmp_path / "worse", seed=9, asked=world.vectors)
            serving_one = client.status().source.bundle_version
            if serving_one != first:
                assert penchant("activate", str(world.bundle), *address).returncode == 0
            done = penchant("activate", str(worse.bundle), *address)
            assert done.returncode == 2 and "recall@50 of head is 0." in done.stderr
            done = penchant("activate", str(other.bundle), *address)
            assert done.returncode == 0, done.stderr
            second = done.stdout.rpartition("(bundle ")[2][:12]
            # A damaged bundle leaves the active one serving, and says why.
            damaged = tmp_path / "damaged"
            shutil.copytree(world.bundle, damaged)
            (damaged / "vectors.npy").write_bytes(b"nothing")
            done = penchant("activate", str(damaged), *address)
            assert done.returncode == 2 and "vectors.npy has 7 bytes" in done.stderr
            everywhere(client, lambda c: c.status().source.bundle_version.startswith(second))
    assert not failures
    # Two bundles answered, each with its own best item and score every time: none was mixed.
    assert set(versions) >= {first} and len(versions) == 2
    assert all(len(answers) == 1 for answers in versions.values())
