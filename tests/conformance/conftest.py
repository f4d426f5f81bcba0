"""The implementations that a test of the suite runs on, with the short cuts of few rows off."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.index import ivf_index, probing, torch_index
from serving.store.choice import Store
from tests.conformance.indexes import BUILDERS, Build
from tests.conformance.stores import RedisStores, SqliteStores, Stores
from tests.redis_process import KEEPS_ALL, RedisProcess, running_redis


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


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis"), *KEEPS_ALL) as process:
        yield process


@pytest.fixture(params=["sqlite", "redis"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    made: SqliteStores | RedisStores
    if request.param == "sqlite":
        made = SqliteStores(tmp_path)
    else:
        made = RedisStores(request.getfixturevalue("redis"))
    yield made
    made.close()


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.open()
