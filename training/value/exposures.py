"""Logged exposures: who was shown what, what was known of them just before, and what came of it.

One exposure is one example of the value model. Its labels say which heads came true, its `stop`
where the user's history ends for it: what happened at the same moment or later is not seen.
Knows the dataset's files and times; no vectors and no networks.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import ConfigError
from model.schema import Head, Schema
from training.columns import SPLITS
from training.dataset import load_sequences, load_user_ids
from training.run import Run
from training.value.labels import label

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

Part = Literal["before", "fit", "choose", "test"]
"""before: what item statistics are counted from. fit: what is learned from. choose: what decides
when to stop. test: read once, at the end."""
PARTS: tuple[Part, ...] = ("before", "fit", "choose", "test")

UNKNOWN_TIME = -1
_DAY = 86_400_000_000
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Exposures:
    """N exposures of one part, in the order of the dataset's files."""

    heads: tuple[Head, ...]
    people: list[str]
    """[P] the ids of all users of the dataset that were shown anything."""
    rows: Int64
    """[P] their user rows in the run's histories; -1 where no history is known at all."""
    owners: Int64
    """[N] who was shown it, a position in people."""
    items: Int64
    """[N] item rows."""
    times: Int64
    """[N] when, UTC µs; UNKNOWN_TIME where not known."""
    stops: Int64
    """[N] the history is the run's events [starts[row], stop)."""
    labels: Bool
    """[N, T] whether the head came true; False where not known."""
    known: Bool
    """[N, T] whether that can be told: False where the head's window was not over in time."""
    ways: tuple[str, ...]
    """The dataset's exposure events, such as one of what was shown at random."""
    shown_as: Int64
    """[N] which of `ways` each exposure is."""

    def take(self, chosen: Int64 | Bool) -> "Exposures":
        """Some of the exposures, in this order."""
        names = ("owners", "items", "times", "stops", "labels", "known", "shown_as")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def at_once(self) -> "Exposures":
        """The same exposures, as if each user had been shown all of theirs at the first of them."""
        order = np.lexsort((self.times, self.stops, self.owners))
        firsts = order[np.unique(self.owners[order], return_index=True)[1]]
        places = np.full(len(self.people), -1, np.int64)
        places[self.owners[firsts]] = firsts
        first = places[self.owners]
        return replace(self, stops=self.stops[first], times=self.times[first])

    def with_heads(self, names: tuple[str, ...]) -> "Exposures":
        """The same exposures with some of the heads, in this order."""
        places = [[head.name for head in self.heads].index(name) for name in names]
        return replace(
            self,
            heads=tuple(self.heads[place] for place in places),
            labels=self.labels[:, places],
            known=self.known[:, places],
        )


def heads_of(schema: Schema) -> tuple[Head, ...]:
    """The declared heads; where none is, one for each event that is not an exposure."""
    if schema.heads:
        return tuple(schema.heads)
    return tuple(
        Head(name=name, event=name)
        for name, event in schema.events.items()
        if event.role != "exposure"
    )


class ExposureLog:
    """The exposures of a run's dataset, cut into parts as the run's split says."""

    def __init__(self, run: Run, *, heads: tuple[Head, ...] | None = None) -> None:
        """Read all exposures. heads: what they are labelled for; None: what dataset.toml declares.

        Raises ConfigError where none can be learned from, and says why.
        """
        schema = run.data.schema
        self._run, self._schema, self._heads = run, schema, heads or heads_of(schema)
        _require_learnable(run)
        self._events = _events(run.dataset, schema)
        self._links = _links(run.dataset)
        self._bounds = _bounds(run, self._events)
        shown = self._events.filter(pl.col("is_exposure")).with_columns(
            # A held-out event may lack its time; what was known before it cannot be told then.
            part=pl.when(pl.col("before").is_not_null()).then(_part_of(self._bounds, run))
        )
        self.num_undated = int(shown["part"].is_null().sum())
        """Exposures that belong to no part, because their time is not known."""
        self._shown = shown.filter(pl.col("part").is_not_null())
        self._people = self._shown["user_id"].unique().sort()
        for part in PARTS[1:]:
            if not (self._shown["part"] == PARTS.index(part)).any():
                raise ConfigError(
                    f"no exposure lies in the part {part!r} of the {run.split.kind} split. "
                    "The value model learns from the exposures of the validation part but its last "
                    "day, stops by that day, and is judged by those of the test part. Hold out "
                    "more days: penchant train DATASET --split time --holdout-days DAYS."
                )

    def read(self, part: Part) -> Exposures:
        """The exposures of one part with their labels."""
        shown = self._shown.filter(pl.col("part") == PARTS.index(part))
        labels, known = label(
            shown,
            self._known_events(part),
            self._heads,
            self._schema,
            links=self._links,
            horizon=self._horizon(part),
        )
        run = self._run
        user_rows = {name: row for row, name in enumerate(load_user_ids(run.arrays))}
        people = self._people.to_list()
        rows = np.array([user_rows.get(name, -1) for name in people], np.int64)
        owners = _places(shown["user_id"], self._people)
        items = pl.read_parquet(run.dataset / "items.parquet", columns=["item_id"], glob=False)
        ways = _ways(self._schema)
        return Exposures(
            heads=self._heads,
            people=people,
            rows=rows,
            owners=owners,
            items=_places(shown["item_id"], items["item_id"]),
            times=shown["time"].fill_null(UNKNOWN_TIME).to_numpy(),
            stops=_stops(run, rows[owners], shown["before"].to_numpy()),
            labels=labels,
            known=known,
            ways=tuple(ways),
            shown_as=shown["event"].replace_strict(ways, range(len(ways))).to_numpy(),
        )

    def _known_events(self, part: Part) -> pl.DataFrame:
        """What a label of this part may be read from: nothing of a later part."""
        if part == "test":
            return self._events
        if self._run.split.kind == "published":
            return self._events.filter(pl.col("split") < (1 if part == "before" else 2))
        end = self._bounds[0 if part == "before" else 2]
        return self._events.filter(pl.col("time") < end)

    def _horizon(self, part: Part) -> int:
        """UTC µs before which a head's window must be over."""
        if part == "test":
            latest = self._events["time"].max()
            return int(latest) + 1 if isinstance(latest, int) else _NEVER
        return self._bounds[0 if part == "before" else 2]


def _require_learnable(run: Run) -> None:
    """Raise ConfigError where the value model cannot be learned from what there is."""
    schema = run.data.schema
    if not _ways(schema):
        raise ConfigError(
            f"{schema.name} has no event with the role 'exposure', and a value model learns from "
            "what was shown: with nothing shown in vain, everything looks equally good. Log "
            "exposures and declare their event in dataset.toml, such as "
            'show = { role = "exposure" } (docs/dataset.md). Or learn from candidates for '
            "validation's questions: penchant train-value RUN --candidates 100."
        )
    if not schema.has_order:
        raise ConfigError(
            f'{schema.name} has time = "none": what a user had done before an exposure is not '
            "known. A value model of exposures needs the order of events at least "
            "(docs/dataset.md). One of candidates does not: "
            "penchant train-value RUN --candidates 100."
        )
    if run.split.kind == "leave-one-out":
        raise ConfigError(
            "these towers have learned from all but each user's last two events, so their scores "
            "know what most exposures led to, and a value model would learn to trust them for "
            "that. Train towers that know nothing of the last days: "
            "penchant train DATASET --out RUN --split time. Or learn from candidates for "
            "validation's questions: penchant train-value RUN --candidates 100."
        )


def _events(dataset: Path, schema: Schema) -> pl.DataFrame:
    """All events of the dataset in file order: user_id, item_id, event, time (µs or null), seq,
    exposure_id, value, split (0..2), is_exposure, before: the least key (time, or sequence where
    only the order counts) of whatever belongs to the same showing, and shared: whether several
    exposures of the user have its id."""
    parts = sorted((dataset / "events").glob("part-*.parquet"))
    scan = pl.scan_parquet(parts, glob=False, missing_columns="insert")
    columns = scan.collect_schema().names()

    def column(name: str, kind: type[pl.DataType]) -> pl.Expr:
        return pl.col(name) if name in columns else pl.lit(None, kind).alias(name)

    time = pl.col("timestamp").dt.timestamp("us") if "timestamp" in columns else pl.lit(None)
    split = pl.col("split").fill_null(SPLITS[0]) if "split" in columns else pl.lit(SPLITS[0])
    events = scan.select(
        "user_id",
        "item_id",
        "event",
        time.cast(pl.Int64).alias("time"),
        column("sequence", pl.Int64).alias("seq"),
        column("exposure_id", pl.String),
        column("value", pl.Float64),
        split.replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.Int8).alias("split"),
        pl.col("event").is_in(_ways(schema)).alias("is_exposure"),
    ).collect()
    key = pl.col("time") if schema.has_times else pl.col("seq")
    same = pl.col("exposure_id").is_not_null()
    # Of one user: ids may be counted anew for each, as pages or sessions are.
    events = events.with_columns(
        before=pl.when(same).then(key.min().over("user_id", "exposure_id")).otherwise(key),
        # Of the whole log: a slate that a part's border cuts is a slate still.
        shared=same & (pl.col("is_exposure").sum().over("user_id", "exposure_id") > 1),
    )
    if schema.has_times:
        return events
    # Times are known of some: what was shown at one moment was chosen before any of it was seen.
    first = pl.col("before").min().over("user_id", "time")
    return events.with_columns(
        before=pl.when(pl.col("time").is_not_null()).then(first).otherwise(pl.col("before"))
    )


def _ways(schema: Schema) -> list[str]:
    """The events that say that something was shown."""
    return [name for name, event in schema.events.items() if event.role == "exposure"]


def _links(dataset: Path) -> pl.DataFrame:
    """from_item, to_item; empty where the dataset has no links."""
    path = dataset / "links.parquet"
    if not path.exists():
        return pl.DataFrame(schema={"from_item": pl.String, "to_item": pl.String})
    return pl.read_parquet(path, columns=["from_item", "to_item"], glob=False)


def _bounds(run: Run, events: pl.DataFrame) -> tuple[int, int, int]:
    """UTC µs where `fit`, `choose` and `test` begin."""
    split = run.split
    if split.kind == "published":
        shown = events.filter(pl.col("is_exposure"))
        later = shown.filter(pl.col("split") == 1)["time"].drop_nulls()
        if later.is_empty():
            raise ConfigError(
                "the dataset's own split has no exposure with split = 'validation' whose time is "
                "known. The value model learns from these but the last day, which decides when it "
                "stops. Write the column `timestamp` for them, or train towers with --split time."
            )
        first, last = int(later.to_numpy().min()), int(later.to_numpy().max())
        begins = shown.filter(pl.col("split") == 2)["time"].drop_nulls()
        test = int(begins.to_numpy().min()) if len(begins) else last + 1
        return first, last + 1 - _choosing(run.data.schema, last + 1 - first), max(test, last + 1)
    begin, end = split.moments["validation"], split.moments["test"]
    assert begin is not None and end is not None  # a split by time has both
    return begin, end - _choosing(run.data.schema, end - begin), end


def _choosing(schema: Schema, span: int) -> int:
    """How much of a validation part of `span` µs chooses: its last day, a quarter at most."""
    return _DAY if schema.time == "day" else min(_DAY, span // 4)


def _part_of(bounds: tuple[int, int, int], run: Run) -> pl.Expr:
    """The position in PARTS of each exposure; null where its time is needed and not known."""
    fit, choose, test = bounds
    time = pl.col("time")
    if run.split.kind == "published":
        late = pl.when(time < choose).then(1).when(time >= choose).then(2)
        split = pl.col("split")
        return pl.when(split == 0).then(0).when(split == 2).then(3).otherwise(late)
    return (
        pl.when(time < fit)
        .then(0)
        .when(time < choose)
        .then(1)
        .when(time < test)
        .then(2)
        .when(time >= test)
        .then(3)
    )


def _places(names: pl.Series, known: pl.Series) -> Int64:
    """[N] where each of N names stands among the known ones, which are distinct and hold it."""
    table = known.to_frame("name").with_row_index("place")
    found = names.to_frame("name").join(table, on="name", how="left", maintain_order="left")
    return found["place"].to_numpy().astype(np.int64)


def _stops(run: Run, rows: Int64, before: Int64) -> Int64:
    """[N] where the histories of users `rows` [N] end: at the first event not strictly before
    `before` [N], a time or a sequence number."""
    data = run.data
    if data.schema.has_times:
        keys = np.where(data.times >= 0, data.times, _NEVER)
    else:
        keys = np.asarray(load_sequences(run.arrays))
    # Users one after the other and keys rising within each: one sorted array of both.
    ranks = np.unique(np.concatenate([keys, before]), return_inverse=True)[1]
    width = int(ranks.max(initial=0)) + 1
    events = data.owners * width + ranks[: len(keys)]
    return np.searchsorted(events, rows * width + ranks[len(keys) :], side="left")
