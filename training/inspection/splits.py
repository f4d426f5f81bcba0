"""What a published split holds out, and what of it the training part gives away.

Counts frames of whole users, one after the other; histories alone (engagements and conversions),
as nothing else is learned from or evaluated. Knows no importer: each split is as the dataset says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from training.columns import SPLITS
from training.inspection.event_scan import EventScan, by_hash
from training.inspection.findings import Finding, Worst

TRAIN, HELD_OUT = SPLITS[0], SPLITS[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFigures:
    """One part of a published split; events of histories."""

    num_events: int
    num_users: int
    num_new_users: int
    """Users whose history has no event in train; 0 for train itself."""
    num_again: dict[str, int]
    """Its events that an earlier part has too (same user, item and event), by that part."""
    num_seen: int
    """Its events whose user has the item in train, but by another event only."""


class SplitTally:
    """Takes in frames of whole users (`EventScan.by_user`)."""

    def __init__(self, scan: EventScan) -> None:
        self._scan = scan
        self._sums = {split: dict.fromkeys(_sum_names(split), 0) for split in SPLITS}
        self._given_away = {split: Worst() for split in HELD_OUT}
        self._num_late, self._num_ordered = 0, 0
        self._late = Worst()

    def take(self, frame: pl.DataFrame) -> None:
        """Count the histories of the frame; nothing where no split is published."""
        if "split" not in self._scan.columns:
            return
        history = frame.lazy().filter("history")
        cells = (
            history.group_by("user", "item", "event")
            .agg((pl.col("split") == split).sum().alias(split) for split in SPLITS)
            .collect(engine="streaming")
            .with_columns(
                user_train=pl.col(TRAIN).sum().over("user"),
                item_train=pl.col(TRAIN).sum().over("user", "item"),
            )
        )
        for split, sums in self._sums.items():
            part = cells.filter(pl.col(split) > 0)
            sums["events"] += int(part[split].sum())
            sums["users"] += part["user"].n_unique()
            if split != TRAIN:
                self._take_held_out(part, split)
        if self._scan.schema.has_order:
            self._take_late(history)

    def _take_held_out(self, part: pl.DataFrame, split: str) -> None:
        sums = self._sums[split]
        sums["new_users"] += part.filter(pl.col("user_train") == 0)["user"].n_unique()
        by_another = (pl.col(TRAIN) == 0) & (pl.col("item_train") > 0)
        sums["seen"] += int(part.filter(by_another)[split].sum())
        for earlier in SPLITS[: SPLITS.index(split)]:
            again = part.filter(pl.col(earlier) > 0)
            sums[earlier] += int(again[split].sum())
            if again.height and earlier == TRAIN:
                cell = again.sort("user", "item", "event").row(0, named=True)
                where = by_hash(cell["user"], cell["item"]) & (pl.col("event") == cell["event"])
                self._given_away[split].meet(1, where)

    def _take_late(self, history: pl.LazyFrame) -> None:
        """Users whose training events come after a held-out one."""
        order = pl.col("timestamp" if self._scan.schema.has_times else "sequence")
        train = pl.col("split") == TRAIN
        users = (
            history.group_by("user")
            .agg(last=order.filter(train).max(), held_out=order.filter(~train).min())
            .drop_nulls("held_out")
            .collect(engine="streaming")
        )
        late = users.filter(pl.col("last") > pl.col("held_out"))
        self._num_ordered += users.height
        self._num_late += late.height
        if late.height:
            user = late.sort("user").row(0, named=True)
            learned = pl.col("event").is_in(self._scan.names(self._scan.schema.history_events))
            after = learned & (pl.col("split") == TRAIN) & (order > user["held_out"])
            self._late.meet(1, by_hash(user["user"]) & after)

    def figures(self) -> dict[str, SplitFigures]:
        """Of all frames together; empty where no split is published."""
        if "split" not in self._scan.columns:
            return {}
        return {
            split: SplitFigures(
                num_events=sums["events"],
                num_users=sums["users"],
                num_new_users=sums["new_users"],
                num_again={other: sums[other] for other in SPLITS[: SPLITS.index(split)]},
                num_seen=sums["seen"],
            )
            for split, sums in self._sums.items()
        }

    def findings(self) -> Iterator[Finding]:
        """Held-out pairs that train has too; training events from the future."""
        timed = self._scan.schema.has_order
        for split, worst in self._given_away.items():
            if worst.where is not None:
                yield Finding(
                    what=f"Events of the {split} split that train has too: the same user, item "
                    "and event",
                    count=self._sums[split][TRAIN],
                    total=self._sums[split]["events"],
                    unit=f"{split} events",
                    example=self._scan.example(
                        *(worst.where & (pl.col("split") == part) for part in (TRAIN, split))
                    ),
                    remedy="If these are real repeats, report them apart: a model finds them again "
                    "by heart. If not, take them out of train."
                    if timed
                    else "Nothing tells a repeat from a leak where there is no time: take these "
                    "pairs out of train before you learn from it.",
                )
        if self._late.where is not None:
            yield Finding(
                what="Users whose train events come after an event that is held out",
                count=self._num_late,
                total=self._num_ordered,
                unit="users with held-out events",
                example=self._scan.example(self._late.where),
                remedy="Training sees their future. Hold out each user's last events, or "
                "everything after one moment.",
            )


def _sum_names(split: str) -> list[str]:
    return ["events", "users", "new_users", "seen", *SPLITS[: SPLITS.index(split)]]
