"""Counted numbers: quantiles, the tail and the Gini coefficient, against numbers worked by hand."""

import numpy as np
import polars as pl
import pytest

from training.inspection.distribution import Distribution, Gathering, distribution


def test_quantiles_take_the_lower_neighbour() -> None:
    numbers = distribution(pl.Series([5, 1, 1, 3, 100]))
    assert numbers.values.tolist() == [1, 3, 5, 100]
    assert numbers.counts.tolist() == [2, 1, 1, 1]
    assert (numbers.num, numbers.sum, numbers.mean) == (5, 110, 22)
    # Ascending: 1 1 3 5 100; position floor(share × 4).
    assert [numbers.quantile(q) for q in (0, 0.25, 0.5, 0.74, 0.75, 0.999, 1)] == [
        *(1, 1, 3, 3, 5, 5, 100)
    ]
    assert [numbers.num_above(x) for x in (0, 1, 5, 100)] == [5, 3, 1, 0]


def test_the_tail_of_five_items() -> None:
    # Items with 6, 2, 1, 1 and 0 events: the first fifth has 6 of 10, the second 2, and so on.
    events = distribution(pl.Series([1, 6, 0, 2, 1]))
    shares = events.share_of_top(np.array([0, 0.2, 0.3, 0.4, 0.6, 0.8, 1]))
    assert shares == pytest.approx([0, 0.6, 0.7, 0.8, 0.9, 1, 1])
    # G = 2 Σ i x_i / (n Σ x) - (n + 1) / n, x ascending: 2 (0 + 2 + 3 + 8 + 30) / 50 - 6 / 5.
    assert events.gini == pytest.approx(2 * 43 / 50 - 6 / 5)


def test_equal_shares_have_no_gini() -> None:
    assert distribution(pl.Series([7] * 10)).gini == pytest.approx(0)


def test_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 50, 1_000)
    gathering = Gathering()
    for part in np.array_split(numbers, 7):
        gathering.add(pl.Series(part))
    gathered, whole = gathering.distribution(), distribution(pl.Series(numbers))
    assert np.array_equal(gathered.values, whole.values)
    assert np.array_equal(gathered.counts, whole.counts)
    assert gathered.mean == pytest.approx(numbers.mean())
    below = np.quantile(numbers, [0.1, 0.5, 0.9], method="lower")
    assert [gathered.quantile(q) for q in (0.1, 0.5, 0.9)] == below.tolist()


@pytest.mark.parametrize("numbers", [Gathering().distribution(), distribution(pl.Series([0, 0]))])
def test_nothing_at_all_is_no_error(numbers: Distribution) -> None:
    assert (numbers.mean, numbers.quantile(0.5), numbers.gini, numbers.num_above(0)) == (0, 0, 0, 0)
    assert numbers.share_of_top(np.array([0.5])).tolist() == [0]
