"""Slates against arithmetic worked out by hand, and against a slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rank.slate import REASONS, Floor, Group, arrange

VALUES = np.array([0.5, 1.0, 0.0, 0.9, 0.5], np.float32)


def named(reasons: np.ndarray) -> list[str]:
    return [REASONS[reason] for reason in reasons]


def test_by_value_alone_ties_keep_the_order_of_retrieval() -> None:
    slate = arrange(VALUES, 4)
    assert slate.places.tolist() == [1, 3, 0, 4]
    assert named(slate.reasons) == ["value"] * 4 and slate.missing == ()
    assert arrange(VALUES, 9).places.tolist() == [1, 3, 0, 4, 2]
    assert arrange(VALUES[:0], 3).places.tolist() == []


def test_marginal_relevance_by_hand() -> None:
    # Candidates 1 and 3 point the same way; 0 is at right angles, 2 opposite, 4 at 60 degrees to 1.
    vectors = np.array([[0, 2], [1, 0], [-1, 0], [3, 0], [0.5, 0.75**0.5]], np.float32)
    slate = arrange(VALUES, 5, vectors=vectors, diversity=0.5)
    # First 1: 0.5 x 1. Then, as 0.5 x value - 0.5 x likeness to 1:
    #   0: 0.25 - 0 = 0.25;  2: 0 - 0 (below 0 counts as 0) = 0;  3: 0.45 - 0.5 = -0.05;
    #   4: 0.25 - 0.25 = 0.  So 0.
    # Likeness to 0: 2: 0, 3: 0, 4: cos 30 degrees = 0.866. Then 2: 0, 3: -0.05,
    #   4: 0.25 - 0.433 = -0.183. So 2, then 3, then 4.
    assert slate.places.tolist() == [1, 0, 2, 3, 4]
    assert named(slate.reasons) == ["value", "diversity", "diversity", "value", "value"]


def test_all_for_diversity_still_begins_with_the_best() -> None:
    vectors = np.eye(5, dtype=np.float32)
    vectors[3] = vectors[1]
    slate = arrange(VALUES, 5, vectors=vectors, diversity=1.0)
    assert slate.places.tolist() == [0, 1, 2, 4, 3]


def test_alike_values_and_vectors_of_zeros() -> None:
    same = np.full(3, 0.25, np.float32)
    slate = arrange(same, 3, vectors=np.zeros((3, 2), np.float32), diversity=0.3)
    assert slate.places.tolist() == [0, 1, 2]


def test_caps() -> None:
    creators = Group(np.array([7, 7, 7, 7, 8], np.int32), 1)
    assert arrange(VALUES, 5, caps=[creators]).places.tolist() == [1, 4]
    nobody = Group(np.array([-1, -1, -1, 7, 7], np.int32), 1)
    assert arrange(VALUES, 5, caps=[nobody]).places.tolist() == [1, 3, 0, 2]


def test_a_floor_is_met_as_late_as_can_be() -> None:
    live = Floor(np.array([False, False, True, False, True]), 2)
    slate = arrange(VALUES, 3, floors=[live])
    assert slate.places.tolist() == [1, 4, 2]
    assert named(slate.reasons) == ["value", "kind_share", "kind_share"]
    assert slate.missing == (0,)


def test_a_floor_that_cannot_be_met_says_by_how_much() -> None:
    live = Floor(np.array([False, False, True, False, False]), 3)
    slate = arrange(VALUES, 4, floors=[live])
    assert sorted(slate.places.tolist()) == [0, 1, 2, 3] and slate.missing == (2,)
    capped = Group(np.zeros(5, np.int32), 2)
    slate = arrange(VALUES, 4, floors=[live], caps=[capped])
    assert len(slate.places) == 2 and sum(slate.missing) >= 2


def test_a_floor_beyond_what_there_is_forces_nobody_early() -> None:
    # All five are shown, so none need stand above a better one for the sake of a kind.
    live = Floor(np.array([False, False, True, False, True]), 10)
    slate = arrange(VALUES, 20, floors=[live])
    assert slate.places.tolist() == [1, 3, 0, 4, 2] and slate.missing == (8,)
    assert named(slate.reasons) == ["value"] * 5
    # Nor where a cap leaves one of a kind of which three are wanted.
    kind = Floor(np.array([False, False, True, True, True]), 3)
    capped = Group(np.array([-1, -1, 7, 7, 7], np.int32), 1)
    slate = arrange(VALUES, 3, floors=[kind], caps=[capped])
    assert slate.places.tolist() == [3, 1, 0] and slate.missing == (2,)


def test_values_of_large_weights_keep_their_order() -> None:
    values = np.array([0.5, 0.50001, -1e6], np.float32)
    slate = arrange(values, 3, caps=[Group(np.array([1, 2, 3], np.int32), 1)])
    assert slate.places.tolist() == [1, 0, 2] and named(slate.reasons) == ["value"] * 3


def reference(
    values: np.ndarray,
    k: int,
    vectors: np.ndarray,
    diversity: float,
    codes: list[int],
    most: int,
    kinds: list[int],
    least: list[int],
) -> list[int]:
    """The same, one candidate after the other, in float64."""
    spread = values.max() - values.min()
    worth = (values - values.min()) / spread if spread > 0 else np.zeros(len(values))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chosen: list[int] = []
    while len(chosen) < min(k, len(values)):
        left = [
            i
            for i in range(len(values))
            if i not in chosen and [codes[j] for j in chosen].count(codes[i]) < most
        ]
        needs = [
            min(
                max(n - sum(int(kinds[j] == s) for j in chosen), 0),
                sum(int(kinds[j] == s) for j in left),
            )
            for s, n in enumerate(least)
        ]
        needed: int = sum(needs)
        if 0 < needed >= min(k, len(values)) - len(chosen):
            left = [i for i in left if kinds[i] < len(least) and needs[kinds[i]]]
        if not left:
            break
        score = {
            i: (1 - diversity) * worth[i]
            - diversity * max([0.0, *(float(unit[i] @ unit[j]) for j in chosen)])
            for i in left
        }
        chosen.append(max(left, key=lambda i: (score[i], -i)))
    return chosen


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(1, 14),
    st.integers(1, 14),
    st.sampled_from([0.0, 0.25, 0.7]),
    st.integers(1, 3),
    st.lists(st.integers(0, 4), min_size=0, max_size=2),
    st.integers(0, 10_000),
)
def test_as_the_slow_reference(
    num: int, k: int, diversity: float, most: int, least: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.permutation(num).astype(np.float32) / np.float32(7)
    vectors = rng.normal(size=(num, 3)).astype(np.float32)
    codes, kinds = rng.integers(0, 4, num), rng.integers(0, 3, num)
    slate = arrange(
        values,
        k,
        vectors=vectors,
        diversity=diversity,
        caps=[Group(codes.astype(np.int32), most)],
        floors=[Floor(kinds == sort, number) for sort, number in enumerate(least)],
    )
    expected = reference(values, k, vectors, diversity, codes.tolist(), most, kinds.tolist(), least)
    assert slate.places.tolist() == expected
    for sort, number in enumerate(least):
        have = int((kinds[slate.places] == sort).sum())
        assert slate.missing[sort] == max(number - have, 0) or have >= number


def test_nothing_above_zero_needs_vectors() -> None:
    with pytest.raises(AssertionError):
        arrange(VALUES, 3, diversity=0.5)
