"""How well scores rank exposures by what came of them: AUC, GAUC, NDCG and slate AUC.

AUC: over all exposures, the chance that one that came true is scored above one that did not. GAUC:
the AUC of each user who has both, weighted by the user's exposures. NDCG: of each such user's
exposures as a list, the mean over users. Equal scores share their places.

GAUC and NDCG compare a user's exposures of different times, and so what the user had done by then:
of one who likes one thing in a week, no like had been counted before what led to it, and one after.
So a count of likes, which tells well who likes, ranks backwards there. Slate AUC is the GAUC of
scores that all know the same of the user, as a reranker's do. Knows arrays alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

METRICS = ("auc", "gauc", "slate_auc", "ndcg")


class Ranking:
    """N exposures in the order of one score, ready to be measured under any weights of users."""

    def __init__(
        self,
        users: Int64,
        labels: Bool,
        scores: npt.NDArray[np.floating],
        num_users: int,
        *,
        slate_scores: npt.NDArray[np.floating],
    ) -> None:
        """users: [N] from 0 to num_users - 1. labels: [N]. scores: [N], finite. slate_scores: [N],
        what the same would score had each user been shown all of theirs at one moment."""
        order = np.argsort(scores, kind="stable")
        self._users, self._labels = users[order], labels[order]
        self._runs = _runs(scores[order])
        self.num_exposures, self.num_positives = len(labels), int(labels.sum())
        self._user_auc, self._user_ndcg = _of_users(users, labels, scores, num_users)
        """[U], NaN for users without both labels."""
        self._slate_auc, _ = _of_users(users, labels, slate_scores, num_users)
        self._has_both = np.isfinite(self._user_auc)
        self._user_size = np.bincount(users, minlength=num_users)
        self.num_users = int(self._has_both.sum())

    def measure(self, weights: Float64 | None = None) -> dict[str, float]:
        """The metrics, NaN where a metric has nothing to compare. weights: [U], how often each user
        counts; None: once."""
        weight = np.ones(len(self._user_auc)) if weights is None else weights
        both = weight * self._has_both
        by_size = both * self._user_size
        return {
            "auc": _weighted_auc(self._labels, weight[self._users], self._runs),
            "gauc": _mean(self._user_auc, by_size),
            "slate_auc": _mean(self._slate_auc, by_size),
            "ndcg": _mean(self._user_ndcg, both),
        }


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and the central 95 % of what resampled users give."""

    value: float
    low: float
    high: float


def bootstrap(
    rankings: Mapping[str, Ranking], num_users: int, *, samples: int, seed: int
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, Interval]]]:
    """Intervals of each ranking's metrics, and of how far the first is above each other one.

    Users are drawn with replacement, the same for all rankings: exposures of one user are alike, so
    that drawing exposures would make the intervals too narrow.
    """
    rng = np.random.default_rng(seed)
    first, *others = rankings
    drawn: dict[str, list[dict[str, float]]] = {name: [] for name in rankings}
    for _ in range(samples):
        weights = np.bincount(rng.integers(0, num_users, num_users), minlength=num_users)
        for name, ranking in rankings.items():
            drawn[name].append(ranking.measure(weights.astype(np.float64)))
    found = {name: ranking.measure() for name, ranking in rankings.items()}

    def interval(value: float, samples: list[float]) -> Interval:
        finite = [sample for sample in samples if np.isfinite(sample)]
        if not finite:
            return Interval(value, float("nan"), float("nan"))
        low, high = np.quantile(finite, [0.025, 0.975])
        return Interval(value, float(low), float(high))

    own = {
        name: {m: interval(found[name][m], [s[m] for s in drawn[name]]) for m in METRICS}
        for name in rankings
    }
    above = {
        name: {
            m: interval(
                found[first][m] - found[name][m],
                [a[m] - b[m] for a, b in zip(drawn[first], drawn[name], strict=True)],
            )
            for m in METRICS
        }
        for name in others
    }
    return own, above


def _of_users(
    users: Int64, labels: Bool, scores: npt.NDArray[np.floating], num_users: int
) -> tuple[Float64, Float64]:
    """AUC and NDCG of each user [U], NaN without both labels."""
    order = np.lexsort((scores, users))
    user, label, score = users[order], labels[order], scores[order]
    size = np.bincount(user, minlength=num_users)
    first = np.cumsum(size) - size
    positives = np.bincount(user, weights=label, minlength=num_users)
    negatives = size - positives
    both = (positives > 0) & (negatives > 0)
    run = _runs(user, score)
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    length = np.diff(np.append(starts, len(run)))
    place = np.arange(len(run)) - first[user]
    # An equal score's place is the middle of its run.
    middle = (starts - first[user[starts]] + (length - 1) / 2)[run]
    ranks = np.bincount(user, weights=label * (middle + 1), minlength=num_users)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
        gains = 1 / np.log2(2 + size[user] - 1 - place)
        shared = (np.add.reduceat(gains, starts) / length)[run] if len(run) else gains
        ideal = np.cumsum(1 / np.log2(2 + np.arange(max(int(size.max(initial=0)), 1))))
        dcg = np.bincount(user, weights=label * shared, minlength=num_users)
        ndcg = dcg / ideal[np.maximum(positives.astype(np.int64) - 1, 0)]
    return np.where(both, auc, np.nan), np.where(both, ndcg, np.nan)


def _runs(*columns: npt.NDArray[np.generic]) -> Int64:
    """[N] a number from 0, one higher wherever any of the sorted columns changes."""
    changes = np.zeros(len(columns[0]), bool)
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.cumsum(changes)


def _weighted_auc(labels: Bool, weights: Float64, runs: Int64) -> float:
    """Of rows in rising order of score; rows of one run have one score."""
    positive = np.bincount(runs, weights=weights * labels)
    negative = np.bincount(runs, weights=weights * ~labels)
    total = positive.sum() * negative.sum()
    if total == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / total)


def _mean(values: Float64, weights: Float64) -> float:
    total = weights.sum()
    if total == 0:
        return float("nan")
    return float((np.where(weights > 0, values, 0) * weights).sum() / total)
