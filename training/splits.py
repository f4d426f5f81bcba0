"""What is learned from and what is held out: leave-one-out, by time, or as a dataset was published.

A split says, for validation and for test, what each user did before the question (the history) and
what they did then (the targets). Whatever is asked in test was never learned from, nor used to
choose. Knows events as arrays; no models, no metrics.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.errors import ConfigError, DatasetError
from training.config import RunConfig, Seen
from training.dataset import Interactions

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

Part = Literal["validation", "test"]
SplitKind = Literal["leave-one-out", "time", "published"]

_DAY = 86_400_000_000
_VALIDATION, _TEST = 1, 2


@dataclass(frozen=True, slots=True)
class Questions:
    """n users with what is known of them and what should be found; T targets in all."""

    histories: Interactions
    """Every user of the dataset, with the events before the question."""
    users: Int64
    """[n] user rows, rising."""
    starts: Int64
    """[n + 1]: user i has targets starts[i] .. starts[i + 1], at least one."""
    targets: Int64
    """[T] item rows, distinct within a user."""
    idle: Float32
    """[n] seconds from the last event of the history to the question; 0 where not known."""
    num_left_out: int
    """Targets that no list could hold, because they are filtered out as seen."""

    @property
    def owners(self) -> Int64:
        """[T] which of the n users each target belongs to."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.starts))

    def sample(self, most: int | None, *, seed: int) -> "Questions":
        """At most so many users, chosen by the seed."""
        if most is None or most >= len(self.users):
            return self
        chosen = np.random.default_rng(seed).choice(len(self.users), most, replace=False)
        return self.take(np.sort(chosen))

    def take(self, chosen: Int64) -> "Questions":
        """The questions of some of the n users, in this order."""
        counts = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.starts[chosen] - starts[:-1], counts) + np.arange(starts[-1])
        return Questions(
            self.histories,
            self.users[chosen],
            starts,
            self.targets[places],
            self.idle[chosen],
            self.num_left_out,
        )


@dataclass(frozen=True, slots=True)
class Split:
    """Which of a dataset's E events are learned from, known, and asked for."""

    kind: SplitKind
    data: Interactions
    learned: Bool
    """[E] True on events to learn from."""
    known: dict[Part, Bool]
    """[E] True on events of histories."""
    asked: dict[Part, Bool]
    """[E] True on targets."""
    moments: dict[Part, int | None]
    """UTC µs of the question where it is the same for all; None: it is the target's own."""

    @property
    def training(self) -> Interactions:
        """The events to learn from."""
        return self.data.keep(self.learned)

    def questions(self, part: Part, *, seen: Seen = "filter") -> Questions:
        """Who is asked what in this part.

        seen: what a list leaves out, and so no target may be: `filter` all of a user's history,
        `converted` what the user bought, `keep` nothing. Raises DatasetError if nothing is asked.
        """
        data, asked = self.data, np.flatnonzero(self.asked[part])
        histories = data.keep(self.known[part])
        owners = data.owners[asked]
        pairs = owners * data.num_items + data.items[asked]
        # The first of several events on one item is its target.
        first = np.sort(np.unique(pairs, return_index=True)[1])
        asked, owners, pairs = asked[first], owners[first], pairs[first]
        gone = filtered(histories, seen)
        possible = ~np.isin(pairs, gone.owners * data.num_items + gone.items)
        if not possible.any():
            raise DatasetError(
                f"the {part} part of the {self.kind} split asks for nothing"
                + (" that is not left out as seen." if len(asked) else "."),
                file="events",
                remedy="Leave-one-out needs users with 3 events: one to learn from, one to "
                "validate on, one to test on. Other splits and --seen: docs/guides/"
                "evaluate-honestly.md.",
            )
        kept, owners = asked[possible], owners[possible]
        users, starts = np.unique(owners, return_index=True)
        moment = self.moments[part]
        moments = data.times[kept[starts]] if moment is None else np.full(len(users), moment)
        ends = histories.starts[users + 1]
        dated = (ends > histories.starts[users]) & (histories.times[ends - 1] >= 0)
        last = np.where(dated, histories.times[ends - 1], moments)
        return Questions(
            histories,
            users,
            np.append(starts, len(kept)),
            data.items[kept].astype(np.int64),
            (np.maximum(moments - last, 0) / 1e6).astype(np.float32),
            int((~possible).sum()),
        )


def filtered(histories: Interactions, seen: Seen) -> Interactions:
    """The part of histories that is not to be shown again."""
    if seen == "filter":
        return histories
    if seen == "keep":
        return histories.keep(np.zeros(len(histories.items), bool))
    schema = histories.schema
    codes = [
        code
        for code, name in enumerate(schema.history_events, 1)
        if schema.events[name].role == "conversion"
    ]
    return histories.keep(np.isin(histories.events, codes))


def split_events(data: Interactions, config: RunConfig) -> Split:
    """Split a dataset as a run's config says.

    Raises ConfigError if the dataset cannot be split so, or if `targets` names no event of it;
    DatasetError if nothing is left to learn from.
    """
    wanted = _wanted(data, config.targets)
    kind = config.split
    if kind == "auto":
        kind = "published" if data.published.any() else "leave-one-out"
    split = _of_kind(kind, data, wanted, config.holdout_days)
    if not split.learned.any():
        raise _nothing_to_learn(data)
    return split


def _of_kind(
    kind: SplitKind, data: Interactions, wanted: Bool, holdout_days: float | None
) -> Split:
    match kind:
        case "leave-one-out":
            return _leave_one_out(data, wanted)
        case "time":
            return _by_time(data, wanted, holdout_days)
        case "published":
            return _published(data, wanted)


def _nothing_to_learn(data: Interactions) -> DatasetError:
    known = ", ".join(data.schema.history_events)
    if not len(data.items):
        problem = f"there is nothing to learn from: no event is {known}, what people engage with."
    else:
        problem = f"every event of {known} is held out, and nothing is left to learn from."
    return DatasetError(problem, file="events", remedy="Write such events of the time before.")


def _wanted(data: Interactions, names: tuple[str, ...]) -> Bool:
    """[E] which events may be targets."""
    known = data.schema.history_events
    for name in names:
        if name not in known:
            raise ConfigError(
                f"targets names the event {name!r}, which enters no history of this dataset. "
                f"Allowed are: {', '.join(known)}."
            )
    if not names:
        return np.ones(len(data.items), bool)
    return np.isin(data.events, [known.index(name) + 1 for name in names])


def _leave_one_out(data: Interactions, wanted: Bool) -> Split:
    """Each user's last wanted event is test, the wanted event before it validation."""
    owners, place = data.owners, np.arange(len(data.items))
    found = np.flatnonzero(wanted)
    ends = np.searchsorted(found, data.starts[1:])
    has_two = ends - np.searchsorted(found, data.starts[:-1]) >= 2
    test, validation = (
        found[np.maximum(ends - back, 0)] if len(found) else np.zeros_like(ends) for back in (1, 2)
    )
    # Something must come before the validation event to be learned from.
    evaluated = has_two & (validation > data.starts[:-1])
    before = {
        "validation": np.where(evaluated, validation, data.starts[1:])[owners],
        "test": np.where(evaluated, test, data.starts[1:])[owners],
    }
    known: dict[Part, Bool] = {
        "validation": place < before["validation"],
        "test": place < before["test"],
    }
    asked: dict[Part, Bool] = {
        "validation": (place == before["validation"]),
        "test": (place == before["test"]),
    }
    moments: dict[Part, int | None] = {"validation": None, "test": None}
    return Split("leave-one-out", data, known["validation"], known, asked, moments)


def _by_time(data: Interactions, wanted: Bool, holdout_days: float | None) -> Split:
    """The last holdout_days are test, as many days before them validation."""
    schema = data.schema
    if not schema.has_times:
        raise ConfigError(
            f'split is "time", and the dataset has time = "{schema.time}": no event has a time to '
            'split by. Allowed here: "leave-one-out"'
            + (' or "published".' if data.published.any() else ".")
        )
    dated = data.times >= 0
    if not dated.any():
        raise _nothing_to_learn(data)
    first, last = int(data.times[dated].min()), int(data.times.max())
    window = int((last - first) / 10 if holdout_days is None else holdout_days * _DAY)
    test = last + 1 - window
    if schema.time == "day":  # a day is held out whole
        window = -(-window // _DAY) * _DAY
        test = last + _DAY - window
    validation = test - window
    if not first < validation < test <= last:
        raise ConfigError(
            f"holdout_days is {window / _DAY:g}, and the events span {(last - first) / _DAY:.1f} "
            "days: validation and test take as many days each, and something must be left to "
            "learn from. Give fewer days."
        )
    known: dict[Part, Bool] = {
        "validation": dated & (data.times < validation),
        "test": dated & (data.times < test),
    }
    asked: dict[Part, Bool] = {
        "validation": wanted & known["test"] & ~known["validation"],
        "test": wanted & dated & ~known["test"],
    }
    moments: dict[Part, int | None] = {"validation": validation, "test": test}
    return Split("time", data, known["validation"], known, asked, moments)


def _published(data: Interactions, wanted: Bool) -> Split:
    """The dataset's own `split` column; without a validation part, leave-one-out of the rest."""
    parts = data.published
    if not (parts == _TEST).any():
        raise ConfigError(
            'split is "published", and no event has split = "test". Write the column `split` of '
            'the events (docs/dataset.md), or split by "leave-one-out" or "time".'
        )
    known: dict[Part, Bool] = {"validation": parts < _VALIDATION, "test": parts < _TEST}
    asked: dict[Part, Bool] = {
        "validation": wanted & (parts == _VALIDATION),
        "test": wanted & (parts == _TEST),
    }
    if not asked["validation"].any():
        # The last two wanted events of the training part count as one validation and one more.
        place, owners = np.arange(len(parts)), data.owners
        found = np.flatnonzero(wanted & known["test"])
        ends = np.searchsorted(found, data.starts[1:])
        last = found[np.maximum(ends - 1, 0)] if len(found) else np.zeros_like(ends)
        has_one = (ends > np.searchsorted(found, data.starts[:-1])) & (last > data.starts[:-1])
        before = np.where(has_one, last, data.starts[1:])[owners]
        known["validation"] = known["test"] & (place < before)
        asked["validation"] = place == before
    moments: dict[Part, int | None] = {"validation": None, "test": None}
    return Split("published", data, known["validation"], known, asked, moments)
