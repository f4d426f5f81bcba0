"""The space in which distance is score, and the index that is built and tuned in it."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from model import ivf
from model.ann import Float32, exact_search, open_index, recall_at, write_index
from model.ivf import Setting, build_ivf, parts, reading, score_space, search_ivf, tune


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def users_and_items(rng: np.random.Generator, num: int, dim: int = 24) -> tuple[Float32, Float32]:
    """Items that vary in all directions, and 200 users who care for a few of them."""
    cares = 0.7 ** np.arange(dim)
    items = rng.normal(size=(num, dim))
    users = rng.normal(size=(200, dim)) * cares
    return items.astype(np.float32), users.astype(np.float32)


def test_products_stay_what_they_were(rng: np.random.Generator) -> None:
    items, users = users_and_items(rng, 300)
    to_items, to_queries = score_space(items, users)
    np.testing.assert_allclose(
        (users @ to_queries) @ (items @ to_items).T, users @ items.T, atol=1e-4
    )


def test_distance_is_the_mean_squared_difference_of_scores() -> None:
    """By hand: users look along the first axis alone, with numbers 3 and -1; items of length 1
    along the second. S is 0.8 of diag(1, 0) and 0.2 of diag(0, 1), but for 0.001 of diag(½, ½)."""
    items = np.array([[0, 1], [0, -1]], np.float32)
    users = np.array([[3, 0], [-1, 0]], np.float32)
    to_items, to_queries = score_space(items, users)
    np.testing.assert_allclose(to_items @ to_items.T, np.diag([0.8005, 0.2005]), atol=1e-9)
    np.testing.assert_allclose(to_items @ to_queries.T, np.eye(2), atol=1e-9)
    # 2 apart along what users look at: 4 × 0.8005, of a mean of squares of (9 + 1) / 2 = 5 as 1.
    difference = np.array([2.0, 0.0])
    assert np.square(difference @ to_items).sum() == pytest.approx(3.202)
    assert np.square(users @ difference).mean() == pytest.approx(20)  # 4 × 5


def test_users_that_are_not_there_are_stood_for_by_items(rng: np.random.Generator) -> None:
    items, _ = users_and_items(rng, 300)
    to_items, to_queries = score_space(items, items[:0])
    np.testing.assert_allclose(to_items @ to_queries.T, np.eye(24), atol=1e-9)
    assert np.isfinite(to_queries).all()


def test_vectors_of_nothing_are_no_reason_to_fail(rng: np.random.Generator) -> None:
    items, users = users_and_items(rng, 500)
    items[::2] = 0
    index = build_ivf(items, users[:0], num_lists=8)
    rows, _ = search_ivf(index, items, users, 10, fetch=200, how=reading(8))
    assert recall_at(rows, exact_search(users, items, 10)[0]) > 0.95


@pytest.mark.parametrize("dim", [24, 25, 2, 1])
def test_every_list_read_and_every_row_scored_is_exact(rng: np.random.Generator, dim: int) -> None:
    items, users = users_and_items(rng, 900, dim)
    index = build_ivf(items, users, num_lists=8)
    assert (index.ntotal, index.d) == (900, dim)
    rows, scores = search_ivf(index, items, users, 30, fetch=900, how=reading(8))
    exact, exact_scores = exact_search(users, items, 30)
    if dim > 2:  # else many score nearly alike
        assert (rows == exact).all()
    np.testing.assert_allclose(scores, exact_scores, atol=1e-5)


def test_codes_that_know_the_users_choose_better(rng: np.random.Generator) -> None:
    items, users = users_and_items(rng, 4000)
    exact = exact_search(users[100:], items, 10)[0]
    found = [
        search_ivf(
            build_ivf(items, known, num_lists=16), items, users[100:], 10, fetch=20, how=reading(16)
        )
        for known in (users[:100], users[:0])
    ]
    knowing, ignorant = (recall_at(rows, exact) for rows, _ in found)
    assert knowing > ignorant + 0.1


def test_the_same_vectors_give_the_same_file(rng: np.random.Generator, tmp_path: Path) -> None:
    items, users = users_and_items(rng, 2000)
    for name in ("one", "two"):
        write_index(build_ivf(items, users, num_lists=16), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_opens_as_what_was_built(rng: np.random.Generator, tmp_path: Path) -> None:
    items, users = users_and_items(rng, 2000)
    index = build_ivf(items, users, num_lists=16)
    write_index(index, tmp_path / "index.faiss")
    opened = open_index(tmp_path / "index.faiss")
    lists, to_queries = parts(opened)
    assert isinstance(lists, faiss.IndexIVFPQFastScan) and lists.nlist == 16
    assert np.array_equal(to_queries, parts(index)[1])
    one, two = (search_ivf(i, items, users, 9, fetch=50, how=reading(4)) for i in (index, opened))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def test_tuning_finds_a_cheap_setting_and_measures_it_on_others(rng: np.random.Generator) -> None:
    items, users = users_and_items(rng, 20_000)
    more = users_and_items(rng, 1)[1]
    index = build_ivf(items, users[::2])
    tuned = tune(index, items, users)
    how = reading(tuned.setting.probes)
    for some in (users[1::2], more):
        rows, _ = search_ivf(index, items, some, 100, fetch=tuned.setting.fetch, how=how)
        assert recall_at(rows, exact_search(some, items, 100)[0]) >= 0.985
    measured = search_ivf(index, items, users[1::2], 100, fetch=tuned.setting.fetch, how=how)[0]
    assert tuned.recall == recall_at(measured, exact_search(users[1::2], items, 100)[0])
    assert tuned.setting.probes < parts(index)[0].nlist
    cheaper = reading(max(tuned.setting.probes // 4, 1))
    rows, _ = search_ivf(index, items, users[::2], 100, fetch=tuned.setting.fetch, how=cheaper)
    assert recall_at(rows, exact_search(users[::2], items, 100)[0]) < 0.99


def test_a_setting_that_falls_short_on_others_is_widened(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, users = users_and_items(rng, 40_000)
    index = build_ivf(items, users[::2])
    monkeypatch.setattr(ivf, "_cheapest", lambda *_: Setting(2, 120))
    tuned = tune(index, items, users)
    assert tuned.recall >= 0.99 and tuned.setting.probes > 8 and tuned.setting.fetch > 400
    # And no wider than to where all would better be scored.
    monkeypatch.setattr(ivf, "TARGET", 1.1)
    assert tune(index, items, users).setting == Setting(parts(index)[0].nlist, 2000)


def test_rows_that_tie_are_as_good_as_each_other(rng: np.random.Generator) -> None:
    """Whole numbers: hundreds of rows score the same, and any of them is the hundredth best."""
    items = rng.integers(-1, 2, size=(20_000, 16)).astype(np.float32)
    users = rng.integers(-1, 2, size=(300, 16)).astype(np.float32)
    index = build_ivf(items, users[::2])
    tuned = tune(index, items, users)
    assert tuned.recall >= 0.99 and tuned.setting.fetch <= 600
