"""Turns at something that one does at a time: first come, first served.

A lock hands over to whoever is quick, so that one who holds it again and again starves the others.
Knows nothing of what is done.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from serving.domain import Budget
from serving.errors import DeadlineExceeded
from serving.stages import add_lap

_LONGEST = 3600.0


class Turns:
    """One has the turn; the others wait in the order in which they came. Safe across threads."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._is_taken = False
        self._waiting: deque[Lock] = deque()

    def take(self, timeout: float) -> bool:
        """Wait for the turn, timeout seconds at most. Whoever has it must `give` it."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return True
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=timeout):
            return True
        with self._mutex:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True  # it came in the moment of giving up

    def give(self) -> None:
        """Hand the turn to the one who waits longest, if any does."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    @contextmanager
    def held(self, budget: Budget) -> Iterator[None]:
        """Has the turn in the block. Raises DeadlineExceeded or Cancelled, before the block, where
        it is of no use to anyone any more."""
        came, patience = time.perf_counter(), max(budget.deadline - time.monotonic(), 0.0)
        if not self.take(min(patience, _LONGEST)):
            raise DeadlineExceeded("the deadline passed while the call waited for its turn")
        try:
            budget.check()
            add_lap("turn", came, time.perf_counter())
            yield
        finally:
            self.give()

    @property
    def is_wanted(self) -> bool:
        """Whether anyone waits."""
        return bool(self._waiting)
