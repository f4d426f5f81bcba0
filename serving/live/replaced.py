"""Items that change while an answer is made: neither gone for a moment nor there twice.

A changed item gets a new row before its old one dies. A search looks at the bundle's rows first and
at the newest last, so it may meet the old row, the new one, or both; an answer is looked through
when it is ready. Knows no requests.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Changing(Protocol):
    """What is read of a catalogue."""

    replacing: Int64
    """Rows that die in a moment, their items having newer ones."""

    def is_shown(self, rows: Int64) -> Bool:
        """Which of these rows live."""

    def ids_of(self, rows: Int64) -> list[str]:
        """Ids of these rows."""

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """The newest row of each id, -1 for none."""

    def all_rows_of(self, ids: Sequence[str]) -> Int64:
        """The newest row of each of these items in each part that has one."""


def living_yet(
    catalogue: Changing,
    rows: Int64,
    scores: Float32,
    excluded: Sequence[Int64],
    known: int | None,
) -> tuple[Int64, Float32]:
    """What was found [Q, k] without what has gone since.

    excluded: Q arrays of rows, or none at all. known: from which row on they may lack rows of
    their items; None: they lack none.
    """
    replacing = catalogue.replacing  # before it is asked what lives, see `still_shown`
    found = rows >= 0
    late = found & (rows >= known) if len(excluded) and known is not None else found & False
    if found.all() and not len(replacing) and not late.any() and all_live(catalogue, rows):
        return rows, scores
    shown = found.copy()
    for place in zip(*np.nonzero(late), strict=True):
        older = catalogue.all_rows_of(catalogue.ids_of(rows[place][np.newaxis]))
        shown[place] = not np.isin(older, excluded[place[0]]).any()
    shown[shown] = still_shown(catalogue, rows[shown], np.nonzero(shown)[0])
    if shown.all():
        return rows, scores
    rows, scores = np.where(shown, rows, -1), np.where(shown, scores, -np.inf)
    order = np.argsort(~shown, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def all_live(catalogue: Changing, rows: Int64) -> bool:
    """Whether all of these rows [...], each >= 0, live."""
    return bool(catalogue.is_shown(rows.ravel()).all())


def still_shown(catalogue: Changing, rows: Int64, lists: Int64) -> Bool:
    """[n] which of these rows, all found a moment ago, may be shown yet.

    lists: [n] which list each is in. A row may be shown while it lives, and where its item has
    changed since and its list has nothing newer of it: what the item was a moment ago, sooner than
    the item not at all.
    """
    # Read before it is asked what lives: where it is empty by now, what it named is dead.
    replacing = catalogue.replacing
    shown = catalogue.is_shown(rows)
    if len(replacing):
        shown &= ~np.isin(rows, replacing)
    if shown.all():
        return shown
    ids = catalogue.ids_of(rows)
    named = {(lists[i], ids[i]) for i in np.flatnonzero(shown).tolist()}
    gone = np.flatnonzero(~shown)
    newest = catalogue.rows_of([ids[i] for i in gone.tolist()])
    there = gone[(newest >= 0) & catalogue.is_shown(np.maximum(newest, 0))]
    for i in there[np.argsort(-rows[there])].tolist():  # the newest of several old ones of an item
        if (lists[i], ids[i]) not in named:
            named.add((lists[i], ids[i]))
            shown[i] = True
    return shown
