"""The graphs that benchmarks/ann.py measures beside ours: hnswlib, usearch and FAISS's HNSW.

Each is built with ef_construction 200, on one thread, and kept on the disk. A graph walks well
where near is near for everybody; with inner products the longest vectors are near to all, and walks
end there. So each is also built over one more number a vector, chosen so that all are equally long
(Bachrach et al., RecSys 2014): then the nearest by distance are the best by inner product.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import faiss
import hnswlib
import numpy as np
import numpy.typing as npt
from usearch.index import Index as UsearchIndex

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
EF_CONSTRUCTION = 200


class Graph(Protocol):
    """One built graph."""

    def search(self, query: Float32, k: int, ef: int, mask: "Mask | None") -> Int64:
        """Rows of the k best for one query [1, D or D + 1], looking at `ef` candidates."""


class Mask:
    """Rows that may be returned, in the form each library wants."""

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        self.packed = np.packbits(mask, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(self.packed)  # type: ignore[call-arg, arg-type]
        self.contains: Callable[[int], bool] = mask.tolist().__getitem__


class Hnswlib:
    """hnswlib; its filter is a Python function that it calls for each candidate."""

    def __init__(self, path: Path, dim: int, space: str) -> None:
        self._index = hnswlib.Index(space, dim)
        self._index.load_index(str(path))
        self._index.set_num_threads(1)

    @staticmethod
    def build(path: Path, vectors: Float32, space: str, degree: int) -> None:
        """Build and write."""
        index = hnswlib.Index(space, vectors.shape[1])
        index.init_index(len(vectors), M=degree, ef_construction=EF_CONSTRUCTION, random_seed=17)
        index.add_items(vectors, num_threads=1)
        index.save_index(str(path))

    def search(self, query: Float32, k: int, ef: int, mask: Mask | None) -> Int64:
        """See Graph; fewer than k where it finds no more."""
        self._index.set_ef(ef)
        contains = None if mask is None else mask.contains
        try:
            rows: Int64 = self._index.knn_query(query, k, num_threads=1, filter=contains)[0][0]
        except RuntimeError:  # it found fewer than k, and then returns none
            return np.empty(0, np.int64)
        return rows.astype(np.int64)


class Usearch:
    """usearch; its Python interface has no filter."""

    def __init__(self, path: Path, dim: int, space: str) -> None:
        self._index = UsearchIndex(ndim=dim, metric=_USEARCH[space], dtype="f32")
        self._index.load(str(path))

    @staticmethod
    def build(path: Path, vectors: Float32, space: str, degree: int) -> None:
        """Build and write."""
        index = UsearchIndex(
            ndim=vectors.shape[1],
            metric=_USEARCH[space],
            dtype="f32",
            connectivity=degree,
            expansion_add=EF_CONSTRUCTION,
        )
        index.add(np.arange(len(vectors)), vectors, threads=1)
        index.save(str(path))

    def search(self, query: Float32, k: int, ef: int, mask: Mask | None) -> Int64:
        """See Graph."""
        assert mask is None
        self._index.expansion_search = ef
        return np.asarray(self._index.search(query[0], k, threads=1).keys).astype(np.int64)


class FaissHnsw:
    """FAISS's IndexHNSWFlat; filters are bitmaps, as ours are."""

    def __init__(self, path: Path, dim: int, space: str) -> None:
        self._index = faiss.read_index(str(path))

    @staticmethod
    def build(path: Path, vectors: Float32, space: str, degree: int) -> None:
        """Build and write."""
        metric = faiss.METRIC_INNER_PRODUCT if space == "ip" else faiss.METRIC_L2
        index = faiss.IndexHNSWFlat(vectors.shape[1], degree, metric)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        for start in range(0, len(vectors), 1 << 16):
            index.add(vectors[start : start + (1 << 16)])
        faiss.write_index(index, str(path))

    def search(self, query: Float32, k: int, ef: int, mask: Mask | None) -> Int64:
        """See Graph."""
        selector = None if mask is None else mask.selector
        how = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)  # type: ignore[call-arg]
        rows: Int64 = self._index.search(query, k, params=how)[1][0]
        return rows


_USEARCH = {"ip": "ip", "l2": "l2sq"}
PEERS: dict[str, Any] = {"hnswlib": Hnswlib, "usearch": Usearch, "faiss HNSW": FaissHnsw}
VARIANTS = (("l2", 32), ("l2", 16), ("ip", 32))
"""Space and M; l2: with the additional number."""


def equally_long(vectors: Float32) -> Float32:
    """[N, D] → [N, D + 1], all of the length of the longest; a query gets a zero."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    last = np.sqrt(np.maximum(squares.max() - squares, 0))
    return np.concatenate([vectors, last[:, np.newaxis]], axis=1).astype(np.float32)


def build_graph(name: str, space: str, degree: int, vectors: Float32, path: Path) -> None:
    """Build where it is not there yet; the seconds of the processor go beside it."""
    if path.exists():
        return
    given = np.ascontiguousarray(vectors) if space == "ip" else equally_long(vectors)
    partial = path.with_suffix(".partial")
    started = time.process_time()
    PEERS[name].build(partial, given, space, degree)
    path.with_suffix(".seconds").write_text(f"{time.process_time() - started:.1f}")
    partial.rename(path)
