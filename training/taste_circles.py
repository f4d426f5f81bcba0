"""Circles of taste: who engages with what puts items into circles, whatever a model thinks of them.

Discovery is measured in these (engagements in circles the user had never engaged with before): a
model's own circles would let each model be judged by a map it drew itself. Two runs on the same
dataset and split get the same circles.
"""

import faiss
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.utils.extmath import randomized_svd

from training.circles.clusters import num_circles
from training.dataset import Interactions

Int64 = npt.NDArray[np.int64]

DIM = 32
"""Directions of taste kept of the user-item matrix."""


def taste_circles(training: Interactions, *, seed: int) -> Int64:
    """The circle of each item, [V] int64; -1 for an item without a training event.

    Items are placed by a truncated SVD of the binary user-item matrix, whose entries are scaled by
    1 / sqrt(events of the user × events of the item), and clustered by spherical k-means.
    """
    circles = np.full(training.num_items, -1, np.int64)
    pairs = np.unique(training.owners * training.num_items + training.items)
    owners, items = np.divmod(pairs, training.num_items)
    rows = np.unique(items)
    if not len(rows):
        return circles
    num_items = np.bincount(owners, minlength=training.num_users)
    num_users = np.bincount(items, minlength=training.num_items)
    weights = 1 / np.sqrt(num_items[owners].astype(np.float32) * num_users[items])
    shape = (training.num_users, len(rows))
    matrix = csr_matrix((weights, (owners, np.searchsorted(rows, items))), shape)
    dim = min(DIM, *shape)
    _, scale, directions = randomized_svd(matrix, dim, n_iter=4, random_state=seed)
    vectors = (scale[:, None] * directions).T
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors = np.ascontiguousarray(vectors, np.float32)
    means = faiss.Kmeans(
        dim,
        num_circles(len(rows)),
        niter=20,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
    )
    means.train(vectors)
    circles[rows] = means.index.search(vectors, 1)[1][:, 0]
    return circles
