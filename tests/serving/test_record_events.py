"""RecordEvents on real servers: taken once whoever is told, refused by name, counted at once."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from interest.v1 import ingest_service_pb2 as pb
from interest.v1 import ingest_service_pb2_grpc
from serving.client import AsyncClient, Client
from serving.config import Limits
from serving.domain import Event, History, UserQuery
from serving.errors import BadRequest
from serving.recording import MAX_AHEAD_US
from tests.serving.processes import Served, serve
from tests.serving.tiny import World, item_id

DAY = 86_400_000_000


def now() -> int:
    return time.time_ns() // 1000


@pytest.fixture(scope="module")
def live(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers over an empty store that the tests of this file write into."""
    folder = tmp_path_factory.mktemp("live")
    with serve(world.bundle, folder / "state", folder / "log", "--workers", "2") as served:
        yield served


@pytest.fixture(scope="module")
def workers(live: Served) -> Iterator[list[Client]]:
    """A client for each of the two workers."""
    found: dict[str, Client] = {}
    others: list[Client] = []
    while len(found) < 2:
        client = Client(live.address, timeout=10, num_channels=1)
        worker = client.retrieve("nobody", k=1).source.worker
        (others.append(client) if worker in found else found.setdefault(worker, client))
    yield list(found.values())
    for client in (*found.values(), *others):
        client.close()


def test_the_next_call_of_any_worker_reflects_it(workers: list[Client], world: World) -> None:
    one, other = workers
    rows = [11, 12, 13, 14]
    for i, row in enumerate(rows):
        writer, reader = (one, other) if i % 2 else (other, one)
        recorded = writer.record_events(Event("fresh", item_id(row), "watch"))
        assert (recorded.num_taken, recorded.num_duplicates, recorded.errors) == (1, 0, ())
        shown = reader.recommend("fresh", k=200)
        assert not shown.cold[0] and shown.history_lengths.tolist() == [i + 1]
        assert not set(shown.item_ids) & {item_id(r) for r in rows[: i + 1]}
        interests = reader.embed_users("fresh").interests[0]
        np.testing.assert_allclose(interests, world.interests(rows[: i + 1]), atol=1e-5)


def test_an_event_id_is_taken_once_by_all_workers_and_restarts(
    world: World, tmp_path: Path
) -> None:
    events = [Event(f"u{i % 3}", item_id(i), "watch", f"e{i // 3}") for i in range(30)]
    for restart in range(2):
        with serve(world.bundle, tmp_path / "state", tmp_path / "log", "--workers", "2") as served:
            for attempt in range(4):  # on a new connection each, to whichever worker
                with Client(served.address, timeout=10, num_channels=1) as client:
                    recorded = client.record_events(events)
                first = restart + attempt == 0
                assert recorded.num_taken == (30 if first else 0)
                assert recorded.num_duplicates == (0 if first else 30)
                assert recorded.errors == ()
            assert served.stop() == 0


def test_one_user_may_use_the_id_of_anothers_event(workers: list[Client]) -> None:
    same = [Event(user, item_id(1), "watch", "one-id") for user in ("ann", "bob", "ann")]
    recorded = workers[0].record_events(same)
    assert (recorded.num_taken, recorded.num_duplicates) == (2, 1)


def test_late_events_are_placed_by_time_and_sequence(workers: list[Client]) -> None:
    client, start = workers[0], now() - DAY

    def send(*events: tuple[int, int, int]) -> None:
        """(row, seconds, sequence) each."""
        given = [
            Event("late", item_id(r), "watch", timestamp_us=start + s * 10**6, sequence=q)
            for r, s, q in events
        ]
        assert client.record_events(given).num_taken == len(given)

    send((5, 50, 0), (1, 10, 1))
    send((3, 30, 0), (2, 10, 2), (0, 10, 0))
    history = workers[1].retrieve("late", k=1, num_history=9).history
    assert history is not None
    assert history.item_ids == [item_id(r) for r in (0, 1, 2, 3, 5)]


def test_what_is_not_wanted_is_not_shown_any_more(workers: list[Client], world: World) -> None:
    one, other = workers
    best = one.recommend("picky", k=5, include_seen=True).item_ids
    assert one.record_events(Event("picky", best[0], "hide")).num_taken == 1
    for client in workers:
        assert best[0] not in client.recommend("picky", k=500, include_seen=True).item_ids
        assert best[0] not in client.retrieve("picky", k=500).item_ids
        assert client.recommend("picky", k=1, include_seen=True).item_ids == [best[1]]
    ranked = other.rerank("picky", best)
    assert set(ranked.item_ids) == set(best[1:])
    assert [(error.code, error.field) for error in ranked.errors] == [
        ("REJECTED_ITEM", "item_ids[0]")
    ]
    moment = UserQuery("picky", moment=History([best[1]], ["hide"]))
    assert other.recommend(moment, k=1, include_seen=True).item_ids == [best[2]]


def test_an_item_may_come_after_its_event(workers: list[Client]) -> None:
    recorded = workers[0].record_events(Event("early", "not made yet", "watch"))
    assert (recorded.num_taken, recorded.errors) == (1, ())
    assert workers[0].retrieve("early", k=1).cold.tolist() == [True]


def valid() -> Event:
    return Event("strict", item_id(3), "watch", timestamp_us=now())


def with_(**values: object) -> Callable[[], Event]:
    def make() -> Event:
        event = valid()
        for name, value in values.items():
            setattr(event, name, value() if callable(value) else value)
        return event

    return make


@pytest.mark.parametrize(
    ("make", "code", "field", "words"),
    [
        (with_(user_id=""), "BAD_REQUEST", "user_id", "needs one"),
        (with_(item_id=""), "BAD_REQUEST", "item_id", "needs one"),
        (with_(item_id="x" * 257), "BAD_REQUEST", "item_id", "longer than 256 bytes"),
        (with_(user_id="竹" * 86), "BAD_REQUEST", "user_id", "longer than 256 bytes"),
        (with_(event_id="x" * 257), "BAD_REQUEST", "event_id", "longer than 256 bytes"),
        (with_(exposure_id="x" * 257), "BAD_REQUEST", "exposure_id", "longer than"),
        (with_(source_item_id="x" * 257), "BAD_REQUEST", "source_item_id", "longer than"),
        (with_(event="wacth"), "UNKNOWN_EVENT", "event", "declares: watch, order"),
        (with_(event=""), "UNKNOWN_EVENT", "event", "declares: watch, order"),
        (with_(timestamp_us=lambda: now() - 8 * DAY), "TOO_OLD", "timestamp_us", "8.0 days old"),
        (with_(timestamp_us=-5), "TOO_OLD", "timestamp_us", "days old"),
        (with_(timestamp_us=-(2**63)), "TOO_OLD", "timestamp_us", "at most 7 days"),
        (with_(timestamp_us=2**63 - 1), "CLOCK_SKEW", "timestamp_us", "in the future"),
        (
            with_(timestamp_us=lambda: now() + 2 * MAX_AHEAD_US),
            "CLOCK_SKEW",
            "timestamp_us",
            "give microseconds",
        ),
        (with_(value=float("nan")), "BAD_REQUEST", "value", "leave out what is not known"),
        (with_(value=float("-inf")), "BAD_REQUEST", "value", "leave out"),
        (with_(position=-1), "BAD_REQUEST", "position", "0 to 2147483647"),
        (with_(position=2**31), "BAD_REQUEST", "position", "the first place is 0"),
        (with_(propensity=1.5), "BAD_REQUEST", "propensity", "0 to 1"),
        (with_(propensity=float("nan")), "BAD_REQUEST", "propensity", "0 to 1"),
    ],
)
def test_a_broken_event_is_named_and_the_others_are_taken(
    workers: list[Client], make: Callable[[], Event], code: str, field: str, words: str
) -> None:
    recorded = workers[0].record_events([valid(), make(), valid()])
    assert (recorded.num_taken, recorded.num_duplicates) == (2, 0)
    (error,) = recorded.errors
    assert (error.index, error.code, error.field) == (1, code, f"events[1].{field}")
    assert words in error.message


def test_the_edges_are_allowed(workers: list[Client]) -> None:
    edges: list[dict[str, object]] = [
        {"value": -1e308, "position": 0, "propensity": 0.0, "sequence": -(2**63)},
        {"value": 0.0, "position": 2**31 - 1, "propensity": 1.0, "sequence": 2**63 - 1},
        {"item_id": "x" * 256, "event_id": "竹" * 85, "exposure_id": "x" * 256},
        {"timestamp_us": now() - 7 * DAY + 60_000_000},
        {"timestamp_us": now() + MAX_AHEAD_US - 60_000_000},
        {"timestamp_us": 0},
        {"item_id": "null\x00", "event_id": '", "'},
    ]
    recorded = workers[0].record_events([with_(**values)() for values in edges])
    assert (recorded.num_taken, recorded.errors) == (len(edges), ())


def test_an_event_without_an_id_is_refused_by_the_server(live: Served) -> None:
    with grpc.insecure_channel(live.address) as channel:
        stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
        event = pb.Event(user_id="u", item_id="i", event="watch")
        answer = stub.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=10)
    assert answer.num_taken == 0
    assert [(error.code, error.field) for error in answer.errors] == [
        ("BAD_REQUEST", "events[0].event_id")
    ]


@pytest.mark.parametrize("number", [0, Limits().max_events + 1])
def test_a_call_of_none_or_too_many_is_refused(workers: list[Client], number: int) -> None:
    with pytest.raises(BadRequest, match="allowed") as caught:
        workers[0].record_events([Event("many", "i", "watch")] * number)
    assert caught.value.field == "events"
    assert not workers[0].retrieve("many", k=1).history_lengths[0]


def test_a_horizon_of_ones_own(world: World, tmp_path: Path) -> None:
    arguments = ("--event-horizon-days", "0.5", "--max-stored-events", "300")
    with (
        serve(world.bundle, tmp_path / "state", tmp_path / "log", *arguments) as served,
        Client(served.address, timeout=10) as client,
    ):
        late = Event("u", item_id(1), "watch", timestamp_us=now() - DAY)
        (error,) = client.record_events([late]).errors
        assert error.code == "TOO_OLD" and "at most 0.5 days" in error.message
        client.record_events([Event("u", item_id(row), "watch") for row in range(550)])
        assert client.list_users().num_events.tolist() == [550]
        left = client.recommend("u", k=580, num_candidates=580).item_ids
        assert set(left) == {item_id(row) for row in range(550, world.num_active)}


async def test_the_async_client_records_too(live: Served) -> None:
    async with AsyncClient(live.address, timeout=10) as client:
        recorded = await client.record_events(Event("async", item_id(1), "order", value=12.5))
        assert recorded.num_taken == 1 and recorded.source.worker
        assert (await client.retrieve("async", k=1)).history_lengths.tolist() == [1]


def test_a_deleted_user_is_a_stranger_and_may_begin_anew(workers: list[Client]) -> None:
    one, other = workers
    one.record_events([Event("gone", item_id(row), "watch") for row in range(5)])
    assert other.delete_user("gone").existed
    assert not one.delete_user("gone").existed
    assert one.retrieve("gone", k=1).cold.tolist() == [True]
    past = Event("gone", item_id(9), "watch", timestamp_us=now() - 10_000_000)
    (error,) = one.record_events(past).errors
    assert (error.code, error.field) == ("USER_DELETED", "events[0].user_id")
    assert other.record_events(Event("gone", item_id(8), "watch")).num_taken == 1
    history = one.retrieve("gone", k=1, num_history=9).history
    assert history is not None and history.item_ids == [item_id(8)]
    with pytest.raises(BadRequest, match="empty"):
        one.delete_user("")
