"""Whole columns of ids: the rows that ItemTable gives them one by one."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.items import ItemTable
from training import id_lookup
from training.id_lookup import IdLookup


def items(ids: list[str]) -> ItemTable:
    return ItemTable(
        pa.table({"item_id": pa.array(ids, pa.string()), "retired": [False] * len(ids)})
    )


@given(
    known=st.lists(st.text(max_size=3), unique=True),
    others=st.lists(st.text(max_size=3)),
    seed=st.integers(0, 9),
)
def test_rows_are_those_of_the_table(known: list[str], others: list[str], seed: int) -> None:
    wanted = np.random.default_rng(seed).permutation([*known, *others, *known]).tolist()
    table = items(known)
    for kind in (pa.string(), pa.large_string()):
        found = IdLookup(table).rows_of(pa.array(wanted, kind))
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, table.rows_of(wanted))


def test_ids_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
        return np.array([0 if name < "m" else 2**64 - 1 for name in ids.to_pylist()], np.uint64)

    monkeypatch.setattr(id_lookup, "_hashes", two_hashes)
    ids = ["x", "b", "z", "a", "y", "c"]
    lookup = IdLookup(items(ids))
    assert lookup.rows_of(pa.array(ids)).tolist() == list(range(6))
    assert lookup.rows_of(pa.array(["z", "d", "c", "zz", "a"])).tolist() == [2, -1, 5, -1, 3]


def test_many_ids_in_any_order() -> None:
    ids = [f"item-{i}" for i in range(5000)]
    lookup = IdLookup(items(ids))
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 5000, 20_000)
    assert lookup.rows_of(pa.array([ids[row] for row in rows])).tolist() == rows.tolist()
    unknown = pa.array([f"item-{i}" for i in range(5000, 9000)])
    assert set(lookup.rows_of(unknown).tolist()) == {-1}
    assert lookup.rows_of(pa.array([], pa.string())).tolist() == []
