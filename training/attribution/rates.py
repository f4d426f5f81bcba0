"""What the removal model reads: each way in which an order may have come about, and how long each
way stood open.

Turns a log into plain arrays for training/attribution/removal.py. Knows relations, lags and the
popularity of products; nothing of fitting.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.attribution.log import DAY, DEPTHS, Log
from training.attribution.touches import RELATIONS, Touches, find_touches, relation_shares

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_LAGS = (0.0, 1 / 24, 0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 10.0, 14.0, 21.0, 30.0, 60.0, 120.0)
"""Days at which the rate after a touch may change."""
_ENGAGED = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 30, 50)
"""Numbers of engagements with a circle, over the whole log, from which its orders have a rate of
their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """N additive parts of the rates at which O orders were made: one for each touch and relation
    that holds, before the order and (never a cause) after it."""

    order: Int64
    touch: Int64
    """[N] position in the Touches before the order; -1: the episode came after the order."""
    item: Int64
    """[N] the episode's item."""
    kind: Int64
    """[N] depth · len(RELATIONS) + relation of the episode."""
    lag: Int64
    """[N] position among the lag bins."""
    share: Float64
    """[N] how likely the relation leads to this very product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """How long each of J episodes stood open, by lag bin: what the rates are divided by.

    Episodes are sorted by depth, so that those of depth d are a slice."""

    user: Int64
    item: Int64
    slices: tuple[slice, ...]
    """One a depth."""
    depth: Int64
    holds: Float64
    """[J, R] 1 where the episode's item has such a relation to any product."""
    after: Float64
    """[J, B] days after the episode, within the log, that fall into the bin."""
    around: Float64
    """[J, B] the same, days before it added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """A user's orders from one circle: U · C cells, user by user."""

    of_order: Int64
    """[O] the cell of each order."""
    share: Float64
    """[O] the product's share of its circle's orders, this order left out."""
    user: Int64
    """[U · C]"""
    level: Int64
    """[U · C] how much the user engaged with the circle, a position among the levels."""
    days: Float64
    """[U] how long the user was in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """All of it."""

    edges: Float64
    """[B + 1] days: the bounds of the lag bins."""
    terms: Terms
    openings: Openings
    cells: Cells
    user_of_order: Int64
    num_users: int
    num_items: int
    num_levels: int


def order_rates(log: Log, touches: Touches, *, days: float) -> Rates:
    """The arrays of a log, whose touches up to `days` before each order were found."""
    orders, episodes, relations = log.orders, log.episodes, log.relations
    num_items, num_users = len(relations.circle), len(log.users)
    edges = np.array([*(lag for lag in _LAGS if lag < days), days])
    # Nobody's circle or creator is a group of its own, the last one.
    circle = np.where(relations.circle >= 0, relations.circle, relations.num_circles)
    creator = np.where(relations.creator >= 0, relations.creator, relations.creator.max() + 1)
    is_product = (log.items["kind"] == "product").to_numpy().copy()
    is_product[orders.item] = True
    popularity = np.where(is_product, np.bincount(orders.item, minlength=num_items) + 1.0, 0.0)
    by_circle = np.bincount(circle, popularity, minlength=relations.num_circles + 1)
    by_creator = np.bincount(creator, popularity)
    # An order is not its own evidence: it is left out of its product's popularity.
    others = popularity[orders.item] - 1
    of_circle = others / np.maximum(by_circle[circle[orders.item]] - 1, 1e-9)
    of_creator = others / np.maximum(by_creator[creator[orders.item]] - 1, 1e-9)

    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    for is_after in (False, True):
        found = find_touches(log, days=days, after=True) if is_after else touches
        order, episode = found.order, found.episode
        shares = relation_shares(relations, orders.item[order], episodes, episode)
        shares["same"] *= ~episodes.own[episode]
        shares["creator"] *= of_creator[order]
        shares["circle"] *= of_circle[order]
        lag = np.abs(episodes.time[episode] - orders.time[order]) / DAY
        bins = (np.searchsorted(edges, lag, side="right") - 1).clip(0, len(edges) - 2)
        for code, name in enumerate(RELATIONS):
            at = np.flatnonzero(shares[name] > 0)
            kind = episodes.depth[episode[at]].astype(np.int64) * len(RELATIONS) + code
            position = np.full(len(at), -1) if is_after else at
            item = episodes.item[episode[at]]
            parts.append((order[at], position, item, kind, bins[at], shares[name][at]))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names = ("order", "touch", "item", "kind", "lag", "share")
    terms = Terms(**dict(zip(names, columns, strict=True)))

    sort = np.argsort(episodes.depth, kind="stable")
    user, item, depth = episodes.user[sort], episodes.item[sort], episodes.depth[sort]
    holds = np.stack(
        [
            is_product[item] & ~episodes.own[sort],
            episodes.visited[sort] >= 0,
            relations.num_shown[item] > 0,
            (relations.creator[item] >= 0) & (by_creator[creator[item]] > 0),
            (relations.circle[item] >= 0) & (by_circle[circle[item]] > 0),
        ],
        axis=1,
    )
    ends = np.searchsorted(depth, np.arange(len(DEPTHS) + 1))
    later = (log.end - episodes.time[sort]) / DAY
    earlier = (episodes.time[sort] - log.began[user]) / DAY
    width = np.diff(edges)
    after = np.clip(later[:, None] - edges[:-1], 0, width)
    openings = Openings(
        user=user,
        item=item,
        slices=tuple(slice(ends[d], ends[d + 1]) for d in range(len(DEPTHS))),
        depth=depth.astype(np.int64),
        holds=holds.astype(np.float64),
        after=after,
        around=after + np.clip(earlier[:, None] - edges[:-1], 0, width),
    )

    num_circles = relations.num_circles + 1
    engaged = episodes.depth > 0
    engagements = np.bincount(
        episodes.user[engaged] * num_circles + circle[episodes.item[engaged]],
        minlength=num_users * num_circles,
    )
    cells = Cells(
        of_order=orders.user * num_circles + circle[orders.item],
        share=of_circle,
        user=np.repeat(np.arange(num_users), num_circles),
        level=np.searchsorted(_ENGAGED, engagements, side="right") - 1,
        days=(log.end - log.began) / DAY,
    )
    return Rates(
        edges=edges,
        terms=terms,
        openings=openings,
        cells=cells,
        user_of_order=orders.user,
        num_users=num_users,
        num_items=num_items,
        num_levels=len(_ENGAGED),
    )
