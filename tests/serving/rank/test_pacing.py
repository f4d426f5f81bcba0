"""Paced floors: the share holds over many slates, at less cost than in each of them."""

import numpy as np
import pytest

from serving.rank.compose import Rules, compose
from serving.rank.floors import Floor
from serving.rank.pacing import HIGHEST, STEP, Pacer

SHARE, K = 0.2, 10


def slates(num: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and members of as many slates. Members are worth less; in every second slate much."""
    rng = np.random.default_rng(11)
    found = []
    for i in range(num):
        values, new = rng.random(60).astype(np.float32), rng.random(60) < 0.3
        values[new] *= np.float32(0.75 if i % 2 else 0.35)
        found.append((values, new))
    return found


def total(values: np.ndarray, places: np.ndarray) -> float:
    return float(values[places].sum())


def test_the_share_holds_over_time_at_less_cost_than_in_each_slate() -> None:
    pacer, given = Pacer(), slates(400)
    shown, paced, each = [], 0.0, 0.0
    for values, new in given:
        lifted = np.where(new, np.float32(pacer.price("new")), np.float32(0))
        made = compose(values, K, Rules(lifted=lifted))
        num = int(new[made.slate.places].sum())
        pacer.shown(
            "new", SHARE, places=K, members=num, there=int(new.sum()), spread=float(np.ptp(values))
        )
        shown.append(num)
        paced += total(values, made.slate.places)
        hard = compose(values, K, Rules(floors=[Floor(new, int(SHARE * K), "exposure_floor")]))
        each += total(values, hard.slate.places)
    free = sum(total(values, np.argsort(-values)[:K]) for values, _ in given)
    realised = np.sum(shown) / (K * len(given))
    # The shortfall of all slates is the price over its step, at most HIGHEST / STEP slates' worth.
    assert SHARE - HIGHEST / (STEP * len(given)) <= realised <= SHARE + 0.02
    assert realised == pytest.approx(SHARE, abs=0.01)
    assert each < paced < free
    # Where members are worth more, they get more places.
    assert np.mean(shown[1::2]) > 2 * np.mean(shown[0::2])
    assert pacer.share("new") == pytest.approx(SHARE, abs=0.03)


def test_by_hand() -> None:
    pacer = Pacer()
    assert pacer.price("x") == 0 and pacer.share("x") == 0
    pacer.shown("x", 0.5, places=10, members=1, there=20, spread=2.0)
    assert pacer.price("x") == pytest.approx(STEP * 2.0 * 0.4)
    assert pacer.share("x") == pytest.approx(0.1)
    pacer.shown("x", 0.5, places=10, members=9, there=20, spread=2.0)
    assert pacer.price("x") == 0
    assert pacer.share("x") == pytest.approx((1 * 0.98 + 9) / (10 * 0.98 + 10))
    assert pacer.price("y") == 0  # an account of its own


def test_what_there_is_none_of_makes_no_price_rise() -> None:
    pacer = Pacer()
    for _ in range(50):
        pacer.shown("x", 0.5, places=10, members=0, there=0, spread=1.0)
    assert pacer.price("x") == 0
    for _ in range(500):
        pacer.shown("x", 0.5, places=10, members=0, there=10, spread=1.0)
    assert pacer.price("x") == HIGHEST  # and no higher
    pacer.shown("x", 0.5, places=0, members=0, there=0, spread=1.0)
    assert pacer.price("x") == HIGHEST
