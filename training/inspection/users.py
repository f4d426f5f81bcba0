"""How much the users of a dataset did, and how often they did the same to the same item.

Counts frames of whole users, one after the other. Knows users and events; times, splits and
features are looked at in the other files of this folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from training.inspection.distribution import Distribution, Gathering
from training.inspection.event_scan import EventScan, by_hash
from training.inspection.findings import Finding, Worst, abnormal_limit

LEAVE_ONE_OUT_EVENTS = 3
"""One to learn from, one to validate on, one to test on."""
MANY_EVENTS = 1_000
"""Nobody with fewer events is an abnormal user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often users did the same to the same item."""

    num_events: int
    num_users: int
    """Users with at least one."""
    num_pairs: int
    """Distinct (user, item) pairs."""

    @property
    def share(self) -> float:
        """The share of events on an item that the same user had before."""
        return 1 - self.num_pairs / self.num_events if self.num_events else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFigures:
    """Users and what they did. A history is a user's engagements and conversions."""

    num_users: int
    """Users with events."""
    num_with_history: int
    num_short: int
    """Users whose history is there, but has fewer events than leave-one-out needs."""
    num_listed: int | None
    """Rows of users.parquet; None where there is no such file."""
    num_without_row: int
    """Users with events whom users.parquet does not list; 0 where there is no such file."""
    num_idle: int
    """Users whom users.parquet lists and who have no event."""
    events_a_user: Distribution
    history_a_user: Distribution
    """Of users with a history."""
    history: Repeats
    """Of the events of histories, whatever their names."""
    by_event: dict[str, Repeats]
    """Of each declared event."""


class UserTally:
    """Takes in frames of whole users (`EventScan.by_user`)."""

    def __init__(self, dataset: Path, scan: EventScan) -> None:
        self._scan = scan
        self._listed = _listed_users(dataset)
        self._events, self._histories = Gathering(), Gathering()
        self._num_listed_seen = 0
        self._sums: list[pl.DataFrame] = []
        self._top = Worst()

    def take(self, frame: pl.DataFrame) -> None:
        """Count every user of the frame."""
        users = (
            frame.lazy()
            .group_by("user")
            .agg(n=pl.len(), history=pl.col("history").sum())
            .collect(engine="streaming")
        )
        if not users.height:
            return
        self._events.add(users["n"])
        self._histories.add(users.filter(pl.col("history") > 0)["history"])
        if self._listed is not None:
            self._num_listed_seen += int(users["user"].is_in(self._listed.implode()).sum())
        top = users.sort("n", "user", descending=[True, False]).row(0, named=True)
        self._top.meet(top["n"], by_hash(top["user"]))

        pairs = frame.lazy().group_by("event", "user", "item").agg(n=pl.len())
        history = frame.lazy().filter("history").group_by("user", "item").agg(n=pl.len())
        for part in (
            pairs.with_columns(pl.col("event").cast(pl.String)),
            history.with_columns(event=pl.lit(_HISTORY)),
        ):
            sums = part.group_by("event").agg(
                pl.col("n").sum(), users=pl.col("user").n_unique(), pairs=pl.len()
            )
            self._sums.append(sums.collect(engine="streaming"))

    def figures(self) -> UserFigures:
        """Of all frames together."""
        events, histories = self._events.distribution(), self._histories.distribution()
        num_listed = None if self._listed is None else len(self._listed)
        sums = pl.concat(self._sums).group_by("event").sum().rows_by_key("event", unique=True)
        repeats = {
            name: Repeats(num_events=num_events, num_users=num_users, num_pairs=num_pairs)
            for name in (_HISTORY, *self._scan.schema.events)
            for num_events, num_users, num_pairs in [sums.get(name, (0, 0, 0))]
        }
        return UserFigures(
            num_users=events.num,
            num_with_history=histories.num,
            num_short=histories.num - histories.num_above(LEAVE_ONE_OUT_EVENTS - 1),
            num_listed=num_listed,
            num_without_row=0 if num_listed is None else events.num - self._num_listed_seen,
            num_idle=0 if num_listed is None else num_listed - self._num_listed_seen,
            events_a_user=events,
            history_a_user=histories,
            history=repeats.pop(_HISTORY),
            by_event=repeats,
        )

    def findings(self) -> Iterator[Finding]:
        """Users with far more events than anybody else."""
        events = self._events.distribution()
        limit = abnormal_limit(events, least=MANY_EVENTS)
        if events.num_above(limit) and self._top.where is not None:
            yield Finding(
                what=f"Users with more than {limit:,.0f} events, 10 times what all but one in a "
                "thousand have",
                count=events.num_above(limit),
                total=events.num,
                unit="users",
                example=f"{self._top.number:,} events, the first in "
                f"{self._scan.example(self._top.where)}",
                remedy="Look whether they are crawlers, test accounts, or one id that stands for "
                "everybody who was not signed in; leave such users out.",
            )


_HISTORY = ""
"""Stands for all events of histories together; no event has this name."""


def _listed_users(dataset: Path) -> pl.Series | None:
    """The hashes of the ids in users.parquet."""
    path = dataset / "users.parquet"
    if not path.exists():
        return None
    return pl.scan_parquet(path, glob=False).select(pl.col("user_id").hash()).collect().to_series()
