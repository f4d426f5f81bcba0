"""Codes of live rows in the generation's numbers: what grouping and kinds compare at a request.

Made once a row, when it is first asked for. Knows no items: a column is given to it by name.
"""

from collections.abc import Callable
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class LiveCodes:
    """Of the rows from `first` on."""

    def __init__(self, first: int, code_of: Callable[[str, str | None], int]) -> None:
        """code_of: the generation's number of a value of a column."""
        self._first, self._code_of = first, code_of
        self._lock = Lock()
        self._codes: dict[str, Int32] = {}

    def of(self, name: str, end: int, column: Callable[[str, Int64], pa.Array]) -> Int32:
        """[end - first] the codes of a column for the rows before `end`, or for more of them.

        column: its values at rows [n]. It is not kept: it would hold its catalogue alive.
        """
        with self._lock:
            known = self._codes.get(name, np.empty(0, np.int32))
            if len(known) < end - self._first:
                rows = np.arange(self._first + len(known), end)
                values = column(name, rows).cast(pa.string()).to_pylist()
                codes = [self._code_of(name, value) for value in values]
                known = np.concatenate([known, np.array(codes, np.int32)])
                self._codes[name] = known
            return known
