"""Sets of ids that are too many to be hashed anew for every batch of a long log.

polars' `is_in` and `unique` look at the whole set each time: N batches of a log beside M ids cost
N × M. These are made once, or grow. Knows nothing of what the ids name.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

_PENDING = 1_000_000
"""Ids that wait at least, until they are merged."""


class KnownIds:
    """Which ids there are; 24 bytes an id beside the ids themselves."""

    def __init__(self, ids: pl.Series) -> None:
        """ids: strings, none of them null."""
        hashes = _hashes(ids)
        order = np.argsort(hashes)
        self._hashes, self._ids = hashes[order], ids.gather(order)

    def lacks(self, ids: pl.Series) -> pl.Series:
        """[n] Boolean: True for an id that is none of them; False for null."""
        asked = ids.is_not_null()
        if not len(self._hashes):
            return asked
        wanted = _hashes(ids)
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        lacking = asked & (self._ids.gather(places) != ids).fill_null(False)
        # Behind another id of the same hash it may be after all.
        alike = lacking & pl.Series(self._hashes[places] == wanted)
        if alike.any():
            found = ids.filter(alike).is_in(self._ids.implode())
            lacking = lacking.scatter(alike.arg_true(), ~found)
        return lacking


class DistinctIds:
    """The distinct ones of many batches of ids; merged whenever they have doubled."""

    def __init__(self) -> None:
        self._kept = pl.Series(dtype=pl.String)
        self._pending: list[pl.Series] = []
        self._num_pending = 0

    def add(self, ids: pl.Series) -> None:
        """Take in more ids, none of them null."""
        self._pending.append(ids.unique().alias(""))
        self._num_pending += len(self._pending[-1])
        if self._num_pending > max(len(self._kept), _PENDING):
            self._merge()

    def ids(self) -> pl.Series:
        """Those so far, each once."""
        self._merge()
        return self._kept

    def _merge(self) -> None:
        self._kept = pl.concat([self._kept, *self._pending]).unique()
        self._pending, self._num_pending = [], 0


def _hashes(ids: pl.Series) -> npt.NDArray[np.uint64]:
    return ids.hash().to_numpy()
