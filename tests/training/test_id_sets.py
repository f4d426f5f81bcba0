"""Sets of ids answer as polars' own is_in and unique do, colliding hashes included."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from training import id_sets
from training.id_sets import DistinctIds, KnownIds


@pytest.fixture(params=[None, 3])
def num_hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All hashes are different, or one of three."""
    if request.param is not None:
        plain = id_sets._hashes

        def few(ids: pl.Series) -> npt.NDArray[np.uint64]:
            return plain(ids) % np.uint64(request.param)

        monkeypatch.setattr(id_sets, "_hashes", few)


@pytest.mark.usefixtures("num_hashes")
@pytest.mark.parametrize("num_known", [0, 1, 40])
def test_known_ids(num_known: int) -> None:
    known = pl.Series("item_id", [f"i{n}" for n in range(num_known)], dtype=pl.String)
    asked = pl.Series("item_id", ["i0", None, "", "i39", "i40", "竹笛", "i0", "i7"])
    expected = asked.is_not_null() & ~asked.is_in(known.implode()).fill_null(False)
    assert KnownIds(known).lacks(asked).to_list() == expected.to_list()
    assert KnownIds(known).lacks(asked.clear()).to_list() == []
    assert not KnownIds(known).lacks(pl.Series([None, None], dtype=pl.String)).any()


@pytest.mark.parametrize("pending", [1, 7, 1_000_000])
def test_distinct_ids(pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_sets, "_PENDING", pending)
    gathered = DistinctIds()
    assert gathered.ids().to_list() == []
    rng = np.random.default_rng(1)
    batches = [[f"u{n}" for n in rng.integers(0, 50, 20)] for _ in range(12)]
    for batch in batches:
        gathered.add(pl.Series("user_id", batch))
    assert sorted(gathered.ids()) == sorted({user for batch in batches for user in batch})
