"""M interests' search results become one candidate list. Used by evaluation and serving alike."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

How = Literal["quota", "max"]


def merge_interests(
    rows: Int64, scores: Float32, k: int, *, how: How = "quota"
) -> tuple[Int64, Float32, Int32]:
    """Merge what each interest found.

    rows: [B, M, K] int64, best first, -1 where an interest found no more. scores: [B, M, K].
    how: `max` ranks every distinct item by its best score over interests (ComiRec's plain max);
        `quota` takes the interests' lists in turns (the 1st of each, then the 2nd of each, ...), so
        that every interest holds its share; within a turn the higher score goes first. An item
        that several interests found is placed once, at its best turn.

    Returns rows [B, k] int64 (-1: none), scores [B, k] (best over interests, -inf: none) and
    interest [B, k] int32 (the interest with that best score, -1: none). With M = 1 both ways
    return the list as it came.
    """
    num_users, num_interests, depth = rows.shape
    flat_rows = rows.reshape(num_users, -1)
    flat_scores = np.where(flat_rows >= 0, scores.reshape(num_users, -1), -np.inf)
    interest = np.broadcast_to(
        np.repeat(np.arange(num_interests, dtype=np.int32), depth), flat_rows.shape
    )
    if num_interests > 1:
        if how == "quota":
            turn = np.broadcast_to(np.tile(np.arange(depth), num_interests), flat_rows.shape)
        else:
            turn = np.zeros(flat_rows.shape, np.int64)
        flat_rows, flat_scores, interest, turn = _distinct(flat_rows, flat_scores, interest, turn)
        order = np.lexsort((flat_rows, -flat_scores, turn), axis=1)
        flat_rows = np.take_along_axis(flat_rows, order, axis=1)
        flat_scores = np.take_along_axis(flat_scores, order, axis=1)
        interest = np.take_along_axis(interest, order, axis=1)
    flat_rows, flat_scores, interest = flat_rows[:, :k], flat_scores[:, :k], interest[:, :k]
    missing = k - flat_rows.shape[1]
    if missing > 0:
        pad = ((0, 0), (0, missing))
        flat_rows = np.pad(flat_rows, pad, constant_values=-1)
        flat_scores = np.pad(flat_scores, pad, constant_values=-np.inf)
        interest = np.pad(interest, pad, constant_values=-1)
    found = flat_rows >= 0
    return (
        np.where(found, flat_rows, -1),
        np.where(found, flat_scores, -np.inf).astype(np.float32),
        np.where(found, interest, -1).astype(np.int32),
    )


def _distinct(
    rows: Int64, scores: Float32, interest: Int32, turn: Int64
) -> tuple[Int64, Float32, Int32, Int64]:
    """Keep each row's best score once, at the earliest turn of its copies; empty places go last."""
    by_score = np.lexsort((-scores, rows), axis=1)
    rows = np.take_along_axis(rows, by_score, axis=1)
    scores = np.take_along_axis(scores, by_score, axis=1)
    interest = np.take_along_axis(interest, by_score, axis=1)
    turn = np.take_along_axis(turn, by_score, axis=1).copy()
    first = np.ones(rows.shape, bool)
    first[:, 1:] = rows[:, 1:] != rows[:, :-1]
    # Copies of a row are neighbours now: carry the earliest turn back to the first copy. A row has
    # at most M copies, and M is small.
    for shift in range(1, rows.shape[1]):
        same = (rows[:, shift:] == rows[:, :-shift]) & (rows[:, shift:] >= 0)
        if not same.any():
            break
        turn[:, :-shift] = np.where(
            same, np.minimum(turn[:, :-shift], turn[:, shift:]), turn[:, :-shift]
        )
    keep = first & (rows >= 0)
    last = np.iinfo(np.int64).max
    return (
        np.where(keep, rows, -1),
        np.where(keep, scores, -np.inf),
        interest,
        np.where(keep, turn, last),
    )
