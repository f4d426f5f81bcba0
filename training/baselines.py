"""The rankers that stand beside the towers in every table; here those that only count events.

Popularity, recency and relisting. Those that compare items are in training/neighbours.py, the one
that factorises in training/als.py; `fit_baselines` makes all of them. Each learns from training
events alone, and reads a user's history as it is at the question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.errors import ConfigError
from training.als import ALS
from training.dataset import Interactions
from training.neighbours import ItemKNN, TitleKNN
from training.ranking import Ranker, fill, popularity_order

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

_DAY = 86_400_000_000
"""Microseconds."""


@dataclass(frozen=True, slots=True)
class _SameForAll:
    """One list for everyone, less what is excluded."""

    order: Int64
    """[V] item rows, best first."""

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker."""
        return fill(np.full((len(users), k), -1, np.int64), self.order, excluded=excluded)


@dataclass(frozen=True, slots=True)
class Popularity(_SameForAll):
    """The items with the most training events."""

    name: str = "popularity"

    @classmethod
    def fit(cls, training: Interactions, items: pa.Table, *, seed: int) -> "Popularity":
        """Count training events by item; ties to the lower row. items, seed: not needed."""
        return cls(popularity_order(training))


@dataclass(frozen=True, slots=True)
class Recency(_SameForAll):
    """The items with the most training events, an event counting less the older it is."""

    name: str = "recency"

    @classmethod
    def fit(
        cls, training: Interactions, items: pa.Table, *, seed: int, half_life_days: float = 7.0
    ) -> "Recency":
        """Sum 0.5 ** (age / half_life_days) over an item's training events; ties to the lower row.

        The age is counted from the last training event of all. items, seed: not needed. Raises
        ConfigError where the dataset has no times.
        """
        if not training.schema.has_times:
            raise ConfigError(
                f'recency needs times; this dataset has time = "{training.schema.time}". It is '
                'allowed for "exact" and "day"; leave it out of the table.'
            )
        ages = (training.times.max(initial=0) - training.times) / (_DAY * half_life_days)
        counts = np.bincount(training.items, weights=0.5**ages, minlength=training.num_items)
        return cls(np.argsort(-counts, kind="stable"))


@dataclass(frozen=True, slots=True)
class Relisting:
    """What the user viewed or carted and did not buy; then popularity.

    The last first where events have an order. Else by promise: first what had the event that
    oftenest goes with a purchase (carted before viewed), and among those the items that are bought
    by the greatest share of the users who engage with them. An item that the user converted on at
    any time is not listed again. A list that leaves out all seen items is popularity.
    """

    order: Int64
    """[V] item rows by popularity."""
    converts: npt.NDArray[np.bool_]
    """[1 + history events] by event code: whether it is a conversion."""
    event_promise: Float32
    """[1 + history events] the share of (user, item) pairs with such an event that were bought."""
    item_promise: Float32
    """[V] the share of an item's engaged users who bought it, shrunk towards that of all items."""
    name: str = "relisting"

    @classmethod
    def fit(cls, training: Interactions, items: pa.Table, *, seed: int) -> "Relisting":
        """items, seed: not needed. Raises ConfigError unless the dataset has both a conversion, to
        not have done, and an engagement, to have done instead."""
        schema = training.schema
        roles = [schema.events[name].role for name in schema.history_events]
        if len(set(roles)) < 2:
            raise ConfigError(
                "relisting needs an event of role conversion and one of role engagement; "
                f"dataset.toml has {', '.join(schema.history_events)}, each of role {roles[0]}. "
                "Leave it out of the table."
            )
        converts = np.array([False, *(role == "conversion" for role in roles)])
        pairs = training.owners * training.num_items + training.items
        bought = np.unique(pairs[converts[training.events]])
        event_promise = np.zeros(len(converts), np.float32)
        for code in np.flatnonzero(~converts)[1:]:
            had = np.unique(pairs[training.events == code])
            event_promise[code] = np.isin(had, bought).mean() if len(had) else 0.0
        engaged = np.unique(pairs[~converts[training.events]])
        of_item = engaged % training.num_items
        tried = np.bincount(of_item, minlength=training.num_items)
        sold = np.bincount(of_item[np.isin(engaged, bought)], minlength=training.num_items)
        usual = sold.sum() / max(tried.sum(), 1)
        item_promise = ((sold + usual) / (tried + 1)).astype(np.float32)
        return cls(popularity_order(training), converts, event_promise, item_promise)

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker."""
        rows = np.full((len(users), k), -1, np.int64)
        for i, user in enumerate(users):
            span = slice(histories.starts[user], histories.starts[user + 1])
            items, events = histories.items[span][::-1], histories.events[span][::-1]
            gone = items[self.converts[events]]
            if excluded is not None:
                gone = np.concatenate([gone, excluded[i]])
            left = ~np.isin(items, gone)
            items, events = items[left], events[left]
            if histories.schema.has_order:
                distinct, first = np.unique(items, return_index=True)
                listed = distinct[np.argsort(first, kind="stable")]
            else:
                distinct, place = np.unique(items, return_inverse=True)
                promise = np.zeros(len(distinct), np.float32)
                np.maximum.at(promise, place, self.event_promise[events])
                listed = distinct[np.lexsort((-self.item_promise[distinct], -promise))]
            rows[i, : min(len(listed), k)] = listed[:k]
        return fill(rows, self.order, excluded=excluded)


class Baseline(Protocol):
    """A kind of ranker that is fitted on training events."""

    def fit(self, training: Interactions, items: pa.Table, *, seed: int) -> Ranker:
        """Learn from the training events. Raises ConfigError where the dataset allows it not."""


BASELINES: dict[str, Baseline] = {
    "popularity": Popularity,
    "recency": Recency,
    "item-knn": ItemKNN,
    "title-knn": TitleKNN,
    "als": ALS,
    "relisting": Relisting,
}
"""In the order of the table."""


def fit_baselines(
    names: Sequence[str],
    training: Interactions,
    items: pa.Table,
    *,
    seed: int,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[list[Ranker], dict[str, str]]:
    """The named baselines that this dataset allows, and why it does not allow the others.

    names: of BASELINES. training: the events to learn from. items: items.parquet, in file order.
    seed: every random draw follows from it. progress: told how many are done, 0 to 1, and the next.

    Returns the rankers in the order of names, and the reasons by name. Raises ConfigError for a
    name that is none of BASELINES.
    """
    rankers: list[Ranker] = []
    refused: dict[str, str] = {}
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"no baseline is called {name!r}; there are: {', '.join(BASELINES)}.")
    for number, name in enumerate(names):
        if progress is not None:
            progress(number / len(names), f"fit {name}")
        try:
            rankers.append(BASELINES[name].fit(training, items, seed=seed))
        except ConfigError as reason:
            refused[name] = str(reason)
    return rankers, refused
