"""Negatives: each item once, and as often as the logQ correction believes."""

import numpy as np
import pytest

from training.negatives import NegativeSampler

POPULARITY = 1000.0 / np.arange(1, 61)  # 60 items, the first 60 times as popular as the last


def test_draws_are_distinct_known_and_repeat_with_their_seed() -> None:
    sampler = NegativeSampler(POPULARITY, num_uniform=20, num_in_batch=30, batch_tokens=5)
    targets = np.array([5, 5, 7, 59, 0])
    for seed in range(50):
        drawn = sampler.draw(targets, np.random.default_rng(seed))
        assert len(np.unique(drawn)) == len(drawn) >= 20 and (np.diff(drawn) > 0).all()
        assert drawn.min() >= 0 and drawn.max() < 60 and drawn.dtype == np.int64
        again = sampler.draw(targets, np.random.default_rng(seed))
        np.testing.assert_array_equal(drawn, again)


def test_each_source_can_stand_alone() -> None:
    targets = np.array([5, 7, 7])
    only_batch = NegativeSampler(POPULARITY, num_uniform=0, num_in_batch=200, batch_tokens=3)
    assert only_batch.draw(targets, np.random.default_rng(1)).tolist() == [5, 7]
    everything = NegativeSampler(POPULARITY, num_uniform=999, num_in_batch=0, batch_tokens=9)
    assert everything.draw(targets, np.random.default_rng(1)).tolist() == list(range(60))
    np.testing.assert_allclose(everything.log_q, 0, atol=1e-6)
    uniform = NegativeSampler(POPULARITY, num_uniform=15, num_in_batch=0, batch_tokens=9)
    np.testing.assert_allclose(np.exp(uniform.log_q), 15 / 60, rtol=1e-6)


@pytest.mark.parametrize("batch_tokens", [50, 2000])
def test_log_q_is_the_measured_chance_of_being_drawn(batch_tokens: int) -> None:
    # 25 draws are few beside 2,000 targets, and half of 50.
    sampler = NegativeSampler(POPULARITY, num_uniform=6, num_in_batch=25, batch_tokens=batch_tokens)
    share, num_draws = POPULARITY / POPULARITY.sum(), 6000
    counts = np.zeros(60)
    for step in range(num_draws):
        rng = np.random.default_rng([7, step])
        targets = rng.choice(60, size=batch_tokens, p=share)
        counts[sampler.draw(targets, rng)] += 1
    chance = np.exp(sampler.log_q.astype(np.float64))
    noise = np.sqrt(chance * (1 - chance) / num_draws)
    # A Poisson count stands for a binomial one, and exp(-x) for (1 - x/n)^n.
    assert (np.abs(counts / num_draws - chance) < 4.5 * noise + 0.012 * chance).all()
    assert chance.max() > 0.95 and chance.min() < 0.2


def test_a_target_that_was_never_popular_is_still_finite() -> None:
    sampler = NegativeSampler(
        np.array([0.0, 5.0]), num_uniform=0, num_in_batch=4, batch_tokens=10**6
    )
    assert np.isfinite(sampler.log_q).all()
    assert sampler.log_q[1] == pytest.approx(np.log(1 - np.exp(-4)), rel=1e-4)
