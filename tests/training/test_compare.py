"""Intervals cover what they should, and only results of one protocol are compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.errors import ConfigError
from training.compare import compare_rankers, compare_results, paired_difference


def test_a_difference_of_pairs_by_hand() -> None:
    # Two gaps, 1 and 0: a resample's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    gap = paired_difference(np.array([1.0, 0.5]), np.array([0.0, 0.5]))
    assert (gap.mean, gap.low, gap.high, gap.num_users) == (0.5, 0, 1, 2)
    assert not gap.is_clear


def test_users_that_differ_much_do_not_hide_a_small_difference() -> None:
    rng = np.random.default_rng(0)
    level = rng.random(500)
    gap = paired_difference(level + rng.normal(0.01, 0.02, 500), level)
    assert gap.is_clear and gap.low > 0
    # Against the same values in another order nothing can be said.
    unpaired = paired_difference(level + 0.01, rng.permutation(level))
    assert not unpaired.is_clear


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(1), 0
    for sample in range(200):
        gaps = rng.exponential(1.0, 80) - 1.0  # skewed, with mean 0
        gap = paired_difference(gaps, np.zeros(80), seed=sample)
        covered += gap.low <= 0 <= gap.high
    # 95 % are asked for; percentile intervals of 80 skewed numbers cover a little less.
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_gaps_have_no_spread() -> None:
    gap = paired_difference(np.full(5, 0.3), np.full(5, 0.1))
    assert gap.mean == gap.low == gap.high == pytest.approx(0.2) and gap.is_clear


@pytest.mark.parametrize("lengths", [(0, 0), (3, 2)])
def test_what_is_no_pair_is_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference(np.zeros(lengths[0]), np.zeros(lengths[1]))


def test_rankers_of_one_evaluation_are_compared_where_both_have_a_value() -> None:
    users = pl.DataFrame(
        {
            "towers/recall@5": [1.0, 0.0, 1.0],
            "als/recall@5": [0.0, 0.0, 1.0],
            "towers/discovery@5": [1.0, None, 0.0],
            "als/discovery@5": [0.0, None, 0.0],
        }
    )
    found = compare_rankers(users, "towers", ["als"], ["recall@5", "discovery@5", "ndcg@5"])
    assert found["als"]["recall@5"].mean == pytest.approx(1 / 3)
    assert found["als"]["discovery@5"].num_users == 2
    assert set(found["als"]) == {"recall@5", "discovery@5"}


def result(path: Path, users: dict[str, float], **protocol: Any) -> Path:
    body = {"split": "time", "part": "test", "ranking": "full", "seen": "filter", "num_items": 9}
    body |= {"num_targets": 3, **protocol}
    path.write_text(json.dumps({"protocol": body}))
    table = {
        "user_id": list(users),
        "targets": [["flute", f"film of {user}"] for user in users],
        "towers/hr@5": list(users.values()),
    }
    pl.DataFrame(table).write_parquet(path.with_suffix(".parquet"))
    return path


def rewrite(path: Path, *columns: pl.Expr) -> None:
    table = path.with_suffix(".parquet")
    pl.read_parquet(table).with_columns(*columns).write_parquet(table)


def test_two_runs_are_compared_user_by_user_whatever_their_order(tmp_path: Path) -> None:
    one = result(tmp_path / "one.json", {"ann": 1.0, "bo": 0.0, "cy": 1.0})
    two = result(tmp_path / "two.json", {"cy": 0.0, "ann": 1.0, "bo": 0.0})
    gap = compare_results(one, two)["hr@5"]
    assert gap.mean == pytest.approx(1 / 3) and gap.num_users == 3


def test_results_of_two_protocols_are_refused(tmp_path: Path) -> None:
    one = result(tmp_path / "one.json", {"ann": 1.0})
    two = result(tmp_path / "two.json", {"ann": 1.0}, seen="keep")
    with pytest.raises(ConfigError, match=r"seen = 'filter' and .* has 'keep'.*same options"):
        compare_results(one, two)
    other = result(tmp_path / "other.json", {"bo": 1.0})
    with pytest.raises(ConfigError, match=r"of whom 0 are in both"):
        compare_results(one, other)
    with pytest.raises(ConfigError, match=r"none\.json is not there\. `penchant evaluate`"):
        compare_results(one, tmp_path / "none.json")


def test_results_that_ask_the_same_users_for_other_items_are_refused(tmp_path: Path) -> None:
    one = result(tmp_path / "one.json", {"ann": 1.0, "bo": 0.0})
    two = result(tmp_path / "two.json", {"bo": 0.0, "ann": 1.0})
    rewrite(two, pl.col("targets").list.reverse())
    assert compare_results(one, two)["hr@5"].mean == 0, "their order does not matter"
    rewrite(two, pl.when(pl.col("user_id") == "bo").then(["drum", "flute"]).otherwise("targets"))
    rewrite(two, pl.col("literal").alias("targets"))
    with pytest.raises(ConfigError, match=r"user 'bo', for one, for 'flute' and for 'drum'"):
        compare_results(one, two)
    users = pl.read_parquet(two.with_suffix(".parquet")).drop("targets")
    users.write_parquet(two.with_suffix(".parquet"))
    with pytest.raises(ConfigError, match=r"two\.parquet does not say .* Evaluate this run again"):
        compare_results(one, two)


def test_metrics_of_other_users_are_not_compared(tmp_path: Path) -> None:
    """Discovery has a value for those alone who discovered something."""
    one = result(tmp_path / "one.json", {"ann": 1.0, "bo": 0.0})
    two = result(tmp_path / "two.json", {"ann": 1.0, "bo": 0.0})
    ann = pl.when(pl.col("user_id") == "ann").then(1.0).alias("towers/discovery@5")
    bo = pl.when(pl.col("user_id") == "bo").then(1.0).alias("towers/discovery@5")
    rewrite(one, ann)
    rewrite(two, ann)
    assert compare_results(one, two)["discovery@5"].num_users == 1
    rewrite(two, bo)
    assert set(compare_results(one, two)) == {"hr@5"}
