"""What keeps the exact indexes exact: FaissIndex's plans and bounds, TorchIndex's two passes."""

import numpy as np
import pytest
import torch

from model.ann import build_exact
from model.errors import ConfigError
from serving.index import faiss_index, torch_index
from serving.index.base import Bitmap, Float32
from serving.index.bounds import ScoreBounds
from serving.index.faiss_index import FaissIndex
from tests.conformance.indexes import (
    DIM,
    check,
    faiss_flat,
    torch_matrix,
    torch_on_gpu,
    trained_like,
    unit,
)


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


def test_noise_has_no_bounds_worth_having(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(5000, 64)).astype(np.float32)
    assert ScoreBounds.worth_it(vectors) is None
    assert ScoreBounds.worth_it(trained_like(rng, 4000)) is None  # too few rows
    assert ScoreBounds.worth_it(np.zeros((5000, 64), np.float32)) is None


def nearly_alike(rng: np.random.Generator, num: int) -> tuple[Float32, Float32]:
    """Vectors along a line in steps that bf16 cannot see and float32 can, and queries along it.

    A step changes a score by 1.4e-6 at least. float32 holds scores of up to 2 to 1.2e-7 and adds
    DIM products with about three times that error; bf16's steps are 2^-9 at the vectors' numbers.
    """
    start, line = (direction.astype(np.float64) for direction in unit(rng, 2))
    steps = rng.permutation(num)[:, np.newaxis] * 2e-6
    queries = np.concatenate([line[np.newaxis], -line[np.newaxis], unit(rng, 4)])
    queries[2:] += 2 * np.sign(queries[2:] @ line)[:, np.newaxis] * line
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    assert np.abs(queries @ line).min() > 0.7
    return (start + steps * line).astype(np.float32), queries.astype(np.float32)


def test_vectors_that_bf16_cannot_tell_apart_are_still_told_apart(
    rng: np.random.Generator,
) -> None:
    vectors, queries = nearly_alike(rng, 3000)
    assert len(torch.unique(torch.from_numpy(vectors).bfloat16(), dim=0)) < 100
    excluded = [np.arange(num) for num in (0, 40, 900, 2990, 3000, 1)]
    allowed = rng.random(3000) < 0.6
    check(torch_matrix(vectors), vectors, queries, 20)
    check(torch_matrix(vectors), vectors, queries, 20, allowed=allowed, excluded=excluded)


def test_a_matrix_larger_than_one_pass_is_searched_in_turns(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "_MAX_NUMBERS", 7000)
    monkeypatch.setattr(torch_index, "SCAN_ROWS", 20)
    vectors, queries = unit(rng, 2500), unit(rng, 9)
    excluded = [np.unique(rng.integers(0, 2600, 50 * i)) for i in range(9)]
    widths: list[int] = []
    product = torch_index._product

    def watched(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        widths.append(len(queries) * len(vectors))
        return product(queries, vectors)

    monkeypatch.setattr(torch_index, "_product", watched)
    for k in (1, 30, 400):
        check(torch_matrix(vectors), vectors, queries, k, excluded=excluded)
        check(torch_matrix(vectors), vectors, queries, k, allowed=rng.random(2500) < 0.3)
    assert len(widths) > 20 and max(widths) <= 7000, "more scores were held at once"


def test_ties_across_blocks_are_none_the_less_in_order(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_index, "_MAX_NUMBERS", 2000)
    distinct = unit(rng, 40)
    vectors, queries = distinct[rng.permutation(np.repeat(np.arange(40), 50))], unit(rng, 3)
    rows, scores = torch_matrix(vectors).search(queries, 500)
    for found, values in zip(rows, scores, strict=True):
        assert len(set(found.tolist())) == 500
        assert (np.diff(values) <= 0).all() and (np.diff(found)[np.diff(values) == 0] > 0).all()
    assert (torch_matrix(vectors).search(queries, 500)[0] == rows).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_index_without_a_gpu_says_what_to_do(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match=r"no GPU here .*--index bundle") as refused:
        torch_on_gpu(np.zeros((5, DIM), np.float32))
    assert "scripts/setup --cuda" in str(refused.value)
