"""Everything that `penchant inspect` tells of a dataset, as figures: what it holds, what is odd.

    inspection = inspect_dataset(Path("my-shop"))
    for finding in inspection.findings: ...

The dataset is validated first. Events are streamed, or read some million at a time in whole users,
so memory holds the items, the distinct user ids and what the validator needs (eight bytes an
event). Prints nothing: that is report.py (terminal) and page.py (HTML).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.schema import Schema, read_schema
from training.inspection.copies import CopyTally
from training.inspection.event_scan import PARTITION_EVENTS, EventScan
from training.inspection.features import FeatureFigures, inspect_features
from training.inspection.findings import Finding
from training.inspection.items import ItemFigures, inspect_items
from training.inspection.splits import SplitFigures, SplitTally
from training.inspection.times import TimeFigures, inspect_times
from training.inspection.users import UserFigures, UserTally
from training.inspection.values import ValueFigures, inspect_values
from training.validate import DatasetSummary, validate_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A valid dataset in figures. A history is a user's engagements and conversions."""

    schema: Schema
    summary: DatasetSummary
    """The validator's counts and warnings."""
    users: UserFigures
    items: ItemFigures
    times: TimeFigures
    values: dict[str, ValueFigures]
    """Of the events that have any value."""
    splits: dict[str, SplitFigures]
    """The published split, by part; empty where none is published."""
    features: tuple[FeatureFigures, ...]
    """Of items, then of users, in declared order."""
    findings: tuple[Finding, ...]
    """What is allowed but suspicious; empty where nothing is."""

    @property
    def density(self) -> float:
        """The share of (user, item) pairs, of users with a history, that have a history event."""
        cells = self.users.num_with_history * self.items.num_items
        return self.users.history.num_pairs / cells if cells else 0.0


def inspect_dataset(
    dataset: Path,
    *,
    progress: Callable[[float, str], None] | None = None,
    partition_events: int = PARTITION_EVENTS,
) -> Inspection:
    """Validate a dataset, then count what it holds and look for what is odd.

    progress: called with a fraction from 0 to 1 and what is being done.
    partition_events: about so many events are held at a time.

    Raises DatasetError if the dataset breaks its contract.
    """
    tell = progress or (lambda share, what: None)
    schema = read_schema(dataset)
    summary = validate_dataset(dataset, progress=lambda share, what: tell(0.5 * share, what))
    scan = EventScan(dataset, schema, partition_events=partition_events)
    tell(0.5, "users")
    user_tally, copy_tally, split_tally = (
        UserTally(dataset, scan),
        CopyTally(scan),
        SplitTally(scan),
    )
    for frame in scan.by_user():
        user_tally.take(frame)
        copy_tally.take(frame)
        split_tally.take(frame)
    tell(0.8, "items")
    items, item_findings = inspect_items(dataset, scan)
    tell(0.85, "times")
    times, time_findings = inspect_times(dataset, scan)
    tell(0.95, "values and features")
    values, value_findings = inspect_values(scan)
    of_items, item_feature_findings = inspect_features(
        dataset / "items.parquet", schema.item_features
    )
    of_users, user_feature_findings = inspect_features(
        dataset / "users.parquet", schema.user_features
    )
    tell(1.0, "done")
    return Inspection(
        schema=schema,
        summary=summary,
        users=user_tally.figures(),
        items=items,
        times=times,
        values=values,
        splits=split_tally.figures(),
        features=(*of_items, *of_users),
        findings=(
            *split_tally.findings(),
            *copy_tally.findings(),
            *user_tally.findings(),
            *time_findings,
            *value_findings,
            *item_findings,
            *item_feature_findings,
            *user_feature_findings,
        ),
    )
