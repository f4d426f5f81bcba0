"""Ids to rows and back, also where two ids share a hash."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from model.items import ItemTable, distinct, hash_ids, read_items, write_items


def table(ids: Sequence[str], *, retired: int = 0) -> pa.Table:
    flags = [i >= len(ids) - retired for i in range(len(ids))]
    return pa.table(
        {
            "item_id": pa.array(ids, pa.string()),
            "retired": pa.array(flags, pa.bool_()),
            "price": pa.array([float(i) for i in range(len(ids))]),
        }
    )


def test_rows_of_and_ids_of_are_each_others_inverse() -> None:
    ids = [f"item-{(i * 37) % 101}" for i in range(101)]
    items = ItemTable(table(ids, retired=11))
    assert (items.num_items, items.num_active) == (101, 90)
    assert items.rows_of(ids).tolist() == list(range(101))
    assert items.ids_of(np.array([100, 0, 0])) == [ids[100], ids[0], ids[0]]
    assert items.column("price", np.array([3, 1])).to_pylist() == [3.0, 1.0]


def test_unknown_ids_have_row_minus_one() -> None:
    items = ItemTable(table(["a", "竹笛", "c"]))
    rows = items.rows_of(["竹笛", "A", "", "c", "竹笛 "])
    assert rows.tolist() == [1, -1, -1, 2, -1] and rows.dtype == np.int64
    assert items.rows_of([]).shape == (0,)


def test_ids_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
        return np.array([0 if name < "m" else 2**64 - 1 for name in ids], np.uint64)

    monkeypatch.setattr("model.items.hash_ids", two_hashes)
    ids = ["x", "b", "z", "a", "y", "c"]
    items = ItemTable(table(ids))
    assert items.rows_of(ids).tolist() == list(range(6))
    assert items.rows_of(["z", "d", "c", "zz", "a"]).tolist() == [2, -1, 5, -1, 3]
    # Whoever knows no more than the hash means all of them.
    assert sorted(items.rows_of_hashes(two_hashes(["b", "k"])).tolist()) == [1, 3, 5]
    assert sorted(items.rows_of_hashes(two_hashes(["x", "b"])).tolist()) == list(range(6))


def test_rows_by_hashes() -> None:
    ids = [f"item-{(i * 37) % 101}" for i in range(101)]
    items = ItemTable(table(ids))
    wanted = [5, 100, 0, 5]
    hashes = hash_ids([ids[row] for row in wanted] + ["unknown", "zzz", ""])
    assert sorted(items.rows_of_hashes(hashes).tolist()) == [0, 5, 100]
    assert not len(items.rows_of_hashes(hash_ids([])))
    assert not len(ItemTable(table([])).rows_of_hashes(hashes))


def test_distinct_is_unique() -> None:
    values = np.random.default_rng(3).integers(-5, 5, 50)
    for some in (values, values[:1], values[:0]):
        assert distinct(some).tolist() == sorted(set(some.tolist()))


def test_an_empty_table_knows_nothing() -> None:
    for empty in (table([]), table(["a"]).slice(0, 0), pa.schema(table([]).schema).empty_table()):
        items = ItemTable(empty)
        assert (items.num_items, items.num_active) == (0, 0)
        assert items.rows_of(["a", "b"]).tolist() == [-1, -1]
        assert items.ids_of(np.array([], np.int64)) == []


def test_a_written_table_is_read_back_in_one_batch(tmp_path: Path) -> None:
    chunked = pa.concat_tables([table(["a", "b"]), table(["c"], retired=1)])
    write_items(chunked, tmp_path / "items.arrow")
    items = read_items(tmp_path / "items.arrow")
    assert items.table["item_id"].num_chunks == 1
    assert items.rows_of(["c", "a"]).tolist() == [2, 0]
    assert (items.num_items, items.num_active) == (3, 2)
    assert items.column("price", np.array([2])).to_pylist() == [0.0]
    write_items(table([]), tmp_path / "none.arrow")
    assert read_items(tmp_path / "none.arrow").num_items == 0


def test_hashes_are_the_same_on_every_machine() -> None:
    # xxh3_64 of the empty input, from the reference implementation's own test vectors.
    assert int(hash_ids([""])[0]) == 0x2D06800538D394C2
