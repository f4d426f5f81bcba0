"""What a search of inverted lists is foretold to need, against rows drawn as the lists say."""

import numpy as np
import pytest

from serving.index import probing
from serving.index.base import Float32, Int64
from serving.index.probing import Lists, plan

NUM_LISTS = 600
NOTHING = np.empty(0, np.float32)


def drawn(seed: int) -> tuple[Lists, Float32, Int64]:
    """Lists of unequal size and width, and a score for each of their rows, with its list."""
    rng = np.random.default_rng(seed)
    lists = Lists(
        rng.normal(0, 3, NUM_LISTS).astype(np.float32),
        rng.uniform(0.3, 1.5, NUM_LISTS).astype(np.float32),
        rng.integers(0, 300, NUM_LISTS),
    )
    owner = np.repeat(np.arange(NUM_LISTS), lists.sizes)
    scores = rng.normal(lists.products[owner], lists.spreads[owner]).astype(np.float32)
    return lists, scores, owner


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("k", [10, 100, 1000])
@pytest.mark.parametrize("share", [1.0, 0.2, 0.03])
def test_the_lists_that_are_read_hold_the_best(seed: int, k: int, share: float) -> None:
    lists, scores, owner = drawn(seed)
    mask = np.random.default_rng(9).random(len(scores)) < share
    allowed = np.bincount(owner[mask], minlength=NUM_LISTS)
    todo = plan(lists, allowed, k, tuned=(100, 400), gone=NOTHING, weight=1)
    best = np.flatnonzero(mask)[np.argsort(-scores[mask])[:k]]
    assert np.isin(owner[best], todo.lists).mean() >= 0.985
    assert (allowed[todo.lists] > 0).all() and len(set(todo.lists.tolist())) == len(todo.lists)
    if share == 1 and k <= 100:
        assert len(todo.lists) < NUM_LISTS / 3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_where_all_is_as_it_was_tuned_the_tuned_number_is_fetched(seed: int) -> None:
    lists, _, _ = drawn(seed)
    for fetch in (150, 400, 1600):
        todo = plan(lists, lists.sizes, 100, tuned=(100, fetch), gone=NOTHING, weight=1)
        assert todo.fetch == pytest.approx(probing.SPARE * fetch, rel=0.25)


def test_more_is_fetched_farther_down_and_less_where_a_filter_leaves_less() -> None:
    lists, _, _ = drawn(1)
    sizes = lists.sizes

    def fetched(allowed: Int64, k: int, share: float) -> float:
        """Of the rows near the k-th, beside k itself."""
        return plan(lists, allowed, k, tuned=(100, 400), gone=NOTHING, weight=1).fetch * share

    assert fetched(sizes, 1000, 1) > 2 * fetched(sizes, 100, 1)
    assert fetched(sizes // 10, 100, 1) < fetched(sizes, 100, 1)


@pytest.mark.parametrize("num_gone", [300, 2000])
@pytest.mark.parametrize("step", [1, 5])
def test_the_best_are_gone(num_gone: int, step: int) -> None:
    """Excluded rows are the best: those after them are looked for, farther down."""
    lists, scores, owner = drawn(4)
    order = np.argsort(-scores)
    gone = np.sort(scores[order[:num_gone]])[::step]
    todo = plan(lists, lists.sizes, 100, tuned=(100, 400), gone=gone, weight=step)
    assert np.isin(owner[order[num_gone : num_gone + 100]], todo.lists).mean() >= 0.985
    plain = plan(lists, lists.sizes, 100, tuned=(100, 400), gone=NOTHING, weight=1)
    assert len(todo.lists) > len(plain.lists) and todo.fetch > plain.fetch


def test_excluded_rows_that_score_low_change_little() -> None:
    lists, scores, _ = drawn(5)
    plain = plan(lists, lists.sizes, 100, tuned=(100, 400), gone=NOTHING, weight=1)
    gone = np.sort(scores)[:3000]
    todo = plan(lists, lists.sizes, 100, tuned=(100, 400), gone=gone, weight=1)
    assert len(todo.lists) == pytest.approx(len(plain.lists), rel=0.2)


def test_lists_that_cannot_be_told_apart_are_all_read() -> None:
    for spread in (0.0, 1.0):
        lists = Lists(
            np.zeros(50, np.float32), np.full(50, spread, np.float32), np.full(50, 10, np.int64)
        )
        todo = plan(lists, lists.sizes, 20, tuned=(100, 400), gone=NOTHING, weight=1)
        assert len(todo.lists) == 50


def test_fewer_rows_than_are_asked_for() -> None:
    lists, _, _ = drawn(6)
    allowed = np.zeros(NUM_LISTS, np.int64)
    allowed[[3, 400]] = 1, 5
    todo = plan(lists, allowed, 100, tuned=(100, 400), gone=NOTHING, weight=1)
    assert sorted(todo.lists.tolist()) == [3, 400]
