"""Slates against arithmetic worked out by hand, and against a slow reference."""

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rank import diverse
from serving.rank.dpp import RIDGE
from serving.rank.floors import Floor
from serving.rank.places import Group
from serving.rank.slate import METHODS, REASONS, Method, arrange

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


def test_many_candidates_are_compared_a_place_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    values = rng.random(60).astype(np.float32)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    at_once = arrange(values, 30, vectors=vectors, diversity=0.6)
    monkeypatch.setattr(diverse, "ALL_PAIRS", 59)
    assert arrange(values, 30, vectors=vectors, diversity=0.6).places.tolist() == (
        at_once.places.tolist()
    )


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
    lacks = [
        max(number - int((kinds[expected] == sort).sum()), 0) for sort, number in enumerate(least)
    ]
    for sort, number in enumerate(least):
        assert slate.missing[sort] == max(number - int((kinds[slate.places] == sort).sum()), 0)
    if slate.places.tolist() != expected:  # set aside for floors what caps would have closed
        assert sum(slate.missing) < sum(lacks)
    assert max(Counter(codes[slate.places].tolist()).values(), default=0) <= most


def test_nothing_above_zero_needs_vectors() -> None:
    with pytest.raises(AssertionError):
        arrange(VALUES, 3, diversity=0.5)


def best_sum(values: np.ndarray, k: int, floors: list[Floor]) -> tuple[int, float]:
    """Over all sets of k: how few items floors lack at least, and the highest sum of such a set."""
    found = [
        (
            sum(max(f.least - int(f.members[list(some)].sum()), 0) for f in floors),
            -float(values[list(some)].sum()),
        )
        for some in combinations(range(len(values)), min(k, len(values)))
    ]
    lacks, negative = min(found)
    return lacks, -negative


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.integers(0, 10_000),
)
def test_overlapping_floors_cost_as_little_as_can_be(
    num: int, k: int, least: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=num).astype(np.float32)
    floors = [Floor(rng.random(num) < 0.4, number) for number in least]
    slate = arrange(values, k, floors=floors)
    lacks, most = best_sum(values, k, floors)
    assert len(slate.places) == min(k, num)
    assert sum(slate.missing) == lacks
    if not lacks:
        assert float(values[slate.places].sum()) == pytest.approx(most, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e15])
def test_floors_that_overlap_are_met_alike_in_any_unit_of_values(unit: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        values = (rng.integers(0, 50, 40) / 50).astype(np.float32)
        floors = [Floor(rng.random(40) < 0.3, int(rng.integers(2, 6))) for _ in range(3)]
        usual = arrange(values, 10, floors=floors)
        found = arrange(values * np.float32(unit), 10, floors=floors)
        assert found.missing == usual.missing
        assert values[found.places].sum() == pytest.approx(values[usual.places].sum(), abs=1e-4)


def test_an_item_of_two_floors_counts_for_both() -> None:
    # Best two by value: 1 and 3. Both floors are met by 4 alone, at a cost of 0.9 - 0.5.
    new = Floor(np.array([True, False, False, False, True]), 1, "exposure_floor")
    small = Floor(np.array([False, False, True, False, True]), 1, "exposure_floor")
    slate = arrange(VALUES, 2, floors=[new, small])
    assert slate.places.tolist() == [1, 4] and slate.missing == (0, 0)
    assert named(slate.reasons) == ["value", "exposure_floor"]


def test_what_caps_would_close_is_set_aside_for_floors() -> None:
    # The only new item is of the creator of the best one, of whom one may be shown.
    creator = Group(np.array([1, 7, 7, 2, 3], np.int32), 1)
    new = Floor(np.array([False, False, True, False, False]), 1, "exposure_floor")
    slate = arrange(VALUES, 3, caps=[creator], floors=[new])
    assert slate.places.tolist() == [3, 0, 2] and slate.missing == (0,)
    assert named(slate.reasons) == ["value", "value", "exposure_floor"]


@pytest.mark.parametrize("method", METHODS)
def test_a_diverse_slate_leaves_out_what_is_closed_by_what_is_set_aside(method: Method) -> None:
    # As above: the best one, closed by the new item of its creator, is never shown.
    creator = Group(np.array([1, 7, 7, 2, 3], np.int32), 1)
    new = Floor(np.array([False, False, True, False, False]), 1, "exposure_floor")
    slate = arrange(
        VALUES,
        3,
        vectors=np.eye(5, dtype=np.float32),
        diversity=0.1,
        method=method,
        caps=[creator],
        floors=[new],
    )
    assert slate.places.tolist() == [3, 0, 2] and slate.missing == (0,)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 6), st.integers(0, 10_000))
def test_one_floor_and_one_cap_lack_no_more_than_they_must(
    num: int, k: int, least: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=num).astype(np.float32)
    codes, members = rng.integers(0, 3, num), rng.random(num) < 0.5
    slate = arrange(
        values, k, caps=[Group(codes.astype(np.int32), 1)], floors=[Floor(members, least)]
    )
    sets = [
        some
        for size in range(min(k, num) + 1)
        for some in combinations(range(num), size)
        if len(set(codes[list(some)].tolist())) == size
    ]
    possible = max(int(members[list(some)].sum()) for some in sets)
    assert slate.missing == (max(least - possible, 0),)


def kernel(values: np.ndarray, vectors: np.ndarray, strength: float) -> np.ndarray:
    """The kernel of serving/rank/dpp.py, written out in float64."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    worth = values.astype(np.float64) - values.min()
    worth /= max(worth.max(), 1e-300)
    quality = np.exp((1 - strength) / (2 * strength) * worth)
    likeness = (1 - RIDGE) * unit @ unit.T + RIDGE * np.eye(len(values))
    found: np.ndarray = quality[:, None] * likeness * quality
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(2, 9),
    st.integers(1, 9),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([0, 1, 2, 4]),
    st.integers(0, 10_000),
)
def test_greedy_determinants_as_worked_out_one_by_one(
    num: int, k: int, strength: float, window: int, seed: int
) -> None:
    """Fewer numbers a vector than items: without the ridge, later determinants would all be 0."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=num).astype(np.float32)
    vectors = rng.normal(size=(num, 3)).astype(np.float32)
    slate = arrange(values, k, vectors=vectors, diversity=strength, method="dpp", window=window)
    full = kernel(values, vectors, strength)
    chosen: list[int] = []
    for place in slate.places.tolist():
        above = chosen[-window:] if window else chosen
        before = np.linalg.det(full[np.ix_(above, above)]) if above else 1.0
        gains = {
            i: np.linalg.det(full[np.ix_([*above, i], [*above, i])]) / before
            for i in range(num)
            if i not in chosen
        }
        assert gains[place] >= max(gains.values()) * (1 - 1e-3)
        chosen.append(place)
    assert len(chosen) == min(k, num)


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("strength", [0.001, 0.01])
def test_hardly_any_diversity_keeps_values_apart_that_no_exponential_holds(
    strength: float, window: int
) -> None:
    rng = np.random.default_rng(11)
    values = rng.random(60).astype(np.float32)
    values[40:] = values[:20] + rng.normal(size=20).astype(np.float32) * 1e-4
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    slate = arrange(values, 60, vectors=vectors, diversity=strength, method="dpp", window=window)
    worth = ((values - values.min()) / np.ptp(values)).astype(np.float64)
    likeness = kernel(np.ones(60), vectors, 1.0)
    chosen: list[int] = []
    for place in slate.places.tolist():
        above = chosen[-window:] if window else chosen
        before = np.linalg.slogdet(likeness[np.ix_(above, above)])[1] if above else 0.0
        scores = {
            i: (1 - strength) * worth[i]
            + strength * (np.linalg.slogdet(likeness[np.ix_([*above, i], [*above, i])])[1] - before)
            for i in range(60)
            if i not in chosen
        }
        assert scores[place] >= max(scores.values()) - 1e-6
        chosen.append(place)
    assert len(chosen) == 60
    assert slate.places.tolist() != np.argsort(-values, kind="stable").tolist()


def test_two_of_three_by_their_determinant() -> None:
    # Alike values; 0 and 1 point nearly the same way, 2 is at right angles to 0.
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    slate = arrange(np.ones(3, np.float32), 2, vectors=vectors, diversity=0.5, method="dpp")
    full = kernel(np.ones(3), vectors, 0.5)
    best = max(permutations(range(3), 2), key=lambda two: np.linalg.det(full[np.ix_(two, two)]))
    assert set(slate.places.tolist()) == set(best) == {0, 2}
    assert named(slate.reasons) == ["value", "diversity"]


def test_determinants_keep_caps_and_floors() -> None:
    rng = np.random.default_rng(5)
    values, vectors = rng.random(60).astype(np.float32), rng.normal(size=(60, 8)).astype(np.float32)
    creators, kinds = rng.integers(0, 12, 60).astype(np.int32), rng.integers(0, 3, 60)
    slate = arrange(
        values,
        20,
        vectors=vectors,
        diversity=0.4,
        method="dpp",
        caps=[Group(creators, 2)],
        floors=[Floor(kinds == 0, 9)],
    )
    assert len(set(slate.places.tolist())) == 20 and slate.missing == (0,)
    assert int((kinds[slate.places] == 0).sum()) >= 9
    assert np.bincount(creators[slate.places]).max() <= 2
