"""What became of an economy under a policy, by the day and in all, judged by what is really true.

Reads the hidden truth of a world that was lived (economy.py); nothing that learns may read this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.world.config import DAY
from training.world.crafts import crafts
from training.world.economy import Economy
from training.world.log import EVENTS, Floats, Ints
from training.world.response import GOOD_WATCH

TENTH = 10
"""Impressions until the tenth of an item has come."""
MEASURES: dict[str, str] = {
    "orders": "orders, whatever caused them",
    "stirred_orders": "orders that a video, an article or a live room stirred in the loop",
    "card_orders": "orders of a product whose own card was clicked",
    "to_come": "orders that were stirred that day, and are due after the last",
    "impressions": "slots that were reached",
    "good_watches": "watches of 60% or more, in a hundred impressions",
    "visits": "share of people who come on a day",
    "return": "the probability that they come, in the mean over people, that morning",
    "satisfaction": "moving average over each person's visits, that morning",
    "discovered": "latent interests that awoke, for a hundred people",
    "reached": "share of the interests asleep at the start that were recommended to their person",
    "gini": "inequality of impressions over creators: 0 all alike, 1 all to one",
    "entropy": "bits of true circles in a person's impressions",
    "tail": "share of impressions of the less known half of creators",
    "new": "share of impressions of items that came during the loop",
}
"""What is measured each day; in all, counts are added up and shares are of all days together."""
NEW_ITEMS: dict[str, str] = {
    "first_within_day": "share of what could be shown for a day that had an impression within it",
    "tenth_within_3_days": "share of what could be shown for three days that had ten within them",
    "hours_to_first": "median hours until the first impression, of what had any",
    "never_shown": "share that had none",
}
"""How items that came during the loop did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How one policy did in one world."""

    by_day: Mapping[str, list[float]]
    """Measure → [num_days]; `reached` up to that day."""
    total: Mapping[str, float | None]
    """Measure → over all days, None where nothing can be said; and NEW_ITEMS."""
    notes: Sequence[str] = ()
    """What the policy says went otherwise than it should."""


def measure(economy: Economy, *, since: int, notes: Sequence[str] = ()) -> Measured:
    """Judge the days from `since` (UTC microseconds) to today."""
    num_days = (economy.today - since) // DAY
    columns = economy.log.columns()
    columns = {name: column[columns["time"] >= since] for name, column in columns.items()}
    day = ((columns["time"] - since) // DAY).clip(0, num_days - 1)
    shown = columns["event"] == list(EVENTS).index("exposure")
    user, item, time = (columns[name][shown] for name in ("user", "item", "time"))
    watched = columns["event"] == list(EVENTS).index("watch")
    good = columns["value"] >= GOOD_WATCH * economy.catalogue.duration[columns["item"]]
    slots = np.bincount(day[shown], minlength=num_days)
    by_day: dict[str, list[float]] = {
        **_orders(economy, since, num_days),
        "impressions": slots.astype(float).tolist(),
        "good_watches": _share(100.0 * np.bincount(day[watched & good], minlength=num_days), slots),
        **_people(economy, num_days),
    }
    awoke = economy.life.awakened_at[~economy.people.expressed]
    awoke = (awoke[(awoke >= since) & (awoke < economy.today)] - since) // DAY
    num_people = len(economy.people.ids)
    by_day["discovered"] = (100.0 / num_people * np.bincount(awoke, minlength=num_days)).tolist()
    total: dict[str, float | None] = {
        name: sum(by_day[name])
        for name in (
            "orders",
            "stirred_orders",
            "card_orders",
            "to_come",
            "impressions",
            "discovered",
        )
    }
    total |= {name: float(np.mean(by_day[name])) for name in ("visits", "return", "satisfaction")}
    total["good_watches"] = 100.0 * float((watched & good).sum()) / max(int(slots.sum()), 1)

    days = day[shown]
    by_day["reached"] = [
        _reached(economy, since, user[days <= n], item[days <= n]) for n in range(num_days)
    ]
    total["reached"] = by_day["reached"][-1]
    parts = [_spread(economy, since, user[days == n], item[days == n]) for n in range(num_days)]
    by_day |= {name: [part[name] for part in parts] for name in parts[0]}
    total |= _spread(economy, since, user, item)
    total |= _new_items(economy, since, item, time)
    return Measured(by_day=by_day, total=total, notes=tuple(notes))


def gini(counts: Floats) -> float:
    """Gini coefficient of [n] counts: 0 where all are alike, towards 1 where one has them all."""
    ordered = np.sort(counts)
    if not ordered.sum():
        return 0.0
    rank = np.arange(1, len(ordered) + 1)
    return float((2 * rank - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def mean_entropy(counts: Floats) -> float:
    """Mean entropy in bits of the rows of [n, K] counts that have any; 0 where none has."""
    counts = counts[counts.sum(1) > 0]
    if not len(counts):
        return 0.0
    share = counts / counts.sum(1, keepdims=True)
    return float(-(share * np.log2(np.where(share > 0, share, 1.0))).sum(1).mean())


def _orders(economy: Economy, since: int, num_days: int) -> dict[str, list[float]]:
    """Orders by the day; what the warm-up stirred is among `orders` alone, as it is no policy's."""
    found = {"orders": np.zeros(num_days), "stirred_orders": np.zeros(num_days)}
    found |= {"card_orders": np.zeros(num_days), "to_come": np.zeros(num_days)}
    for _, orders in economy.orders:
        day = (orders.time - since) // DAY
        of_loop = orders.exposure >= economy.first_exposure
        for name, those in (
            ("orders", orders.time > 0),
            ("stirred_orders", of_loop & (orders.content >= 0)),
            ("card_orders", of_loop & (orders.at_once == 2)),
        ):
            at = day[those & (day >= 0) & (day < num_days)]
            found[name] += np.bincount(at, minlength=num_days)
    shown_at = economy.log.exposure_times()
    for wish in economy.life.wishes:
        those = (wish.exposure >= economy.first_exposure) & (wish.time >= economy.today)
        day = ((shown_at[wish.exposure[those]] - since) // DAY).clip(0, num_days - 1)
        found["to_come"] += economy.config.stirring * np.bincount(day, minlength=num_days)
    return {name: counts.tolist() for name, counts in found.items()}


def _people(economy: Economy, num_days: int) -> dict[str, list[float]]:
    visits = economy.life.visits[-num_days:]
    return {
        "visits": [float((sessions > 0).mean()) for _, _, _, sessions in visits],
        "return": [float(chance.mean()) for _, chance, _, _ in visits],
        "satisfaction": [float(mood.mean()) for _, _, mood, _ in visits],
    }


def _reached(economy: Economy, since: int, user: Ints, item: Ints) -> float:
    """Share of latent interests, asleep at `since`, of which their person was shown anything."""
    people, catalogue = economy.people, economy.catalogue
    asleep = (people.strength > 0) & ~people.expressed & (economy.life.awakened_at >= since)
    met: NDArray[np.bool_] = np.zeros(asleep.shape, bool)
    met[user, catalogue.craft[item]] = True
    met[user, catalogue.second[item]] = True
    return float((asleep & met).sum() / max(int(asleep.sum()), 1))


def _spread(economy: Economy, since: int, user: Ints, item: Ints) -> dict[str, float]:
    """How impressions spread over creators, true circles, and items that are new."""
    catalogue, num = economy.catalogue, economy.catalogue.num_creators
    maker = np.where(catalogue.creator[item] >= 0, catalogue.creator[item], item)
    known = catalogue.created[:num] < economy.today
    counts = np.bincount(maker, minlength=num)
    small = np.zeros(num, bool)
    small[np.argsort(catalogue.reach[:num], kind="stable")[: num // 2]] = True
    districts = sorted({craft.district for craft in crafts()})
    district = np.array([districts.index(craft.district) for craft in crafts()])
    circles = np.zeros((len(economy.people.ids), len(districts)))
    np.add.at(circles, (user, district[catalogue.craft[item]]), 1.0)
    return {
        "gini": gini(counts[known].astype(float)),
        "entropy": mean_entropy(circles),
        "tail": float(small[maker].mean()) if len(maker) else 0.0,
        "new": float((catalogue.air[item] >= since).mean()) if len(item) else 0.0,
    }


def _new_items(economy: Economy, since: int, item: Ints, time: Ints) -> dict[str, float | None]:
    """Of what came during the loop and could be shown for a day (for three): the share that had an
    impression within one (its tenth within three), and the median hours until the first."""
    catalogue = economy.catalogue
    order = np.lexsort((time, item))
    item, time = item[order], time[order]
    first = np.searchsorted(item, np.arange(len(catalogue.ids)))
    last = np.searchsorted(item, np.arange(len(catalogue.ids)), side="right")
    found: dict[str, float | None] = {}
    new = (catalogue.air >= since) & (catalogue.air < economy.today)
    for name, count, days in (("first_within_day", 1, 1), ("tenth_within_3_days", TENTH, 3)):
        until = np.minimum(catalogue.gone, economy.today)
        could = np.flatnonzero(new & (until - catalogue.air >= days * DAY))
        has = could[last[could] - first[could] >= count]
        took = time[first[has] + count - 1] - catalogue.air[has]
        found[name] = float((took <= days * DAY).sum()) / max(len(could), 1)
        found[f"{name}_of"] = float(len(could))
    seen = np.flatnonzero(new & (last > first))
    took = (time[first[seen].clip(0, max(len(time) - 1, 0))] - catalogue.air[seen]) / DAY * 24
    found["hours_to_first"] = float(np.median(took)) if len(seen) else None
    found["never_shown"] = float((new & (last == first)).sum()) / max(int(new.sum()), 1)
    return found


def _share(parts: NDArray[np.floating[Any]], of: Ints) -> list[float]:
    shares: list[float] = (parts / np.maximum(of, 1)).tolist()
    return shares
