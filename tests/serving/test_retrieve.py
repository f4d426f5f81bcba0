"""Retrieve, through the client, against answers worked out from the fixture's vectors."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest

from serving.client import Client
from serving.domain import AnyOf, Filter, History, Not, Range, UserQuery
from serving.results import Retrieved
from tests.serving.processes import Served
from tests.serving.tiny import CITIES, DIM, MAX_HISTORY, START, World, item_id


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    with Client(server.address, timeout=10) as client:
        yield client


def row(name: str) -> int:
    return int(name.removeprefix("item-"))


def want(
    world: World, interests: np.ndarray, k: int, allowed: list[int] | None = None
) -> list[str]:
    """Two interests take turns, the better first, each item once."""
    allowed = list(range(world.num_active)) if allowed is None else allowed
    lists = [world.nearest(interest, allowed) for interest in interests]
    taken: dict[str, None] = {}
    for pair in zip(*lists, strict=True):
        best = {
            name: max(float(world.vectors[row(name)] @ interest) for interest in interests)
            for name in pair
        }
        taken.update(dict.fromkeys(sorted(best, key=lambda name: -best[name])))
    return list(taken)[:k]


def of_user(world: World, user: int) -> np.ndarray:
    return world.interests(world.histories[f"user-{user:03d}"], city=("", *CITIES)[user % 3])


@pytest.mark.parametrize("user", [3, 5, 6, 7, 39, 119])
def test_stored_user(client: Client, world: World, user: int) -> None:
    found = client.retrieve(f"user-{user:03d}", k=10)
    interests = of_user(world, user)
    assert found.item_ids == want(world, interests, 10)
    assert found.counts.tolist() == [10]
    assert found.cold.tolist() == [False]
    assert found.history_lengths.tolist() == [min(user % 40, MAX_HISTORY)]
    for name, score, interest in zip(found.item_ids, found.scores, found.interests, strict=True):
        assert score == pytest.approx(world.vectors[row(name)] @ interests[interest], abs=1e-5)
    assert found.source.left_out == () and len(found.source.bundle_version) == 64


def test_circles_are_named(client: Client) -> None:
    found = client.retrieve("user-007", k=50)
    names = ["", "flutes", "银饰", "mushrooms"]
    assert found.circles == [names[row(name) % 4] for name in found.item_ids]


def test_history_in_the_request(client: Client, world: World) -> None:
    rows = world.histories["user-039"]
    ids = [item_id(i) for i in rows]
    plain = client.retrieve(UserQuery(history=History(ids)), k=10)
    assert plain.item_ids == want(world, world.interests(rows), 10)
    full = History(ids, ["watch"] * len(ids), [1_700_000_000_000_000 + i for i in range(len(ids))])
    lived = client.retrieve(UserQuery(history=full, profile={"city": "Suzhou"}), k=10)
    assert lived.item_ids == want(world, world.interests(rows, city="Suzhou"), 10)


def test_parts_of_a_history_that_cannot_be_used_are_reported(client: Client, world: World) -> None:
    history = History(
        [item_id(1), "no-such-item", item_id(2), item_id(3)],
        ["watch", "watch", "impression", "order"],
    )
    found = client.retrieve(
        [UserQuery(history=History([item_id(9)])), UserQuery(history=history)], k=5
    )
    assert found.history_lengths.tolist() == [1, 2]
    assert [(e.index, e.code, e.field) for e in found.errors] == [
        (1, "UNKNOWN_ITEM", "queries[1].history.item_ids[1]"),
        (1, "EVENT_NOT_IN_HISTORY", "queries[1].history.events[2]"),
    ]
    assert "no-such-item" in found.errors[0].message
    assert found.item_ids[found.query(1)] == want(world, world.interests([1, 3]), 5)


def test_only_so_many_parts_left_aside_are_named(client: Client) -> None:
    history = UserQuery(history=History(["x"] * 70, ["impression"] * 70))
    found = client.retrieve([history, UserQuery(history=History(["y"] * 9000))], k=1)
    assert len(found.errors) == 101
    assert found.errors[-1].code == "MORE_ERRORS"
    assert found.errors[-1].message.startswith(f"{70 + 70 + 9000 - 100} more parts")
    exactly = client.retrieve(UserQuery(history=History(["x"] * 100)), k=1)
    assert [error.code for error in exactly.errors] == ["UNKNOWN_ITEM"] * 100


def test_batch_equals_one_by_one(client: Client, world: World) -> None:
    users = [f"user-{u:03d}" for u in range(0, 120, 7)] + ["nobody"]
    batch = client.retrieve(users, k=7)
    for i, user in enumerate(users):
        alone = client.retrieve(user, k=7)
        assert batch.item_ids[batch.query(i)] == alone.item_ids
        np.testing.assert_allclose(batch.scores[batch.query(i)], alone.scores, atol=1e-5)
        assert batch.cold[i] == alone.cold[0]


@pytest.mark.parametrize("user", ["nobody", "user-000", ""])
def test_who_is_not_known_is_cold_and_answered(client: Client, world: World, user: str) -> None:
    query: str | UserQuery = user or UserQuery(history=History([]))
    found = client.retrieve(query, k=8)
    assert found.cold.tolist() == [True] and found.history_lengths.tolist() == [0]
    assert found.item_ids == want(world, world.interests([]), 8)


def test_a_history_of_nothing_known_is_cold(client: Client) -> None:
    found = client.retrieve(UserQuery(history=History(["x", "y"])), k=3)
    assert found.cold.tolist() == [True] and len(found.errors) == 2


def micros(hours: float) -> int:
    """A moment so many hours after the first event of each stored history."""
    return int((START + timedelta(hours=hours)).timestamp()) * 1_000_000


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_events_after_the_requests_time_are_not_used(
    client: Client, world: World, exclude_seen: bool
) -> None:
    rows = world.histories["user-039"]
    early = client.retrieve(["user-039", "nobody"], k=9, time_us=1, exclude_seen=exclude_seen)
    assert early.cold.tolist() == [True, True] and early.history_lengths.tolist() == [0, 0]
    assert early.item_ids[early.query(0)] == early.item_ids[early.query(1)]
    # Ten events in, of which the tower reads the newest.
    found = client.retrieve(
        "user-039", k=9, time_us=micros(9.5), num_history=20, exclude_seen=exclude_seen
    )
    assert found.history is not None
    assert found.history.item_ids == [item_id(i) for i in rows[:10]]
    allowed = [i for i in range(world.num_active) if not exclude_seen or i not in rows[:10]]
    assert found.item_ids == want(world, world.interests(rows[:10]), 9, allowed)
    embedded = client.embed_users("user-039", time_us=micros(9))
    np.testing.assert_allclose(embedded.interests[0], world.interests(rows[:10]), atol=1e-5)


def test_a_history_in_the_request_ends_at_its_time(client: Client, world: World) -> None:
    history = History([item_id(3), item_id(8), item_id(9)], ["order"] * 3, [5, 6, 7])
    found = client.retrieve(UserQuery(history=history), k=5, time_us=6)
    assert found.history_lengths.tolist() == [2]
    assert found.item_ids == want(world, world.interests([3, 8]), 5)
    timeless = UserQuery(history=History(history.item_ids))
    assert client.retrieve(timeless, k=5, time_us=6).history_lengths.tolist() == [3]


FILTERS: list[tuple[list[Filter], Callable[[World, int], bool]]] = [
    ([AnyOf("kind", ("video", "live"))], lambda w, i: w.kinds[i] in ("video", "live")),
    (
        [AnyOf("craft", ("silver",)), Range("price", 100, None)],
        lambda w, i: w.crafts[i] == "silver" and (w.prices[i] or 0) >= 100,
    ),
    (
        [Not(AnyOf("tags", ("t0", "t1", "t2")))],
        lambda w, i: not {"t0", "t1", "t2"} & set(w.tags[i]),
    ),
    ([Range("price", 17, 17)], lambda w, i: w.prices[i] == 17),
    ([Range("price", 9000, None)], lambda w, i: False),
]


@pytest.mark.parametrize(("filters", "holds"), FILTERS)
def test_filters(
    client: Client, world: World, filters: list[Filter], holds: Callable[[World, int], bool]
) -> None:
    allowed = [i for i in range(world.num_active) if holds(world, i)]
    found = client.retrieve("user-005", k=20, filters=filters)
    assert found.item_ids == want(world, of_user(world, 5), 20, allowed)
    assert found.counts.tolist() == [min(20, len(allowed))]


def test_excluded_items(client: Client, world: World) -> None:
    first = client.retrieve("user-005", k=5).item_ids
    query = UserQuery("user-005", exclude_item_ids=[*first, "no-such-item"])
    allowed = [i for i in range(world.num_active) if item_id(i) not in first]
    assert client.retrieve(query, k=5).item_ids == want(world, of_user(world, 5), 5, allowed)


@pytest.mark.parametrize("user", [5, 39, 79])
def test_seen_items_are_left_out_exactly(client: Client, world: World, user: int) -> None:
    # More of the history is seen than the tower reads.
    seen = set(world.histories[f"user-{user:03d}"])
    assert user == 5 or len(seen) > MAX_HISTORY
    allowed = [i for i in range(world.num_active) if i not in seen]
    found = client.retrieve(f"user-{user:03d}", k=1000, exclude_seen=True)
    assert sorted(map(row, found.item_ids)) == allowed


def test_seen_items_of_a_history_in_the_request(client: Client) -> None:
    ids = [item_id(i) for i in range(0, 580, 2)]
    found = client.retrieve(UserQuery(history=History(ids)), k=1000, exclude_seen=True)
    assert sorted(found.item_ids) == [item_id(i) for i in range(1, 580, 2)]


def test_vectors_as_the_query(client: Client, world: World) -> None:
    vectors = world.vectors[[3, 77, 140]]
    found = client.retrieve(UserQuery(vectors=vectors), k=6)
    assert found.item_ids[:3] == [item_id(i) for i in (3, 77, 140)] or set(found.item_ids[:3]) == {
        item_id(i) for i in (3, 77, 140)
    }
    assert found.cold.tolist() == [False] and set(found.interests) <= {0, 1, 2}
    mixed = client.retrieve([UserQuery(vectors=vectors), "user-005"], k=6)
    assert mixed.item_ids[mixed.query(0)] == found.item_ids
    assert mixed.item_ids[mixed.query(1)] == want(world, of_user(world, 5), 6)


def test_embedded_users_retrieve_the_same(client: Client, world: World) -> None:
    users = ["user-005", "user-039", "nobody"]
    embedded = client.embed_users(users)
    assert embedded.interests.shape == (3, 2, DIM)
    np.testing.assert_allclose(embedded.interests[0], of_user(world, 5), atol=1e-5)
    assert embedded.cold.tolist() == [False, False, True]
    for i, user in enumerate(users):
        by_vector = client.retrieve(UserQuery(vectors=embedded.interests[i]), k=9)
        assert by_vector.item_ids == client.retrieve(user, k=9).item_ids


def test_objective(client: Client, world: World) -> None:
    found = client.retrieve("user-005", k=9, objective="direct")
    assert found.item_ids == want(world, -of_user(world, 5), 9)
    embedded = client.embed_users("user-005", objective="direct")
    np.testing.assert_allclose(embedded.interests[0], -of_user(world, 5), atol=1e-5)


def test_fields(client: Client, world: World) -> None:
    found = client.retrieve("user-005", k=30, fields=["price", "title", "tags", "craft", "kind"])
    rows = [row(name) for name in found.item_ids]
    assert list(found.columns) == ["price", "title", "tags", "craft", "kind"]
    assert found.columns["title"] == [f"题 {i}" for i in rows]
    assert found.columns["kind"] == [world.kinds[i] for i in rows]
    assert found.columns["tags"] == [world.tags[i] for i in rows]
    assert found.columns["craft"] == [world.crafts[i] or "" for i in rows]
    prices = [np.nan if world.prices[i] is None else world.prices[i] for i in rows]
    np.testing.assert_array_equal(np.asarray(found.columns["price"]), np.array(prices, float))


def test_the_history_itself(client: Client, world: World) -> None:
    found = client.retrieve(
        ["user-005", "nobody", "user-039"], k=1, num_history=8, fields=["title"]
    )
    shown = found.history
    assert shown is not None
    rows = world.histories["user-005"] + world.histories["user-039"][-8:]
    assert shown.item_ids == [item_id(i) for i in rows]
    assert shown.counts.tolist() == [5, 0, 8]
    assert shown.columns["title"] == [f"题 {i}" for i in rows]
    assert shown.events[:5] == ["watch", "watch", "order", "watch", "watch"]
    assert (np.diff(shown.timestamps_us[:5]) == 3_600_000_000).all()
    inline = client.retrieve(
        UserQuery(history=History(["x", item_id(4)])), k=1, num_history=5, fields=["title"]
    )
    assert inline.history is not None
    assert inline.history.columns["title"] == ["", "题 4"]
    assert not len(inline.history.timestamps_us)


def test_requests_at_once_get_their_own_answers(client: Client, world: World) -> None:
    def ask(i: int) -> tuple[int, Retrieved]:
        user = i % 120
        filters = [AnyOf("kind", ("video",))] if i % 3 == 0 else []
        return user, client.retrieve(f"user-{user:03d}", k=1 + i % 9, filters=filters)

    videos = [i for i in range(world.num_active) if world.kinds[i] == "video"]
    with ThreadPoolExecutor(16) as pool:
        for i, (user, found) in enumerate(pool.map(ask, range(300))):
            allowed = videos if i % 3 == 0 else None
            assert found.item_ids == want(world, of_user(world, user), 1 + i % 9, allowed)
