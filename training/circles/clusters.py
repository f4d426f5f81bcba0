"""Where the circles lie: spherical k-means over a sample of the items, then all of them in blocks.

Memory is that of the sample and of one block, however many items there are. Knows no names, no ids
and no users.
"""

from dataclasses import dataclass
from typing import cast

import faiss
import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

SAMPLE_A_CIRCLE = 128
"""Items a circle that k-means looks at."""
MAX_CIRCLES = 8192
_ROUNDS = 20
_TRIES = 3
"""K-means is begun so often for a catalogue that costs nothing to cluster; see _CHEAP."""
_CHEAP = 20_000
"""Items up to which it costs nothing."""
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Clusters:
    """C clusters of N vectors; none is empty."""

    centroids: Float32
    """[C, D] of unit length."""
    of_item: Int32
    """[N] the cluster of each."""
    closeness: Float32
    """[N] the cosine of each to its centroid."""


def num_circles(num_items: int) -> int:
    """One and a half times the square root of the catalogue: 88 for 3,416 items, 1,500 for a
    million; fewer put several crafts of the default world into one circle."""
    return int(np.clip(round(1.5 * num_items**0.5), 1, min(num_items, MAX_CIRCLES)))


def num_districts(num_circles: int) -> int:
    """One and a quarter times the square root of the circles: 13 for 116 circles, 48 for 1,500. A
    true district of the default world has four or five true interests."""
    return int(np.clip(round(1.25 * num_circles**0.5), 1, num_circles))


def find_clusters(
    vectors: Float32, count: int, *, seed: int, starts: Float32 | None = None
) -> Clusters:
    """Cluster N vectors [N, D] by direction into at most `count`.

    starts: [S, D] unit vectors that k-means begins from, the most important first; further ones
    begin at vectors that are far from all of them. None: it begins anywhere.
    """
    sample = _sample(vectors, SAMPLE_A_CIRCLE * count, seed=seed)
    count = min(count, len(sample))
    begin = None if starts is None or not len(starts) else _filled(starts, count, sample, seed=seed)
    centroids = _k_means(sample, None, count, begin, seed=seed)
    return _assigned(vectors, centroids)


def find_districts(
    centroids: Float32, sizes: Int64, count: int, *, seed: int, starts: Float32 | None = None
) -> Int32:
    """[C] the district of each circle: at most `count` clusters of their centroids [C, D], where a
    circle weighs what it holds [C]. None of them is empty.

    starts: as for find_clusters; None: k-means begins with the groups of average linkage, which
    knows the few hundred points better than any places drawn by lot (benchmarks/circles.py).
    """
    if starts is None or not len(starts):
        starts = _linked(centroids, sizes, count)
    begin = _filled(starts, count, centroids, seed=seed)
    found = _k_means(centroids, sizes.astype(np.float32), count, begin, seed=seed)
    return _assigned(centroids, found).of_item


def _linked(centroids: Float32, sizes: Int64, count: int) -> Float32:
    """[at most count, D] the middles of the groups that average linkage makes of centroids."""
    if len(centroids) <= count:
        return centroids
    tree = linkage(centroids.astype(np.float64), "average")
    groups = fcluster(tree, count, "maxclust").astype(np.int64) - 1
    return means(centroids, groups, int(groups.max()) + 1, sizes)


def unit(vectors: Float32) -> Float32:
    """The directions of vectors [n, D]."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def means(vectors: Float32, groups: Int64, count: int, weights: npt.NDArray[np.number]) -> Float32:
    """[count, D] the mean direction of each group's vectors, zeros where a group has none.

    vectors: [N, D]. groups: [N], -1 for none. weights: [N].
    """
    sums = np.zeros((count, vectors.shape[1]), np.float64)
    for first in range(0, len(vectors), _BLOCK):
        mine = groups[first : first + _BLOCK]
        rows = np.flatnonzero(mine >= 0)
        worth = weights[first : first + _BLOCK][rows]
        member = coo_matrix((worth, (mine[rows], np.arange(len(rows)))), (count, len(rows)))
        sums += member.tocsr() @ unit(vectors[first : first + _BLOCK][rows])
    return unit(sums.astype(np.float32))


def _sample(vectors: Float32, most: int, *, seed: int) -> Float32:
    """The directions of at most `most` of the vectors, in their order."""
    if len(vectors) <= most:
        return unit(vectors)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(vectors), most, replace=False, shuffle=False))
    return unit(vectors[rows])


def _k_means(
    points: Float32, weights: Float32 | None, count: int, begin: Float32 | None, *, seed: int
) -> Float32:
    """[count, D] centroids of unit length of the points [n, D], n >= count."""
    found = faiss.Kmeans(
        points.shape[1],
        count,
        niter=_ROUNDS,
        nredo=_TRIES if begin is None and len(points) <= _CHEAP else 1,
        seed=seed % (1 << 31),  # FAISS keeps 32 bits of it
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),  # the sample was taken before
    )
    found.train(points, weights=weights, init_centroids=begin)
    return cast(Float32, found.centroids)


def _filled(starts: Float32, count: int, points: Float32, *, seed: int) -> Float32:
    """[count, D] the first of the starts, or all of them and points that are far from them."""
    if len(starts) >= count:
        return np.ascontiguousarray(starts[:count])
    nearest = faiss.knn(points, starts, 1, metric=faiss.METRIC_INNER_PRODUCT)[0][:, 0]
    far = np.maximum(1 - nearest, 1e-6).astype(np.float64) ** 2
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(points), count - len(starts), replace=False, p=far / far.sum())
    return np.ascontiguousarray(np.concatenate([starts, points[rows]]))


def _assigned(vectors: Float32, centroids: Float32) -> Clusters:
    """Every vector to its nearest centroid; a centroid that has none is dropped."""
    nearest = np.empty(len(vectors), np.int32)
    closeness = np.empty(len(vectors), np.float32)
    for first in range(0, len(vectors), _BLOCK):
        block = unit(vectors[first : first + _BLOCK])
        scores, found = faiss.knn(block, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)
        nearest[first : first + _BLOCK] = found[:, 0]
        closeness[first : first + _BLOCK] = scores[:, 0]
    used = np.bincount(nearest, minlength=len(centroids)) > 0
    place = (np.cumsum(used) - 1).astype(np.int32)
    return Clusters(centroids[used], place[nearest], closeness)
