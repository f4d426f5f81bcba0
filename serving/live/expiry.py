"""Which rows' time ends when: those of the bundle and those of live items, the soonest first."""

import heapq

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving.generation import Generation

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


class Expiry:
    """Rows of a catalogue that will expire. One thread uses it."""

    def __init__(self, generation: Generation) -> None:
        """Those of the bundle."""
        self._due = _due_in(generation)
        heapq.heapify(self._due)

    def add(self, expires: Int64, alive: Bool, first: int) -> None:
        """Rows first … first + n - 1. expires: [n] UTC µs, item_log.NEVER for never. alive: [n]
        which of them may be retrieved at all."""
        places = np.flatnonzero((expires > 0) & alive)
        due = list(zip(expires[places].tolist(), (first + places).tolist(), strict=True))
        if len(due) > len(self._due):
            self._due += due
            heapq.heapify(self._due)
        else:
            for one in due:
                heapq.heappush(self._due, one)

    def take(self, now_us: int) -> Int64:
        """The rows whose time is over by now; each is told once."""
        rows = []
        while self._due and self._due[0][0] <= now_us:
            rows.append(heapq.heappop(self._due)[1])
        return np.array(rows, np.int64)


def _due_in(generation: Generation) -> list[tuple[int, int]]:
    """(UTC µs, row) of every item of the bundle that will expire."""
    table = generation.items.table
    if "expires_at" not in table.column_names or not table.num_rows:
        return []
    active = table["expires_at"].slice(0, generation.items.num_active).combine_chunks()
    times = active.cast(pa.timestamp("us")).cast(pa.int64())
    known = np.flatnonzero(times.is_valid().to_numpy(zero_copy_only=False))
    return list(zip(times.take(pa.array(known)).to_pylist(), known.tolist(), strict=True))
