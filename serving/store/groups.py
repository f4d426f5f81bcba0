"""Writes in groups: what waits while one group is being written goes into the next one together.

One commit, and so one wait for the disk, serves all that came meanwhile. One thread writes, in the
order in which the work was handed in. Knows no database.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Work = TypeVar("Work")

MOST_TOGETHER = 256
"""Writes that share one transaction at most."""


@dataclass(slots=True)
class Write(Generic[Work]):
    """One piece of work that waits for its transaction."""

    work: Work
    done: Future[Any] = field(default_factory=Future)


class Groups(Generic[Work]):
    """A queue of work and the thread that writes it. Safe across threads."""

    def __init__(self, write_together: Callable[[Sequence[Write[Work]]], None]) -> None:
        """write_together: writes a group, and tells each write's `done` what came of it; whatever
        it raises is told to all of the group that were not told yet."""
        self._write_together = write_together
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Write[Work] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> "Future[Any] | None":
        """Hand in one piece of work; None where the queue is closed."""
        write = Write(work)
        with self._lock:
            if self._closed:
                return None
            self._queue.put(write)
        return write.done

    def close(self) -> bool:
        """Finish what was handed in, and take no more; returns whether this call closed it."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        return True

    def _run(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            group: list[Write[Work]] = [] if first is None else [first]
            open_ = first is not None
            while open_ and len(group) < MOST_TOGETHER and not self._queue.empty():
                following = self._queue.get()
                open_ = following is not None
                if following is not None:
                    group.append(following)
            if group:
                try:
                    self._write_together(group)
                except BaseException as error:
                    for write in group:
                        if not write.done.done():
                            write.done.set_exception(error)
