"""Whether one ranking is better than another: paired differences with bootstrap intervals.

The same users, asked the same questions, are resampled together, so that what varies between users
does not hide what differs between rankings. Knows tables of users' metrics; no models.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import bootstrap

from model.errors import ConfigError

RESAMPLES = 2000
_BATCH_CELLS = 1 << 23
_SAME = ("split", "part", "ranking", "seen", "num_items", "num_targets")
"""What two results must agree on to be comparable."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of `candidate` minus `reference` over users, with the interval that covers it in 95 of
    100 such samples of users."""

    mean: float
    low: float
    high: float
    num_users: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    candidate: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], *, seed: int = 17
) -> Difference:
    """Compare two metrics of the same n users, row by row.

    Percentile bootstrap over users (Efron and Tibshirani, 1993, section 13.3; for rankings: Sakai,
    SIGIR 2006) with RESAMPLES resamples. Raises ValueError if the lengths differ or are 0.
    """
    if candidate.shape != reference.shape or not len(candidate):
        raise ValueError(f"{candidate.shape} and {reference.shape} are not pairs of users' metrics")
    gaps = candidate - reference
    mean = float(gaps.mean())
    if len(gaps) < 2 or (gaps == gaps[0]).all():
        return Difference(mean, mean, mean, len(gaps))
    found = bootstrap(
        (gaps,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(_BATCH_CELLS // len(gaps), 1),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(mean, float(found.low), float(found.high), len(gaps))


def compare_rankers(
    users: pl.DataFrame, candidate: str, references: Sequence[str], metrics: Sequence[str]
) -> dict[str, dict[str, Difference]]:
    """Reference → metric → how much better the candidate is; all of one evaluation."""
    return {
        reference: {
            metric: _difference(users, f"{candidate}/{metric}", f"{reference}/{metric}")
            for metric in metrics
            if f"{candidate}/{metric}" in users.columns
        }
        for reference in references
    }


def compare_results(candidate: Path, reference: Path) -> dict[str, Difference]:
    """Metric → how much better the towers are in one evaluation than in another.

    candidate, reference: the results of two runs, `PART.json` with `PART.parquet` beside it. Only
    metrics that both have, of the same users, are compared.

    Raises ConfigError if a file is missing or the two did not ask the same of the same users.
    """
    one, two = _read(candidate), _read(reference)
    for field in _SAME:
        here, there = one[0]["protocol"].get(field), two[0]["protocol"].get(field)
        if here != there:
            raise ConfigError(
                f"{candidate} has {field} = {here!r} and {reference} has {there!r}: figures of "
                "two protocols cannot be compared. Evaluate both runs with the same options."
            )
    joined = one[1].join(two[1], on="user_id", suffix="/reference", maintain_order="left")
    if not len(joined) == len(one[1]) == len(two[1]):
        raise ConfigError(
            f"{candidate} evaluates {len(one[1]):,} users and {reference} {len(two[1]):,}, of whom "
            f"{len(joined):,} are in both. Evaluate both runs on the same dataset and split."
        )
    other = joined.filter(pl.col("targets").list.sort() != pl.col("targets/reference").list.sort())
    if len(other):
        raise ConfigError(
            f"{candidate} and {reference} ask the same users for other items: user "
            f"{other['user_id'][0]!r}, for one, for {other['targets'][0][0]!r} and for "
            f"{other['targets/reference'][0][0]!r}. Evaluate both runs on the same dataset, split "
            "and targets."
        )
    return {
        column.removeprefix("towers/"): _difference(joined, column, f"{column}/reference")
        for column in one[1].columns
        if column.startswith("towers/")
        and column in two[1].columns
        and _of_same_users(joined[column], joined[f"{column}/reference"])
    }


def _of_same_users(one: pl.Series, two: pl.Series) -> bool:
    """Whether both have a value, or none, for each user; for one at least they have."""
    same = (one.is_null() == two.is_null()).all()
    return bool(same) and one.null_count() < len(one)


def _difference(users: pl.DataFrame, candidate: str, reference: str) -> Difference:
    pairs = users.select(candidate, reference).drop_nulls()
    return paired_difference(pairs[candidate].to_numpy(), pairs[reference].to_numpy())


def _read(result: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    table = result.with_suffix(".parquet")
    for path in (result, table):
        if not path.is_file():
            raise ConfigError(f"{path} is not there. `penchant evaluate` of the run writes it.")
    body: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    users = pl.read_parquet(table, glob=False)
    if "targets" not in users.columns:
        raise ConfigError(f"{table} does not say what was asked for. Evaluate this run again.")
    return body, users
