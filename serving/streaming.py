"""Streams of events: messages are read ahead, written together, and acknowledged in order.

Each open stream has two threads of its own, one that reads and one that acknowledges, so that none
holds a call thread while it waits. It reads no further than `most_ahead` events beyond what is on
disk; it ends by itself after a while, when all that it has read is acknowledged, so that streams
move with connections and hold up no drain. Knows no protos and no gRPC.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serving.errors import Overloaded
from serving.recording import Recorded, Recording

Message = TypeVar("Message")

_MOST_MESSAGES = 256
"""Read ahead, however few events they hold: as many writes as share one transaction."""
_LEAVING_SECONDS = 1.0
"""How long a stream lives that is opened while the worker drains."""
_RETRY_AFTER = 1.0


@dataclass(slots=True)
class _Begun:
    """A message on its way to the disk."""

    sequence: int
    num_events: int
    recording: Recording
    came: float


@dataclass(slots=True)
class Acknowledged:
    """All messages up to this one are on disk. The numbers are those of the messages since the
    acknowledgement before; with errors, of this message alone."""

    sequence: int
    recorded: Recorded
    came: list[float]
    """When each of the messages came, by time.perf_counter()."""


class Streams:
    """The open streams of one worker. Safe across threads."""

    def __init__(self, *, most: int, most_ahead: int, seconds: float) -> None:
        """most: streams at a time. most_ahead: events that one may have read and not yet
        acknowledged. seconds: after which a stream ends by itself."""
        self._most, self._most_ahead, self._seconds = most, most_ahead, seconds
        self._lock = threading.Lock()
        self._open: set[_Stream[Any]] = set()
        self._is_leaving = False

    def acknowledge(
        self,
        messages: Iterable[Message],
        begin: Callable[[Message], tuple[int, int, Recording]],
    ) -> Iterator[Acknowledged]:
        """Begin each message of a stream, and tell in order of what is on disk.

        begin: a message → its number, how many events it holds, and their recording. Ends when the
        messages do, or when the stream has lived long enough; all that was begun is told of before.
        Raises Overloaded, and what `begin` or a recording raises.
        """
        stream: _Stream[Message] = _Stream(messages, begin, self._most_ahead)
        with self._lock:
            if len(self._open) >= self._most:
                raise Overloaded(f"{self._most} streams are open already", retry_after=_RETRY_AFTER)
            self._open.add(stream)
            seconds = _LEAVING_SECONDS if self._is_leaving else self._seconds
        try:
            yield from stream.run(time.monotonic() + min(seconds, self._seconds))
        finally:
            stream.stop()
            with self._lock:
                self._open.discard(stream)

    def leave(self) -> None:
        """End every stream as soon as what it has read is acknowledged."""
        with self._lock:
            self._is_leaving = True
            streams = list(self._open)
        for stream in streams:
            stream.stop()


class _Stream(Generic[Message]):
    """One stream: a reader's thread in front, the acknowledging thread behind."""

    def __init__(
        self,
        messages: Iterable[Message],
        begin: Callable[[Message], tuple[int, int, Recording]],
        most_ahead: int,
    ) -> None:
        self._messages, self._begin, self._most_ahead = messages, begin, most_ahead
        self._changed = threading.Condition()
        self._begun: deque[_Begun] = deque()
        self._num_ahead = 0
        self._is_stopped = self._is_read = False
        self._failure: Exception | None = None

    def stop(self) -> None:
        """Read no further."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def run(self, ends: float) -> Iterator[Acknowledged]:
        """Read, and tell of what is on disk. ends: by time.monotonic()."""
        threading.Thread(target=self._read, name="stream-reader", daemon=True).start()
        while (first := self._next(ends)) is not None:
            found = self._acknowledged(first)
            while not found.recorded.errors and (following := self._next_done()) is not None:
                more = self._acknowledged(following)
                if more.recorded.errors:
                    yield found
                    found = more
                    break
                found.sequence = more.sequence
                found.recorded = Recorded(
                    found.recorded.num_taken + more.recorded.num_taken,
                    found.recorded.num_duplicates + more.recorded.num_duplicates,
                    (),
                )
                found.came += more.came
            yield found
        if self._failure is not None:
            raise self._failure

    def _read(self) -> None:
        """The reader's thread."""
        try:
            for message in self._messages:
                came = time.perf_counter()
                with self._changed:
                    if self._is_stopped:
                        return  # unread, as far as its sender is concerned
                    # Inside the lock: what was begun is told of, whenever the stream is stopped.
                    sequence, num_events, recording = self._begin(message)
                    self._begun.append(_Begun(sequence, num_events, recording, came))
                    self._num_ahead += num_events
                    self._changed.notify_all()
                    while not self._is_stopped and (
                        self._num_ahead >= self._most_ahead or len(self._begun) >= _MOST_MESSAGES
                    ):
                        self._changed.wait()
        except Exception as error:  # the acknowledging thread's to raise
            self._failure = error
        finally:
            with self._changed:
                self._is_read = True
                self._changed.notify_all()

    def _next(self, ends: float) -> _Begun | None:
        """The oldest message that is not told of; None where there will be none."""
        with self._changed:
            while True:
                left = ends - time.monotonic()
                if left <= 0:
                    self._is_stopped = True
                    self._changed.notify_all()
                if self._begun:
                    return self._begun[0]
                if self._is_read or self._is_stopped:
                    return None
                self._changed.wait(left)

    def _next_done(self) -> _Begun | None:
        """The oldest message that is not told of, where it is on disk already."""
        with self._changed:
            if self._begun and self._begun[0].recording.is_done:
                return self._begun[0]
            return None

    def _acknowledged(self, begun: _Begun) -> Acknowledged:
        """Wait for a message, the oldest. Raises what its recording does."""
        recorded = begun.recording.result()
        with self._changed:
            self._begun.popleft()
            self._num_ahead -= begun.num_events
            self._changed.notify_all()
        return Acknowledged(begun.sequence, recorded, [begun.came])
