"""Policy × world × days: what becomes of a small economy when a policy fills its feeds.

A policy is a small Protocol that speaks in ids and in the tables of docs/dataset.md, as a service
does, so that a real server can be one: penchant.py gives the loop such a one, since training does
not know of serving. All policies begin with the same world, at the end of a warm-up that the
world's own policy logged. Knows nothing of what a policy does, nor of what is measured.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from training.world.config import DAY, SECOND
from training.world.economy import Economy
from training.world.log import Feed, Ints, Sessions
from training.world.tables import item_table, link_table

HOUR = 3600 * SECOND
_LONGEST_SESSION = 50 * 60 * SECOND
"""What is shown stays on sale or on air for so long after the hour in which a session began."""


class Policy(Protocol):
    """Fills feeds. Times are UTC microseconds of the world's clock."""

    def begin(self, dataset: Path) -> None:
        """Take the warm-up: a dataset folder, whose items can be shown unless they are gone."""

    def stock(self, time: int, *, arrived: pa.Table, links: pa.Table, gone: Sequence[str]) -> None:
        """At `time`: these items came (rows of items.parquet, and of links.parquet), these went.

        A live room comes when it goes on air.
        """

    def choose(
        self,
        time: int,
        *,
        users: Sequence[str],
        lengths: Sequence[int],
        excluded: Sequence[Sequence[str]],
    ) -> Sequence[Sequence[str]]:
        """A slate for each session that begins in the hour from `time` on: at most so many item ids
        each, none twice, none of those excluded (shown to the same user today)."""

    def learn(self, events: pa.Table) -> None:
        """What happened today: rows of events, by time."""

    def retrain(self, items: pa.Table, links: pa.Table) -> None:
        """Learn anew from everything: the items and links that are known today, and the events so
        far."""

    def close(self) -> None:
        """The loop is over."""


def run_days(
    economy: Economy,
    policy: Policy,
    *,
    num_days: int,
    retrain_every: int,
    progress: Callable[[int, str], None] = lambda day, what: None,
) -> None:
    """Let a policy, which has begun, fill the feeds of the next days of an economy.

    retrain_every: days after which the policy learns anew; 0: never. progress: told how many days
    are over and what is done next.
    """
    market = _Market(economy, policy)
    for day in range(num_days):
        progress(day, f"day {day + 1} of {num_days}")
        sessions = economy.wake()
        policy.learn(economy.live(market.fill(sessions), sessions))
        if retrain_every and (day + 1) % retrain_every == 0 and day + 1 < num_days:
            progress(day + 1, "learning anew")
            policy.retrain(
                item_table(economy.catalogue, until=market.now),
                link_table(economy.catalogue, until=market.now),
            )
    progress(num_days, "done")


class _Market:
    """What can be shown by the hour, told to the policy whose feeds it asks for."""

    def __init__(self, economy: Economy, policy: Policy) -> None:
        self._economy, self._policy = economy, policy
        catalogue = economy.catalogue
        self.now = economy.today
        """Up to when the policy knows what came."""
        # What went since the last event of the warm-up may pass as there: a day back is enough.
        self._is_told = (catalogue.air < self.now) & (catalogue.gone > self.now - DAY)
        self._row = {name: row for row, name in enumerate(catalogue.ids)}

    def fill(self, sessions: Sessions) -> Feed:
        """Today's feeds, asked for hour by hour."""
        people = self._economy.people.ids
        hours = (sessions.start - self._economy.today) // HOUR
        shown: dict[int, list[str]] = {}
        slates: list[Sequence[str]] = [()] * len(hours)
        for hour in range(DAY // HOUR):
            self._open(self._economy.today + hour * HOUR)
            # A user's sessions of one hour are asked for one after the other.
            waiting = np.flatnonzero(hours == hour).tolist()
            while waiting:
                users = sessions.user[waiting].tolist()
                first = [at for at, user in enumerate(users) if user not in users[:at]]
                asked = [waiting[at] for at in first]
                waiting = [one for one in waiting if one not in asked]
                users = [users[at] for at in first]
                lengths = sessions.length[asked].tolist()
                answers = self._policy.choose(
                    self.now,
                    users=[people[user] for user in users],
                    lengths=lengths,
                    excluded=[shown.get(user, []) for user in users],
                )
                for at, user, length, slate in zip(asked, users, lengths, answers, strict=True):
                    slates[at] = slate[:length]
                    shown.setdefault(user, []).extend(slates[at])
        counts = np.array([len(slate) for slate in slates], np.int64)
        session = np.repeat(np.arange(len(slates)), counts)
        item = np.array([self._row[name] for slate in slates for name in slate], np.int64)
        return Feed(
            session=session,
            position=_within(counts),
            item=item,
            propensity=np.full(len(item), np.nan),
        )

    def _open(self, time: int) -> None:
        """Tell the policy what came and went until `time`."""
        catalogue = self._economy.catalogue
        stays = catalogue.gone > time + HOUR + _LONGEST_SESSION
        fresh = (catalogue.air >= self.now) & (catalogue.air < time)
        told = self._is_told | fresh
        gone = np.flatnonzero(told & ~stays)
        self._is_told = told & stays
        arrived = item_table(catalogue, until=time, since=self.now)
        links = link_table(catalogue, until=time, since=self.now)
        self.now = time
        if len(gone) or arrived.num_rows:
            self._policy.stock(
                time,
                arrived=arrived,
                links=links,
                gone=[catalogue.ids[row] for row in gone.tolist()],
            )


def _within(counts: Ints) -> Ints:
    """Positions from 0 within groups of so many."""
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.arange(int(counts.sum())) - first
