"""The orders of the synthetic world: those that exposures caused, and those that nothing did.

An order changes nobody's state, so those of many days can be placed after the last of them. Knows
nothing of feeds.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from training.world.catalogue import PRODUCT, Catalogue
from training.world.config import DAY, SECOND, WorldConfig
from training.world.life import Wishes, active_hour
from training.world.log import EventLog, Floats, Ints
from training.world.people import People
from training.world.response import sigmoid

_BEFORE = 3600 * SECOND
"""A product is ordered only if it exists this long before, so that its page can be opened."""
_CHUNK = 2048


def place_orders(
    config: WorldConfig,
    catalogue: Catalogue,
    people: People,
    *,
    wishes: Sequence[Wishes],
    log: EventLog,
    since: int,
    until: int,
    rng: np.random.Generator,
    num_replaced: int | None = None,
) -> tuple[Ints, Wishes]:
    """Write the orders of the days from `since` to `until` (UTC microseconds), with the page visits
    that go before them, to `log`.

    A share of 1 - config.stirring of the wishes is replaced by as many orders, or `num_replaced`,
    whose user, time and product depend on no exposure, only on what the user is like: so the
    volume of orders stays. Wishes for other days are left for other calls; what is due in the last
    second of a day belongs to the next. Returns the orders' rows in the log, [n], and where each
    came from, by the same positions: `content`, `exposure` and `watch` are -1 where nothing stirred
    it, `at_once` is 2 for an order of a product card.
    """
    # What is kept of uncaused orders and of caused ones is drawn apart where days are lived one by
    # one: the first are then the same whatever was shown.
    apart = rng if num_replaced is None else rng.spawn(1)[0]
    caused = _together(wishes)
    due = (caused.time >= since - SECOND) & (caused.time < until - SECOND)
    caused = _take(caused, np.flatnonzero(due))
    kept = apart.random(len(caused.user)) < config.stirring
    caused, num_lost = _take(caused, np.flatnonzero(kept)), int((~kept).sum())
    num_lost = num_lost if num_replaced is None else num_replaced

    there = people.joined < until
    needs = rng.poisson(config.need_rate * ((until - since) // DAY) / 30.0 * people.spend * there)
    expressed = people.strength * people.expressed
    period = {"since": since, "until": until}
    need = _uncaused(np.repeat(np.arange(len(needs)), needs), expressed, people, rng, **period)
    eager = people.spend * sigmoid(people.habit) * (until - people.joined).clip(0, until - since)
    someone = rng.choice(len(eager), num_lost, p=eager / eager.sum())
    both = people.strength * np.where(people.expressed, 1.0, 0.5)
    replaced = _uncaused(someone, both, people, rng, **period)
    orders = _together([caused, need, replaced])

    product = _choose(orders, catalogue, people, rng)
    num = len(product)
    visits = (orders.at_once != 2) & (rng.random(num) < np.where(orders.at_once == 1, 1.0, 0.6))
    fills = visits & (rng.random(num) < 0.4)
    from_content = orders.at_once == 1
    ago = np.where(from_content, 8, rng.integers(60, 600, num)) * SECOND
    for event, where, time in (
        ("click", visits, orders.time - ago),
        ("cart", fills, orders.time - ago // 2),
    ):
        at = np.flatnonzero(where)
        log.add(
            event,
            user=orders.user[at],
            item=product[at],
            time=time[at],
            exposure=np.where(from_content, orders.exposure, -1)[at],
            source=np.where(from_content, orders.content, -1)[at],
        )
    pieces = np.where(rng.random(num) < 0.1, 2.0, 1.0)
    rows = log.add(
        "order",
        user=orders.user,
        item=product,
        time=orders.time,
        value=np.round(catalogue.price[product] * pieces, 2),
    )
    return rows, orders


def _uncaused(
    user: Ints,
    weight: Floats,
    people: People,
    rng: np.random.Generator,
    *,
    since: int,
    until: int,
) -> Wishes:
    """One order for each of the given users, at a time and of an interest that no exposure moved.

    weight: [U, K], how likely each interest is. Days are uniform from the day the user joined.
    """
    num_days = (until - since) // DAY
    cumulative = np.cumsum(weight, axis=1)[user]
    drawn = rng.random(len(user)) * cumulative[:, -1]
    first = (people.joined[user].clip(since) - since) // DAY
    day = first + np.floor(rng.random(len(user)) * (num_days - first)).astype(np.int64)
    none = np.full(len(user), -1)
    return Wishes(
        user=user,
        interest=(cumulative <= drawn[:, None]).sum(1).clip(0, weight.shape[1] - 1),
        time=since + day * DAY + active_hour(len(user), rng),
        product=none,
        content=none,
        exposure=none,
        watch=none,
        at_once=np.zeros(len(user), np.int64),
    )


def _choose(orders: Wishes, catalogue: Catalogue, people: People, rng: np.random.Generator) -> Ints:
    """[n] product rows: the one that was shown, if it is still to be had; else one of the same
    interest, by reach, quality, the user's taste, and whether its maker made the content."""
    wanted = orders.product
    chosen = np.where((wanted >= 0) & (catalogue.gone[wanted] > orders.time), wanted, -1)
    maker = np.where(orders.content >= 0, catalogue.creator[orders.content], -2)
    for code in np.unique(orders.interest):
        shelf = np.flatnonzero((catalogue.kind == PRODUCT) & (catalogue.craft == code))
        open_rows = np.flatnonzero((orders.interest == code) & (chosen < 0))
        for begin in range(0, len(open_rows), _CHUNK):
            rows = open_rows[begin : begin + _CHUNK]
            log_odds = 0.6 * np.log(catalogue.reach[shelf]) + 0.4 * catalogue.quality[shelf]
            match = people.taste[orders.user[rows]] @ catalogue.taste[shelf].T
            log_odds = log_odds + 1.2 * match
            log_odds += 1.0 * (catalogue.creator[shelf] == maker[rows, None])
            log_odds += rng.gumbel(size=log_odds.shape)
            here: NDArray[np.bool_] = catalogue.created[shelf] < orders.time[rows, None] - _BEFORE
            here &= catalogue.gone[shelf] > orders.time[rows, None]
            chosen[rows] = shelf[np.where(here, log_odds, -np.inf).argmax(1)]
    return chosen


def _together(parts: Sequence[Wishes]) -> Wishes:
    names = [field.name for field in fields(Wishes)]
    return Wishes(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def _take(wishes: Wishes, at: Ints) -> Wishes:
    return Wishes(**{field.name: getattr(wishes, field.name)[at] for field in fields(wishes)})
