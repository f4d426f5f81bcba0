"""Exposures worked out by hand: their labels, their parts, and the history that each may see."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.errors import ConfigError
from model.schema import Event, Head, TimeKind
from tests.training.tiny import TINY
from tests.training.value.shown import EVENTS, act, write_shown
from training.config import RunConfig
from training.run import Run, open_run, prepare_run
from training.value.exposures import ExposureLog, Exposures, Part, heads_of

BY_TIME = replace(TINY, split="time", holdout_days=4)
"""Of a log of 20 days: test is the last 4, validation the 4 before, and its last day chooses."""


def run_on(dataset: Path, config: RunConfig = BY_TIME) -> Run:
    path = dataset.parent / "run"
    prepare_run(dataset, path, config)
    return open_run(path)


def filler() -> list[tuple[object, ...]]:
    """The log lasts from day 0 to day 20; user `z` has an exposure in every part, and a click to
    learn, to validate and to test the towers with."""
    return [
        act("z", "f", "click", 0.0),
        act("z", "g", "click", 13.9),
        act("z", "h", "click", 20.0),
        *(act("z", "f", "show", d, exposure=f"z{d}", sequence=5) for d in (5, 13, 15.5, 17)),
    ]


def read(dataset: Path, part: Part, config: RunConfig = BY_TIME) -> Exposures:
    return ExposureLog(run_on(dataset, config)).read(part)


def labels_of(found: Exposures, user: str) -> list[list[bool | None]]:
    """Each of a user's exposures: a label a head, None where it is not known."""
    mine = np.flatnonzero(found.owners == found.people.index(user))
    return [
        [
            bool(yes) if known else None
            for yes, known in zip(found.labels[i], found.known[i], strict=True)
        ]
        for i in mine
    ]


def histories_of(run: Run, found: Exposures, user: str) -> list[list[tuple[int, str]]]:
    """Each of a user's exposures: the history it sees, as (item row, event)."""
    data, names = run.data, run.data.schema.history_events
    person = found.people.index(user)
    row = found.rows[person]
    out = []
    for stop in found.stops[found.owners == person]:
        span = slice(data.starts[row], stop)
        events = [names[code - 1] for code in data.events[span]]
        out.append(list(zip(data.items[span].tolist(), events, strict=True)))
    return out


def test_a_head_came_true_where_an_event_has_the_exposures_id(tmp_path: Path) -> None:
    heads = [
        Head(name="click", event="click"),
        Head(name="long", event="watch", threshold=30.0),
        Head(name="hide", event="hide"),
    ]
    events = [
        *filler(),
        act("a", "p", "show", 13.0, exposure="x1"),
        act("a", "p", "click", 13.1, exposure="x1"),
        act("a", "p", "watch", 13.1, exposure="x1", value=29.9, sequence=1),
        act("a", "q", "show", 13.2, exposure="x2"),
        act("a", "q", "watch", 13.3, exposure="x2", value=30.0),
        act("a", "q", "show", 13.4, exposure="x3"),
        act("a", "q", "watch", 13.5, exposure="x3"),  # how long is not known
        act("a", "q", "hide", 13.5, exposure="x3", sequence=1),
        act("a", "p", "show", 13.6, exposure="x4"),
        act("a", "p", "click", 13.7),  # of no exposure
    ]
    found = read(write_shown(tmp_path / "d", events, heads=heads), "fit")
    assert labels_of(found, "a") == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [False, False, False],
    ]
    assert labels_of(found, "z") == [[False, False, False]]


def test_a_slate_that_shares_one_id_is_told_apart_by_the_item(tmp_path: Path) -> None:
    events = [
        *filler(),
        act("a", "p", "show", 13.0, exposure="slate"),
        act("a", "q", "show", 13.0, exposure="slate", sequence=1),
        act("a", "q", "click", 13.1, exposure="slate"),
        # What an exposure of its own led to counts, whatever item it was done to.
        act("a", "p", "show", 13.2, exposure="alone"),
        act("a", "q", "order", 13.3, exposure="alone"),
    ]
    heads = [Head(name="click", event="click"), Head(name="order", event="order")]
    found = read(write_shown(tmp_path / "d", events, heads=heads), "fit")
    assert labels_of(found, "a") == [[False, False], [True, False], [False, True]]


def test_at_once_is_the_moment_of_a_users_first_exposure(tmp_path: Path) -> None:
    events = [
        *filler(),
        act("a", "p", "click", 3.0),
        act("a", "r", "show", 13.3, exposure="x3"),
        act("a", "p", "show", 13.1, exposure="x1"),
        act("a", "p", "click", 13.2, exposure="x1"),
        act("b", "p", "show", 13.5, exposure="x4"),
    ]
    dataset = write_shown(tmp_path / "d", events, heads=[Head(name="click", event="click")])
    run = run_on(dataset)
    found = ExposureLog(run).read("fit")
    once = found.at_once()
    p = run.read_items()["item_id"].to_pylist().index("p")
    first = [(p, "click")]
    assert histories_of(run, found, "a") == [[*first, (p, "click")], first]
    assert histories_of(run, once, "a") == [first, first]
    assert labels_of(once, "a") == labels_of(found, "a") == [[False], [True]]
    for name in ("a", "b", "z"):
        mine = found.owners == found.people.index(name)
        assert set(once.times[mine]) == {found.times[mine].min()}


def test_an_id_is_of_one_user(tmp_path: Path) -> None:
    """Logs that count pages or sessions anew for each user."""
    events = [
        *filler(),
        act("a", "p", "show", 13.0, exposure="1"),
        act("a", "p", "click", 13.1, exposure="1"),
        act("b", "q", "click", 13.15),
        act("b", "p", "show", 13.2, exposure="1"),
        act("b", "q", "show", 13.3, exposure="2"),
        act("a", "q", "click", 13.4, exposure="2"),
    ]
    dataset = write_shown(tmp_path / "d", events, heads=[Head(name="click", event="click")])
    run = run_on(dataset)
    found = ExposureLog(run).read("fit")
    assert labels_of(found, "a") == [[True]]
    assert labels_of(found, "b") == [[False], [False]]
    # What `a` was shown as page 1, earlier, does not cut the history of `b`.
    q = run.read_items()["item_id"].to_pylist().index("q")
    assert histories_of(run, found, "b") == [[(q, "click")], [(q, "click")]]


def test_a_slate_that_a_border_cuts_is_a_slate_still(tmp_path: Path) -> None:
    events = [
        *filler(),
        act("a", "p", "show", 14.99999, exposure="slate"),  # day 15 chooses
        act("a", "q", "show", 15.00001, exposure="slate"),
        act("a", "q", "click", 15.1, exposure="slate"),
    ]
    heads = [Head(name="click", event="click")]
    log = ExposureLog(run_on(write_shown(tmp_path / "d", events, heads=heads)))
    assert labels_of(log.read("fit"), "a") == [[False]]
    assert labels_of(log.read("choose"), "a") == [[True]]


def test_a_window_counts_what_the_user_did_to_the_item_until_it_is_over(tmp_path: Path) -> None:
    heads = [Head(name="order", event="order", window_days=2.0)]
    events = [
        *filler(),
        act("a", "p", "order", 11.9),  # before it was shown
        act("a", "p", "show", 12.5),
        act("a", "p", "order", 14.5),  # two days later to the second
        act("a", "q", "show", 12.5, sequence=1),
        act("a", "q", "order", 14.50001),  # too late
        act("a", "r", "show", 12.6),
        act("b", "r", "order", 12.7),  # another user
        act("a", "s", "show", 14.9, sequence=1),  # its window ends in the test part, day 16
        act("a", "s", "order", 15.0),
        act("a", "t", "show", 17.9),
        act("a", "t", "order", 18.0),
        act("a", "u", "show", 18.5),  # the log ends before the window does
    ]
    dataset = write_shown(tmp_path / "d", events, heads=heads)
    log = ExposureLog(run_on(dataset))
    assert labels_of(log.read("fit"), "a") == [[True], [False], [False], [None]]
    assert labels_of(log.read("test"), "a") == [[True], [None]]


def test_an_order_of_what_the_item_links_to_counts_where_the_head_says_so(tmp_path: Path) -> None:
    heads = [Head(name="stirred", event="order", of="linked", window_days=2.0)]
    events = [
        *filler(),
        act("a", "p", "show", 12.5),  # p links to q and r
        act("a", "r", "order", 13.0),
        act("a", "q", "show", 12.6),  # q links to nothing
        act("a", "p", "show", 13.5),  # after the order
        act("b", "p", "show", 12.5),
        act("b", "p", "order", 12.7),  # the item itself
    ]
    dataset = write_shown(tmp_path / "d", events, heads=heads)
    with pytest.raises(ConfigError, match="head 'stirred' has of = 'linked'"):
        ExposureLog(run_on(dataset)).read("fit")
    links = {"from_item": ["p", "p"], "to_item": ["q", "r"], "relation": ["shows"] * 2}
    pl.DataFrame(links).write_parquet(dataset / "links.parquet")
    found = ExposureLog(run_on(dataset)).read("fit")
    assert labels_of(found, "a") == [[True], [False], [False]]
    assert labels_of(found, "b") == [[False]]


def test_who_comes_back_is_told_from_what_they_are_shown_later(tmp_path: Path) -> None:
    heads = [Head(name="return", event="show", of="any", after_days=0.5, window_days=2.0)]
    events = [
        *filler(),
        act("a", "p", "show", 12.1),
        act("a", "q", "show", 12.2),  # the same visit
        act("a", "r", "show", 14.15),  # back: within two days of q, not of p
        act("b", "p", "show", 12.1),
        act("b", "q", "show", 12.5),  # the same day still
    ]
    found = read(write_shown(tmp_path / "d", events, heads=heads), "fit")
    assert labels_of(found, "a") == [[False], [True], [None]]
    assert labels_of(found, "b") == [[False], [False]]


def test_without_ids_and_windows_a_head_comes_true_within_the_session(tmp_path: Path) -> None:
    minute = 1 / 1440
    events = [
        *filler(),
        act("a", "p", "show", 13.0),
        act("a", "p", "click", 13.0 + 29 * minute),
        act("a", "q", "show", 13.0),
        act("a", "q", "click", 13.0 + 31 * minute),
    ]
    found = read(write_shown(tmp_path / "d", events, heads=[Head(name="c", event="click")]), "fit")
    assert labels_of(found, "a") == [[True], [False]]


def test_no_label_is_read_from_a_later_part(tmp_path: Path) -> None:
    events = [
        *filler(),
        act("a", "p", "show", 11.99, exposure="x0"),
        act("a", "p", "click", 12.01, exposure="x0"),  # day 12 begins what is fitted
        act("a", "p", "show", 15.99, exposure="x1"),
        act("a", "p", "click", 16.01, exposure="x1"),  # day 16 begins the test part
    ]
    heads = [Head(name="click", event="click")]
    log = ExposureLog(run_on(write_shown(tmp_path / "d", events, heads=heads)))
    assert labels_of(log.read("before"), "a") == [[False]]
    assert labels_of(log.read("choose"), "a") == [[False]]


def test_the_history_of_an_exposure_ends_strictly_before_it(tmp_path: Path) -> None:
    events = [
        *filler(),
        act("a", "p", "click", 3.0),
        act("a", "q", "show", 13.0, exposure="x1", sequence=1),
        act("a", "q", "click", 13.0, exposure="x1", sequence=2),  # at the same moment
        act("a", "r", "order", 13.0, exposure="x0", sequence=0),  # so is this, however numbered
        act("a", "p", "show", 13.1, exposure="x2"),
        act("a", "p", "watch", 13.05, exposure="x2"),  # a clock that is behind: of the exposure
        act("a", "p", "click", 13.2, exposure="x2"),
        act("new", "p", "show", 13.1, exposure="x3"),
    ]
    dataset = write_shown(tmp_path / "d", events)
    run = run_on(dataset)
    found = ExposureLog(run).read("fit")
    p, q, r = (run.read_items()["item_id"].to_pylist().index(name) for name in "pqr")
    first = [(p, "click")]
    assert histories_of(run, found, "a") == [
        first,
        # Of one time, in the order of their sequence.
        [*first, (r, "order"), (q, "click")],
    ]
    assert found.rows[found.people.index("new")] == -1  # no history at all


@pytest.mark.parametrize("dated", [False, True])
def test_where_only_the_order_counts_what_was_shown_at_once_saw_the_same(
    tmp_path: Path, dated: bool
) -> None:
    """KuaiRand's layout: the train part has no times; of one page, nothing was seen yet."""

    def when(days: float) -> float | None:
        return days if dated else None

    events = [
        act("a", "p", "show", None, exposure="t1", sequence=0, split="train"),
        act("a", "p", "click", None, exposure="t1", sequence=1, split="train"),
        act("a", "q", "show", 8.0, exposure="v1", sequence=10, split="validation"),
        act("a", "q", "click", when(8.0), exposure="v1", sequence=11, split="validation"),
        act("a", "r", "show", 8.0, exposure="v2", sequence=20, split="validation"),
        act("a", "r", "click", when(8.0), exposure="v2", sequence=21, split="validation"),
        act("a", "s", "show", 9.0, exposure="v3", sequence=30, split="validation"),
        act("z", "s", "show", 15.0, exposure="v4", sequence=1, split="validation"),
        act("z", "s", "click", 15.0, exposure="v4", sequence=2, split="validation"),
        act("z", "q", "show", 16.0, exposure="w1", sequence=3, split="test"),
        act("z", "q", "click", 16.0, exposure="w1", sequence=4, split="test"),
        act("a", "q", "show", 16.0, exposure="w2", sequence=40, split="test"),
    ]
    dataset = write_shown(tmp_path / "d", events, time="order")
    run = run_on(dataset, replace(TINY, split="published"))
    log = ExposureLog(run)
    p, q, r, s = (run.read_items()["item_id"].to_pylist().index(name) for name in "pqrs")
    before = [(p, "click")]
    assert histories_of(run, log.read("fit"), "a") == [
        before,
        before,
        [*before, (q, "click"), (r, "click")],
    ]
    test = log.read("test")
    assert histories_of(run, test, "z") == [[(s, "click")]]
    assert histories_of(run, test, "a") == [[*before, (q, "click"), (r, "click")]]
    assert [len(log.read(part).items) for part in ("before", "fit", "choose", "test")] == [
        *(1, 3, 1, 2)
    ]


def test_the_parts_of_a_split_by_time(tmp_path: Path) -> None:
    found = ExposureLog(run_on(write_shown(tmp_path / "d", filler())))
    days = [
        [(t - 1_772_323_200_000_000) / 86_400_000_000 for t in found.read(part).times.tolist()]
        for part in ("before", "fit", "choose", "test")
    ]
    assert days == [[5], [13], [15.5], [17]]


def test_heads_are_the_declared_ones_or_every_event_that_is_no_exposure(tmp_path: Path) -> None:
    run = run_on(write_shown(tmp_path / "d", filler()))
    assert [head.name for head in heads_of(run.data.schema)] == ["click", "watch", "order", "hide"]
    declared = run.data.schema.model_copy(update={"heads": [Head(name="buy", event="order")]})
    assert [head.name for head in heads_of(declared)] == ["buy"]


NO_SHOW = {name: event for name, event in EVENTS.items() if name != "show"}


@pytest.mark.parametrize(
    ("events", "time", "declared", "config", "said"),
    [
        (
            [act("z", f"i{d:02d}", "click", float(d), sequence=d) for d in range(21)],
            "exact",
            NO_SHOW,
            BY_TIME,
            r"no event with the role 'exposure'.*train-value RUN --candidates 100",
        ),
        (
            filler(),
            "exact",
            EVENTS,
            replace(TINY, split="leave-one-out"),
            "--split time.*--candidates",
        ),
        (
            [*filler()[:3], act("z", "f", "show", 5.0)],
            "exact",
            EVENTS,
            BY_TIME,
            "no exposure lies in the part 'fit'",
        ),
        (
            [
                act("z", "f", "click", None, sequence=1, split="train"),
                act("z", "g", "show", None, exposure="x", sequence=2, split="validation"),
                act("z", "g", "click", None, exposure="x", sequence=3, split="validation"),
                act("z", "h", "click", None, sequence=4, split="test"),
            ],
            "order",
            EVENTS,
            replace(TINY, split="published"),
            "no exposure with split = 'validation' whose time is known",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path,
    events: Sequence[tuple[object, ...]],
    time: TimeKind,
    declared: dict[str, Event],
    config: RunConfig,
    said: str,
) -> None:
    dataset = write_shown(tmp_path / "d", events, time=time, declared=declared)
    with pytest.raises(ConfigError, match=said):
        ExposureLog(run_on(dataset, config))


def test_a_window_needs_times(tmp_path: Path) -> None:
    events = [
        act("z", "f", "click", None, sequence=1, split="train"),
        *(
            act("z", "g", "show", float(n), exposure=f"x{n}", sequence=10 * n, split=split)
            for n, split in ((1, "validation"), (5, "validation"), (6, "test"))
        ),
        act("z", "g", "click", None, sequence=11, split="validation"),
        act("z", "h", "click", None, sequence=99, split="test"),
    ]
    heads = [Head(name="order", event="order", window_days=7.0)]
    dataset = write_shown(tmp_path / "d", events, heads=heads, time="order")
    log = ExposureLog(run_on(dataset, replace(TINY, split="published")))
    with pytest.raises(ConfigError, match="head 'order' has window_days = 7"):
        log.read("fit")


def test_an_exposure_of_a_published_split_without_its_time_is_in_no_part(tmp_path: Path) -> None:
    events = [
        act("a", "p", "click", 1.0, split="train"),
        act("a", "q", "show", 5.0, exposure="v1", split="validation"),
        act("a", "q", "click", 5.1, exposure="v1", split="validation"),
        act("a", "r", "show", 8.0, exposure="v2", split="validation"),
        act("a", "s", "show", 9.0, exposure="w1", split="test"),
        act("a", "s", "click", 9.1, exposure="w1", split="test"),
        act("a", "t", "show", None, exposure="w2", split="test"),
    ]
    dataset = write_shown(tmp_path / "d", events)
    log = ExposureLog(run_on(dataset, replace(TINY, split="published")))
    assert log.num_undated == 1
    assert log.read("test").times.tolist() == [1_772_323_200_000_000 + 9 * 86_400_000_000]
