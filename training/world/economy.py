"""A world that is lived day by day: first under the logging policy, then, in twins, under others.

    economy = Economy(config)
    economy.warm_up(10)
    twin = economy.twin()
    sessions = twin.wake()
    twin.live(feed, sessions)

Twins have the same items, people and past, and the same random numbers decide who is minded to come
on a day and what is ordered without any cause, so that they differ by what was shown (and by luck
in what came of it). Orders land on their days. Knows nothing of how feeds are chosen.
"""

from collections.abc import Callable
from typing import Self

import numpy as np
import pyarrow as pa

from training.world.catalogue import draw_catalogue
from training.world.columns import event_table
from training.world.config import DAY, WorldConfig
from training.world.life import Life, Wishes
from training.world.log import EventLog, Feed, Ints, Sessions
from training.world.orders import place_orders
from training.world.people import draw_people
from training.world.policy import LoggingPolicy


class Economy:
    """Everything of one world up to a day: what is fixed, what has changed, what was logged."""

    def __init__(self, config: WorldConfig) -> None:
        """The first morning."""
        self.config = config
        self.catalogue, self.people = draw_catalogue(config), draw_people(config)
        self.life, self.log = Life(config, self.catalogue, self.people), EventLog()
        self.today = config.begin
        """When the day that is next begins, UTC microseconds."""
        self.orders: list[tuple[Ints, Wishes]] = []
        """What each call to place orders gave: rows in the log, and causes."""
        self.first_exposure = 0
        """The number of the first exposure after the warm-up."""
        self._uncaused_a_day = 0
        """Orders that nothing stirs a day beside people's needs, where stirring is below 1."""

    def warm_up(self, num_days: int, progress: Callable[[int], None] = lambda day: None) -> None:
        """Live so many days under the logging policy. progress: told how many are over."""
        config = self.config
        policy = LoggingPolicy(config, self.catalogue, self.people)
        for number in range(num_days):
            rng = np.random.default_rng([config.seed, 5, number])
            sessions = self.life.wake(self.today, rng)
            feed = policy.choose(self.today, sessions, rng)
            policy.learn(*self.life.live(feed, sessions, self.log, rng))
            self.today += DAY
            progress(number + 1)
        self.first_exposure = self.log.num_exposures
        self._place(config.begin, None)
        caused = sum(int((wish.time < self.today).sum()) for wish in self.life.wishes)
        self._uncaused_a_day = round((1.0 - config.stirring) * caused / num_days)

    def twin(self) -> Self:
        """The same world at the same moment, which goes on by itself."""
        other = self.__class__.__new__(self.__class__)
        vars(other).update(vars(self))
        other.life, other.log, other.orders = self.life.twin(), self.log.twin(), [*self.orders]
        return other

    def wake(self) -> Sessions:
        """Begin today: who comes, when, for how long."""
        return self.life.wake(self.today, self._random(6))

    def live(self, feed: Feed, sessions: Sessions) -> pa.Table:
        """Live through today's feeds, place today's orders, and end the day.

        Returns its events as rows of a dataset.
        """
        since = self.log.num_rows
        self.life.live(feed, sessions, self.log, self._random(7))
        begin = self.today
        self.today += DAY
        self._place(begin, self._uncaused_a_day)
        return event_table(self.catalogue, self.people, self.log, since=since)[0]

    def _place(self, since: int, num_replaced: int | None) -> None:
        placed = place_orders(
            self.config,
            self.catalogue,
            self.people,
            wishes=self.life.wishes,
            log=self.log,
            since=since,
            until=self.today,
            rng=np.random.default_rng(
                [self.config.seed, 8, since // DAY - self.config.begin // DAY]
            ),
            num_replaced=num_replaced,
        )
        self.orders.append(placed)

    def _random(self, stream: int) -> np.random.Generator:
        """Random numbers of this day, the same for all twins."""
        number = (self.today - self.config.begin) // DAY
        return np.random.default_rng([self.config.seed, stream, number])
