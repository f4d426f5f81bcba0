"""Profiles, blocks and the best of a row, against arithmetic by hand and plain sorting."""

import numpy as np
import pytest
import scipy.sparse as sp

from tests.training.histories import histories_of
from training.ranking import (
    best_of_dense,
    best_of_sparse,
    blocks,
    fill,
    last_events,
    popularity_order,
    profiles,
)

DATA = histories_of([[3, 1, 3, 0], [], [2], [0, 1, 0]], num_items=5)


def test_popularity_orders_all_items_and_ties_go_to_the_lower_row() -> None:
    # Item 0 has 3 events, 1 and 3 have 2, 2 has 1, 4 none.
    assert popularity_order(DATA).tolist() == [0, 1, 3, 2, 4]


def test_the_last_events_of_users_in_any_order() -> None:
    places, starts = last_events(DATA, np.array([3, 1, 0, 3]), 2)
    assert starts.tolist() == [0, 2, 2, 4, 6]
    assert DATA.items[places].tolist() == [1, 0, 3, 0, 1, 0]


def test_a_profile_adds_the_weights_of_an_items_events() -> None:
    # User 0, a half-life of one event: 0 weighs 1, the second 3 weighs 1/2, 1 weighs 1/4, the
    # first 3 weighs 1/8.
    found = profiles(DATA, np.array([0, 1, 3]), half_life=1, longest=9).toarray()
    assert found.tolist() == [[1, 0.25, 0, 0.625, 0], [0] * 5, [1.25, 0.5, 0, 0, 0]]
    # The last two alone, two events to a half: 1 and 2 ** -0.5.
    found = profiles(DATA, np.array([0]), half_life=2, longest=2).toarray()
    assert found[0].tolist() == pytest.approx([1, 0, 0, 2**-0.5, 0])
    alike = profiles(DATA, np.array([0, 2]), half_life=None, longest=9)
    assert alike.toarray().tolist() == [[1, 1, 0, 2, 0], [0, 0, 1, 0, 0]]


def test_without_an_order_no_event_is_later_than_another() -> None:
    unordered = histories_of([[3, 1, 3, 0]], num_items=5, time="none")
    found = profiles(unordered, np.array([0]), half_life=1, longest=9).toarray()
    assert found.tolist() == [[1, 1, 0, 2, 0]]


def test_blocks_cost_no_more_than_allowed_or_are_single() -> None:
    found = [(b.start, b.stop) for b in blocks(np.array([3, 3, 4, 20, 0, 0, 10, 1]), 10)]
    assert found == [(0, 3), (3, 4), (4, 7), (7, 8)]
    assert list(blocks(np.empty(0, np.int64), 10)) == []


def test_the_best_of_sparse_rows_by_hand() -> None:
    scores = sp.csr_matrix(
        np.array([[0, 2, 5, 2, 2], [0, 0, 0, 0, 0], [1, 0, 0, 0, 3]], np.float32)
    )
    rows, values = best_of_sparse(scores, 3, excluded=None)
    assert rows.tolist() == [[2, 1, 3], [-1, -1, -1], [4, 0, -1]]
    assert values.tolist() == [[5, 2, 2], [0, 0, 0], [3, 1, 0]]
    out = [np.array([1, 2]), np.array([0]), np.array([], np.int64)]
    assert best_of_sparse(scores, 3, excluded=out)[0].tolist() == [
        [3, 4, -1],
        [-1, -1, -1],
        [4, 0, -1],
    ]


def test_sparse_and_dense_agree_with_plain_sorting() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 6, (40, 30)).astype(np.float32)  # many ties
    excluded = [np.sort(rng.choice(30, i % 25, replace=False)) for i in range(40)]
    expected = []
    for row, out in zip(scores, excluded, strict=True):
        left = [i for i in range(30) if row[i] > 0 and i not in set(out.tolist())]
        best = sorted(left, key=lambda i: (-row[i], i))[:12]
        expected.append(best + [-1] * (12 - len(best)))
    assert any(-1 in row for row in expected) and any(-1 not in row for row in expected)
    sparse = sp.csr_matrix(scores)
    # The columns of a product come in no order.
    shuffled = sp.csr_matrix(
        (sparse.data[::-1], sparse.indices[::-1], np.cumsum([0, *np.diff(sparse.indptr)[::-1]])),
        shape=scores.shape,
    )[::-1]
    assert best_of_sparse(sparse, 12, excluded=excluded)[0].tolist() == expected
    assert best_of_sparse(shuffled, 12, excluded=excluded)[0].tolist() == expected
    assert best_of_dense(scores.copy(), 12, excluded=excluded).tolist() == expected
    assert best_of_dense(scores.copy(), 33, excluded=None)[0].tolist() == [
        *(i for i in np.argsort(-scores[0], kind="stable").tolist() if scores[0, i]),
        *[-1] * (33 - np.count_nonzero(scores[0])),
    ]


def test_what_is_left_of_a_row_is_filled_in_order() -> None:
    order = np.array([4, 0, 3, 1, 2])
    rows = np.array([[3, -1, -1], [1, 2, 0], [-1, -1, -1], [-1, -1, -1]])
    excluded = [np.array([0]), np.array([0]), np.array([0, 3, 4]), np.arange(5)]
    assert fill(rows, order, excluded=excluded).tolist() == [
        [3, 4, 1],
        [1, 2, 0],  # full already: what it holds is not looked at
        [1, 2, -1],
        [-1, -1, -1],
    ]
    assert fill(np.full((1, 7), -1), order, excluded=None).tolist() == [[4, 0, 3, 1, 2, -1, -1]]
