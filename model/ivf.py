"""An approximate index over millions of vectors: inverted lists of 4-bit codes, then exact scores.

What must be near in an index for inner products is what scores alike, and not all directions count:
trained towers give user vectors that vary in a few. So items and queries are turned into a space
where the squared distance of two items is the expected squared difference of their scores (Guo et
al., "Quantization based Fast Inner Product Search", AISTATS 2016), and lists and codes are learned
there. Items are put into lists by distance, and a query reads the lists whose centroids have the
largest inner product with it. Codes only choose candidates; their scores are computed from the
vectors themselves. Built and tuned where a bundle is made, searched where it is served; filters
are planned in serving/index/ivf_index.py.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from model.ann import Float32, Int64, recall_of

Float64 = npt.NDArray[np.float64]

TUNED_K = 100
TARGET = 0.99
"""recall@100 that a tuned index has, on user vectors that it was not tuned with."""
_MARGIN = 0.003
"""Tuned for so much more, since other users are no easier than those tuned with."""
_PROBES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
_FETCHES = (120, 150, 200, 250, 300, 400, 500, 600, 800, 1200, 1600)
_MOST_FETCHED = 0.05
"""Share of all rows; scoring more candidates in full than that costs as much as scoring all."""
_ROW_COST = 30
"""What fetching and scoring one candidate costs, in codes read: 100 ns against 3 ns."""
_ITEMS_SHARE = 0.2
"""Weight of the items' own directions beside the users', since similar items are asked for, too."""
_FLOOR = 1e-3
"""Weight of all directions alike, so that none is lost."""
_POINTS_A_LIST = 48
_ITERATIONS = 10
_BLOCK = 1 << 17
_SEED = 17


@dataclass(frozen=True, slots=True)
class Setting:
    """How to search where nothing is filtered."""

    probes: int
    """Lists read for a query."""
    fetch: int
    """Candidates scored in full when the best TUNED_K are wanted."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """How to search an index, and what that was found to be worth: it may be less than TARGET."""

    setting: Setting
    recall: float
    """recall@100 without a filter, on queries that the tuning did not see."""
    seconds: float

    def manifest(self) -> dict[str, Any]:
        """What the bundle's manifest says about it."""
        return {
            **asdict(self.setting),
            "recall@100": round(self.recall, 5),
            "tuning_seconds": round(self.seconds, 1),
        }


def score_space(vectors: Float32, queries: Float32) -> tuple[Float64, Float64]:
    """Matrices [D, D] that turn items and queries into the space where distance is score.

    vectors: [N, D]. queries: [Q, D], from the user tower; where Q is 0 the items stand for them.
    With S the second moment of the queries, items are multiplied by its square root and queries by
    the inverse of that: products stay, and |x - y|² becomes the mean of (q·x - q·y)² over queries.
    """
    dim = vectors.shape[1]
    moment = _FLOOR * np.eye(dim) / dim
    for rows, weight in ((vectors, _ITEMS_SHARE), (queries, 1 - _ITEMS_SHARE)):
        some = rows[:: max(len(rows) // _BLOCK, 1)].astype(np.float64)
        spread = some.T @ some
        moment += weight * spread / max(float(np.trace(spread)), 1e-30)
    values, directions = np.linalg.eigh(moment)
    root = np.sqrt(values)
    return (directions * root) @ directions.T, (directions / root) @ directions.T


def build_ivf(vectors: Float32, queries: Float32, *, num_lists: int | None = None) -> Any:
    """A FAISS index of [N, D] float32 vectors that finds what the queries [Q, D] would score high.

    num_lists: 4 sqrt(N), as a power of two, where not given. Two bits a number (4-bit codes of
    pairs), and 8 bytes for the row. Trained on a seeded sample, so the same each time.

    Returns an IndexPreTransform that turns queries, around an IndexIVFPQFastScan over turned items:
    search it as it is, but add no more vectors through it.
    """
    num_rows, dim = vectors.shape
    if num_lists is None:
        num_lists = 1 << max(round(np.log2(4 * np.sqrt(num_rows))), 2)
    to_items, to_queries = score_space(vectors, queries)
    rng = np.random.default_rng(_SEED)
    size = min(num_rows, num_lists * _POINTS_A_LIST)
    sample = vectors[np.sort(rng.choice(num_rows, size, replace=False))]
    kmeans = faiss.Kmeans(
        dim,
        num_lists,
        niter=_ITERATIONS,
        seed=_SEED,
        max_points_per_centroid=_POINTS_A_LIST,
        min_points_per_centroid=1,
    )
    kmeans.train((sample @ to_items).astype(np.float32))
    num_codes = dim // 2 if dim % 2 == 0 else dim
    axes = _balanced_axes(sample[:_BLOCK] @ to_items, kmeans, num_codes)
    to_items, to_queries = (turn @ axes for turn in (to_items, to_queries))
    assert kmeans.centroids is not None
    centroids = np.ascontiguousarray(kmeans.centroids @ axes, np.float32)

    by_distance = faiss.IndexFlatL2(dim)
    by_distance.add(centroids)
    lists = faiss.IndexIVFPQFastScan(
        by_distance, dim, num_lists, num_codes, 4, faiss.METRIC_INNER_PRODUCT
    )
    lists.by_residual = True  # codes of what is left of a vector beside its centroid
    turn = to_items.astype(np.float32)
    lists.train(sample @ turn)
    for start in range(0, num_rows, _BLOCK):
        lists.add(vectors[start : start + _BLOCK] @ turn)
    by_product = faiss.IndexFlatIP(dim)
    by_product.add(centroids)
    lists.quantizer = by_product
    by_product.this.disown()  # type: ignore[attr-defined]  # the index frees it
    lists.own_fields = True
    return _with_turned_queries(lists, to_queries)


def _balanced_axes(turned: Float64, kmeans: Any, num_codes: int) -> Float64:
    """Orthonormal axes [D, D] on which each code describes about as much of what lists leave.

    The principal components of vectors [n, D] less their centroids, dealt out largest first to the
    code that has the least so far (Ge et al., "Optimized Product Quantization", 2014, section 3.2).
    """
    rest = turned - kmeans.centroids[kmeans.index.search(turned.astype(np.float32), 1)[1][:, 0]]
    values, components = np.linalg.eigh(rest.T @ rest)
    shares = np.log(np.maximum(values, 1e-9 * values[-1] + 1e-30))
    room = len(values) // num_codes
    codes: list[list[int]] = [[] for _ in range(num_codes)]
    held = np.zeros(num_codes)
    for component in range(len(values) - 1, -1, -1):
        free = [number for number in range(num_codes) if len(codes[number]) < room]
        number = min(free, key=lambda code: float(held[code]))
        codes[number].append(component)
        held[number] += shares[component] - shares[0]
    return components[:, [component for code in codes for component in code]]


def _with_turned_queries(lists: Any, to_queries: Float64) -> Any:
    dim = len(to_queries)
    turn: Any = faiss.LinearTransform(dim, dim, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(to_queries.T, np.float32).ravel(), turn.A)
    turn.is_trained = True
    index = faiss.IndexPreTransform(turn, lists)
    for part in (turn, lists):
        part.this.disown()  # the index frees them
    index.own_fields = True
    return index


def parts(index: Any) -> tuple[Any, Float32]:
    """The inverted lists inside an index of `build_ivf`, and the matrix [D, D] for queries."""
    lists = faiss.downcast_index(index.index)
    turn: Any = faiss.downcast_VectorTransform(index.chain.at(0))
    matrix: Float32 = faiss.vector_to_array(turn.A).reshape(lists.d, lists.d).T
    return lists, matrix


def reading(probes: int, *, rows: Any = None, lists: Any = None) -> Any:
    """FAISS's parameters for reading `probes` lists; rows, lists: IDSelectors, those allowed."""
    within = None if lists is None else faiss.SearchParameters(sel=lists)  # type: ignore[call-arg]
    return faiss.SearchParametersPreTransform(
        index_params=faiss.SearchParametersIVF(  # type: ignore[call-arg]  # sets any attribute
            nprobe=probes, sel=rows, quantizer_params=within
        )
    )


def search_ivf(
    index: Any,
    vectors: Float32,
    queries: Float32,
    k: int,
    *,
    fetch: int,
    how: Any,
    excluded: Sequence[Int64] | None = None,
) -> tuple[Int64, Float32]:
    """Rows [Q, k] (-1: none) and exact scores (-inf: none), best first, the lower row among equals.

    fetch: candidates scored in full. how: from `reading`. excluded: Q sorted arrays of rows left
    out of the candidates.
    """
    _, candidates = index.search(queries, fetch, params=how)
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for i, (query, found) in enumerate(zip(queries, candidates, strict=True)):
        if found[-1] < 0:
            found = found[found >= 0]
        if excluded is not None and len(excluded[i]):
            found = found[~np.isin(found, excluded[i])]
        exact = vectors.take(found, axis=0) @ query
        if len(found) > k:
            best = exact.argpartition(len(found) - k)[len(found) - k :]
            found, exact = found[best], exact[best]
        order = np.lexsort((found, -exact))
        rows[i, : len(order)], scores[i, : len(order)] = found[order], exact[order]
    return rows, scores


def tune(index: Any, vectors: Float32, queries: Float32) -> Tuned:
    """Find the cheapest setting that reaches TARGET, and measure it; widen it until it holds.

    queries: [Q, D] vectors of the user tower; every other one is kept for measuring. Where even the
    widest setting that is worth its cost falls short, that one is returned, and its recall says so.
    """
    started = time.perf_counter()
    depth = min(TUNED_K, len(vectors))
    longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0)))
    best = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)[0][:, -1]
    tuned_with, others = _Known(queries[::2], best[::2]), _Known(queries[1::2], best[1::2])
    setting = _cheapest(index, vectors, tuned_with, longest, depth)
    while True:
        how = reading(setting.probes)
        found = search_ivf(index, vectors, others.queries, depth, fetch=setting.fetch, how=how)[1]
        recall = recall_of(found, others.best, others.queries, longest=longest, depth=depth)
        wider = None if recall >= TARGET else _wider(setting, index)
        if wider is None:
            return Tuned(setting, recall, time.perf_counter() - started)
        setting = wider


class _Known(NamedTuple):
    """Queries [Q, D], and the score of the last of the rows that each wants [Q]."""

    queries: Float32
    best: Float32


def _wider(setting: Setting, index: Any) -> Setting | None:
    """Twice as much of both, as far as that goes; None where it goes no further."""
    most = Setting(parts(index)[0].nlist, max(int(_MOST_FETCHED * index.ntotal), _FETCHES[-1]))
    wider = Setting(min(2 * setting.probes, most.probes), min(2 * setting.fetch, most.fetch))
    return None if wider == setting else wider


def _cheapest(index: Any, vectors: Float32, known: _Known, longest: float, depth: int) -> Setting:
    lists, _ = parts(index)
    best, cost = Setting(lists.nlist, _FETCHES[-1]), float("inf")
    for probes in _PROBES:
        read = probes * index.ntotal / lists.nlist
        if probes > lists.nlist or read >= cost:
            break
        found = index.search(known.queries, _FETCHES[-1], params=reading(probes))[1]
        scores = np.stack(
            [
                vectors.take(rows, axis=0) @ query
                for rows, query in zip(found, known.queries, strict=True)
            ]
        )
        scores[found < 0] = -np.inf
        for fetch in _FETCHES:
            recall = recall_of(
                scores[:, :fetch], known.best, known.queries, longest=longest, depth=depth
            )
            if recall >= TARGET + _MARGIN:
                if read + _ROW_COST * fetch < cost:
                    best, cost = Setting(probes, fetch), read + _ROW_COST * fetch
                break
    return best
