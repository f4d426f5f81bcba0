"""What is learned from, known and asked for, by hand; and that nothing asked was ever learned."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from model.errors import ConfigError, DatasetError
from model.schema import Event, Schema, TimeKind
from tests.training.tiny import SECOND, TINY, interactions
from training.config import RunConfig, Seen
from training.dataset import Interactions
from training.splits import Part, Questions, filtered, split_events

DAY = 86_400 * SECOND
WATCH, BUY = 1, 2


def events(
    *users: list[tuple[int, int, float]], time: TimeKind = "exact", published: str = ""
) -> Interactions:
    """Users' (item, event, day) triples; published: a letter an event: l, v or t."""
    schema = Schema(
        name="by hand",
        time=time,
        events={"watch": Event(role="engagement"), "buy": Event(role="conversion")},
    )
    flat = [event for user in users for event in user]
    days = np.array([day for _, _, day in flat])
    return Interactions(
        schema,
        np.cumsum([0, *(len(user) for user in users)]),
        np.array([item for item, _, _ in flat], np.int32),
        np.array([event for _, event, _ in flat], np.int32),
        np.where(days < 0, -1, days * DAY).astype(np.int64) if schema.has_times else 0 * days,
        np.ones(len(flat), np.float32),
        np.array(["lvt".index(letter) for letter in published or "l" * len(flat)], np.int8),
        num_items=20,
    )


def config(**given: object) -> RunConfig:
    return replace(TINY, **given)  # type: ignore[arg-type]


def listed(questions: Questions) -> dict[int, list[int]]:
    """User → targets."""
    bounds = zip(questions.starts[:-1], questions.starts[1:], strict=True)
    return {
        int(user): questions.targets[start:end].tolist()
        for user, (start, end) in zip(questions.users, bounds, strict=True)
    }


def history(data: Interactions, user: int) -> list[int]:
    items: list[int] = data.items[data.starts[user] : data.starts[user + 1]].tolist()
    return items


def test_leave_one_out_by_hand() -> None:
    data = events(
        [(7, WATCH, 0), (8, WATCH, 1), (9, WATCH, 4), (6, WATCH, 4.5)],
        [(1, WATCH, 0), (2, WATCH, 1)],  # two events: learned from, not asked
        [(3, WATCH, 100), (4, WATCH, 160), (5, WATCH, 150)],
    )
    split = split_events(data, config())
    assert split.kind == "leave-one-out"
    assert [history(split.training, user) for user in range(3)] == [[7, 8], [1, 2], [3]]
    test = split.questions("test")
    assert listed(test) == {0: [6], 2: [5]}
    # A clock that ran backwards was idle for 0 seconds.
    assert test.idle.tolist() == [0.5 * 86_400, 0]
    assert [history(test.histories, user) for user in range(3)] == [[7, 8, 9], [1, 2], [3, 4]]
    validation = split.questions("validation")
    assert listed(validation) == {0: [9], 2: [4]}
    assert validation.idle.tolist() == [3 * 86_400, 60 * 86_400]
    assert [history(validation.histories, user) for user in (0, 2)] == [[7, 8], [3]]


def test_leave_one_out_of_one_event_name_holds_out_what_follows_it_too() -> None:
    data = events(
        [(1, WATCH, 0), (2, BUY, 1), (3, WATCH, 2), (4, BUY, 3), (5, WATCH, 4)],
        [(1, BUY, 0), (2, WATCH, 1), (3, BUY, 2)],  # nothing before its first order
        [(1, WATCH, 0), (2, WATCH, 1), (3, BUY, 2)],  # one order alone
    )
    split = split_events(data, config(targets=("buy",)))
    test = split.questions("test")
    assert listed(test) == {0: [4]} and history(test.histories, 0) == [1, 2, 3]
    assert listed(split.questions("validation")) == {0: [2]}
    trained = [history(split.training, user) for user in range(3)]
    assert trained == [[1], [1, 2, 3], [1, 2, 3]]


def test_by_time_by_hand() -> None:
    # Ten days: validation is day 8, test day 9, to the microsecond of the last event.
    data = events(
        [(1, WATCH, 0), (2, WATCH, 7.9), (3, WATCH, 8.5), (4, WATCH, 9.5), (4, BUY, 9.6)],
        [(5, WATCH, 9.9), (6, BUY, 10)],  # new in the test window
        [(7, WATCH, 1)],
    )
    split = split_events(data, config(split="time", holdout_days=1))
    assert [history(split.training, user) for user in range(3)] == [[1, 2], [], [7]]
    test = split.questions("test")
    assert listed(test) == {0: [4], 1: [5, 6]}
    assert [history(test.histories, user) for user in (0, 1)] == [[1, 2, 3], []]
    # Asked when the window opens; of a new user nothing is known.
    assert test.idle.tolist() == [pytest.approx(0.5 * 86_400), 0]
    assert listed(split.questions("validation")) == {0: [3]}
    only = split_events(data, config(split="time", holdout_days=1, targets=("buy",)))
    assert listed(only.questions("test")) == {0: [4], 1: [6]}


def test_by_time_holds_out_whole_days_where_days_are_all_that_is_known() -> None:
    data = events([(item, WATCH, item) for item in range(11)], time="day")
    split = split_events(data, config(split="time", holdout_days=1.5))
    assert history(split.training, 0) == list(range(7))
    assert listed(split.questions("validation")) == {0: [7, 8]}
    assert listed(split.questions("test")) == {0: [9, 10]}


def test_a_tenth_of_the_span_is_the_default_window() -> None:
    data = events([(item, WATCH, item) for item in range(11)])
    split = split_events(data, config(split="time"))
    assert listed(split.questions("test")) == {0: [10]}
    assert listed(split.questions("validation")) == {0: [9]}


def test_as_published_by_hand() -> None:
    data = events(
        [(1, WATCH, 0), (2, BUY, 1), (3, BUY, 2), (4, BUY, -1)],
        [(5, WATCH, 0), (6, BUY, 1)],
        published="llvtlt",
    )
    split = split_events(data, config())
    assert split.kind == "published"
    assert [history(split.training, user) for user in (0, 1)] == [[1, 2], [5]]
    assert listed(split.questions("validation")) == {0: [3]}
    test = split.questions("test")
    assert listed(test) == {0: [4], 1: [6]} and history(test.histories, 0) == [1, 2, 3]
    assert test.idle.tolist() == [0, 86_400]  # the first one's time is not known


def test_as_published_without_validation_takes_the_last_of_training() -> None:
    data = events(
        [(1, WATCH, 0), (2, BUY, 1), (3, WATCH, 2), (4, BUY, 3)],
        [(5, BUY, 0), (6, BUY, 1)],
        published="llltlt",
    )
    split = split_events(data, config(targets=("buy",)))
    assert listed(split.questions("validation")) == {0: [2]}
    assert [history(split.training, user) for user in (0, 1)] == [[1], [5]]
    test = split.questions("test")
    assert history(test.histories, 0) == [1, 2, 3] and listed(test) == {0: [4], 1: [6]}


@pytest.mark.parametrize(
    ("seen", "asked", "left_out"),
    [("filter", {0: [3]}, 2), ("converted", {0: [1, 3]}, 1), ("keep", {0: [1, 2, 3]}, 0)],
)
def test_what_lists_leave_out_is_not_asked_for(
    seen: Seen, asked: dict[int, list[int]], left_out: int
) -> None:
    data = events(
        [(1, WATCH, 0), (2, BUY, 1), (1, BUY, 9), (2, BUY, 9), (3, WATCH, 9), (3, BUY, 10)],
        [(8, WATCH, 1)],
    )
    split = split_events(data, config(split="time", holdout_days=2))
    questions = split.questions("test", seen=seen)
    assert listed(questions) == asked and questions.num_left_out == left_out
    shown = {"filter": [1, 2], "converted": [2], "keep": []}
    assert history(filtered(questions.histories, seen), 0) == shown[seen]


@pytest.mark.parametrize("kind", ["leave-one-out", "time", "published"])
def test_what_is_asked_was_never_learned_nor_known(kind: str) -> None:
    data = interactions([1, 2, 3, 9, 14, 40, 25], num_items=30, seed=5)
    if kind == "published":
        parts = np.random.default_rng(1).integers(0, 3, len(data.items)).astype(np.int8)
        data = replace(data, published=parts)
    split = split_events(data, config(split=kind))
    for part in get_args(Part):
        assert split.asked[part].any() and not (split.asked[part] & split.known[part]).any()
        assert not (split.asked[part] & split.learned).any()
        assert not (split.learned & ~split.known[part]).any()
    assert not (split.known["validation"] & split.asked["test"]).any()


def test_some_of_the_questions_keep_their_targets() -> None:
    data = events(*([(item + user, WATCH, float(item)) for item in range(11)] for user in range(9)))
    whole = split_events(data, config(split="time", holdout_days=2)).questions("test")
    some = whole.sample(3, seed=1)
    assert len(some.users) == 3 and listed(some).items() <= listed(whole).items()
    assert listed(whole.sample(3, seed=1)) == listed(some) != listed(whole.sample(3, seed=2))
    assert whole.sample(None, seed=1) is whole


def test_splits_that_a_dataset_does_not_allow_are_refused() -> None:
    ordered = events([(item, WATCH, 0) for item in range(5)], time="order")
    with pytest.raises(ConfigError, match=r'time = "order".*Allowed here: "leave-one-out"\.'):
        split_events(ordered, config(split="time"))
    with pytest.raises(ConfigError, match=r'no event has split = "test"'):
        split_events(ordered, config(split="published"))
    with pytest.raises(ConfigError, match=r"'order'.*Allowed are: watch, buy\."):
        split_events(ordered, config(targets=("order",)))
    short = events([(item, WATCH, item) for item in range(5)])
    with pytest.raises(ConfigError, match=r"holdout_days is 3, .* span 4\.0 days"):
        split_events(short, config(split="time", holdout_days=3))
    with pytest.raises(ConfigError, match=r"holdout_days"):
        config(holdout_days=0)


def test_a_part_that_asks_for_nothing_is_said_so() -> None:
    data = interactions([1, 2, 2, 1], num_items=5)
    with pytest.raises(DatasetError, match=r"asks for nothing.*users with 3 events"):
        split_events(data, config()).questions("test")
    repeats = events([(1, WATCH, 0), (1, WATCH, 1), (1, WATCH, 2)])
    with pytest.raises(DatasetError, match=r"that is not left out as seen"):
        split_events(repeats, config()).questions("test")


@pytest.mark.parametrize("kind", ["auto", "leave-one-out", "time", "published"])
@pytest.mark.parametrize("time", ["exact", "order"])
def test_a_dataset_that_leaves_nothing_to_learn_from_is_refused(kind: str, time: TimeKind) -> None:
    if (kind, time) == ("time", "order"):
        return  # refused for another reason
    shown = events([], [], time=time)  # people who were shown things, and did nothing
    expected = DatasetError if kind != "published" else ConfigError
    with pytest.raises(expected, match=r"nothing .*to learn from|no event has split"):
        split_events(shown, config(split=kind))
    held_out = events([(1, WATCH, -1), (2, WATCH, -1), (3, WATCH, -1)], time=time, published="ttt")
    if kind != "leave-one-out":
        with pytest.raises(DatasetError, match=r"nothing .*to learn from"):
            split_events(held_out, config(split=kind))
