"""Events that were probably logged twice, and acts that are too fast for a person.

Counts frames of whole users, one after the other. Knows events and their times.
"""

from collections.abc import Iterator

import polars as pl

from training.inspection.event_scan import EventScan, by_hash
from training.inspection.findings import Finding, Worst

MANY_A_SECOND = 100
"""So many acts of one user in one second (exposures aside) are no person's."""

_CELL = ["user", "item", "event"]
_WHAT = {
    "exact": "Events that are copies: the same user, item, event and time as another",
    "day": "Events that may be copies: the same user, item, event, day and value as another",
    "order": "Events that may be copies: the same item and event twice in a row",
}
_REMEDY = {
    "exact": "Keep one of each where the rows were written; a sequence number does not make an "
    "event of its own.",
    "day": "If the log was read twice, keep one of each; if people really do this more than once "
    "a day, leave them.",
    "order": "If the log was read twice, keep one of each; if people really go on with the same "
    "item, leave them.",
}


class CopyTally:
    """Takes in frames of whole users (`EventScan.by_user`)."""

    def __init__(self, scan: EventScan) -> None:
        self._scan = scan
        self._acts = pl.col("event").is_in(
            scan.names(n for n, event in scan.schema.events.items() if event.role != "exposure")
        )
        self._num_copies, self._num_fast = 0, 0
        self._copied, self._fastest = Worst(), Worst()

    def take(self, frame: pl.DataFrame) -> None:
        """Look at every user of the frame."""
        self._take_copies(frame)
        if self._scan.schema.time == "exact":
            self._take_fast(frame)

    def _take_copies(self, frame: pl.DataFrame) -> None:
        time = self._scan.schema.time
        if time == "none":
            return  # a copy cannot be told from a repeat
        if time == "order":
            history = frame.sort("user", "sequence")
            same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in _CELL)
            copies = history.filter(same).with_columns(extra=pl.lit(1, pl.UInt32))
        else:
            # Sequence numbers do not count: whoever writes a row twice numbers it twice.
            key = [*_CELL, "timestamp", *(["value"] if time == "day" else [])]
            timed = frame.lazy().drop_nulls("timestamp")
            groups = timed.group_by(key).agg(extra=pl.len() - 1)
            copies = groups.filter(pl.col("extra") > 0).collect(engine="streaming")
        self._num_copies += int(copies["extra"].sum())
        if copies.height:
            order = ["extra", *_CELL]
            worst = copies.sort(order, descending=[True, False, False, False]).row(0, named=True)
            where = by_hash(worst["user"], worst["item"]) & (pl.col("event") == worst["event"])
            if self._scan.schema.has_times:
                where &= pl.col("timestamp") == worst["timestamp"]
            self._copied.meet(worst["extra"], where)

    def _take_fast(self, frame: pl.DataFrame) -> None:
        second = pl.col("timestamp").dt.truncate("1s")
        rates = (
            frame.lazy()
            .filter(self._acts)
            .drop_nulls("timestamp")
            .group_by("user", second.alias("second"))
            .agg(n=pl.len())
            .filter(pl.col("n") >= MANY_A_SECOND)
            .collect(engine="streaming")
        )
        self._num_fast += int(rates["n"].sum())
        if rates.height:
            order = ["n", "user", "second"]
            worst = rates.sort(order, descending=[True, False, False]).row(0, named=True)
            self._fastest.meet(worst["n"], by_hash(worst["user"]) & (second == worst["second"]))

    def findings(self) -> Iterator[Finding]:
        """Of all frames together."""
        scan, time = self._scan, self._scan.schema.time
        if self._copied.where is not None:
            yield Finding(
                what=_WHAT[time],
                count=self._num_copies,
                total=scan.num_events,
                unit="events",
                example=scan.example(self._copied.where, most=2),
                remedy=_REMEDY[time],
            )
        if self._fastest.where is not None:
            yield Finding(
                what=f"Events of users who did {MANY_A_SECOND} things or more in one second",
                count=self._num_fast,
                total=scan.num_events,
                unit="events",
                example=f"{self._fastest.number:,} in one second, from "
                f"{scan.example(self._fastest.where)}",
                remedy="No person does this. If the time is that of an import or of a batch, write "
                "the time of the act; if it is a machine, leave it out.",
            )
