"""The client's stream of events: sent as they come, acknowledged behind, sent again where need be.

    with client.stream_events() as stream:
        stream.send(Event("u00042", "p00031", "like"))
    print(stream.num_taken)

Every event has an id, so that what is sent again is taken once. Knows no gRPC (serving/sending.py).
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from model.errors import PenchantError
from serving.client_answers import part_errors
from serving.client_messages import event_messages
from serving.domain import Event, PartError
from serving.errors import DeadlineExceeded, Overloaded, ServerUnavailable, StoreUnavailable
from serving.sending import Sender
from serving.translation import STREAM_EVENTS, stream_events_request

MOST_AHEAD = 10_000
"""Events that may be sent and not yet acknowledged; `send` waits beyond."""
MOST_REFUSED = 1_000
"""Refused events that are kept for the caller, the latest."""
_A_MESSAGE = 200
"""Events that share a message at most, where so many wait."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_PASSING = (ServerUnavailable, StoreUnavailable, Overloaded)


@dataclass(slots=True)
class _Sent:
    """A message that is not acknowledged."""

    sequence: int
    events: Sequence[Event]
    request: Any


class EventStream:
    """Sends events over one connection at a time. Safe across threads; made by `stream_events`."""

    def __init__(self, sender: Sender, *, patience: float) -> None:
        """patience: seconds without any progress after which it is given up."""
        self._sender, self._patience = sender, patience
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Event, Any]] = deque()
        self._sent: deque[_Sent] = deque()
        self._num_ahead = self._sequence = self._call = 0
        self._is_closing = False
        self._failure: PenchantError | None = None
        self._progress = time.monotonic()
        self.num_taken = 0
        """Events that were written."""
        self.num_duplicates = 0
        """Events whose event_id had come before, those among them that were sent again because no
        acknowledgement came."""
        self.num_refused = 0
        self.refused: deque[tuple[Event, PartError]] = deque(maxlen=MOST_REFUSED)
        """The latest events that were refused, and why."""
        self._thread = threading.Thread(target=self._run, name="event-stream", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether `send` would wait."""
        return self._num_ahead >= MOST_AHEAD

    def send(self, events: Event | Sequence[Event]) -> None:
        """Send one event or some. Waits where too many are not acknowledged yet.

        Raises BadRequest for what no message can say, and what ended the stream.
        """
        batch = [events] if isinstance(events, Event) else events
        messages = event_messages(batch)
        with self._changed:
            while self._num_ahead >= MOST_AHEAD and self._failure is None:
                self._changed.wait()
            self._require_open()
            self._waiting.extend(zip(batch, messages, strict=True))
            self._num_ahead += len(batch)
            self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was sent is on disk, or refused.

        Raises what ended the stream, and DeadlineExceeded after `timeout` seconds.
        """
        with self._changed:
            done = self._changed.wait_for(
                lambda: not self._num_ahead or self._failure is not None, timeout
            )
            if self._failure is not None:
                raise self._failure
        if not done:
            raise DeadlineExceeded(f"{self._num_ahead} events are not acknowledged yet")

    def close(self) -> None:
        """Flush, and end the stream. Raises as `flush` does."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closing:
            raise ServerUnavailable("this stream was closed; open another one.")

    def _run(self) -> None:
        """The stream's thread: one call after the other, until all is acknowledged."""
        num_failed = 0
        while self._is_needed():
            try:
                for response in self._sender.stream(STREAM_EVENTS, self._requests()):
                    self._acknowledge(response)
                    num_failed = 0
            except _PASSING as error:
                num_failed += 1
                pause = min(_FIRST_PAUSE * 2.0**num_failed, _LONGEST_PAUSE)
                if isinstance(error, Overloaded):
                    pause = max(pause, error.retry_after)
                pause *= random.uniform(0.5, 1.5)
                if time.monotonic() + pause > self._progress + self._patience:
                    self._fail(error)
                    return
                time.sleep(pause)
            except PenchantError as error:
                self._fail(error)
                return

    def _is_needed(self) -> bool:
        """Wait until there is something to send; False where there will be nothing any more."""
        with self._changed:
            self._call += 1  # the requests of the call before end
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._num_ahead or self._is_closing)
            if not self._sent:  # nothing was under way: from now on it counts how long it takes
                self._progress = time.monotonic()
            return self._num_ahead > 0

    def _requests(self) -> Iterator[Any]:
        """The messages of one call: what was not acknowledged, then what comes."""
        with self._changed:
            call, again = self._call, list(self._sent)
        for sent in again:
            yield sent.request
        while (request := self._next_request(call)) is not None:
            yield request

    def _next_request(self, call: int) -> Any | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing or self._call != call)
            if self._call != call or not self._waiting:
                return None
            some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _A_MESSAGE))]
            self._sequence += 1
            request = stream_events_request(self._sequence, [message for _, message in some])
            self._sent.append(_Sent(self._sequence, [event for event, _ in some], request))
            return request

    def _acknowledge(self, response: Any) -> None:
        """All up to the response's message is on disk; its errors are of that message."""
        with self._changed:
            last: Sequence[Event] = ()
            while self._sent and self._sent[0].sequence <= response.sequence:
                last = self._sent.popleft().events
                self._num_ahead -= len(last)
            self.num_taken += response.num_taken
            self.num_duplicates += response.num_duplicates
            for error in part_errors(response.errors):
                self.num_refused += 1
                self.refused.append((last[error.index], error))
            self._progress = time.monotonic()
            self._changed.notify_all()

    def _fail(self, error: PenchantError) -> None:
        with self._changed:
            self._failure = error
            self._call += 1
            self._changed.notify_all()


class AsyncEventStream:
    """EventStream for asyncio: the same, awaited, by threads that it has of its own."""

    def __init__(self, sender: Sender, *, patience: float) -> None:
        """sender: closed with the stream."""
        self._sender, self._stream = sender, EventStream(sender, patience=patience)

    @property
    def num_taken(self) -> int:
        """Events that were written."""
        return self._stream.num_taken

    @property
    def num_duplicates(self) -> int:
        """As EventStream.num_duplicates."""
        return self._stream.num_duplicates

    @property
    def num_refused(self) -> int:
        """Events that were refused."""
        return self._stream.num_refused

    @property
    def refused(self) -> Sequence[tuple[Event, PartError]]:
        """The latest events that were refused, and why."""
        return self._stream.refused

    async def send(self, events: Event | Sequence[Event]) -> None:
        """As EventStream.send."""
        if self._stream.is_full:
            await asyncio.to_thread(self._stream.send, events)
        else:
            self._stream.send(events)

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """As EventStream.flush."""
        await asyncio.to_thread(self._stream.flush, timeout)

    async def close(self) -> None:
        """As EventStream.close."""
        try:
            await asyncio.to_thread(self._stream.close)
        finally:
            self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
