"""A policy that knows the hidden truth: what each slot would do to the person who gets it.

It stands above what any service can reach, so that the others' distance from it can be told. It
looks one slot ahead: it does not plan whom to awaken for next week. Judges only; nothing that
learns may read it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.loop_policies import read_stock
from training.world.catalogue import PRODUCT
from training.world.economy import Economy
from training.world.log import Floats, Ints
from training.world.response import DEPTH_NOISE, GOOD_WATCH, promise, sigmoid

GOOD_WORTH = 0.1
"""What a good watch is worth to the oracle where an order is worth 1: it brings people back."""
_NORMAL = 1.702
"""A logistic curve this steep is within 0.01 of the normal distribution's."""


class Oracle:
    """Shows what is expected to cause most orders and good watches, by the world's own formulas."""

    def __init__(self, economy: Economy) -> None:
        """economy: the twin that is lived under this policy; looked at whenever a feed is asked."""
        self._economy = economy
        self._row = {name: row for row, name in enumerate(economy.catalogue.ids)}
        self._user = {name: row for row, name in enumerate(economy.people.ids)}
        self._on_sale = np.zeros(len(self._row), bool)
        self._seen = np.zeros((len(self._user), len(self._row)), bool)

    def begin(self, dataset: Path) -> None:
        """Everything that is not gone can be shown, to whom has done nothing with it yet."""
        self.stock(0, **read_stock(dataset))
        events = pq.read_table(dataset / "events")
        self.learn(events.filter(pc.not_equal(events["event"], "exposure")))

    def stock(self, time: int, *, arrived: pa.Table, links: pa.Table, gone: Sequence[str]) -> None:
        """What can be shown from now on, and what cannot any more."""
        self._on_sale[[self._row[name] for name in arrived["item_id"].to_pylist()]] = True
        self._on_sale[[self._row[name] for name in gone]] = False

    def choose(
        self,
        time: int,
        *,
        users: Sequence[str],
        lengths: Sequence[int],
        excluded: Sequence[Sequence[str]],
    ) -> list[list[str]]:
        """The most promising items on sale that the person has not seen."""
        ids = self._economy.catalogue.ids
        items = np.flatnonzero(self._on_sale)
        slates = []
        for name, length, left_out in zip(users, lengths, excluded, strict=True):
            user = self._user[name]
            seen = self._seen[user].copy()
            seen[[self._row[item] for item in left_out]] = True
            fresh = items[~seen[items]]
            best = np.argsort(-self._worth(user, fresh), kind="stable")[:length]
            slates.append([ids[row] for row in fresh[best].tolist()])
        return slates

    def learn(self, events: pa.Table) -> None:
        """Remember what was shown."""
        users = [self._user[name] for name in events["user_id"].to_pylist()]
        self._seen[users, [self._row[name] for name in events["item_id"].to_pylist()]] = True

    def retrain(self, items: pa.Table, links: pa.Table) -> None:
        """It knows all there is to know."""

    def close(self) -> None:
        """Nothing to close."""

    def _worth(self, user: int, items: Ints) -> Floats:
        """[n]: orders that showing each item is expected to cause, and good watches' worth."""
        economy = self._economy
        catalogue, people, config = economy.catalogue, economy.people, economy.config
        who, nowhere = np.full(len(items), user), np.zeros(len(items), np.int64)
        promised = promise(
            who,
            items,
            nowhere,
            feel=economy.life.feel,
            follows=economy.life.follows,
            config=config,
            catalogue=catalogue,
            people=people,
        )
        engaged = sigmoid(promised.odds)
        enough = np.log(GOOD_WATCH / (1.0 - GOOD_WATCH))
        good = sigmoid(_NORMAL * (promised.depth_odds - enough) / DEPTH_NOISE)
        good = engaged * np.where(catalogue.duration[items] > 0, good, 0.0)
        share, strength = catalogue.share[items], people.strength[user]
        stirs = share * strength[catalogue.craft[items]]
        stirs += (1.0 - share) * strength[catalogue.second[items]]
        stirs *= catalogue.power[items] * sigmoid(promised.depth_odds)
        ready = 1.5 - np.exp(-economy.life.level[user, catalogue.craft[items]])
        stirred = good * (config.stirred_rate * stirs * people.spend[user] * ready).clip(0, 0.7)
        card = config.card_rate * promised.liking * people.spend[user]
        card = card * np.exp(0.3 * catalogue.quality[items]) * engaged
        card = np.where(catalogue.kind[items] == PRODUCT, card, 0.0)
        worth: Floats = config.stirring * (stirred + card) + GOOD_WORTH * good
        return worth
