"""What is known of an item from before the first fitted example: how often it pleased, how known.

Counted from what the towers learned from alone, and of exposures from the part `before`: what is
learned from, or judges, never counts for its own item's statistics. They stay as they are until the
next fit, so that serving feeds the network the numbers it was fitted with; an item that came later
has the prior row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.dataset import Interactions
from training.value.exposures import Exposures

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

PRIOR_TRIES = 20
"""How many tries at the average rate stand beside those of an item (a Beta prior)."""

_Column = tuple[str, npt.NDArray[np.floating], float]
"""Its name, its values [V], and the value of an item of which nothing is known."""


@dataclass(frozen=True, slots=True)
class ItemStats:
    """One row of numbers an item."""

    names: tuple[str, ...]
    values: Float32
    """[V, S] float32, finite."""
    prior: Float32
    """[S] float32: the row of an item of which nothing is known."""


def count_stats(training: Interactions, before: Exposures | None) -> ItemStats:
    """Count from what came before the fitted examples.

    training: the events that the towers learned from. before: the exposures of that time, where
    there are any.

    Columns: `rate.HEAD`, how often an exposure led to it, for each head that came true at all;
    `converted.EVENT`, the share of the users with such an engagement who converted on the item, for
    each engagement where anybody did; `exposures`, `popularity` and `count.EVENT`, log(1 + count).
    A rate is (hits + k × mean rate) / (tries + k) with k = PRIOR_TRIES.
    """
    columns: list[_Column] = []
    num_items = training.num_items
    if before is not None:
        columns += _led_to(before, num_items)
    columns += _converted(training)
    if before is not None:
        columns.append(_count("exposures", before.items, num_items))
    columns.append(_count("popularity", training.items, num_items))
    for code, name in enumerate(training.schema.history_events, 1):
        columns.append(_count(f"count.{name}", training.items[training.events == code], num_items))
    names, values, prior = zip(*columns, strict=True)
    return ItemStats(
        names, np.stack(values, axis=1).astype(np.float32), np.array(prior, np.float32)
    )


def _led_to(before: Exposures, num_items: int) -> Iterator[_Column]:
    """The rate of each head."""
    for place, head in enumerate(before.heads):
        known = before.known[:, place]
        hits = before.labels[:, place] & known
        if hits.any():
            yield _rate(f"rate.{head.name}", before.items[known], before.items[hits], num_items)


def _converted(training: Interactions) -> Iterator[_Column]:
    """The rate of users who converted, of those with each engagement."""
    schema, num_items = training.schema, training.num_items
    pairs = training.owners * num_items + training.items
    is_conversion = np.array([schema.events[n].role == "conversion" for n in schema.history_events])
    bought = np.unique(pairs[is_conversion[training.events - 1]])
    for code in np.flatnonzero(~is_conversion) + 1:
        tried = np.unique(pairs[training.events == code])
        hits = tried[np.isin(tried, bought)]
        if len(hits):
            name = f"converted.{schema.history_events[code - 1]}"
            yield _rate(name, tried % num_items, hits % num_items, num_items)


def _rate(name: str, tries: Int64, hits: Int64, num_items: int) -> _Column:
    """tries, hits: the item row of each."""
    mean = len(hits) / len(tries)
    hit, tried = (np.bincount(rows, minlength=num_items) for rows in (hits, tries))
    return name, (hit + PRIOR_TRIES * mean) / (tried + PRIOR_TRIES), mean


def _count(name: str, rows: npt.NDArray[np.integer], num_items: int) -> _Column:
    return name, np.log1p(np.bincount(rows, minlength=num_items)), 0.0
