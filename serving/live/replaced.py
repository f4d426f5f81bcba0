"""Items that change while an answer is made: neither gone for a moment nor there twice.

A changed item gets a new row before its old one dies. A search looks at the bundle's rows first and
at the newest last, so it may meet the old row, the new one, or both; and what a request leaves out
was looked up before either. An answer is looked through when it is ready: what it costs is told by
how many of its rows have changed meanwhile, nearly always none. Knows no requests.
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

    def rows_of_item(self, item_id: str) -> Int64:
        """All rows of an item, in no order, those that died included."""


def living_yet(
    catalogue: Changing,
    rows: Int64,
    scores: Float32,
    excluded: Sequence[Int64],
    known: int | None,
) -> tuple[Int64, Float32]:
    """What was found [Q, k] without what has gone since, and without what is left out.

    excluded: Q sorted arrays of rows, or none at all. known: how many rows there were when those
    were looked up; they may lack newer rows of their items. None: they lack none.
    """
    # Read before it is asked what lives, see `_gone`.
    replacing = catalogue.replacing
    found = rows >= 0
    if known is None or not len(excluded):
        known = np.iinfo(np.int64).max
    late = rows >= known
    if not len(replacing) and not late.any() and _all_live(catalogue, rows, found):
        return rows, scores
    shown = found.copy()
    for query, place in np.argwhere(late).tolist():
        # Of an item that is new altogether, it cannot be told whether it is to be left out.
        (item_id,) = catalogue.ids_of(rows[query, place : place + 1])
        of_item = catalogue.rows_of_item(item_id)
        was_there = bool((of_item < known).any())
        shown[query, place] = was_there and not np.isin(of_item, excluded[query]).any()
    lists = np.nonzero(shown)[0]
    shown[shown] = still_shown(catalogue, rows[shown], lists, excluded)
    if shown.all():
        return rows, scores
    rows, scores = np.where(shown, rows, -1), np.where(shown, scores, -np.inf)
    order = np.argsort(~shown, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def still_shown(
    catalogue: Changing, rows: Int64, lists: Int64, excluded: Sequence[Int64] = ()
) -> Bool:
    """[n] which of these rows, all found a moment ago, may be shown yet.

    lists: [n] which list each is in. excluded: an array of rows for each list, or none at all. A
    row may be shown while it lives, and where its item has changed since and its list has nothing
    newer of it, and does not leave it out: what the item was a moment ago, sooner than the item not
    at all.
    """
    shown = ~_gone(catalogue, rows)
    if shown.all():
        return shown
    gone = np.flatnonzero(~shown)
    gone = gone[np.argsort(-rows[gone])]  # of several old rows of an item, the newest first
    for place, item_id in zip(gone.tolist(), catalogue.ids_of(rows[gone]), strict=True):
        lives, of_item = _is_there(catalogue, item_id)
        if not lives:
            continue
        if len(excluded) and np.isin(of_item, excluded[lists[place]]).any():
            continue
        mine = shown & (lists == lists[place])
        shown[place] = not np.isin(rows[mine], of_item).any()
    return shown


def _gone(catalogue: Changing, rows: Int64) -> Bool:
    """[n] which of these rows are dead, or die in a moment."""
    # Asked for first: where it is empty by now, what it named is dead when that is asked.
    replacing = catalogue.replacing
    dead = ~catalogue.is_shown(rows)
    return dead | np.isin(rows, replacing) if len(replacing) else dead


def _all_live(catalogue: Changing, rows: Int64, found: Bool) -> bool:
    some = rows.ravel() if found.all() else rows[found]
    return bool(catalogue.is_shown(some).all())


def _is_there(catalogue: Changing, item_id: str) -> tuple[bool, Int64]:
    """Whether any row of the item lives, and all its rows."""
    rows = catalogue.rows_of_item(item_id)
    while not catalogue.is_shown(rows).any():
        again = catalogue.rows_of_item(item_id)
        if len(again) == len(rows):
            return False, rows
        rows = again  # changed once more between the two questions
    return True, rows
