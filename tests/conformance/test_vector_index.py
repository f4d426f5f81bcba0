"""Every VectorIndex against a plain float64 reference: one suite, each implementation."""

import numpy as np
import pytest

from serving.index.base import Bitmap
from tests.conformance.indexes import DIM, Build, check, unit


@pytest.mark.parametrize("num_queries", [1, 3, 25])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_plain(build: Build, rng: np.random.Generator, num_queries: int, k: int) -> None:
    vectors = unit(rng, 2500)
    index = build(vectors)
    assert (index.num_rows, index.dim) == (2500, DIM)
    check(index, vectors, unit(rng, num_queries), k)


@pytest.mark.parametrize("num_rows", [1, 7, 90])
def test_more_asked_than_there_is(build: Build, rng: np.random.Generator, num_rows: int) -> None:
    vectors, queries = unit(rng, num_rows), unit(rng, 2)
    index = build(vectors)
    allowed = np.arange(num_rows) % 3 != 1
    excluded = [np.arange(0, num_rows, 2), np.arange(num_rows)]
    check(index, vectors, queries, num_rows + 200)
    check(index, vectors, queries, num_rows + 200, allowed=allowed)
    check(index, vectors, queries, num_rows + 200, excluded=excluded)
    check(index, vectors, queries, num_rows + 200, allowed=allowed, excluded=excluded)


def test_empty_index(build: Build, rng: np.random.Generator) -> None:
    vectors = unit(rng, 0)
    check(build(vectors), vectors, unit(rng, 2), 5)
    check(build(vectors), vectors, unit(rng, 2), 5, allowed=np.zeros(0, bool))
    check(build(vectors), vectors, unit(rng, 2), 5, excluded=[np.array([0]), np.array([3, 9])])


def test_no_queries(build: Build, rng: np.random.Generator) -> None:
    for num_rows in (9, 400):
        rows, scores = build(unit(rng, num_rows)).search(unit(rng, 0), 4)
        assert rows.shape == scores.shape == (0, 4)


@pytest.mark.parametrize("filtered", [False, True])
def test_ties_put_the_lower_row_first(
    build: Build, rng: np.random.Generator, filtered: bool
) -> None:
    # 40 vectors, each five times at scattered rows: every score occurs five times.
    distinct = unit(rng, 40)
    vectors = distinct[rng.permutation(np.repeat(np.arange(40), 5))]
    # k = 200 leaves no tie at the last place, whose winner is up to the implementation.
    index, queries = build(vectors), unit(rng, 6)
    allowed = Bitmap(rng.random(200) < 0.8) if filtered else None
    excluded = [np.unique(rng.integers(0, 200, 20)) for _ in queries] if filtered else None
    rows, scores = index.search(queries, 200, allowed=allowed, excluded=excluded)
    for i in range(len(queries)):
        ties = (scores[i, 1:] == scores[i, :-1]) & (rows[i, 1:] >= 0)
        assert ties.sum() >= (70 if filtered else 150)
        assert (np.diff(rows[i])[ties] > 0).all()
    again, _ = index.search(queries, 200, allowed=allowed, excluded=excluded)
    assert (again == rows).all()


def test_all_rows_tie(build: Build, rng: np.random.Generator) -> None:
    """A query of zeros: which rows come is up to the implementation; that they differ is not."""
    rows, scores = build(unit(rng, 300)).search(np.zeros((1, DIM), np.float32), 300)
    assert rows[0].tolist() == list(range(300)) and (scores == 0).all()
    rows, _ = build(unit(rng, 300)).search(np.zeros((1, DIM), np.float32), 10)
    assert len(set(rows[0].tolist())) == 10 and (np.diff(rows[0]) > 0).all() and rows.min() >= 0


@pytest.mark.parametrize("num_allowed", [0, 1, 5, 300, 1499, 1501, 2400, 2500])
def test_filters_from_none_to_all(build: Build, rng: np.random.Generator, num_allowed: int) -> None:
    vectors = unit(rng, 2500)
    allowed = np.zeros(2500, bool)
    allowed[rng.permutation(2500)[:num_allowed]] = True
    check(build(vectors), vectors, unit(rng, 3), 20, allowed=allowed)


@pytest.mark.parametrize("farthest", [False, True])
def test_filters_that_follow_the_space(
    build: Build, rng: np.random.Generator, farthest: bool
) -> None:
    """Only rows on one side are allowed: those nearest to the first query, or farthest from it."""
    vectors, queries = unit(rng, 2500), unit(rng, 3)
    order = np.argsort(vectors @ queries[0])
    allowed = np.zeros(2500, bool)
    allowed[order[:200] if farthest else order[-200:]] = True
    check(build(vectors), vectors, queries, 50, allowed=allowed)


@pytest.mark.parametrize("num_excluded", [1, 40, 2100, 2499, 2500])
@pytest.mark.parametrize("filtered", [False, True])
def test_exclusions_from_one_to_all(
    build: Build, rng: np.random.Generator, num_excluded: int, filtered: bool
) -> None:
    vectors, queries = unit(rng, 2500), unit(rng, 3)
    # The best rows are excluded: the hardest case for an index that fetches a little more.
    best = np.argsort(-(vectors @ queries.T), axis=0).T
    excluded = [np.sort(best[0][:num_excluded]), np.empty(0, np.int64), np.array([4, 2500, 9999])]
    allowed = rng.random(2500) < 0.7 if filtered else None
    check(build(vectors), vectors, queries, 20, allowed=allowed, excluded=excluded)


@pytest.mark.parametrize("share", [None, 0.9, 0.1])
def test_exclusions_of_tens_of_thousands(
    build: Build, rng: np.random.Generator, share: float | None
) -> None:
    vectors, queries = unit(rng, 40_000), unit(rng, 4)
    best = np.argsort(-(vectors @ queries.T), axis=0).T
    excluded = [
        np.sort(best[0][:30_000]),
        np.sort(best[1][:39_990]),
        np.arange(0, 80_000, 2),
        np.empty(0, np.int64),
    ]
    allowed = None if share is None else rng.random(40_000) < share
    check(build(vectors), vectors, queries, 20, allowed=allowed, excluded=excluded)


def test_a_filter_is_used_again_with_other_queries(build: Build, rng: np.random.Generator) -> None:
    vectors = unit(rng, 2500)
    index, allowed = build(vectors), Bitmap(rng.random(2500) < 0.4)
    other = Bitmap(~allowed.mask)
    for _ in range(3):
        queries = unit(rng, 2)
        for bitmap in (allowed, other):
            rows, _ = index.search(queries, 30, allowed=bitmap)
            assert bitmap.mask[rows].all()
            assert (rows == index.search(queries, 30, allowed=Bitmap(bitmap.mask.copy()))[0]).all()


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
