"""What exposures do to people, day by day: they stir, awaken, satisfy, tire, and bring back.

Holds the changing state of every user. Knows nothing of how a feed was chosen, so any policy can
stand in the place of the logging policy: `wake` begins a day, `live` takes its feeds.

A good watch of a video, live room or article by someone with the interest does three things. It
raises a hidden level for that interest, which decays over days and makes the person keener on it.
If the interest was latent and the level passes the person's threshold, it awakens for good. And it
may become the parent of an order, at once or on a later day: a branching process (Hawkes and
Oakes 1974), so each stirred order has exactly one cause.
"""

import copy
from dataclasses import dataclass

import numpy as np

from training.world.catalogue import CREATOR, LIVE, PRODUCT, Catalogue
from training.world.config import DAY, NEVER, SECOND, WorldConfig
from training.world.log import EventLog, Feed, Floats, Ints, Sessions
from training.world.people import People
from training.world.response import Reactions, react

# People are awake from 08:00 to 01:00 in China, which is 00:00 to 17:00 UTC, most in the evening.
_HOURS = np.array([3, 3, 3, 4, 7, 6, 4, 3, 3, 4, 6, 8, 10, 11, 10, 8, 4], float)
_CURIOSITY = 0.02
_CONTENT = 0.05
"""Satisfaction of an average session: good watches and likes a slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Orders that exposures would cause, [n] arrays; orders.py makes events of them."""

    user: Ints
    interest: Ints
    time: Ints
    """When the order is made, UTC microseconds; may lie after the period."""
    product: Ints
    """The product, if the content showed it or it was itself the card; -1: yet to be chosen."""
    content: Ints
    """The stirring content's row; -1 for the order of a product card."""
    exposure: Ints
    watch: Ints
    """The stirring watch's row in the log; -1 for the order of a product card."""
    at_once: Ints
    """1 if ordered in the same session, else 0."""


def active_hour(count: int, rng: np.random.Generator) -> Ints:
    """`count` times of day at which people are active, microseconds after midnight UTC."""
    hour = rng.choice(len(_HOURS), count, p=_HOURS / _HOURS.sum())
    return np.round((hour + rng.random(count)) * 3_600_000).astype(np.int64) * 1000


class Life:
    """The people's changing state, and what their feeds do to it."""

    def __init__(self, config: WorldConfig, catalogue: Catalogue, people: People) -> None:
        """Everybody as they are on the first morning."""
        self._config, self._catalogue, self._people = config, catalogue, people
        shape = people.strength.shape
        self.level = np.zeros(shape)
        """[U, K], how stirred each interest is."""
        self.awakened_at = np.where(people.expressed, config.begin, NEVER)
        """[U, K], UTC microseconds; NEVER: asleep, or no interest of theirs."""
        self.satisfaction = np.full(shape[0], _CONTENT)
        """[U], moving average over each user's visits."""
        self.wishes: list[Wishes] = []
        self.visits: list[tuple[Ints, Floats, Floats, Ints]] = []
        """For each day: users who have joined, the probability that they come, their satisfaction
        that morning, and how many sessions it became; [n] each."""
        self._satiety = np.zeros(shape)
        self._mood = people.strength.argmax(1)
        self.follows = np.zeros((shape[0], catalogue.num_creators), bool)
        """[U, creators], who follows whom."""
        self.feel = np.zeros(shape)
        """[U, K], how keen each user is on each interest today; `wake` sets it."""

    def twin(self) -> "Life":
        """The same people at the same moment, who live on by themselves."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray | list):
                setattr(other, name, value.copy())
        return other

    def wake(self, day: int, rng: np.random.Generator) -> Sessions:
        """Begin the day that starts at `day` (UTC microseconds): who comes, when, for how long."""
        config, people = self._config, self._people
        awake = self.awakened_at <= day
        turn = np.flatnonzero(rng.random(len(awake)) < 0.25)
        pull = np.cumsum((people.strength * awake * (1.0 + self.level))[turn], axis=1)
        drawn = rng.random(len(turn)) * pull[:, -1]
        self._mood[turn] = (pull <= drawn[:, None]).sum(1).clip(0, pull.shape[1] - 1)
        lift = 1.0 - np.exp(-self.level)
        self.feel = people.strength * np.where(awake, 0.85 + 0.25 * lift, 0.5 + 0.35 * lift)
        focus = np.full(self.feel.shape, 1.0 - 0.5 * config.focus)
        focus[np.arange(len(focus)), self._mood] = 1.0 + config.focus
        self.feel *= focus / (1.0 + config.satiation * self._satiety)
        self.feel += _CURIOSITY

        odds = people.habit + config.retention * (self.satisfaction - _CONTENT)
        chance = 1.0 / (1.0 + np.exp(-odds))
        joined = people.joined <= day
        comes = joined & (rng.random(len(chance)) < chance) | (people.joined == day)
        again = comes & (rng.random(len(chance)) < 0.25)
        here = np.flatnonzero(joined)
        sessions = comes.astype(np.int64) + again
        self.visits.append((here, chance[here], self.satisfaction[here], sessions[here]))
        user = np.flatnonzero(comes)
        start = active_hour(len(user), rng)
        later = again[user]
        pause = np.round(rng.uniform(2, 7, int(later.sum())) * 3600).astype(np.int64) * SECOND
        start = np.concatenate([start, start[later] + pause])
        user = np.concatenate([user, user[later]])
        order = np.lexsort((start, user))
        user, start = user[order], day + start[order].clip(0, DAY - 3 * 3600 * SECOND)
        length = rng.poisson(config.feed_length * people.patience[user]).clip(2, 80)
        return Sessions(user=user, start=start, length=length)

    def live(
        self, feed: Feed, sessions: Sessions, log: EventLog, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Live through a day's feeds and write what happens to `log`.

        Returns the users and items, [n] row numbers each, of what was clicked or watched.
        """
        seen = react(
            feed,
            sessions,
            feel=self.feel,
            follows=self.follows,
            config=self._config,
            catalogue=self._catalogue,
            people=self._people,
            rng=rng,
        )
        number = log.num_exposures + np.arange(len(seen.user))
        log.add(
            "exposure",
            user=seen.user,
            item=seen.item,
            time=seen.time,
            position=seen.position,
            propensity=seen.propensity,
        )
        self._follow(seen, number, log, rng)
        self._shop(seen, number, log, rng)
        awakened = self._stir(seen, number, log, rng)
        for event, where, time in (
            ("like", seen.likes, seen.over - SECOND),
            ("not_interested", seen.bored, seen.time + SECOND),
        ):
            at = np.flatnonzero(where)
            log.add(
                event, user=seen.user[at], item=seen.item[at], time=time[at], exposure=number[at]
            )

        # The night: levels and satiety fade, and visitors remember how the day was.
        self.level *= self._config.stir_decay
        np.add.at(self._satiety, (seen.user, self._catalogue.craft[seen.item]), seen.engaged)
        self._satiety *= 0.5
        size = len(self.satisfaction)
        slots = np.bincount(seen.user, minlength=size)
        joy = np.bincount(seen.user, seen.good + seen.likes - 3.0 * seen.bored, minlength=size)
        came = slots > 0
        today = (joy + 3.0 * awakened)[came] / (slots[came] + 3.0)
        self.satisfaction[came] += 0.25 * (today - self.satisfaction[came])
        return seen.user[seen.engaged], seen.item[seen.engaged]

    def _follow(
        self, seen: Reactions, number: Ints, log: EventLog, rng: np.random.Generator
    ) -> None:
        """Some good watches, and creator cards that were opened, win a follower."""
        chance = np.where(seen.good, 0.04 + 0.06 * seen.likes, 0.0)
        is_creator = self._catalogue.kind[seen.item] == CREATOR
        chance = np.where(is_creator & seen.engaged, 0.3, chance)
        at = np.flatnonzero(rng.random(len(chance)) < chance)
        maker = np.where(is_creator[at], seen.item[at], self._catalogue.creator[seen.item[at]])
        fresh = ~self.follows[seen.user[at], maker]
        at, maker = at[fresh], maker[fresh]
        pair = seen.user[at] * self.follows.shape[1] + maker
        once = np.sort(np.unique(pair, return_index=True)[1])
        at, maker = at[once], maker[once]
        self.follows[seen.user[at], maker] = True
        log.add(
            "follow",
            user=seen.user[at],
            item=maker,
            time=seen.over[at] + 3 * SECOND,
            exposure=number[at],
            source=np.where(is_creator[at], -1, seen.item[at]),
        )

    def _shop(self, seen: Reactions, number: Ints, log: EventLog, rng: np.random.Generator) -> None:
        """Cards that were clicked, product pages that content led to, and carts on either."""
        catalogue = self._catalogue
        card = seen.engaged & (catalogue.duration[seen.item] == 0)
        opens = seen.opens & (catalogue.gone[seen.shown] > seen.over + 20 * SECOND)
        at = np.flatnonzero(card | opens)
        page = np.where(opens, seen.shown, seen.item)[at]
        click = {
            "user": seen.user[at],
            "item": page,
            "time": seen.over[at] + np.where(opens, 2 * SECOND, SECOND)[at],
            "exposure": number[at],
            "source": np.where(opens, seen.item, -1)[at],
        }
        log.add("click", **click)
        product = catalogue.kind[page] == PRODUCT
        fills = product & (rng.random(len(at)) < 0.05 + 0.15 * seen.liking[at])
        click["time"] = click["time"] + 4 * SECOND
        log.add("cart", **{name: column[fills] for name, column in click.items()})

        ready = self._config.card_rate * seen.liking[at] * self._people.spend[seen.user[at]]
        ready *= np.exp(0.3 * catalogue.quality[page]) * (product & card[at])
        buys = at[rng.random(len(at)) < ready]
        none = np.full(len(buys), -1)
        self.wishes.append(
            Wishes(
                user=seen.user[buys],
                interest=catalogue.craft[seen.item[buys]],
                time=seen.time[buys] + 20 * SECOND,
                product=seen.item[buys],
                content=none,
                exposure=number[buys],
                watch=none,
                at_once=np.full(len(buys), 2),
            )
        )

    def _stir(
        self, seen: Reactions, number: Ints, log: EventLog, rng: np.random.Generator
    ) -> Floats:
        """Log the watches; raise levels, awaken, and wish. Returns [U], interests awakened."""
        catalogue, people, config = self._catalogue, self._people, self._config
        watched = np.flatnonzero(seen.engaged & (catalogue.duration[seen.item] > 0))
        watch = log.add(
            "watch",
            user=seen.user[watched],
            item=seen.item[watched],
            time=seen.over[watched],
            value=seen.seconds[watched],
            exposure=number[watched],
        )
        good = seen.good[watched]
        at, watch = watched[good], watch[good]
        user, item, over = seen.user[at], seen.item[at], seen.over[at]
        main, second, share = catalogue.craft[item], catalogue.second[item], catalogue.share[item]
        push = catalogue.power[item] * seen.depth[at]
        by_main = push * share * people.strength[user, main]
        by_second = push * (1.0 - share) * people.strength[user, second]
        readiness = 0.5 + 1.0 - np.exp(-self.level)
        first = rng.random(len(at)) * (by_main + by_second) < by_main
        interest = np.where(first, main, second)
        chance = config.stirred_rate * (by_main + by_second) * people.spend[user]
        wishes = rng.random(len(at)) < (chance * readiness[user, interest]).clip(0, 0.7)
        np.add.at(self.level, (user, main), by_main)
        np.add.at(self.level, (user, second), by_second)

        # An interest awakens at the last good watch of the day on which its level passed.
        last = np.zeros(self.level.shape, np.int64)
        np.maximum.at(last, (user, main), over)
        np.maximum.at(last, (user, second), over)
        risen = (self.awakened_at == NEVER) & (people.strength > 0) & (last > 0)
        risen &= self.level > people.threshold[:, None]
        self.awakened_at[risen] = last[risen]

        chosen = np.flatnonzero(wishes)
        user, item, over = user[chosen], item[chosen], over[chosen]
        linked = (seen.shown[at[chosen]] >= 0) & (rng.random(len(chosen)) < 0.5)
        live = catalogue.kind[item] == LIVE
        at_once = rng.random(len(chosen)) < np.where(live, 0.35, 0.08)
        scale = config.delay_days / config.delay_shape
        nights = 1 + np.floor(rng.gamma(config.delay_shape, scale, len(chosen))).astype(np.int64)
        midnight = config.begin + (over - config.begin) // DAY * DAY
        later = midnight + nights * DAY + active_hour(len(chosen), rng)
        soon = over + np.round(rng.uniform(10, 25, len(chosen)) * 1000).astype(np.int64) * 1000
        self.wishes.append(
            Wishes(
                user=user,
                interest=interest[chosen],
                time=np.where(at_once, soon, later),
                product=np.where(linked, seen.shown[at[chosen]], -1),
                content=item,
                exposure=number[at[chosen]],
                watch=watch[chosen],
                at_once=at_once.astype(np.int64),
            )
        )
        awakened: Floats = risen.sum(1) * 1.0
        return awakened
