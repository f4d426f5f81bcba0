"""Grouping by user on the disk, against the same done in memory; distinct rows."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.importers import grouping
from training.importers.grouping import Distinct, grouped_by_user, without_repeats


def rows(seed: int, num: int) -> pl.DataFrame:
    """Acts of 50 users in no order; a tenth without a time."""
    rng = np.random.default_rng(seed)
    times: list[int | None] = [int(t) if t else None for t in rng.integers(0, 10, num)]
    return pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, 50, num)],
            "item_id": [f"i{n}" for n in rng.integers(0, 9, num)],
            "time": times,
            "line": np.arange(seed * num, seed * num + num),
        },
        schema_overrides={"time": pl.Int64, "line": pl.Int64},
    )


@pytest.mark.parametrize("num_bytes", [0, 20 * 32 * 2**20])
def test_users_come_whole_and_oldest_first(num_bytes: int, tmp_path: Path) -> None:
    frames = [rows(seed, 300) for seed in range(4)]
    told: list[float] = []
    with grouped_by_user(tmp_path / "new" / "out", num_bytes=num_bytes) as groups:
        for frame in frames:
            groups.add(frame)
        parts = list(groups.read(lambda part, _: told.append(part)))
        assert told[-1] == 1.0 and len(told) == len(parts)
    assert len(parts) == 1 if not num_bytes else len(parts) > 10
    users = [set(part["user_id"]) for part in parts]
    assert sum(map(len, users)) == len(set.union(*users))
    expected = pl.concat(frames).sort("user_id", "time", "line", nulls_last=True)
    assert pl.concat(parts).sort("user_id", maintain_order=True).equals(expected)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_files_are_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), grouped_by_user(tmp_path / "out", num_bytes=0) as groups:
        groups.add(rows(0, 10))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_repeats_stays() -> None:
    frame = rows(1, 400).sort("user_id", "time", "line", nulls_last=True)
    columns = ["user_id", "item_id", "time"]
    seen: set[tuple[object, ...]] = set()
    expected = []
    for row in frame.rows():
        if row[:3] not in seen:
            expected.append(row)
        seen.add(row[:3])
    kept = without_repeats(frame, columns)
    assert kept.rows() == expected and kept.height < frame.height


def test_distinct_rows_in_order_of_their_first_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_PENDING_ROWS", 5)
    distinct = Distinct("user_id", "item_id")
    frames = [rows(seed, 40) for seed in range(6)]
    for frame in frames:
        distinct.add(frame)
    pairs = [row for frame in frames for row in frame.select("user_id", "item_id").rows()]
    assert distinct.rows().rows() == list(dict.fromkeys(pairs))
    assert Distinct("item_id").rows().height == 0
