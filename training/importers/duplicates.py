"""Ids that come twice in a stream too long to remember, found exactly in two walks.

The first walk keeps eight bytes a row, and tells which hashes came twice; the second remembers the
ids that have such a hash, which are few.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl


class Duplicates:
    """First `add` every id of a walk, then ask `repeated` in a second walk in the same order."""

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._suspects: pl.Series | None = None
        self._seen: dict[str, str] = {}

    def add(self, ids: pl.Series) -> None:
        """Take in more ids of the first walk."""
        self._hashes.append(ids.hash().to_numpy())

    def any_suspects(self) -> bool:
        """End the first walk: whether a second one can find anything."""
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        self._hashes = []
        hashes.sort()
        self._suspects = pl.Series(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
        return len(self._suspects) > 0

    def repeated(self, ids: pl.Series, place: Callable[[int], str]) -> pl.Series:
        """Which of these ids of the second walk came before, in it or earlier in this batch.

        place: says where the row of one of `ids` stands.
        """
        assert self._suspects is not None, "the first walk has not ended"
        suspect = ids.hash().is_in(self._suspects.implode())
        again = [False] * len(ids)
        for row in suspect.arg_true():
            again[row] = ids[row] in self._seen
            self._seen.setdefault(ids[row], place(row))
        return pl.Series(again, dtype=pl.Boolean)

    def first_place(self, id_: str) -> str:
        """Where the first row of a repeated id stands."""
        return self._seen[id_]
