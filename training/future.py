"""What a run's objectives learn from: its training events, weighted, with credit for orders.

Puts together the windows of training/objectives.py and the credit of training/attribution/, which
sees the training part of the log alone.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import ConfigError, DatasetError
from model.schema import Schema
from training.attribution.attribute import Attribution, attribute
from training.attribution.config import AttributionConfig
from training.attribution.log import read_log
from training.batches import Objectives
from training.config import RunConfig
from training.dataset import Interactions, load_user_ids
from training.objectives import FutureWindows

if TYPE_CHECKING:
    from training.run import Run

Float64 = npt.NDArray[np.float64]


def require_future(schema: Schema, config: RunConfig, split: str) -> None:
    """Raise ConfigError unless the dataset and the split let objectives see future windows."""
    if not config.objectives:
        return
    named = ",".join(config.objectives)
    if split != "time":
        raise ConfigError(
            f"objectives = {named} is not allowed with the split {split!r}: they learn from the "
            "days after each event, in which that split's held-out events lie. Train with "
            "--split time."
        )
    if not conversions_of(schema):
        raise ConfigError(
            f"objectives = {named} is not allowed: no event of the dataset has the role "
            'conversion. Give the event that is an order role = "conversion" in dataset.toml.'
        )


def conversions_of(schema: Schema) -> dict[str, int]:
    """The codes of the events that are orders, by name."""
    return {
        name: code
        for code, name in enumerate(schema.history_events, 1)
        if schema.events[name].role == "conversion"
    }


def objectives_of(run: "Run") -> Objectives | None:
    """What the run's config asks to learn from; None where it names no objectives."""
    config, data = run.config, run.targets
    if not config.objectives:
        return None
    learned = np.asarray(data.weights) > 0  # what weighs nothing, such as a repeat, is no target
    is_order = np.isin(data.events, list(conversions_of(data.schema).values())) & learned
    end = int(data.times.max(initial=0))
    weights = data.weights.astype(np.float64)
    if "interest" in config.objectives and config.credit_days:
        weights = weights + np.where(learned, credit_weights(run, end=end), 0)
    windows = FutureWindows(
        data.starts,
        np.asarray(data.times),
        weights,
        is_order,
        end=end,
        window_days=config.window_days,
        half_life_days=config.half_life_days,
    )
    return Objectives(windows, config.objectives)


def credit_weights(run: "Run", *, end: int) -> Float64:
    """[E] what each training event weighs more, for the orders up to `end` that it stirred."""
    data = run.split.training
    asked = AttributionConfig(days=run.config.credit_days, seed=run.config.seed)
    try:
        log = read_log(run.dataset, asked, interactions=data, until=end + 1)
    except DatasetError:  # a training part without an order has none to credit
        return np.zeros(len(data.items))
    return event_credit(attribute(log, asked), data, load_user_ids(run.arrays))


def event_credit(found: Attribution, data: Interactions, user_ids: list[str]) -> Float64:
    """[E] the credit of each event of `data`, times what the order weighs.

    A touch's credit goes to the user's last engagement with its item up to then; one that was only
    shown left no event, and its credit is nobody's. user_ids: of the user rows of `data`.
    """
    log = found.log
    weights = {n: data.schema.events[n].weight for n in conversions_of(data.schema)}
    worth = max(weights.values())
    rows = {name: row for row, name in enumerate(user_ids)}
    user_row = np.array([rows.get(name, -1) for name in log.users], np.int64)
    episode = found.touches.episode
    given = pl.DataFrame(
        {
            "user": user_row[log.episodes.user[episode]],
            "item": log.episodes.item[episode],
            "time": log.episodes.time[episode],
            "credit": found.credit * worth,
        }
    ).filter((pl.col("credit") > 0) & (pl.Series(log.episodes.depth[episode]) > 0))
    events = pl.DataFrame(
        {
            "user": data.owners,
            "item": data.items.astype(np.int64),
            "time": np.asarray(data.times),
            "place": np.arange(len(data.items)),
        }
    )
    joined = given.sort("time").join_asof(
        events.sort("time"),
        on="time",
        by=["user", "item"],
        strategy="backward",
        check_sortedness=False,
    )
    joined = joined.drop_nulls("place")
    return np.bincount(
        joined["place"].to_numpy(), joined["credit"].to_numpy(), minlength=len(data.items)
    ).astype(np.float64)
