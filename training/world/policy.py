"""The policy that filled the logged feeds: part popularity, part known interest, part chance.

Knows what a service would know (columns of items, events it saw) and nothing of the hidden truth.
Every slot is drawn independently from a mixture whose probabilities are known, so the logged
propensity is exact; afterwards, repeats within a session and items that the person has already
engaged with are dropped, without filling their slots.
"""

import numpy as np
from numpy.typing import NDArray

from training.world.catalogue import ARTICLE, CREATOR, LIVE, PRODUCT, VIDEO, Catalogue
from training.world.config import DAY, SECOND, WorldConfig
from training.world.crafts import crafts
from training.world.log import Feed, Floats, Ints, Sessions
from training.world.people import People

_APPETITE = {PRODUCT: 0.6, VIDEO: 1.0, LIVE: 1.0, ARTICLE: 0.6, CREATOR: 0.15}
_MEMORY = 0.96
"""What is left after a day of a count of clicks and watches."""
_LONGEST_SESSION = 50 * 60 * SECOND


class LoggingPolicy:
    """Chooses feeds and learns from what came of them."""

    def __init__(self, config: WorldConfig, catalogue: Catalogue, people: People) -> None:
        """Start with what the service knew before the period: a few old choices of each user."""
        self._config, self._catalogue = config, catalogue
        num_items, num_crafts = len(catalogue.ids), len(crafts())
        self._shelf = np.where(catalogue.labelled, catalogue.craft, num_crafts)
        self._appetite = np.array([_APPETITE[code] for code in range(len(_APPETITE))])
        self._liked = np.zeros(num_items)
        rng = np.random.default_rng([config.seed, 3])
        old = (people.joined < config.begin)[:, None] & people.expressed
        self._known = np.zeros((config.num_users, num_crafts + 1))
        self._known[:, :-1] = rng.poisson(1.5 * people.strength * old)
        self._seen = np.empty(0, np.int64)

    def choose(self, day: int, sessions: Sessions, rng: np.random.Generator) -> Feed:
        """Fill the feeds of the day that begins at `day` (UTC microseconds)."""
        config, catalogue = self._config, self._catalogue
        session = np.repeat(np.arange(len(sessions.user)), sessions.length)
        first = np.cumsum(sessions.length) - sessions.length
        position = np.arange(len(session)) - first[session]
        user = sessions.user[session]
        shelf, known = self._shelf, self._known + 0.02

        # Items on sale or online for the whole day, sorted by shelf; the index is built nightly.
        ready = (catalogue.kind != LIVE) & (catalogue.created <= day)
        ready &= catalogue.gone > day + DAY + 2 * _LONGEST_SESSION
        items = np.flatnonzero(ready)
        items = items[np.argsort(shelf[items], kind="stable")]
        weight = (2.0 * catalogue.reach + self._liked) * self._appetite[catalogue.kind]
        popular = weight[items] / weight[items].sum()
        within = weight[items] ** 0.7
        total = np.bincount(shelf[items], within, minlength=known.shape[1])
        known = known * (total > 0)
        known[:, -1] = 0.0
        taste = known / known.sum(1, keepdims=True)
        in_shelf = within / total[shelf[items]]

        kind = rng.random(len(session))
        by_known = kind >= config.popular_share + config.explore_share
        by_chance = ~by_known & (kind >= config.popular_share)
        at = _draw(np.cumsum(popular), rng.random(len(session)))
        at[by_chance] = rng.integers(0, len(items), int(by_chance.sum()))
        wanted = _draw_rows(taste, user[by_known], rng)
        cumulative = np.cumsum(in_shelf)
        ends = cumulative[np.searchsorted(shelf[items], wanted, side="right") - 1]
        at[by_known] = _draw(cumulative, ends - 1.0 + rng.random(len(wanted)))
        drawn = items[at]
        known_share = 1.0 - config.popular_share - config.explore_share
        propensity = config.popular_share * popular[at] + config.explore_share / len(items)
        labelled = shelf[drawn] < known.shape[1] - 1
        propensity += known_share * taste[user, shelf[drawn]] * in_shelf[at] * labelled

        room, chance, on_air = self._rooms(sessions, session, taste, rng)
        live = on_air & (rng.random(len(session)) < config.live_share)
        drawn = np.where(live, room, drawn)
        propensity *= np.where(on_air, 1.0 - config.live_share, 1.0)
        propensity = np.where(live, config.live_share * chance, propensity)
        keep = self._unseen(session, user, drawn)
        return Feed(
            session=session[keep],
            position=position[keep],
            item=drawn[keep],
            propensity=propensity[keep],
        )

    def learn(self, user: Ints, item: Ints) -> None:
        """Take a day's clicks and watches, [n] row numbers each."""
        self._liked *= _MEMORY
        self._known *= _MEMORY
        self._liked += np.bincount(item, minlength=len(self._liked))
        np.add.at(self._known, (user, self._shelf[item]), 1.0)
        self._seen = np.union1d(self._seen, user * len(self._liked) + item)

    def _rooms(
        self, sessions: Sessions, session: Ints, taste: Floats, rng: np.random.Generator
    ) -> tuple[Ints, Floats, NDArray[np.bool_]]:
        """For each slot a room on air, its probability, and whether there is any: [n] each."""
        catalogue = self._catalogue
        none = np.zeros(len(session), np.int64)
        if not len(session):
            return none, np.zeros(len(session)), none > 0
        low, high = sessions.start.min(), sessions.start.max() + _LONGEST_SESSION
        rooms = np.flatnonzero(
            (catalogue.kind == LIVE) & (catalogue.air <= high) & (catalogue.gone > low)
        )
        if not len(rooms):
            return none, np.zeros(len(session)), none > 0
        open_now = catalogue.air[rooms] <= sessions.start[:, None]
        open_now &= catalogue.gone[rooms] > sessions.start[:, None] + _LONGEST_SESSION
        weight = open_now * (2.0 * catalogue.reach[rooms] + self._liked[rooms] ** 0.5)
        fond = np.take_along_axis(
            taste[sessions.user], self._shelf[rooms][None, :].repeat(len(open_now), 0), axis=1
        )
        weight *= 0.2 + fond
        chosen = _draw_rows(weight, session, rng).clip(0, len(rooms) - 1)
        total = weight.sum(1)
        chance: Floats = weight[session, chosen] / np.where(total > 0, total, 1.0)[session]
        return rooms[chosen], chance, (total > 0)[session]

    def _unseen(self, session: Ints, user: Ints, item: Ints) -> NDArray[np.bool_]:
        """[n] bool: neither drawn before in its session nor ever engaged with by its user."""
        pair = session * len(self._liked) + item
        keep = np.zeros(len(pair), bool)
        keep[np.unique(pair, return_index=True)[1]] = True
        if len(self._seen):
            code = user * len(self._liked) + item
            at = np.searchsorted(self._seen, code).clip(0, len(self._seen) - 1)
            keep &= self._seen[at] != code
        return keep


def _draw(cumulative: Floats, level: Floats) -> Ints:
    """For each level the first position whose cumulative weight exceeds it."""
    return np.searchsorted(cumulative, level, side="right").clip(0, len(cumulative) - 1)


def _draw_rows(weights: Floats, row: Ints, rng: np.random.Generator) -> Ints:
    """One column of `weights [A, B]` for each of the given rows, [n], by weight."""
    cumulative = np.cumsum(weights, axis=1)
    level = rng.random(len(row)) * cumulative[row, -1]
    column: Ints = (cumulative[row] <= level[:, None]).sum(1)
    return column
