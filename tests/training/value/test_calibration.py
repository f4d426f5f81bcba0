"""Chances that are made true by a line over their logits, and how true they are."""

import numpy as np
import pytest

from training.value.calibration import Line, fit_line, reliability


def test_the_line_undoes_what_bent_the_logits() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(-2, 1, 200_000)
    labels = rng.random(len(true)) < 1 / (1 + np.exp(-true))
    bent = 0.5 * true + 1.5
    line = fit_line(bent, labels)
    assert line.slope == pytest.approx(2.0, rel=0.03)
    assert line.shift == pytest.approx(-3.0, rel=0.03)


def test_too_few_of_a_kind_bend_nothing() -> None:
    labels = np.zeros(1000, bool)
    labels[:19] = True
    assert fit_line(np.linspace(-1, 1, 1000), labels) == Line()
    assert fit_line(np.linspace(-1, 1, 1000), ~labels) == Line()


def test_the_order_is_never_turned_round() -> None:
    """Where what is said likely came true least, a line would fall; there is none then."""
    chances = np.linspace(0.01, 0.99, 1000)
    labels = np.random.default_rng(0).random(1000) > chances
    assert fit_line(np.log(chances / (1 - chances)), labels) == Line()


def test_the_error_is_the_mean_gap_of_the_bins() -> None:
    """By hand: ten at 0.2 of which three came true, ten at 0.8 of which eight: (0.1 + 0) / 2."""
    chances = np.repeat([0.2, 0.8], 10)
    labels = np.array([1, 1, 1, *[0] * 7, *[1] * 8, 0, 0], bool)
    found = reliability(chances, labels)
    assert found is not None
    assert found.predicted == pytest.approx([0.2, 0.8])
    assert found.observed == pytest.approx([0.3, 0.8])
    assert found.counts == [10, 10]
    assert found.error == pytest.approx(0.05)


def test_nothing_has_no_reliability() -> None:
    assert reliability(np.empty(0), np.empty(0, bool)) is None
    one = reliability(np.array([0.25]), np.array([True]))
    assert one is not None and one.error == pytest.approx(0.75)
