"""Every implementation of VectorIndex, as the suite builds it, and the float64 reference.

The inverted lists join with every list read and every row scored, which is exact: what is under
test is what they make of filters, exclusions and ties. How much they find otherwise is in
test_inverted_lists.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.ann import build_exact, exact_search
from model.ivf import Setting, build_ivf
from serving.index.base import Bitmap, Float32, Int64, VectorIndex
from serving.index.bounds import ScoreBounds
from serving.index.faiss_index import FaissIndex
from serving.index.ivf_index import IvfIndex
from serving.index.torch_index import TorchIndex

DIM = 16


class ReferenceIndex:
    """model.ann.exact_search as a VectorIndex."""

    def __init__(self, vectors: Float32) -> None:
        self._vectors = vectors

    @property
    def num_rows(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1])

    def search(
        self,
        queries: Float32,
        k: int,
        *,
        allowed: Bitmap | None = None,
        excluded: Sequence[Int64] | None = None,
    ) -> tuple[Int64, Float32]:
        inside = excluded and [rows[rows < self.num_rows] for rows in excluded]
        mask = None if allowed is None else allowed.mask
        return exact_search(queries, self._vectors, k, allowed=mask, excluded=inside)


def faiss_flat(vectors: Float32) -> VectorIndex:
    return FaissIndex(build_exact(vectors), vectors)


def faiss_bounded(vectors: Float32) -> VectorIndex:
    """As faiss_flat, with bounds whatever the vectors are: they must never cost exactness."""
    index = FaissIndex(build_exact(vectors), vectors)
    index._bounds = ScoreBounds(vectors) if len(vectors) else None
    return index


def inverted_lists(vectors: Float32) -> VectorIndex:
    """IvfIndex that reads all of its lists; no index has lists for a handful of vectors."""
    if len(vectors) < 64:
        return faiss_flat(vectors)
    index = build_ivf(vectors, vectors[:50], num_lists=8)
    return IvfIndex(index, vectors, Setting(probes=8, fetch=len(vectors)))


def torch_matrix(vectors: Float32) -> VectorIndex:
    return TorchIndex(vectors, device="cpu")


def torch_on_gpu(vectors: Float32) -> VectorIndex:
    return TorchIndex(vectors)


Build = Callable[[Float32], VectorIndex]
BUILDERS: list[Any] = [
    ReferenceIndex,
    faiss_flat,
    faiss_bounded,
    inverted_lists,
    torch_matrix,
    pytest.param(
        torch_on_gpu,
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
        ],
    ),
]


def unit(rng: np.random.Generator, num: int) -> Float32:
    """Directions drawn evenly: [num, DIM] of length 1."""
    vectors = rng.normal(size=(num, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def trained_like(rng: np.random.Generator, num: int, dim: int = 64) -> Float32:
    """Vectors that lie near a few directions, as those of trained towers do."""
    shares = 0.8 ** np.arange(dim)
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    vectors: Float32 = ((rng.normal(size=(num, dim)) * shares) @ turned).astype(np.float32)
    return vectors


def expected(
    query: Float32, vectors: Float32, k: int, candidates: npt.NDArray[np.int64]
) -> tuple[Int64, npt.NDArray[np.float64]]:
    """The k best of `candidates` in float64, the lower row first among equals."""
    scores = vectors[candidates].astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((candidates, -scores))[:k]
    return candidates[order], scores[order]


def check(
    index: VectorIndex,
    vectors: Float32,
    queries: Float32,
    k: int,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    excluded: list[Int64] | None = None,
) -> None:
    """The answer of one search is the float64 reference's."""
    bitmap = None if allowed is None else Bitmap(allowed)
    rows, scores = index.search(queries, k, allowed=bitmap, excluded=excluded)
    assert rows.shape == scores.shape == (len(queries), k)
    assert rows.dtype == np.int64 and scores.dtype == np.float32
    for i, query in enumerate(queries):
        mask = np.ones(len(vectors), bool) if allowed is None else allowed.copy()
        if excluded is not None:
            mask[excluded[i][excluded[i] < len(vectors)]] = False
        want, want_scores = expected(query, vectors, k, np.flatnonzero(mask))
        assert rows[i, : len(want)].tolist() == want.tolist()
        np.testing.assert_allclose(scores[i, : len(want)], want_scores, atol=1e-5)
        assert (rows[i, len(want) :] == -1).all()
        assert np.isneginf(scores[i, len(want) :]).all()
