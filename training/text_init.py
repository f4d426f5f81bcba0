"""Text tables that begin with what the catalogue's own texts say of their n-grams.

Latent semantic analysis (Deerwester et al., JASIS 1990): the main directions of the items' TF-IDF
vectors give every n-gram a vector, and an item whose text is the mean of its n-grams begins near
items with like texts, before a single event was learned from. Knows nothing of runs.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from model.towers import ItemTower

Float32 = npt.NDArray[np.float32]


def start_from_texts(
    tower: ItemTower, features: Mapping[str, Tensor], *, length: float, seed: int
) -> None:
    """Set the table of each text feature, in place.

    features: arrays of Encoder.encode_items of the whole catalogue. length: what the mean of an
    item's n-grams has on average, over items that have any.
    """
    if tower.content is None:
        return
    for i, spec in enumerate(tower.content.specs):
        if spec.type == "text":
            codes = features[f"item.{spec.name}"].cpu().numpy()
            found = ngram_vectors(codes, num_codes=spec.size, dim=tower.config.dim, seed=seed)
            rows = _bag_means(codes, found)
            norms = np.linalg.norm(rows, axis=1)
            scale = length / max(float(norms[norms > 0].mean()), 1e-12) if norms.any() else 0.0
            table = tower.content.tables[str(i)]
            with torch.no_grad():
                table += torch.from_numpy(found * np.float32(scale)).to(table.device)


def ngram_vectors(codes: npt.NDArray[np.int32], *, num_codes: int, dim: int, seed: int) -> Float32:
    """codes: [V, W], 0-padded. Returns [num_codes, dim]: each n-gram's right singular vector of the
    TF-IDF matrix, times its inverse document frequency; zeros for what no text holds."""
    matrix, idf = _tf_idf(codes, num_codes)
    rank = min(dim, *matrix.shape)
    _, _, directions = randomized_svd(matrix, rank, random_state=seed)
    vectors = np.zeros((num_codes, dim), np.float32)
    vectors[:, :rank] = directions.T * idf[:, np.newaxis]
    return vectors


def _tf_idf(codes: npt.NDArray[np.int32], num_codes: int) -> tuple[sp.csr_matrix, Float32]:
    """The TF-IDF matrix [V, num_codes], rows of length 1, and every n-gram's idf."""
    rows, columns = np.nonzero(codes)
    shape = (len(codes), num_codes)
    matrix = sp.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, codes[rows, columns])), shape=shape
    )
    matrix.data[:] = 1  # two n-grams of one code count once
    texts = np.bincount(matrix.indices, minlength=num_codes)
    idf = (np.log((1 + len(codes)) / (1 + texts)) + 1).astype(np.float32)
    idf[texts == 0] = 0
    matrix.data = idf[matrix.indices]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(matrix.indptr)).astype(np.float32)
    return matrix, idf


def _bag_means(codes: npt.NDArray[np.int32], table: Float32) -> Float32:
    """[V, D] the mean of each row's n-grams, zeros for none."""
    rows, columns = np.nonzero(codes)
    bags = sp.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, codes[rows, columns])),
        shape=(len(codes), len(table)),
    )
    counts = np.maximum((codes != 0).sum(axis=1), 1)
    means: Float32 = (bags @ table / counts[:, np.newaxis]).astype(np.float32)
    return means
