"""Candidates of several queries, end to end: made of what a search returns, joined, added to."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.domain import Candidates

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def flat(rows: Int64, scores: Float32, interests: npt.NDArray[np.int32]) -> Candidates:
    """[Q, k] arrays with -1 for none → the candidates alone, query after query."""
    if rows[:, -1].min() >= 0:  # nones come last, so there are none
        counts = np.full(rows.shape[0], rows.shape[1])
        return Candidates(rows.ravel(), scores.ravel(), interests.ravel(), counts)
    found = rows >= 0
    return Candidates(rows[found], scores[found], interests[found], found.sum(axis=1))


def join(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of some queries, and after them those of others."""
    return Candidates(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.interests for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )


def with_extra(found: Candidates, extra: Candidates) -> Candidates:
    """Each query's candidates, and after them those of `extra` that it does not have."""
    owner, added = (np.repeat(np.arange(len(one.counts)), one.counts) for one in (found, extra))
    num_rows = int(max(found.rows.max(initial=0), extra.rows.max(initial=0))) + 1
    new = ~np.isin(added * num_rows + extra.rows, owner * num_rows + found.rows)
    order = np.argsort(np.concatenate([owner, added[new]]), kind="stable")
    return Candidates(
        np.concatenate([found.rows, extra.rows[new]])[order],
        np.concatenate([found.scores, extra.scores[new]])[order],
        np.concatenate([found.interests, extra.interests[new]])[order],
        found.counts + np.bincount(added[new], minlength=len(found.counts)),
    )
