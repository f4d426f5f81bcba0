"""How fast calls are answered while others wait; and so, whether one that begins now can be.

A call that is begun and not answered in time has taken the time of others that would have been:
with four times the calls that a core can answer, each with 100 ms, it answered a third of what it
can; when those that have no chance are refused at once, all of it (benchmarks/overload.py). Knows
when calls begin and end; nothing of what they are.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from serving.rank.costs import Cost

_AT_LEAST = 0.6
"""The share of the usual time in which a call can be answered when it is in a hurry, and leaves out
what it can (serving/rank/costs.py)."""


class Pace:
    """Calls in progress, and the average time between two answers. Safe across threads."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._num_begun, self._since = 0, 0.0
        self._between = Cost()

    @property
    def num_begun(self) -> int:
        """Calls that are begun and not answered yet."""
        return self._num_begun

    def expected(self) -> float:
        """Seconds, at least, until all that are begun are answered; 0 where nothing is known."""
        return self._num_begun * self._between.of(1, margin=_AT_LEAST)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """A call is computed in the block; one that leaves it by an exception is no answer."""
        with self._mutex:
            if not self._num_begun:
                self._since = time.monotonic()
            self._num_begun += 1
        answered = False
        try:
            yield
            answered = True
        finally:
            with self._mutex:
                self._num_begun -= 1
                if answered:
                    now = time.monotonic()
                    self._between.observe(1, now - self._since)
                    self._since = now
