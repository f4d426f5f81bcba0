"""The implementations that a test of the suite runs on, with the short cuts of few rows off."""

import numpy as np
import pytest

from serving.index import ivf_index, probing, torch_index
from tests.conformance.indexes import BUILDERS, Build


@pytest.fixture(params=BUILDERS, ids=lambda build: build.__name__)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Build:
    # Lists and matrix are searched even where so few rows are allowed that they would be scored
    # one and all, and no list is left unread because it hardly holds any of the best.
    monkeypatch.setattr(ivf_index, "SCAN_ROWS", 20)
    monkeypatch.setattr(torch_index, "SCAN_ROWS", 20)
    monkeypatch.setattr(probing, "MISSED", 0.0)
    made: Build = request.param
    return made


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)
