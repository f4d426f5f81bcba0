"""What every baseline owes to an evaluation; those that count events, against counts by hand."""

import tracemalloc
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from model.errors import ConfigError
from model.schema import Role, TimeKind
from tests.training.histories import CART, ORDER, histories_of
from tests.training.tiny import SECOND
from training.baselines import BASELINES, Popularity, Recency, Relisting, fit_baselines
from training.dataset import Interactions
from training.ranking import Ranker

Int64 = npt.NDArray[np.int64]
NO_ITEMS = pa.table({})
NUM_ITEMS = 60


def random_histories(lengths: list[int], num_items: int, *, seed: int) -> Interactions:
    rng = np.random.default_rng(seed)
    users = [
        [(int(rng.integers(num_items - 5)), int(rng.integers(1, 4))) for _ in range(length)]
        for length in lengths
    ]
    data = histories_of(users, num_items=num_items)
    return replace(data, times=np.arange(len(data.items)) * 3600 * SECOND)


def titles(num_items: int) -> pa.Table:
    words = ["tea", "cup", "red", "jar", "竹笛", "银饰", "old", "new"]
    rng = np.random.default_rng(9)
    return pa.table({"title": [" ".join(rng.choice(words, 3)) for _ in range(num_items)]})


TRAINING = random_histories([9] * 40, NUM_ITEMS, seed=1)
"""Of its 60 items only the last five have no event."""
ASKED = random_histories([0, 1, 3, 8, 20, 50], NUM_ITEMS, seed=2)
USERS = np.array([4, 0, 5, 1, 3, 2])


def fit(name: str, training: Interactions = TRAINING, *, num_items: int = NUM_ITEMS) -> Ranker:
    return BASELINES[name].fit(training, titles(num_items), seed=7)


def seen_by(data: Interactions, users: Int64) -> list[Int64]:
    return [
        np.unique(data.items[data.starts[u] : data.starts[u + 1]]).astype(np.int64) for u in users
    ]


@pytest.mark.parametrize("name", BASELINES)
class TestEveryBaseline:
    def test_ranks_every_item_that_is_left_once(self, name: str) -> None:
        ranker = fit(name)
        assert ranker.name == name
        seen = seen_by(ASKED, USERS)
        rows = ranker.top(ASKED, USERS, NUM_ITEMS + 3, excluded=seen)
        assert rows.shape == (6, NUM_ITEMS + 3) and rows.dtype == np.int64
        for row, out in zip(rows.tolist(), seen, strict=True):
            left = NUM_ITEMS - len(out)
            assert sorted(row[:left]) == sorted(set(range(NUM_ITEMS)) - set(out.tolist()))
            assert row[left:] == [-1] * (NUM_ITEMS + 3 - left)
        everything = ranker.top(ASKED, USERS, NUM_ITEMS, excluded=None)
        assert (np.sort(everything, axis=1) == np.arange(NUM_ITEMS)).all()

    def test_a_shorter_list_is_the_head_of_a_longer_one(self, name: str) -> None:
        ranker, seen = fit(name), seen_by(ASKED, USERS)
        longer = ranker.top(ASKED, USERS, 30, excluded=seen)
        assert ranker.top(ASKED, USERS, 4, excluded=seen).tolist() == longer[:, :4].tolist()

    def test_who_else_is_asked_and_in_which_block_does_not_matter(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ranker, seen = fit(name), seen_by(ASKED, USERS)
        together = ranker.top(ASKED, USERS, 20, excluded=seen)
        monkeypatch.setattr("training.neighbours.BLOCK", 130)
        monkeypatch.setattr("model.ann._BLOCK_SCORES", 130)
        assert ranker.top(ASKED, USERS, 20, excluded=seen).tolist() == together.tolist()
        for i, user in enumerate(USERS):
            alone = ranker.top(ASKED, np.array([user]), 20, excluded=[seen[i]])
            assert alone.tolist() == together[i : i + 1].tolist()
        assert ranker.top(ASKED, USERS[:0], 20, excluded=[]).shape == (0, 20)

    def test_the_same_training_gives_the_same_lists(self, name: str) -> None:
        first, second = (fit(name).top(ASKED, USERS, 20, excluded=None) for _ in range(2))
        assert first.tolist() == second.tolist()

    def test_memory_does_not_grow_with_users_times_items(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        num_items = num_users = 5_000
        ranker = fit(name, random_histories([9] * 400, num_items, seed=3), num_items=num_items)
        asked = random_histories([4] * num_users, num_items, seed=4)
        monkeypatch.setattr("training.neighbours.BLOCK", 1 << 17)
        monkeypatch.setattr("model.ann._BLOCK_SCORES", 1 << 17)
        tracemalloc.start()
        try:
            ranker.top(asked, np.arange(num_users), 10, excluded=None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # One byte a pair would be 25 MB. A block of 2 ** 17 scores with its top takes about 2, the
        # users' vectors of ALS as much.
        assert peak < num_users * num_items / 3


@pytest.mark.parametrize("name", sorted(BASELINES.keys() - {"title-knn"}))
def test_what_nobody_touched_in_training_comes_last(name: str) -> None:
    """But a title can bring an item to the front."""
    assert np.flatnonzero(TRAINING.popularity() == 0).tolist() == [55, 56, 57, 58, 59]
    rows = fit(name).top(ASKED, USERS, NUM_ITEMS, excluded=None)
    assert rows[:, -5:].tolist() == [[55, 56, 57, 58, 59]] * 6


@pytest.mark.parametrize("name", ["item-knn", "title-knn", "als", "relisting"])
def test_what_was_done_since_training_counts(name: str) -> None:
    ranker = fit(name)
    before = histories_of([[(1, CART), (2, CART)]], num_items=NUM_ITEMS)
    after = histories_of([[(1, CART), (2, CART), (30, CART)]], num_items=NUM_ITEMS)
    first, second = (
        ranker.top(asked, np.array([0]), 10, excluded=None).tolist() for asked in (before, after)
    )
    assert first != second


def test_popularity_counts_events_by_hand() -> None:
    ranker = Popularity.fit(histories_of([[3, 1, 3], [1, 2, 3]], num_items=5), NO_ITEMS, seed=0)
    asked = histories_of([[3], []], num_items=5)
    out = [np.array([3]), np.array([], np.int64)]
    assert ranker.top(asked, np.arange(2), 4, excluded=out).tolist() == [[1, 2, 0, 4], [3, 1, 2, 0]]


def test_recency_halves_an_event_every_week() -> None:
    # The last event is on day 28. 21 days before: 3 events of item 0, 3 / 8, and one of 4, 1 / 8.
    # 7 days before: one of 1, 1 / 2. On the day: one of 2, 1. Item 3 has none.
    training = histories_of([[0, 0, 1], [0, 4, 2]], num_items=5, days=[[7, 7, 21], [7, 7, 28]])
    asked, users = histories_of([[]], num_items=5), np.array([0])
    ranker = Recency.fit(training, NO_ITEMS, seed=0)
    assert ranker.top(asked, users, 5, excluded=None).tolist() == [[2, 1, 0, 4, 3]]
    # With a half-life of 70 days three old ones outweigh one new one: 3 · 0.81 against 0.93 and 1.
    slow = Recency.fit(training, NO_ITEMS, seed=0, half_life_days=70)
    assert slow.top(asked, users, 5, excluded=None).tolist() == [[0, 2, 1, 4, 3]]


@pytest.mark.parametrize("time", ["order", "none"])
def test_recency_needs_times(time: TimeKind) -> None:
    training = histories_of([[0]], num_items=1, time=time)
    with pytest.raises(ConfigError, match=f'recency needs times; this dataset has time = "{time}"'):
        Recency.fit(training, NO_ITEMS, seed=0)


def test_relisting_lists_what_was_not_bought_the_last_first() -> None:
    training = histories_of([[5, 5, 6], [6, 6, 0]], num_items=7)  # 6, 5, 0, then the rest
    ranker = Relisting.fit(training, NO_ITEMS, seed=0)
    # 1, 4 and 2 were watched, 2 carted as well; 3 was watched and bought, and watched again.
    history: list[int | tuple[int, int]] = [4, 1, 4, 1, (2, CART), 4, 2, 1, 3, (3, ORDER), 3]
    asked = histories_of([history, [(5, ORDER)]], num_items=7)
    assert ranker.top(asked, np.arange(2), 5, excluded=None).tolist() == [
        [1, 2, 4, 6, 5],
        [6, 5, 0, 1, 2],
    ]
    out = [np.array([1, 6]), np.array([6])]
    assert ranker.top(asked, np.arange(2), 4, excluded=out).tolist() == [[2, 4, 5, 0], [5, 0, 1, 2]]


def test_relisting_without_an_order_lists_by_promise() -> None:
    # Carted: 0 and 1, one of them bought. Watched: 0, 2, 2, 3, one of the pairs bought. So carts
    # come before watches. Item 2 was bought by one of two who watched, 3 by none of one.
    training = histories_of(
        [[0, (0, CART), 2, (2, ORDER)], [(1, CART), (1, ORDER), 2, 3]], num_items=5, time="none"
    )
    ranker = Relisting.fit(training, NO_ITEMS, seed=0)
    assert ranker.event_promise.tolist() == pytest.approx([0, 1 / 4, 1 / 2, 0])
    # Two of the five engaged pairs were bought: (1 + 0.4) / (2 + 1) of item 2, 0.4 / 2 of item 3.
    assert ranker.item_promise[[2, 3, 4]].tolist() == pytest.approx([1.4 / 3, 0.2, 0.4])
    asked = histories_of([[3, 2, 4, (0, CART), (1, CART), (1, ORDER)]], num_items=5, time="none")
    assert ranker.top(asked, np.arange(1), 4, excluded=None).tolist() == [[0, 2, 4, 3]]


@pytest.mark.parametrize(
    ("roles", "given"),
    [
        ({"watch": "engagement", "like": "engagement"}, "watch, like, each of role engagement"),
        ({"order": "conversion"}, "order, each of role conversion"),
    ],
)
def test_relisting_needs_something_bought_and_something_else(
    roles: dict[str, Role], given: str
) -> None:
    training = histories_of([[0]], num_items=1, roles=roles)
    with pytest.raises(ConfigError, match=f"relisting needs .* {given}"):
        Relisting.fit(training, NO_ITEMS, seed=0)


def test_fit_baselines_says_which_it_left_out() -> None:
    training = histories_of(
        [[0, 1], [1, 2]], num_items=3, time="order", roles={"watch": "engagement"}
    )
    told: list[tuple[float, str]] = []
    rankers, refused = fit_baselines(
        ["relisting", "item-knn", "recency", "popularity"],
        training,
        NO_ITEMS,
        seed=0,
        progress=lambda done, what: told.append((done, what)),
    )
    assert [ranker.name for ranker in rankers] == ["item-knn", "popularity"]
    assert list(refused) == ["relisting", "recency"] and "times" in refused["recency"]
    assert told == [
        (0, "fit relisting"),
        (0.25, "fit item-knn"),
        (0.5, "fit recency"),
        (0.75, "fit popularity"),
    ]
    with pytest.raises(
        ConfigError, match="no baseline is called 'svd'; there are: popularity, rec"
    ):
        fit_baselines(["svd"], training, NO_ITEMS, seed=0)
