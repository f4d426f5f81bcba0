"""StreamEvents on real servers: acknowledged in order, bounded, ended cleanly, sent again."""

import contextlib
import os
import queue
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from interest.v1 import ingest_service_pb2 as pb
from interest.v1 import ingest_service_pb2_grpc, types_pb2
from serving.client import AsyncClient, Client
from serving.config import ServerConfig
from serving.domain import Event
from serving.errors import BadRequest, DeadlineExceeded, Overloaded, ServerUnavailable
from serving.recording import Recorded
from serving.status import DETAIL_KEY
from serving.streaming import Streams
from tests.serving.processes import Served, serve
from tests.serving.tiny import World, item_id

_END = object()


class RawStream:
    """A stream message by message, past the client."""

    def __init__(self, address: str) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address)
        stub = ingest_service_pb2_grpc.IngestServiceStub(self._channel)
        self.answers: Any = stub.StreamEvents(iter(self._requests.get, _END))

    def send(self, sequence: int, *events: pb.Event) -> None:
        self._requests.put(pb.StreamEventsRequest(sequence=sequence, events=events))

    def end(self) -> None:
        self._requests.put(_END)

    def close(self) -> None:
        self.end()
        self.answers.cancel()
        self._channel.close()

    def refusal(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ends: its status, and the code of the detail."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.answers)
        trailing: dict[str, Any] = dict(caught.value.trailing_metadata())  # type: ignore[arg-type]
        detail = types_pb2.ErrorDetail.FromString(trailing[DETAIL_KEY])
        return caught.value.code(), detail.code


def event(name: str, **rest: Any) -> pb.Event:
    values = {"user_id": "raw", "item_id": item_id(1), "event": "watch", **rest}
    return pb.Event(event_id=name, **values)


@pytest.fixture(scope="module")
def live(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stream")
    arguments = ("--threads", "2", "--limit", "max_streams=5")
    with serve(world.bundle, folder / "state", folder / "log", *arguments) as served:
        yield served


@pytest.fixture
def stream(live: Served) -> Iterator[RawStream]:
    opened = RawStream(live.address)
    yield opened
    opened.close()


def test_messages_are_acknowledged_in_order(stream: RawStream) -> None:
    for number in range(1, 101):
        stream.send(10 * number, event(f"order {number}"), event(f"order {number}"))
    stream.end()
    answers = list(stream.answers)
    numbers = [answer.sequence for answer in answers]
    assert numbers == sorted(numbers) and numbers[-1] == 1000
    assert sum(answer.num_taken for answer in answers) == 100
    assert sum(answer.num_duplicates for answer in answers) == 100


def test_a_message_with_errors_has_an_answer_of_its_own(stream: RawStream) -> None:
    for number in range(1, 31):
        stream.send(number, event(f"mixed {number}"), event("", item_id=""))
        stream.send(number + 100, event(f"mixed too {number}"))
    stream.end()
    refused = [answer for answer in stream.answers if answer.errors]
    assert [answer.sequence for answer in refused] == list(range(1, 31))
    assert {(e.index, e.code, e.field) for answer in refused for e in answer.errors} == {
        (1, "BAD_REQUEST", "events[1].event_id")
    }
    assert [answer.num_taken for answer in refused] == [1] * 30


def test_an_acknowledgement_does_not_wait_for_the_next_message(stream: RawStream) -> None:
    for number in range(1, 4):
        stream.send(number, event(f"alone {number}"))
        assert next(stream.answers).sequence == number


def test_what_is_acknowledged_counts_at_once(stream: RawStream, live: Served) -> None:
    stream.send(1, event("counts", user_id="counts"))
    next(stream.answers)
    with Client(live.address, timeout=10) as client:
        assert client.retrieve("counts", k=1).history_lengths.tolist() == [1]


@pytest.mark.parametrize("number", [0, 1001])
def test_a_message_of_none_or_too_many_ends_the_stream(stream: RawStream, number: int) -> None:
    stream.send(1, event(f"before {number}"))
    stream.send(2, *[event(f"{number} {i}") for i in range(number)])
    assert next(stream.answers).sequence == 1
    assert stream.refusal() == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST")


def test_bytes_that_are_no_message_end_the_stream(live: Served) -> None:
    with grpc.insecure_channel(live.address) as channel:
        raw = channel.stream_stream("/interest.v1.IngestService/StreamEvents", None, None)
        with pytest.raises(grpc.RpcError) as caught:
            list(raw(iter([b"\xff\xff\xff"]), timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_open_streams_hold_no_call_thread_and_are_limited(live: Served) -> None:
    """Two call threads, five streams; a sixth is shed, and answers and writes go on."""
    with contextlib.ExitStack() as stack:
        streams = [RawStream(live.address) for _ in range(5)]
        for number, one in enumerate(streams):
            stack.callback(one.close)
            one.send(1, event(f"open {number}"))
            assert next(one.answers).sequence == 1
        sixth = RawStream(live.address)
        stack.callback(sixth.close)
        assert sixth.refusal() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        with Client(live.address, timeout=5) as client:
            for number in range(10):
                assert client.retrieve("nobody", k=1).item_ids
                assert client.record_events(Event("w", item_id(number), "watch")).num_taken == 1
            with pytest.raises(Overloaded), client.stream_events(patience=0.5) as refused:
                refused.send(Event("w", item_id(1), "watch"))


def test_streams_are_counted(live: Served, stream: RawStream) -> None:
    def metric(name: str) -> float:
        page = urllib.request.urlopen(live.metrics, timeout=10).read().decode()
        lines = [line for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].split()[1]) if lines else 0.0

    ended = 'penchant_calls_total{code="OK",rpc="StreamEvents"}'
    messages = 'penchant_call_seconds_count{rpc="StreamEvents"}'
    taken = 'penchant_events_total{outcome="taken"}'
    before = [metric(name) for name in (ended, messages, taken)]
    for number in range(7):
        stream.send(number, event(f"counted {number}"))
    stream.end()
    list(stream.answers)
    end = time.monotonic() + 10
    while [metric(name) for name in (ended, messages, taken)] != [
        before[0] + 1,
        before[1] + 7,
        before[2] + 7,
    ]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stream_reads_no_further_than_it_may() -> None:
    class Held:
        is_done = False

        def result(self, timeout: float | None = None) -> Recorded:
            assert go.wait(10)
            return Recorded(1, 0, ())

    go, read = threading.Event(), list[int]()

    def begin(number: int) -> tuple[int, int, Any]:
        read.append(number)
        return number, 10, Held()

    streams = Streams(most=1, most_ahead=40, seconds=60)
    answers = streams.acknowledge(iter(range(1000)), begin)
    told = list[int]()
    thread = threading.Thread(target=lambda: told.extend(a.sequence for a in answers))
    thread.start()
    time.sleep(0.3)
    assert len(read) == 4
    go.set()
    thread.join()
    assert read == list(range(1000)) and told[-1] == 999


def test_what_was_begun_is_told_of_before_a_stream_ends() -> None:
    class Slow:
        is_done = False

        def result(self, timeout: float | None = None) -> Recorded:
            time.sleep(0.002)
            return Recorded(1, 0, ())

    def numbers() -> Iterator[int]:
        for number in range(1, 100_000):
            yield number
            time.sleep(0.0005)

    begun = list[int]()

    def begin(number: int) -> tuple[int, int, Any]:
        begun.append(number)
        return number, 1, Slow()

    streams = Streams(most=1, most_ahead=1000, seconds=0.5)
    told = [answer.sequence for answer in streams.acknowledge(numbers(), begin)]
    assert told[-1] == begun[-1] > 10
    streams.leave()
    again = streams.acknowledge(numbers(), begin)
    assert [answer.sequence for answer in again][-1] == begun[-1]


def test_how_long_a_stream_lives(world: World, tmp_path: Path) -> None:
    def seconds(**given: float) -> float:
        config = ServerConfig(bundle=world.bundle, state=tmp_path, **given)  # type: ignore[arg-type]
        return config.stream_seconds

    assert seconds() == pytest.approx(8.0)
    assert seconds(max_connection_age=1.0) == pytest.approx(0.8)
    assert seconds(drain_grace=0.0) == pytest.approx(0.2)


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def num_stored(client: Client) -> dict[str, int]:
    page = client.list_users()
    return dict(zip(page.user_ids, page.num_events.tolist(), strict=True))


def test_the_clients_stream_outlives_streams_connections_and_workers(
    world: World, tmp_path: Path
) -> None:
    """Streams of half a second, connections of one, and workers that are killed."""
    arguments = ("--workers", "2", "--max-connection-age", "1", "--drain-grace", "0.6")
    with (
        serve(world.bundle, tmp_path / "state", tmp_path / "log", *arguments) as served,
        Client(served.address, timeout=10, num_channels=4) as client,
    ):
        num, begun = 0, time.monotonic()
        with client.stream_events() as stream:
            for kill_at in (1.0, 2.5, 4.0):
                while time.monotonic() < begun + kill_at:
                    stream.send(Event(f"u{num % 7}", item_id(num % 600), "watch"))
                    num += 1
                    time.sleep(0.001)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(served.worker_pids()[0], signal.SIGKILL)
            stream.flush(30)
            # What was written and not acknowledged any more came twice, and counts once.
            assert stream.num_taken + stream.num_duplicates == num
        until(lambda: len(served.worker_pids()) == 2)
        assert stream.num_refused == 0
        assert sum(num_stored(client).values()) == num > 1000
        assert set(num_stored(client)) == {f"u{i}" for i in range(7)}


def test_a_refused_event_is_given_back(live: Served) -> None:
    with Client(live.address, timeout=10) as client, client.stream_events() as stream:
        good, bad = Event("back", item_id(1), "watch"), Event("back", item_id(2), "wacth")
        stream.send([good, bad])
        stream.send(bad)
        stream.flush(10)
        assert stream.num_taken == 1 and stream.num_refused == 2
        assert [given for given, _ in stream.refused] == [bad, bad]
        assert {error.code for _, error in stream.refused} == {"UNKNOWN_EVENT"}
    with pytest.raises(ServerUnavailable, match="was closed"):
        stream.send(good)


async def test_the_async_client_streams_too(live: Served) -> None:
    async with AsyncClient(live.address, timeout=10) as client:
        async with client.stream_events() as stream:
            for number in range(300):
                await stream.send(Event("async", item_id(number), "watch"))
            await stream.flush(20)
            assert (stream.num_taken, stream.num_duplicates, stream.num_refused) == (300, 0, 0)
            await stream.send([Event("async", item_id(1), "wacth")])
        assert [error.code for _, error in stream.refused] == ["UNKNOWN_EVENT"]
        assert (await client.retrieve("async", k=1)).history_lengths.tolist() == [6]


def test_a_stream_to_nobody_is_given_up(tmp_path: Path) -> None:
    with Client("127.0.0.1:1", timeout=1) as client:
        stream = client.stream_events(patience=0.5)
        stream.send(Event("u", "i", "watch"))
        with pytest.raises(DeadlineExceeded, match="1 events are not acknowledged"):
            stream.flush(0.01)
        with pytest.raises(ServerUnavailable, match="no server answers"):
            stream.flush(30)
        with pytest.raises(ServerUnavailable):
            stream.close()
        with pytest.raises(BadRequest):
            client.stream_events(patience=0.5).send(Event("u", "i", "watch", sequence=2**70))


def test_a_drain_ends_streams_and_loses_nothing(world: World, tmp_path: Path) -> None:
    with serve(world.bundle, tmp_path / "state", tmp_path / "log") as served:
        idle, busy = RawStream(served.address), RawStream(served.address)
        idle.send(1, event("idle"))
        assert next(idle.answers).sequence == 1
        acknowledged = [0]
        sent = [0]
        stopped = threading.Event()

        def tell() -> None:
            while not stopped.is_set():
                sent[0] += 1
                busy.send(sent[0], event(f"busy {sent[0]}", user_id="busy"))
                time.sleep(0.001)

        def listen() -> None:
            for answer in busy.answers:
                acknowledged[0] = answer.sequence
            stopped.set()

        threads = [threading.Thread(target=tell), threading.Thread(target=listen)]
        for thread in threads:
            thread.start()
        until(lambda: acknowledged[0] > 20)
        served.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert list(idle.answers) == []
        for one in (idle, busy):
            assert one.answers.code() is grpc.StatusCode.OK
            one.close()
        assert served.process.wait(30) == 0
        events = [line["event"] for line in served.log_lines()]
        assert "a call outlasted its grace" not in events and "defect" not in events
    with (
        serve(world.bundle, tmp_path / "state", tmp_path / "log2") as served,
        Client(served.address, timeout=10) as client,
    ):
        assert sent[0] >= num_stored(client)["busy"] == acknowledged[0] > 20
