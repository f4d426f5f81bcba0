"""From a dataset to credits: whose touch stirred each order, and which orders nothing stirred.

Knows which model shares the credit out; how each does is in rules.py and removal.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import polars as pl

from training.attribution.config import AttributionConfig
from training.attribution.log import DAY, DEPTHS, Log, read_log
from training.attribution.rates import order_rates
from training.attribution.removal import Removal, fit_removal
from training.attribution.rules import last_touch, position_based, time_decay
from training.attribution.touches import RELATIONS, Touches, find_touches
from training.dataset import load_interactions

Float64 = npt.NDArray[np.float64]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Attribution:
    """The credits of O orders: an order's touches and its unattributed share add up to 1."""

    config: AttributionConfig
    log: Log
    touches: Touches
    credit: Float64
    """[P] of each touch."""
    unattributed: Float64
    """[O] the share of each order that no touch is credited with."""
    removal: Removal | None
    """The fitted model, where that gave the credit."""


def attribute_dataset(
    dataset: Path, config: AttributionConfig, *, progress: Progress | None = None
) -> Attribution:
    """Read a dataset and share out the credit of its orders.

    Raises DatasetError where the dataset breaks its contract or cannot be attributed, ConfigError
    where the config names a feature that is not there.
    """
    tell = progress or (lambda done, what: None)
    tell(0.0, "reading")
    with TemporaryDirectory(prefix="penchant-") as cache:
        interactions = load_interactions(dataset, Path(cache) / "arrays")
        log = read_log(dataset, config, interactions=interactions)
    found = attribute(log, config, progress=lambda done, what: tell(0.4 + 0.6 * done, what))
    tell(1.0, "done")
    return found


def attribute(
    log: Log, config: AttributionConfig, *, progress: Progress | None = None
) -> Attribution:
    """Share out the credit of a log's orders."""
    tell = progress or (lambda done, what: None)
    tell(0.0, "finding touches")
    touches = find_touches(log, days=config.days)
    removal = None
    if config.model == "removal":
        tell(0.2, "fitting what touches add")
        rates = order_rates(log, touches, days=config.days)
        removal = fit_removal(rates, len(touches.episode))
        credit = removal.credit
    else:
        credit = _by_rule(log, touches, config)
    num_orders = len(touches.starts) - 1
    credited = np.bincount(touches.order, credit, minlength=num_orders)
    return Attribution(config, log, touches, credit, 1.0 - credited.astype(np.float64), removal)


def _by_rule(log: Log, touches: Touches, config: AttributionConfig) -> Float64:
    """[P] what a rule gives: to touches that were engaged with, where an order has any; otherwise
    the last thing that merely went by would nearly always get all."""
    order = touches.order
    num_orders = len(touches.starts) - 1
    engaged = log.episodes.depth[touches.episode] > 0
    any_engaged = np.bincount(order, engaged, minlength=num_orders) > 0
    counts = engaged | ~any_engaged[order]
    starts = np.concatenate([[0], np.cumsum(counts)])[touches.starts]
    if config.model == "last-touch":
        given = last_touch(starts)
    elif config.model == "time-decay":
        age = (log.orders.time[order] - log.episodes.time[touches.episode]) / DAY
        given = time_decay(starts, age[counts], half_life=config.half_life_days)
    else:
        given = position_based(starts, ends=config.ends)
    credit = np.zeros(len(order))
    credit[counts] = given
    return credit


def item_table(found: Attribution) -> pl.DataFrame:
    """One row an item that touched any order or led straight to one, the most stirring first.

    item_id, kind, title; direct_orders and direct_value: of orders that the shopper made within an
    hour of coming from this item; touched_orders: orders with a touch of it; stirred_orders and
    stirred_value: its credit, in orders and in what they were worth.
    """
    log, orders = found.log, found.log.orders
    num = log.items.height
    item, order = log.episodes.item[found.touches.episode], found.touches.order
    led = orders.direct >= 0
    touched = np.unique(order * num + item) % num
    columns = {
        "direct_orders": np.bincount(orders.direct[led], minlength=num),
        "direct_value": np.bincount(orders.direct[led], orders.value[led], minlength=num),
        "touched_orders": np.bincount(touched, minlength=num),
        "stirred_orders": np.bincount(item, found.credit, minlength=num),
        "stirred_value": np.bincount(item, found.credit * orders.value[order], minlength=num),
    }
    table = log.items.with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    table = table.filter((pl.col("touched_orders") > 0) | (pl.col("direct_orders") > 0))
    return table.sort(
        ["stirred_orders", "direct_orders", "item_id"], descending=[True, True, False]
    )


def credit_table(found: Attribution) -> pl.DataFrame:
    """One row a touch with credit, and one an order for its unattributed share (item_id null):
    order_id, user_id, item_id, touched_at, relation, depth, credit. Each order's add up to 1."""
    log, orders = found.log, found.log.orders
    at = np.flatnonzero(found.credit > 0)
    episode, order = found.touches.episode[at], found.touches.order[at]
    times = pl.Series(log.episodes.time[episode]).cast(pl.Datetime("us", "UTC"))
    touched = pl.DataFrame(
        {
            "order": order,
            "item_id": log.items["item_id"].gather(log.episodes.item[episode]),
            "touched_at": times,
            "relation": pl.Series(RELATIONS).gather(found.touches.relation[at]),
            "depth": pl.Series(DEPTHS).gather(log.episodes.depth[episode]),
            "credit": found.credit[at],
        }
    )
    rest = pl.DataFrame({"order": np.arange(len(orders.user)), "credit": found.unattributed})
    both = pl.concat([touched, rest.cast({"order": pl.Int64})], how="diagonal").sort(
        "order", "touched_at", nulls_last=True, maintain_order=True
    )
    place = both["order"]
    return both.select(
        order_id=orders.ids.gather(place),
        user_id=log.users.gather(orders.user[place.to_numpy()]),
        item_id="item_id",
        touched_at="touched_at",
        relation="relation",
        depth="depth",
        credit="credit",
    )
