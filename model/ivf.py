"""An approximate index over millions of vectors: inverted lists of 4-bit codes, then exact scores.

Items are put into lists by *distance* to the lists' centroids, and a query reads the lists whose
centroids have the largest *inner product* with it. Assigning by inner product, as FAISS does by
itself for this metric, gathers the items in the lists of a few long centroids: measured on 400
thousand vectors like those of trained towers, 32 of 2,048 lists hold 82 % of a query's true best
100 that way, and 99 % this way. Codes only choose candidates; their scores are computed from the
vectors themselves. Built and tuned where a bundle is made, searched where it is served.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from model.ann import Float32, Int64, exact_search

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Shares of allowed rows that a search is tuned for."""
TUNED_K = 100
_PROBES = (
    4,
    6,
    8,
    12,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
    1536,
    2048,
    4096,
)
_FETCHES = (150, 200, 300, 400, 600, 800, 1200, 1600)
_ROW_COST = 40
"""What scoring one candidate in full costs, in codes read: 40 ns against 1 ns."""
_POINTS_A_LIST = 48
_SEED = 17


@dataclass(frozen=True, slots=True)
class Setting:
    """How to search where at least `share` of the rows are allowed."""

    share: float
    probes: int
    """Lists read for a query."""
    fetch: int
    """Candidates scored in full when the best TUNED_K are wanted."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A built index and what was measured while tuning it."""

    index: Any
    settings: tuple[Setting, ...]
    recall: float
    """recall@100 without a filter, on queries that the tuning did not see."""
    build_seconds: float

    def manifest(self) -> dict[str, Any]:
        """What the bundle's manifest says about the index."""
        return {
            "kind": "ivf",
            "metric": "inner_product",
            "lists": int(self.index.nlist),
            "settings": [asdict(setting) for setting in self.settings],
            "recall@100": self.recall,
            "build_seconds": round(self.build_seconds, 1),
        }


def build_ivf(vectors: Float32, *, num_lists: int | None = None) -> Any:
    """IVF + 4-bit PQ fast scan over [N, D] float32 vectors: 4 bits for each of the D numbers.

    num_lists: 4 sqrt(N), as a power of two, where not given. Trained on a seeded sample.
    """
    num_rows, dim = vectors.shape
    if num_lists is None:
        num_lists = 1 << max(round(np.log2(4 * np.sqrt(num_rows))), 2)
    rng = np.random.default_rng(_SEED)
    size = min(num_rows, num_lists * _POINTS_A_LIST)
    sample = vectors[np.sort(rng.choice(num_rows, size, replace=False))]
    kmeans = faiss.Kmeans(
        dim, num_lists, niter=10, seed=_SEED, max_points_per_centroid=_POINTS_A_LIST
    )
    kmeans.train(sample)
    assert kmeans.centroids is not None
    by_distance = faiss.IndexFlatL2(dim)
    by_distance.add(kmeans.centroids)
    index = faiss.IndexIVFPQFastScan(
        by_distance, dim, num_lists, dim, 4, faiss.METRIC_INNER_PRODUCT
    )
    index.train(sample)
    for start in range(0, num_rows, 1 << 18):
        index.add(vectors[start : start + (1 << 18)])
    by_product = faiss.IndexFlatIP(dim)
    by_product.add(kmeans.centroids)
    index.quantizer = by_product
    by_product.this.disown()  # type: ignore[attr-defined]  # the index frees it
    index.own_fields = True
    return index


def search_ivf(
    index: Any,
    vectors: Float32,
    queries: Float32,
    k: int,
    *,
    probes: int,
    fetch: int,
    selector: Any = None,
    excluded: Sequence[Int64] | None = None,
) -> tuple[Int64, Float32]:
    """Rows [Q, k] (-1: none) and exact scores (-inf: none), best first, the lower row among equals.

    selector: a FAISS IDSelector of the rows allowed. excluded: Q sorted arrays of rows left out of
    the `fetch` candidates.
    """
    parameters = faiss.SearchParametersIVF(  # type: ignore[call-arg]
        nprobe=min(probes, index.nlist), sel=selector
    )
    _, candidates = index.search(queries, fetch, params=parameters)
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for i, (query, found) in enumerate(zip(queries, candidates, strict=True)):
        if found[-1] < 0:
            found = found[found >= 0]
        if excluded is not None and len(excluded[i]):
            found = found[~np.isin(found, excluded[i])]
        exact = vectors.take(found, axis=0) @ query
        if len(found) > k:
            best = np.argpartition(exact, len(found) - k)[len(found) - k :]
            found, exact = found[best], exact[best]
        order = np.lexsort((found, -exact))
        rows[i, : len(order)], scores[i, : len(order)] = found[order], exact[order]
    return rows, scores


def tune(index: Any, vectors: Float32, queries: Float32, *, target: float = 0.99) -> Tuned:
    """Find the cheapest setting for each of SHARES that reaches recall@100 >= target.

    queries: [Q, D] vectors of the user tower, half of them for tuning, half for measuring. Rows are
    allowed at random; a search widens further where a filter follows the lists (serving).
    """
    started = time.perf_counter()
    half = len(queries) // 2
    depth = min(int(2 * TUNED_K / min(SHARES)), len(vectors))
    ranked = exact_search(queries, vectors, depth)[0]
    rng = np.random.default_rng(_SEED)
    settings = []
    for share in SHARES:
        mask = rng.random(len(vectors)) < share if share < 1 else np.ones(len(vectors), bool)
        wanted = _first_allowed(ranked[:half], mask)
        settings.append(_cheapest(index, queries[:half], wanted, mask, share, target))
    unseen = queries[half:]
    first = settings[0]
    found, _ = search_ivf(index, vectors, unseen, TUNED_K, probes=first.probes, fetch=first.fetch)
    recall = np.mean(
        [np.isin(w[:TUNED_K], f).mean() for w, f in zip(ranked[half:], found, strict=True)]
    )
    return Tuned(index, tuple(settings), float(recall), time.perf_counter() - started)


def _first_allowed(ranked: Int64, mask: npt.NDArray[np.bool_]) -> list[Int64]:
    """The first TUNED_K allowed rows of each ranking."""
    return [rows[mask[rows]][:TUNED_K] for rows in ranked]


def _cheapest(
    index: Any,
    queries: Float32,
    wanted: Sequence[Int64],
    mask: npt.NDArray[np.bool_],
    share: float,
    target: float,
) -> Setting:
    packed = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(packed) if share < 1 else None  # type: ignore[call-arg, arg-type]
    best, cost = Setting(share, index.nlist, _FETCHES[-1]), float("inf")
    for probes in _PROBES:
        if probes > index.nlist:
            break
        scanned = probes * index.ntotal / index.nlist
        if scanned >= cost:
            break
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)  # type: ignore[call-arg]
        _, found = index.search(queries, _FETCHES[-1], params=parameters)
        for fetch in _FETCHES:
            hits = [
                np.isin(want, rows[:fetch]).mean() for want, rows in zip(wanted, found, strict=True)
            ]
            if np.mean(hits) >= target:
                if scanned + _ROW_COST * fetch < cost:
                    best, cost = Setting(share, probes, fetch), scanned + _ROW_COST * fetch
                break
    return best
