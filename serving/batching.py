"""Requests that arrive while another batch is computing become the next batch.

No thread of its own and no timer: a request that finds nothing computing computes at once, in its
own thread; the others queue up, and when a batch ends, the oldest of the waiting takes all that
wait (up to a limit) and computes for them. A batch that raises is computed again one by one, so
that a request that cannot be computed fails alone. Knows nothing of what a batch computes.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import TIMEOUT_MAX, Lock
from typing import Generic, NoReturn, TypeVar

from serving.errors import DeadlineExceeded
from serving.stages import Lap, add_lap, adopt, batch_laps

Request = TypeVar("Request")
Answer = TypeVar("Answer")


_LATE = "the deadline passed while the call waited"


class _Entry(Generic[Request, Answer]):
    """One waiting request; `wake` is held until there is an answer or it is its turn to lead."""

    __slots__ = ("answer", "came", "deadline", "laps", "leads", "request", "size", "taken", "wake")

    answer: Answer | Exception | None
    laps: Sequence[Lap]

    def __init__(self, request: Request, size: int, deadline: float) -> None:
        self.request, self.size, self.deadline = request, size, deadline
        self.answer = None
        self.leads = False
        self.came = self.taken = time.perf_counter()
        self.laps = ()
        self.wake = Lock()
        self.wake.acquire()


class Batcher(Generic[Request, Answer]):
    """Runs `compute` on one batch at a time.

    compute: a list of requests → as many answers; an exception among the answers is raised to
    that request's caller alone. max_size: the most a batch holds, counted by `size` of `submit`.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Request]], Sequence[Answer | Exception]],
        *,
        max_size: int,
    ) -> None:
        self._compute, self._max_size = compute, max_size
        self._waiting: deque[_Entry[Request, Answer]] = deque()
        self._computing = False
        self._mutex = Lock()

    def submit(self, request: Request, *, size: int, deadline: float) -> Answer:
        """The answer to one request; blocks until it is there.

        deadline: on time.monotonic()'s clock. Raises DeadlineExceeded if it passes while the
        request waits, and what `compute` answered or raised.
        """
        entry: _Entry[Request, Answer] | None = None
        with self._mutex:
            if self._computing:
                entry = _Entry(request, size, deadline)
                self._waiting.append(entry)
            self._computing = True
        if entry is None:
            return self._compute_alone(request, deadline)
        patience = min(max(deadline - time.monotonic(), 0.0), TIMEOUT_MAX)
        if not entry.wake.acquire(timeout=patience):
            self._give_up(entry)
        if entry.leads:
            self._lead(self._take(entry))
        else:
            add_lap("wait", entry.came, entry.taken)
            adopt(entry.laps)
        if isinstance(entry.answer, Exception):
            raise entry.answer
        assert entry.answer is not None
        return entry.answer

    def _compute_alone(self, request: Request, deadline: float) -> Answer:
        """Compute for a request that found nothing computing."""
        try:
            if deadline < time.monotonic():
                raise DeadlineExceeded(_LATE)
            (answer,) = self._compute([request])
        finally:
            self._hand_over()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _give_up(self, entry: _Entry[Request, Answer]) -> NoReturn:
        """Leave the queue, or the batch that was begun with the entry, or hand on the lead."""
        with self._mutex:
            if entry in self._waiting:
                self._waiting.remove(entry)
            leads = entry.leads
        if leads:  # it came in the moment of giving up
            self._hand_over()
        raise DeadlineExceeded(_LATE)

    def _take(self, first: _Entry[Request, Answer]) -> list[_Entry[Request, Answer]]:
        """`first` and those that wait behind it, as many as fit into a batch."""
        batch, size = [first], first.size
        with self._mutex:
            while self._waiting and size + self._waiting[0].size <= self._max_size:
                size += self._waiting[0].size
                batch.append(self._waiting.popleft())
        return batch

    def _lead(self, batch: Sequence[_Entry[Request, Answer]]) -> None:
        """Compute a batch for its first entry's caller and wake the others."""
        now, taken = time.monotonic(), time.perf_counter()
        add_lap("wait", batch[0].came, taken)
        begun = []
        for entry in batch:
            entry.taken = taken
            if entry.deadline < now:
                entry.answer = DeadlineExceeded(_LATE)
            else:
                begun.append(entry)
        laps: Sequence[Lap] = ()
        try:
            with batch_laps() as laps:
                self._answer(begun)
        finally:
            self._hand_over()
            for entry in batch[1:]:  # the first is the caller itself
                entry.laps = laps
                entry.wake.release()

    def _answer(self, begun: Sequence[_Entry[Request, Answer]]) -> None:
        """Compute a batch; where it raises, its members one by one."""
        try:
            answers = self._compute([entry.request for entry in begun]) if begun else []
            for entry, answer in zip(begun, answers, strict=True):
                entry.answer = answer
        except Exception as error:
            if len(begun) == 1:
                begun[0].answer = error
                return
            for entry in begun:
                self._answer([entry])

    def _hand_over(self) -> None:
        """Give the lead to the oldest that waits, if any does."""
        with self._mutex:
            following = self._waiting.popleft() if self._waiting else None
            self._computing = following is not None
            if following is not None:
                following.leads = True
        if following is not None:
            following.wake.release()
