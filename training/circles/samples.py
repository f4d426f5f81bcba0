"""Which items stand for a circle: well known, and near its middle.

Knows no names and no ids.
"""

import numpy as np
import numpy.typing as npt

from training.circles.clusters import Clusters

Int64 = npt.NDArray[np.int64]


def best_known(groups: npt.NDArray[np.integer], num: int, popularity: Int64) -> Int64:
    """[num] the row of each group's most popular item; of equals the first. No group is empty."""
    order = np.lexsort((-popularity, groups))
    rows: Int64 = order[np.searchsorted(groups[order], np.arange(num))]
    return rows


def samples_of(
    clusters: Clusters,
    popularity: Int64,
    shown: npt.NDArray[np.bool_] | None,
    *,
    most: int,
) -> list[list[int]]:
    """The most popular rows among the nearer half of each cluster's items, at most `most`.

    popularity: [N]. shown: [N] which may be samples; None: all.
    """
    num = len(clusters.centroids)
    rows = np.arange(len(popularity)) if shown is None else np.flatnonzero(shown)
    half = _first_of_each(
        clusters.of_item[rows], -clusters.closeness[rows].astype(np.float64), num, share=0.5
    )
    rows = np.sort(rows[half])
    first = _first_of_each(
        clusters.of_item[rows], -popularity[rows].astype(np.float64), num, most=most
    )
    found: list[list[int]] = [[] for _ in range(num)]
    for row in rows[first].tolist():
        found[clusters.of_item[row]].append(row)
    return found


def _first_of_each(
    groups: npt.NDArray[np.integer],
    keys: npt.NDArray[np.float64],
    num: int,
    *,
    share: float = 1.0,
    most: int | None = None,
) -> Int64:
    """Places of the smallest keys of each group: such a share of them, rounded up, at most `most`;
    group by group, the smallest first."""
    order = np.lexsort((keys, groups))
    sizes = np.bincount(groups, minlength=num)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    limit = np.ceil(share * sizes)
    if most is not None:
        limit = np.minimum(limit, most)
    places: Int64 = order[rank < np.repeat(limit, sizes)]
    return places
