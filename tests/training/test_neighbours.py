"""Item-kNN and title-kNN against arithmetic by hand and a plain dense version in float64."""

import tracemalloc
from dataclasses import replace
from math import log, sqrt

import numpy as np
import pyarrow as pa
import pytest

from model.errors import ConfigError
from tests.training.histories import histories_of
from tests.training.tiny import interactions
from training.dataset import Interactions
from training.neighbours import ItemKNN, TitleKNN

NO_TITLES = pa.table({})
# Four users. Item 0 has users a, b, c; 1 has a, b, d; 2 has b, c; 3 has e; 4 nobody.
TRAINING = histories_of([[0, 1, 0], [0, 1, 2], [0, 2], [1], [3]], num_items=5)


def titled(*titles: str) -> pa.Table:
    return pa.table({"title": titles})


def test_similarities_by_hand() -> None:
    # Users of both: 0 and 1 have 2, 0 and 2 have 2, 1 and 2 have 1. That a had 0 twice is nothing.
    plain = ItemKNN.fit(TRAINING, NO_TITLES, seed=0, shrinkage=0)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = 2 / 3
    expected[0, 2] = expected[2, 0] = 2 / sqrt(6)
    expected[1, 2] = expected[2, 1] = 1 / sqrt(6)
    np.testing.assert_allclose(plain.similarity.toarray(), expected, rtol=1e-6)
    shrunk = ItemKNN.fit(TRAINING, NO_TITLES, seed=0, shrinkage=1, num_neighbours=1)
    expected = np.zeros((5, 5))
    expected[0, 2] = expected[2, 0] = 2 / (sqrt(6) + 1)  # 0.58, and 1 is 2 / (3 + 1) = 0.5 away
    expected[1, 0] = 2 / 4
    np.testing.assert_allclose(shrunk.similarity.toarray(), expected, rtol=1e-6)


def test_the_latest_event_counts_most_and_popularity_comes_after() -> None:
    training = histories_of([[0, 2]] * 4 + [[1, 3]] * 4 + [[4, 3], [4]], num_items=6)
    # similarity(0, 2) = 4 / 4, similarity(1, 3) = 4 / sqrt(4 · 5) = 0.894, (4, 3) = 1 / sqrt(10).
    ranker = ItemKNN.fit(training, NO_TITLES, seed=0, shrinkage=0, half_life=1)
    asked = histories_of([[0, 1], [1, 0], []], num_items=6)
    users = np.arange(3)
    seen = [np.array([0, 1]), np.array([0, 1]), np.array([], np.int64)]
    # 0 then 1: item 3 scores 0.894, item 2 scores 1/2. 1 then 0: 2 scores 1, 3 scores 0.447. Then
    # item 4, which has more events than 5. Nothing done: popularity, 3 with 5 events first.
    assert ranker.top(asked, users, 5, excluded=seen).tolist() == [
        [3, 2, 4, 5, -1],
        [2, 3, 4, 5, -1],
        [3, 0, 1, 2, 4],
    ]
    # Without an order both weigh the same.
    unordered = replace(asked, schema=asked.schema.model_copy(update={"time": "none"}))
    assert ranker.top(unordered, users[:2], 2, excluded=seen[:2]).tolist() == [[2, 3], [2, 3]]


def plain_item_knn(
    training: Interactions, asked: Interactions, user: int, *, neighbours: int, half_life: float
) -> list[tuple[float, int]]:
    """(minus the score, row) of every item that scores, in float64 and without a sparse matrix."""
    had = np.zeros((training.num_users, training.num_items))
    had[training.owners, training.items] = 1
    both, users_of = had.T @ had, had.sum(axis=0)
    scores = np.zeros(training.num_items)
    events = asked.items[asked.starts[user] : asked.starts[user + 1]].tolist()
    for age, item in enumerate(reversed(events)):
        near = [
            (-both[item, j] / (sqrt(users_of[item] * users_of[j]) + 10), j)
            for j in range(training.num_items)
            if j != item and both[item, j]
        ]
        for similarity, j in sorted(near)[:neighbours]:
            scores[j] -= 0.5 ** (age / half_life) * similarity
    return sorted((-score, j) for j, score in enumerate(scores) if score > 0)


def test_item_knn_equals_the_plain_version(monkeypatch: pytest.MonkeyPatch) -> None:
    training = interactions([12] * 60, num_items=80, seed=1)
    asked = interactions([0, 1, 5, 30, 12, 7], num_items=80, seed=2)
    users = np.array([3, 0, 5, 4, 1, 2, 3])
    settings = {"num_neighbours": 15, "shrinkage": 10, "half_life": 4}
    ranker = ItemKNN.fit(training, NO_TITLES, seed=0, **settings)
    found = ranker.top(asked, users, 20, excluded=None)
    for row, user in zip(found, users.tolist(), strict=True):
        expected = plain_item_knn(training, asked, user, neighbours=15, half_life=4)
        score_of = {j: -score for score, j in expected}
        named = [j for j in row.tolist() if j in score_of]
        assert len(named) == min(20, len(expected)) and row.tolist()[: len(named)] == named
        # float32 may swap what float64 tells apart by a hair.
        np.testing.assert_allclose(
            [score_of[j] for j in named], [-score for score, _ in expected[: len(named)]], rtol=1e-5
        )
    monkeypatch.setattr("training.neighbours.BLOCK", 100)
    again = ItemKNN.fit(training, NO_TITLES, seed=0, **settings)
    assert (again.similarity != ranker.similarity).nnz == 0
    assert again.top(asked, users, 20, excluded=None).tolist() == found.tolist()


def test_memory_of_the_fit_does_not_grow_with_items_times_items_or_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.neighbours.BLOCK", 1 << 17)
    training = interactions([9] * 400, num_items=20_000)  # most items have no event
    tracemalloc.start()
    try:
        ItemKNN.fit(training, NO_TITLES, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A float for each item's 100 neighbours would be 8 MB, one for each pair of items 1,600 MB.
    assert peak < 6e6


def test_only_the_last_events_of_a_long_history_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.neighbours._LONGEST", 2)
    training = histories_of([[0, 1, 2], [0, 3]], num_items=4)
    ranker = ItemKNN.fit(training, NO_TITLES, seed=0)
    assert sorted(zip(*ranker.similarity.nonzero(), strict=True)) == [
        (0, 3),
        (1, 2),
        (2, 1),
        (3, 0),
    ]
    asked = histories_of([[0, 1, 3]], num_items=4)
    # 0 is too long ago: only 1 (near 2) and 3 (near 0) speak.
    assert ranker.top(asked, np.array([0]), 2, excluded=None).tolist() == [[0, 2]]


def test_titles_by_hand() -> None:
    # Words of 3 letters are tokens by themselves. n = 4; tea and cup are in 2 titles each, so their
    # idf is ln(5 / 3) + 1; red is in 1: ln(5 / 2) + 1.
    training = histories_of([[3]], num_items=4)
    ranker = TitleKNN.fit(training, titled("tea", "tea cup", "cup red", ""), seed=0, half_life=5)
    tea, red = log(5 / 3) + 1, log(5 / 2) + 1
    cells = ranker.titles.toarray()
    overlap = cells @ cells.T
    assert overlap[0].tolist() == pytest.approx([1, sqrt(0.5), 0, 0])
    assert overlap[1, 2] == pytest.approx(sqrt(0.5) * tea / sqrt(tea**2 + red**2))
    assert overlap[3].tolist() == [0, 0, 0, 0]
    asked = histories_of([[0], [0, 2], [3]], num_items=4)
    # tea: "tea" scores 1 and "tea cup" 0.71. Then popularity: 3 has the one event.
    # tea, then cup red, five events to a half: "tea" has 2 ** -0.2 = 0.87, "cup red" 1, and
    # "tea cup" 0.87 · 0.71 + 0.44 = 1.05.
    assert ranker.top(asked, np.arange(3), 4, excluded=None).tolist() == [
        [0, 1, 3, 2],
        [1, 2, 0, 3],
        [3, 0, 1, 2],
    ]
    # Half as much with every event: 0.5 · 0.71 + 0.44 = 0.79 for "tea cup".
    short = replace(ranker, half_life=1)
    assert short.top(asked, np.array([1]), 2, excluded=None).tolist() == [[2, 1]]


def test_chinese_titles_meet_in_characters_and_new_items_are_found() -> None:
    items = titled("竹笛", "竹刻笔筒", "苗族银饰", "短竹笛 教学", "银饰")
    training = histories_of([[0, 1], [2]], num_items=5)  # 3 and 4 were never touched
    ranker = TitleKNN.fit(training, items, seed=0)
    asked = histories_of([[0], [2], [2, 0]], num_items=5)
    out = [np.array([0]), np.array([2]), np.array([0, 2])]
    assert ranker.top(asked, np.arange(3), 2, excluded=out).tolist() == [[3, 1], [4, 0], [3, 4]]


def test_a_catalogue_without_a_title_is_refused() -> None:
    with pytest.raises(ConfigError, match="title-knn needs titles"):
        TitleKNN.fit(TRAINING, titled("", " ", "—", "…", ""), seed=0)
