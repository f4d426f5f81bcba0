"""Lists of several interests become one: by hand, and by properties that always hold."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.merge import merge_interests

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
INF = float("inf")


def arrays(lists: list[list[tuple[int, float]]]) -> tuple[Int64, Float32]:
    """One user's interests as [1, M, K] rows and scores; (-1, -inf) is an empty place."""
    rows = np.array([[[row for row, _ in one] for one in lists]], np.int64)
    scores = np.array([[[score for _, score in one] for one in lists]], np.float32)
    return rows, scores


@pytest.mark.parametrize("how", ["quota", "max"])
def test_one_interest_stays_as_it_came(how: Literal["quota", "max"]) -> None:
    rows, scores = arrays([[(4, 3.0), (2, 3.0), (9, 1.0), (-1, -INF)]])
    merged, best, interest = merge_interests(rows, scores, 4, how=how)
    assert merged.tolist() == [[4, 2, 9, -1]]
    assert best.tolist() == [[3, 3, 1, -INF]]
    assert interest.tolist() == [[0, 0, 0, -1]]
    assert merge_interests(rows, scores, 2, how=how)[0].tolist() == [[4, 2]]
    assert merge_interests(rows, scores, 6, how=how)[0].tolist() == [[4, 2, 9, -1, -1, -1]]


# Interest 0 finds louder items than interest 1; both find item 5.
LISTS = [
    [(1, 9.0), (5, 8.0), (2, 7.0), (3, 6.0)],
    [(7, 4.0), (8, 3.0), (5, 2.0), (-1, -INF)],
]


def test_quota_takes_the_lists_in_turns() -> None:
    merged, best, interest = merge_interests(*arrays(LISTS), 8, how="quota")
    # Turn 1: 1 (9), 7 (4). Turn 2: 5 (8), 8 (3). Turn 3: 2; 5 was placed at its best turn. Then 3.
    assert merged.tolist() == [[1, 7, 5, 8, 2, 3, -1, -1]]
    assert best.tolist() == [[9, 4, 8, 3, 7, 6, -INF, -INF]]
    assert interest.tolist() == [[0, 1, 0, 1, 0, 0, -1, -1]]
    assert merge_interests(*arrays(LISTS), 3)[0].tolist() == [[1, 7, 5]]


def test_max_ranks_by_the_best_score() -> None:
    merged, best, interest = merge_interests(*arrays(LISTS), 7, how="max")
    assert merged.tolist() == [[1, 5, 2, 3, 7, 8, -1]]
    assert best.tolist() == [[9, 8, 7, 6, 4, 3, -INF]]
    assert interest.tolist() == [[0, 0, 0, 0, 1, 1, -1]]


def test_a_copy_keeps_its_earliest_turn_and_its_best_score() -> None:
    # Item 6 stands last in the interest that scores it best, and first in another.
    lists = [[(1, 9.0), (2, 8.0), (6, 7.0)], [(6, 5.0), (3, 4.0), (-1, -INF)]]
    merged, best, interest = merge_interests(*arrays(lists), 4, how="quota")
    # Turn 1 holds 1 (9) and 6, whose best score 7 came from interest 0.
    assert merged.tolist() == [[1, 6, 2, 3]]
    assert best.tolist() == [[9, 7, 8, 4]]
    assert interest.tolist() == [[0, 0, 0, 1]]


def test_ties_go_to_the_lower_row_and_users_do_not_mix() -> None:
    rows = np.array([[[8, 3], [4, 9]], [[3, 8], [8, 3]]])
    scores = np.ones(rows.shape, np.float32)
    assert merge_interests(rows, scores, 4, how="max")[0].tolist() == [[3, 4, 8, 9], [3, 8, -1, -1]]
    assert merge_interests(rows, scores, 4)[0].tolist() == [[4, 8, 3, 9], [3, 8, -1, -1]]


def test_nothing_found_is_nothing_merged() -> None:
    rows = np.full((2, 3, 2), -1)
    scores = np.full(rows.shape, 5.0, np.float32)  # a score without an item means nothing
    merged, best, interest = merge_interests(rows, scores, 3)
    assert (merged == -1).all() and np.isneginf(best).all() and (interest == -1).all()


@st.composite
def searches(draw: st.DrawFn) -> tuple[Int64, Float32]:
    """[B, M, K] as searches give them: each list distinct, best first, -1 at its end."""
    users, interests, depth = (draw(st.integers(1, n)) for n in (3, 4, 6))
    rows = np.full((users, interests, depth), -1, np.int64)
    scores = np.full(rows.shape, -np.inf, np.float32)
    for user in range(users):
        for interest in range(interests):
            found = draw(st.lists(st.integers(0, 9), unique=True, max_size=depth))
            # Few distinct scores, so that there are ties.
            ranked = sorted((draw(st.integers(-3, 3)) for _ in found), reverse=True)
            rows[user, interest, : len(found)] = found
            scores[user, interest, : len(found)] = ranked
    return rows, scores


@settings(max_examples=150, deadline=None)
@given(search=searches(), how=st.sampled_from(["quota", "max"]), data=st.data())
def test_merging_neither_loses_nor_doubles_nor_invents(
    search: tuple[Int64, Float32],
    how: Literal["quota", "max"],
    data: st.DataObject,
) -> None:
    rows, scores = search
    users, interests, depth = rows.shape
    k = data.draw(st.integers(1, interests * depth + 2))
    merged, best, interest = merge_interests(rows, scores, k, how=how)
    assert merged.shape == best.shape == interest.shape == (users, k)
    for user in range(users):
        every = {int(row) for row in rows[user].ravel() if row >= 0}
        found = [int(row) for row in merged[user] if row >= 0]
        assert len(found) == len(set(found)) == min(k, len(every)) and set(found) <= every
        assert (merged[user, len(found) :] == -1).all()
        for place, row in enumerate(found):
            copies = {
                int(m): float(scores[user, m, np.argmax(rows[user, m] == row)])
                for m in range(interests)
                if row in rows[user, m]
            }
            assert best[user, place] == max(copies.values()) == copies[int(interest[user, place])]
        if how == "max":
            assert (np.diff(best[user, : len(found)]) <= 0).all()
        else:
            turns = [int(np.argmax((rows[user] == row).any(axis=0))) for row in found]
            assert turns == sorted(turns)
