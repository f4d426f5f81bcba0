"""What exposures led to, worked out by hand: by id, within a window, on linked items or any."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from model.errors import ConfigError
from model.schema import Head
from tests.training.tiny import TINY
from tests.training.value.asked import filler, labels_of, read, run_on
from tests.training.value.shown import act, write_shown
from training.value.exposures import ExposureLog


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
