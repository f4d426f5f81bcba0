"""The exact search against brute force in float64, and FAISS against the exact search."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model.ann import build_exact, exact_search, open_index, recall_at, recall_of, write_index

Float32 = npt.NDArray[np.float32]


def brute_force(
    queries: Float32,
    vectors: Float32,
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
    excluded: list[npt.NDArray[np.int64]] | None = None,
) -> list[list[int]]:
    """Sort every allowed row by (score down, row up), in float64."""
    answers = []
    for i, query in enumerate(queries.astype(np.float64)):
        banned = set(excluded[i].tolist()) if excluded is not None else set()
        rows = [
            r for r in range(len(vectors)) if (allowed is None or allowed[r]) and r not in banned
        ]
        scores = vectors.astype(np.float64) @ query
        ranked = sorted(rows, key=lambda r: (-scores[r], r))[:k]
        answers.append(ranked + [-1] * (k - len(ranked)))
    return answers


def whole_numbers(rng: np.random.Generator, *shape: int) -> Float32:
    """Small whole numbers: products are exact in float32, and ties are many."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, 40, 55])
def test_exact_search_equals_brute_force_with_ties(k: int) -> None:
    rng = np.random.default_rng(k)
    queries, vectors = whole_numbers(rng, 30, 3), whole_numbers(rng, 40, 3)
    rows, scores = exact_search(queries, vectors, k)
    assert rows.tolist() == brute_force(queries, vectors, k)
    found = rows >= 0
    exact = np.take_along_axis(queries @ vectors.T, np.maximum(rows, 0), axis=1)
    assert (scores[found] == exact[found]).all() and np.isneginf(scores[~found]).all()
    assert rows.dtype.name == "int64" and scores.dtype.name == "float32"


def test_allowed_and_excluded_rows_are_left_out() -> None:
    rng = np.random.default_rng(2)
    queries, vectors = whole_numbers(rng, 25, 4), whole_numbers(rng, 30, 4)
    allowed = rng.random(30) < 0.4
    excluded = [rng.choice(30, size=i % 12, replace=False) for i in range(25)]
    for k in (3, 30):
        both = exact_search(queries, vectors, k, allowed=allowed, excluded=excluded)[0]
        assert both.tolist() == brute_force(queries, vectors, k, allowed, excluded)
        one = exact_search(queries, vectors, k, excluded=excluded)[0]
        assert one.tolist() == brute_force(queries, vectors, k, None, excluded)
    nothing, scores = exact_search(queries, vectors, 2, allowed=np.zeros(30, bool))
    assert (nothing == -1).all() and np.isneginf(scores).all()


def test_blocks_of_queries_join_without_a_seam() -> None:
    rng = np.random.default_rng(3)
    queries, vectors = whole_numbers(rng, 1026, 2), whole_numbers(rng, 9, 2)
    excluded = [np.array([i % 9]) for i in range(1026)]
    rows = exact_search(queries, vectors, 4, excluded=excluded)[0]
    assert rows.tolist() == brute_force(queries, vectors, 4, None, excluded)


def test_an_empty_catalogue_and_no_query() -> None:
    rows, scores = exact_search(np.ones((2, 3), np.float32), np.empty((0, 3), np.float32), 4)
    assert rows.tolist() == [[-1] * 4] * 2 and np.isneginf(scores).all()
    assert exact_search(np.empty((0, 3), np.float32), np.ones((5, 3), np.float32), 2)[0].shape == (
        0,
        2,
    )


def test_the_index_that_is_written_finds_what_the_exact_search_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    write_index(build_exact(vectors), tmp_path / "index.faiss")
    index = open_index(tmp_path / "index.faiss")
    assert (index.ntotal, index.d) == (500, 16)
    scores, rows = index.search(queries, 50)
    expected, expected_scores = exact_search(queries, vectors, 50)
    assert rows.tolist() == expected.tolist() == brute_force(queries, vectors, 50)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_recall_by_scores_takes_any_of_those_that_tie() -> None:
    queries, best = np.array([[3, 4], [0, 1]], np.float32), np.array([2.0, 5.0], np.float32)
    # Three wanted: the first query found 9, 2 and 2 (of many rows with 2); the second one of them.
    found = np.array([[9, 2, 2, 1], [6, 4, -np.inf, -np.inf]], np.float32)
    assert recall_of(found, best, queries, longest=1, depth=3) == pytest.approx((3 + 1) / 6)
    # More than three reach the third best: never above 1. Rounding is 1e-6 of the lengths, 5 and 1.
    found[0] = [9, 2, 2, 2 - 4e-6]
    found[1] = [6, 5, 5 - 4e-6, 3]
    assert recall_of(found, best, queries, longest=1, depth=3) == pytest.approx((3 + 2) / 6)
    assert recall_of(found[:, :0], best, queries, longest=1, depth=0) == 1.0


def test_recall_counts_what_was_found() -> None:
    exact = np.array([[1, 2, 3, 4], [5, 6, -1, -1]])
    found = np.array([[4, 9, 1, -1], [6, 5, 7, 8]])
    assert recall_at(found, exact) == 4 / 6  # 1 and 4 of four, 5 and 6 of two
    assert recall_at(found, np.full((2, 3), -1)) == 1.0
