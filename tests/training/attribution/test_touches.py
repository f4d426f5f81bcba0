"""Which meetings of a user with an item are touches of an order, on a shop written by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.attribution.logs import shop
from training.attribution.config import AttributionConfig
from training.attribution.log import DAY, DEPTHS, Log, read_log
from training.attribution.touches import RELATIONS, find_touches
from training.dataset import load_interactions

ITEMS = [
    ("tea", "product", "Lin", "tea"),
    ("cup", "product", "Wu", "clay"),
    ("pot", "product", "Wu", "tea"),
    ("brew", "video", "Zhao", "tea"),
    ("kiln", "video", "Wu", "clay"),
    ("walk", "video", "Zhao", None),
    ("Wu", "creator", None, None),
]
LINKS = [("kiln", "cup", "shows"), ("walk", "tea", "on_air"), ("tea", "Lin2", "by")][:2]


def read(tmp_path: Path, events: list[Any], *, until: int | None = None) -> Log:
    dataset = shop(tmp_path / "shop", events, items=ITEMS, links=LINKS)
    data = load_interactions(dataset, tmp_path / "arrays")
    config = AttributionConfig(circle="craft")
    return read_log(dataset, config, interactions=data, until=until)


def touches_of(log: Log, *, days: float = 7.0, after: bool = False) -> list[tuple[str, str, str]]:
    """Of the only order: item, relation and depth of each touch."""
    touches, ids = find_touches(log, days=days, after=after), log.items["item_id"]
    assert len(touches.starts) == 2
    return [
        (
            ids[int(log.episodes.item[episode])],
            RELATIONS[relation],
            DEPTHS[log.episodes.depth[episode]],
        )
        for episode, relation in zip(touches.episode, touches.relation, strict=True)
    ]


def test_each_relation_the_closest_one_first(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        [
            ("ann", "tea", "exposure", 0.0, {"exposure_id": "x0"}),  # nothing to do with the cup
            ("ann", "kiln", "watch", 1.0, {"value": 9.0}),  # shows it; its creator and circle too
            ("ann", "Wu", "click", 2.0, {}),  # its creator
            ("ann", "pot", "click", 3.0, {}),  # of its creator
            ("ann", "cup", "exposure", 4.0, {"exposure_id": "x1"}),
            ("ann", "cup", "order", 5.0, {"value": 30.0}),
            ("bob", "kiln", "watch", 4.5, {"value": 9.0}),  # somebody else
        ],
    )
    assert touches_of(log) == [
        ("kiln", "shows", "enjoyed"),
        ("Wu", "creator", "opened"),
        ("pot", "creator", "opened"),
        ("cup", "same", "seen"),
    ]


def test_a_circle_alone_relates_and_no_circle_does_not(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        [
            ("ann", "brew", "watch", 1.0, {"value": 9.0}),
            ("ann", "walk", "watch", 1.5, {"value": 9.0}),
            ("ann", "pot", "order", 2.0, {}),
        ],
    )
    assert touches_of(log) == [("brew", "circle", "enjoyed")]


def test_the_window_and_what_comes_after(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        [
            ("ann", "brew", "watch", 0.9, {"value": 9.0}),
            ("ann", "brew", "watch", 2.0, {"value": 9.0}),
            ("ann", "tea", "order", 8.0, {}),
            ("ann", "brew", "watch", 9.0, {"value": 9.0}),
            ("ann", "brew", "watch", 15.5, {"value": 9.0}),
        ],
    )
    assert len(touches_of(log, days=7.0)) == 1
    assert len(touches_of(log, days=7.2)) == 2
    assert len(touches_of(log, days=7.0, after=True)) == 1
    assert len(touches_of(log, days=7.6, after=True)) == 2


def test_one_exposure_is_one_episode_and_its_page_visit_counts(tmp_path: Path) -> None:
    x = {"exposure_id": "x1"}
    log = read(
        tmp_path,
        [
            ("ann", "walk", "exposure", 1.0, x),
            ("ann", "walk", "watch", 1.001, {**x, "value": 40.0}),
            ("ann", "cup", "click", 1.002, {**x, "source_item_id": "walk"}),
            ("ann", "walk", "like", 1.003, x),
            ("ann", "cup", "order", 1.01, {"value": 20.0}),
        ],
    )
    assert touches_of(log) == [("walk", "visited", "loved")]
    assert log.episodes.time[0] == log.orders.time[0] - round(0.007 * DAY)
    # The order came within the hour of the visit, so straight from the video.
    assert log.items["item_id"][int(log.orders.direct[0])] == "walk"


def test_without_exposures_events_half_an_hour_apart_are_one_episode(tmp_path: Path) -> None:
    minute = 1 / 1440
    log = read(
        tmp_path,
        [
            ("ann", "brew", "watch", 1.0, {"value": 9.0}),
            ("ann", "brew", "like", 1.0 + 29 * minute, {}),
            ("ann", "brew", "watch", 1.0 + 61 * minute, {"value": 3.0}),
            ("ann", "tea", "order", 2.0, {}),
        ],
    )
    assert touches_of(log) == [("brew", "circle", "loved"), ("brew", "circle", "opened")]


def test_a_visit_that_nothing_led_to_is_the_orders_own(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        [
            ("ann", "tea", "click", 1.0, {}),  # came by herself
            ("ann", "tea", "click", 3.0, {"exposure_id": "x1"}),  # it was shown to her
            ("ann", "tea", "order", 3.5, {}),
            ("ann", "tea", "bored", 3.6, {}),
        ],
    )
    assert touches_of(log) == [("tea", "same", "opened")]
    assert log.orders.direct.tolist() == [-1]  # twelve hours are no straight way


def test_until_cuts_the_log(tmp_path: Path) -> None:
    events: list[Any] = [("ann", "brew", "watch", 1.0, {}), ("ann", "tea", "order", 2.0, {})]
    events += [("bob", "tea", "order", 5.0, {})]
    whole = read(tmp_path / "whole", events)
    cut = read(tmp_path / "cut", events, until=int(whole.orders.time.max()))
    assert (len(whole.orders.user), len(cut.orders.user)) == (2, 1)
    assert cut.end < whole.end


@pytest.mark.parametrize("after", [False, True])
def test_many_users_against_one_by_one(tmp_path: Path, after: bool) -> None:
    rng = np.random.default_rng(7)
    names = [item[0] for item in ITEMS[:6]]
    events: list[Any] = []
    for number in range(400):
        event = str(rng.choice(["exposure", "watch", "click", "order"], p=[0.5, 0.2, 0.2, 0.1]))
        more = {"exposure_id": f"x{number}"} if event == "exposure" else {}
        events.append(
            (f"u{rng.integers(9)}", str(rng.choice(names)), event, float(rng.uniform(0, 30)), more)
        )
    log = read(tmp_path, events)
    touches = find_touches(log, days=5.0, after=after)
    orders, met, relations = log.orders, log.episodes, log.relations
    num, expected = len(ITEMS), []
    for order in range(len(orders.user)):
        for episode in range(len(met.user)):
            ago = (orders.time[order] - met.time[episode]) * (-1 if after else 1)
            a, b = met.item[episode], orders.item[order]
            same = a == b and not met.own[episode]
            shows = a * num + b in relations.shows.tolist()
            maker = relations.creator[a] >= 0 and relations.creator[a] == relations.creator[b]
            circle = relations.circle[a] >= 0 and relations.circle[a] == relations.circle[b]
            own = a == b and met.own[episode]
            if (
                met.user[episode] == orders.user[order]
                and 0 < ago <= 5 * DAY
                and not own
                and (same or shows or maker or circle)
            ):
                expected.append((order, episode))
    found = list(zip(touches.order.tolist(), touches.episode.tolist(), strict=True))
    assert found == expected and len(found) > 50
