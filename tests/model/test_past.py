"""What was done with candidates before, and what was not converted on, beside plain loops."""

import numpy as np
import numpy.typing as npt
import pytest

from model.past import Past, conversions, unconverted
from model.schema import Event, Schema

Int64 = npt.NDArray[np.int64]
NUM_ITEMS, NUM_EVENTS = 7, 3
CONVERTS = np.array([False, False, False, True])


def histories(seed: int) -> tuple[Int64, Int64, Int64]:
    """items, events and starts of users with 0 to 20 events."""
    rng = np.random.default_rng(seed)
    lengths = np.array([0, 20, 1, 12, 0])
    total = int(lengths.sum())
    items, events = rng.integers(0, NUM_ITEMS, total), rng.integers(1, NUM_EVENTS + 1, total)
    return items, events, np.concatenate([[0], np.cumsum(lengths)])


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_loop(seed: int) -> None:
    items, events, starts = histories(seed)
    past = Past(items, events, starts, num_items=NUM_ITEMS, num_events=NUM_EVENTS)
    users = np.array([4, 1, 3, 1, 2])
    candidates = np.random.default_rng(seed).integers(-1, NUM_ITEMS, (5, 9))
    stops = np.array([33, 13, 33, 0, 21])
    for limits in (None, stops):
        found = past.of(users, candidates, stops=limits)
        assert found.shape == (5, 9, NUM_EVENTS) and found.dtype == np.float32
        for b, user in enumerate(users):
            end = starts[user + 1] if limits is None else min(limits[b], starts[user + 1])
            mine = slice(starts[user], max(end, starts[user]))
            for c, item in enumerate(candidates[b]):
                for e in range(NUM_EVENTS):
                    did = (items[mine] == item) & (events[mine] == e + 1)
                    assert found[b, c, e] == np.float32(np.log1p(did.sum()))


def test_nobody_did_anything_with_nothing() -> None:
    none = np.empty(0, np.int64)
    empty = Past(none, none, np.zeros(3, np.int64), num_items=4, num_events=2)
    assert empty.of(np.array([0, 1]), np.array([[0], [3]])).tolist() == [[[0, 0]], [[0, 0]]]
    items, events, starts = histories(0)
    past = Past(items, events, starts, num_items=NUM_ITEMS, num_events=NUM_EVENTS)
    assert past.of(np.array([1]), np.empty((1, 0), np.int64)).shape == (1, 0, NUM_EVENTS)


@pytest.mark.parametrize("has_order", [True, False])
@pytest.mark.parametrize("most", [0, 2, 50])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_not_converted_on(seed: int, most: int, has_order: bool) -> None:
    items, events, starts = histories(seed)
    allowed = items != 2
    rows, counts = unconverted(
        items,
        events,
        starts,
        CONVERTS,
        most=most,
        has_order=has_order,
        num_items=NUM_ITEMS,
        allowed=allowed,
    )
    expected = []
    for user in range(len(starts) - 1):
        mine = range(starts[user], starts[user + 1])
        gone = {items[i] for i in mine if CONVERTS[events[i]]} | {2}
        left = {items[i] for i in mine} - gone
        last = {item: max(i for i in mine if items[i] == item) for item in left}
        often = {item: sum(items[i] == item for i in mine) for item in left}
        best = last if has_order else often
        expected.append(sorted(left, key=lambda item: (-best[item], item))[:most])
    assert counts.tolist() == [len(some) for some in expected]
    assert rows.tolist() == [item for some in expected for item in some]


def test_conversions_go_by_role() -> None:
    events = {"show": "exposure", "view": "engagement", "buy": "conversion", "hide": "negative"}
    declared = {name: Event.model_validate({"role": role}) for name, role in events.items()}
    schema = Schema(name="shop", time="none", events=declared)
    assert conversions(schema).tolist() == [False, False, True]
    assert [schema.worth(name) for name in ("buy", "hide")] == [1, -1]
