"""Every VectorIndex against a plain float64 reference: one suite, each implementation.

The inverted lists join with every list read and every row scored, which is exact: what is under
test is what they make of filters, exclusions and ties. How much they find otherwise is below.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.ann import build_exact, exact_search, open_index, recall_at, write_index
from model.errors import ConfigError
from model.ivf import Setting, build_ivf, tune
from serving.index import faiss_index, ivf_index, torch_index
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
    index = build_ivf(vectors, num_lists=8)
    return IvfIndex(index, vectors, [Setting(0.0, probes=8, fetch=len(vectors))])


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


@pytest.fixture(params=BUILDERS, ids=lambda build: build.__name__)
def build(request: pytest.FixtureRequest) -> Build:
    made: Build = request.param
    return made


@pytest.fixture(autouse=True)
def lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where few rows are allowed, which would be scored one and all."""
    monkeypatch.setattr(ivf_index, "SCAN_ROWS", 20)
    monkeypatch.setattr(torch_index, "SCAN_ROWS", 20)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def unit(rng: np.random.Generator, num: int) -> Float32:
    vectors = rng.normal(size=(num, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
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


@pytest.mark.parametrize("num_queries", [1, 3, 25])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_plain(build: Build, rng: np.random.Generator, num_queries: int, k: int) -> None:
    vectors = unit(rng, 2500)
    index = build(vectors)
    assert (index.num_rows, index.dim) == (2500, DIM)
    check(index, vectors, unit(rng, num_queries), k)


def test_more_asked_than_there_is(build: Build, rng: np.random.Generator) -> None:
    vectors = unit(rng, 7)
    check(build(vectors), vectors, unit(rng, 2), 20)


def test_empty_index(build: Build, rng: np.random.Generator) -> None:
    vectors = unit(rng, 0)
    check(build(vectors), vectors, unit(rng, 2), 5)
    check(build(vectors), vectors, unit(rng, 2), 5, allowed=np.zeros(0, bool))


def test_no_queries(build: Build, rng: np.random.Generator) -> None:
    rows, scores = build(unit(rng, 9)).search(unit(rng, 0), 4)
    assert rows.shape == scores.shape == (0, 4)


def test_ties_put_the_lower_row_first(build: Build, rng: np.random.Generator) -> None:
    # 40 vectors, each five times at scattered rows: every score occurs five times.
    distinct = unit(rng, 40)
    vectors = distinct[rng.permutation(np.repeat(np.arange(40), 5))]
    # k = 200 leaves no tie at the last place, whose winner is up to the implementation.
    index, queries = build(vectors), unit(rng, 6)
    rows, scores = index.search(queries, 200)
    for i in range(len(queries)):
        ties = scores[i, 1:] == scores[i, :-1]
        assert ties.sum() >= 150
        assert (np.diff(rows[i])[ties] > 0).all()
    again, _ = index.search(queries, 200)
    assert (again == rows).all()


@pytest.mark.parametrize("num_allowed", [0, 1, 5, 300, 1499, 1501, 2400, 2500])
def test_filters_from_none_to_all(build: Build, rng: np.random.Generator, num_allowed: int) -> None:
    vectors = unit(rng, 2500)
    allowed = np.zeros(2500, bool)
    allowed[rng.permutation(2500)[:num_allowed]] = True
    check(build(vectors), vectors, unit(rng, 3), 20, allowed=allowed)


@pytest.mark.parametrize("num_excluded", [1, 40, 2100, 2499, 2500])
@pytest.mark.parametrize("filtered", [False, True])
def test_long_exclusion_lists(
    build: Build, rng: np.random.Generator, num_excluded: int, filtered: bool
) -> None:
    vectors, queries = unit(rng, 2500), unit(rng, 3)
    # The best rows are excluded: the hardest case for an index that fetches a little more.
    best = np.argsort(-(vectors @ queries.T), axis=0).T
    excluded = [np.sort(best[0][:num_excluded]), np.empty(0, np.int64), np.array([4, 2500, 9999])]
    allowed = rng.random(2500) < 0.7 if filtered else None
    check(build(vectors), vectors, queries, 20, allowed=allowed, excluded=excluded)


def test_random_searches(build: Build, rng: np.random.Generator) -> None:
    for _ in range(40):
        num_rows = int(rng.integers(1, 400))
        vectors, queries = unit(rng, num_rows), unit(rng, int(rng.integers(1, 4)))
        allowed = rng.random(num_rows) < rng.random() if rng.random() < 0.5 else None
        excluded = None
        if rng.random() < 0.5:
            excluded = [
                np.unique(rng.integers(0, num_rows, int(rng.integers(0, num_rows))))
                for _ in queries
            ]
        k = int(rng.integers(1, 60))
        check(build(vectors), vectors, queries, k, allowed=allowed, excluded=excluded)


def test_the_plans_agree(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """FaissIndex by rows, by selector, by fetching more and by full scan: one answer."""
    vectors, queries = unit(rng, 900), unit(rng, 3)
    allowed = Bitmap(rng.random(900) < 0.5)
    excluded = [np.unique(rng.integers(0, 900, 60)) for _ in queries]
    answers = []
    for scan_rows, max_fetch in ((1500, 2048), (10, 2048), (10, 1)):
        monkeypatch.setattr(faiss_index, "SCAN_ROWS", scan_rows)
        monkeypatch.setattr(faiss_index, "MAX_FETCH", max_fetch)
        found = faiss_flat(vectors).search(queries, 30, allowed=allowed, excluded=excluded)
        answers.append(found[0].tolist())
    assert answers[0] == answers[1] == answers[2]


def trained_like(rng: np.random.Generator, num: int, dim: int = 64) -> Float32:
    """Vectors that lie near a few directions, as those of trained towers do."""
    shares = 0.8 ** np.arange(dim)
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    vectors: Float32 = ((rng.normal(size=(num, dim)) * shares) @ turned).astype(np.float32)
    return vectors


def test_bounds_narrow_the_search_and_keep_it_exact(rng: np.random.Generator) -> None:
    vectors, queries = trained_like(rng, 20_000), trained_like(rng, 40)
    vectors[5:25] = vectors[5]  # ties, and a row of nothing
    vectors[30] = 0
    index = FaissIndex(build_exact(vectors), vectors)
    assert index._bounds is not None
    served = 0
    for query in queries:
        upper = index._bounds.upper(query)
        assert (upper + 1e-4 >= vectors.astype(np.float64) @ query).all()
        served += index._bounds.best(query, upper, 100) is not None
    assert served >= 35
    half = rng.random(20_000) < 0.5
    excluded = [np.unique(rng.integers(0, 20_050, 3000)) for _ in queries]
    for k in (1, 100, 600):
        check(index, vectors, queries, k)
        check(index, vectors, queries, k, allowed=half, excluded=excluded)
    check(index, vectors, np.concatenate([vectors[5:6], vectors[30:31], queries[:1] * 1e3]), 10)


def test_vectors_that_bf16_cannot_tell_apart_are_still_told_apart(
    rng: np.random.Generator,
) -> None:
    base = unit(rng, 1)
    vectors = (base + 1e-4 * rng.normal(size=(3000, DIM))).astype(np.float32)
    queries = np.concatenate([base, unit(rng, 4)])
    assert len(torch.unique(torch.from_numpy(vectors).bfloat16(), dim=0)) < 1500
    excluded = [np.arange(num) for num in (0, 40, 900, 2990, 3000)]
    allowed = rng.random(3000) < 0.6
    check(torch_matrix(vectors), vectors, queries, 20)
    check(torch_matrix(vectors), vectors, queries, 20, allowed=allowed, excluded=excluded)


def test_a_matrix_larger_than_one_pass_is_searched_in_turns(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "_MAX_SCORES", 7000)
    vectors, queries = unit(rng, 2500), unit(rng, 9)
    excluded = [np.unique(rng.integers(0, 2500, 50 * i)) for i in range(9)]
    check(torch_matrix(vectors), vectors, queries, 30, excluded=excluded)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_index_without_a_gpu_says_what_to_do(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match=r"no GPU here .*--index bundle") as refused:
        torch_on_gpu(unit(rng, 5))
    assert "scripts/setup --cuda" in str(refused.value)


def test_noise_has_no_bounds_worth_having(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(5000, 64)).astype(np.float32)
    assert ScoreBounds.worth_it(vectors) is None
    assert ScoreBounds.worth_it(trained_like(rng, 4000)) is None  # too few rows
    assert ScoreBounds.worth_it(np.zeros((5000, 64), np.float32)) is None


def clustered(rng: np.random.Generator, num: int) -> tuple[Float32, Float32, Int64]:
    """Vectors in 40 clusters with norms that vary, queries near one each, clusters of the rows."""
    centers = rng.normal(size=(40, 64))
    owner = rng.integers(40, size=num)
    vectors = centers[owner] + 0.5 * rng.normal(size=(num, 64))
    vectors *= np.exp(0.3 * rng.normal(size=(num, 1)))
    queries = centers[rng.integers(40, size=400)] + 0.3 * rng.normal(size=(400, 64))
    return vectors.astype(np.float32), queries.astype(np.float32), owner


@pytest.fixture(scope="module")
def tuned() -> tuple[IvfIndex, Float32, Float32, Int64, float]:
    vectors, queries, owner = clustered(np.random.default_rng(5), 40_000)
    found = tune(build_ivf(vectors), vectors, queries[:200])
    return IvfIndex(found.index, vectors, found.settings), vectors, queries, owner, found.recall


def recall(index: IvfIndex, vectors: Float32, queries: Float32, allowed: Bitmap | None) -> float:
    mask = None if allowed is None else allowed.mask
    exact = exact_search(queries, vectors, 100, allowed=mask)[0]
    return recall_at(index.search(queries, 100, allowed=allowed)[0], exact)


def test_tuned_lists_find_what_they_promise(
    tuned: tuple[IvfIndex, Float32, Float32, Int64, float],
) -> None:
    index, vectors, queries, owner, promised = tuned
    unseen = queries[200:]
    assert promised >= 0.985 and recall(index, vectors, unseen, None) >= 0.985
    assert index._settings[0].probes < index._index.nlist / 4, "it reads nearly everything"
    rng = np.random.default_rng(1)
    for share in (0.5, 0.1, 0.01, 0.001):
        spread = Bitmap(rng.random(len(vectors)) < share)
        assert recall(index, vectors, unseen, spread) >= 0.985, share
    # Filters that follow the lists: a fifth of the clusters, and two of them far from most queries.
    for clusters in (20, 8, 2):
        assert recall(index, vectors, unseen, Bitmap(owner < clusters)) >= 0.985, clusters


def test_long_exclusions_of_inverted_lists(
    tuned: tuple[IvfIndex, Float32, Float32, Int64, float],
) -> None:
    index, vectors, queries, _, _ = tuned
    rng = np.random.default_rng(2)
    for num in (50, 5000):
        out = [np.unique(rng.integers(0, 40_000, num)) for _ in range(20)]
        rows, _ = index.search(queries[:20], 100, excluded=out)
        assert not any(np.isin(found, gone).any() for found, gone in zip(rows, out, strict=True))
        exact = exact_search(queries[:20], vectors, 100, excluded=out)[0]
        assert recall_at(rows, exact) >= 0.98


def test_lists_survive_the_disk(
    tuned: tuple[IvfIndex, Float32, Float32, Int64, float], tmp_path: Path
) -> None:
    index, vectors, queries, _, _ = tuned
    write_index(index._index, tmp_path / "index.faiss")
    opened = IvfIndex(open_index(tmp_path / "index.faiss"), vectors, index._settings)
    assert (opened.num_rows, opened.dim) == (40_000, 64)
    rows, scores = index.search(queries, 100)
    again = opened.search(queries, 100)
    assert np.array_equal(rows, again[0]) and np.array_equal(scores, again[1])
