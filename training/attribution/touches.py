"""The touches of each order: earlier episodes of the same user that have to do with the product.

Ragged arrays: order o has the touches starts[o] .. starts[o + 1], oldest first. Knows the log and
how items belong together; nothing of credit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.attribution.log import DAY, Episodes, Log, Orders, Relations

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]

RELATIONS = ("same", "visited", "shows", "creator", "circle")
"""How an episode's item has to do with the product, the closest first: it is the product; its page
was opened from the item; the item shows it; they have one creator; they are of one circle."""
_AT_ONCE = 4_000_000
"""Pairs of orders and episodes that are looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touches:
    """P touches of O orders."""

    starts: Int64
    """[O + 1]."""
    episode: Int64
    """[P] positions in Episodes."""
    relation: Int8
    """[P] position in RELATIONS, of the closest one."""

    @property
    def order(self) -> Int64:
        """[P] the order of each touch."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def find_touches(log: Log, *, days: float, after: bool = False) -> Touches:
    """The touches of all orders, at most `days` before each.

    after: those at most `days` after it instead, for comparison: an order is not stirred by them.
    """
    orders, episodes = log.orders, log.episodes
    span = round(days * DAY)
    if after:
        first = _place(episodes, orders.user, orders.time, "right")
        last = _place(episodes, orders.user, orders.time + span, "right")
    else:
        first = _place(episodes, orders.user, orders.time - span, "left")
        last = _place(episodes, orders.user, orders.time, "left")
    kept_order, kept_episode, kept_relation = [], [], []
    for begin, end in _chunks(last - first):
        order, episode = _expand(first[begin:end], last[begin:end])
        order += begin
        relation = closest_relation(log.relations, orders, episodes, order, episode)
        held = relation >= 0
        kept_order.append(order[held])
        kept_episode.append(episode[held])
        kept_relation.append(relation[held])
    none = np.empty(0, np.int64)
    order = np.concatenate([*kept_order, none])
    counts = np.bincount(order, minlength=len(orders.user))
    return Touches(
        starts=np.concatenate([[0], np.cumsum(counts)]),
        episode=np.concatenate([*kept_episode, none]),
        relation=np.concatenate([*kept_relation, none]).astype(np.int8),
    )


def closest_relation(
    relations: Relations, orders: Orders, episodes: Episodes, order: Int64, episode: Int64
) -> Int8:
    """[n] the closest relation between n orders' products and n episodes; -1: none.

    order, episode: [n] positions. A visit to the product's own page that nothing led to is none:
    who is about to order opens the page.
    """
    holds = {
        name: found > 0
        for name, found in relation_shares(relations, orders.item[order], episodes, episode).items()
    }
    found = np.full(len(order), -1, np.int8)
    for code in reversed(range(len(RELATIONS))):
        found[holds[RELATIONS[code]]] = code
    found[holds["same"] & episodes.own[episode]] = -1
    return found


def relation_shares(
    relations: Relations, product: Int64, episodes: Episodes, episode: Int64
) -> dict[str, npt.NDArray[np.float64]]:
    """For each relation [n]: how likely this product is meant, among all that the episode's item
    stands in that relation to, those of a creator or a circle counted as one; 0 where it does not.
    """
    item = episodes.item[episode]
    num_items = len(relations.circle)
    code = item * num_items + product
    place = np.searchsorted(relations.shows, code).clip(0, max(len(relations.shows) - 1, 0))
    shows = relations.shows[place] == code if len(relations.shows) else np.zeros(len(code), bool)
    creator, circle = relations.creator[item], relations.circle[item]
    return {
        "same": (item == product) * 1.0,
        "visited": (episodes.visited[episode] == product) * 1.0,
        "shows": shows / np.maximum(relations.num_shown[item], 1),
        "creator": ((creator >= 0) & (creator == relations.creator[product])) * 1.0,
        "circle": ((circle >= 0) & (circle == relations.circle[product])) * 1.0,
    }


def _place(episodes: Episodes, user: Int64, time: Int64, side: str) -> Int64:
    """[O] where in the episodes, by user and time, each (user, time) would go."""
    # Times and users as one rising number each: both are sorted the same way.
    moments = np.unique(np.concatenate([episodes.time, time]))
    width = len(moments) + 1
    keys = episodes.user * width + np.searchsorted(moments, episodes.time)
    found: Int64 = np.searchsorted(keys, user * width + np.searchsorted(moments, time), side=side)  # type: ignore[call-overload]
    return found


def _chunks(counts: Int64) -> Iterator[tuple[int, int]]:
    """Ranges of orders whose pairs fit into memory."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        end = int(np.searchsorted(ends, done + _AT_ONCE, side="right"))
        end = min(max(end, begin + 1), len(counts))
        yield begin, end
        begin = end


def _expand(first: Int64, last: Int64) -> tuple[Int64, Int64]:
    """All (row, position) with first[row] <= position < last[row]."""
    counts = np.maximum(last - first, 0)
    row = np.repeat(np.arange(len(first)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, first[row] + within
