"""Which circle is which: by the items that two bundles share, worked out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.circles.identity import Overlap, identify, matched, overlap

ONE = np.ones(100)


def groups(*sizes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(old, new, how many items): the circle of each item in either bundle."""
    old = np.concatenate([np.full(num, before) for before, _, num in sizes])
    new = np.concatenate([np.full(num, now) for _, now, num in sizes])
    return old.astype(np.int64), new.astype(np.int64)


def test_shares_of_what_both_have() -> None:
    # Old circle 0: three items to new 0, one to new 1. Two items of new 1 are new to the shop.
    old, new = groups((0, 0, 3), (0, 1, 1), (1, 1, 4), (-1, 1, 2))
    found = overlap(old, new, ONE[: len(old)])
    pairs = {
        (o, n): (a, b)
        for o, n, a, b in zip(found.old, found.new, found.of_old, found.of_new, strict=True)
    }
    assert pairs == {(0, 0): (0.75, 1.0), (0, 1): (0.25, 0.2), (1, 1): (1.0, 0.8)}


def test_an_item_counts_by_its_weight() -> None:
    old, new = groups((0, 0, 1), (0, 1, 1))
    found = overlap(old, new, np.array([3.0, 1.0]))
    assert found.of_old.tolist() == [0.75, 0.25]


def test_ids_last_where_items_stay_together_wherever_they_lie() -> None:
    old, new = groups((0, 2, 10), (1, 0, 8), (1, 2, 2), (2, 1, 10), (-1, 3, 5))
    found = identify(old, new, ONE[: len(old)], old_ids=np.array([7, 9, 4]), num_new=4, next_id=12)
    assert found.ids.tolist() == [9, 4, 7, 12]  # nobody was in the last one before
    assert found.lasted.tolist() == [1, 2, 0, -1]
    assert found.changes.kept == 3 and found.changes.born == [12]
    assert found.changes.ended == found.changes.splits == found.changes.merges == {}
    assert found.predecessors == [[], [], [], []]


def test_a_split() -> None:
    old, new = groups((0, 0, 6), (0, 1, 4), (1, 2, 5))
    found = identify(old, new, ONE[:15], old_ids=np.array([3, 8]), num_new=3, next_id=20)
    assert found.ids.tolist() == [3, 20, 8]  # the greater part keeps the id
    assert found.changes.splits == {3: [3, 20]} and found.changes.ended == {}
    assert found.predecessors == [[], [(3, 1.0)], []]


def test_a_split_into_small_parts_ends_the_circle() -> None:
    old, new = groups((0, 0, 4), (0, 1, 3), (0, 2, 3))
    found = identify(old, new, ONE[:10], old_ids=np.array([3]), num_new=3, next_id=20)
    assert found.ids.tolist() == [20, 21, 22] and found.changes.kept == 0
    assert found.changes.ended == {3: [20, 21, 22]}
    assert found.changes.splits == {3: [20, 21, 22]}


def test_a_merge() -> None:
    old, new = groups((0, 0, 6), (1, 0, 4), (2, 1, 5))
    found = identify(old, new, ONE[:15], old_ids=np.array([3, 8, 9]), num_new=2, next_id=20)
    assert found.ids.tolist() == [3, 9]
    assert found.changes.merges == {3: [3, 8]} and found.changes.ended == {8: [3]}
    assert found.predecessors == [[(8, 0.4)], []]


def test_an_id_is_never_used_again() -> None:
    old, new = groups((0, 0, 4))
    found = identify(old, new, ONE[:4], old_ids=np.array([5]), num_new=2, next_id=31)
    assert found.ids.tolist() == [5, 31]
    nothing = np.full(4, -1)
    apart = identify(nothing, new, ONE[:4], old_ids=np.array([5]), num_new=1, next_id=31)
    assert apart.ids.tolist() == [31] and apart.changes.ended == {5: []}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0.05, 1.0)),
        max_size=12,
        unique_by=lambda pair: pair[:2],
    ),
    st.sampled_from([0.1, 0.3, 0.5]),
)
def test_the_best_of_all_ways_to_pair_off(
    pairs: list[tuple[int, int, float]], keeps: float
) -> None:
    old, new, worth = (np.array([pair[i] for pair in pairs]) for i in range(3))
    shared = Overlap(old.astype(np.int64), new.astype(np.int64), worth, np.ones(len(pairs)))
    found = matched(shared, 5, keeps=keeps)
    value = {(o, n): w for o, n, w in pairs if w >= keeps}
    chosen = [(int(o), n) for n, o in enumerate(found) if o >= 0]
    assert len({o for o, _ in chosen}) == len(chosen)
    best = max(
        sum(value.get((o, n), 0.0) for n, o in enumerate(order))
        for order in itertools.permutations(range(5))
    )
    assert sum(value[pair] for pair in chosen) == pytest.approx(best)
