"""Offline evaluation: every target of a split ranked among all items, beside the baselines.

Streams over users in batches, and over items inside each ranker, so that memory grows with users
and with items but never with their product. Knows rankers only by their lists.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model.atomic import write_text, write_whole
from model.ranking_metrics import (
    ListCounts,
    mean_metrics,
    subset_starts,
    target_ranks,
    user_metrics,
)
from model.towers import TwoTower
from training.baselines import fit_baselines
from training.compare import Difference, compare_rankers
from training.ranking import Ranker
from training.splits import Int64, Part, Questions, filtered
from training.taste_circles import taste_circles
from training.tower_ranker import TowerRanker, item_vectors

if TYPE_CHECKING:
    from training.config import Seen
    from training.dataset import Interactions
    from training.run import Run

Bool = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]
Reranker = Callable[[TowerRanker, Questions], Ranker]
"""Makes a ranker of a run's towers, for some questions."""

KS = (10, 50)
BATCH_USERS = 256
SEED = 17
"""Of samples of users, of circles of taste and of baselines: the same for all runs, since runs of
two seeds could not be compared otherwise."""
_NO_CIRCLE = -1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was asked, and how each ranker did."""

    protocol: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    """Ranker → metric → mean over users, and what the lists are made of."""
    buckets: dict[str, dict[str, dict[str, float]]]
    """Ranker → bucket → metric → mean over the users with such a target, and how many."""
    users: pl.DataFrame
    """One row a user: `user` (row), `targets` (item rows), and `RANKER/METRIC` for each; discovery
    is null for a user who discovered nothing."""

    seconds: dict[str, float]
    """Ranker → what ranking took."""

    @property
    def accuracy(self) -> list[str]:
        """The metrics that every user has."""
        first = next(iter(self.metrics))
        return [m for m in self.metrics[first] if f"{first}/{m}" in self.users.columns]

    def differences(self, metrics: Sequence[str]) -> dict[str, dict[str, Difference]]:
        """Ranker → metric → how much better the first of all is, paired over users."""
        candidate, *references = self.metrics
        return compare_rankers(self.users, candidate, references, metrics)

    def to_json(self) -> dict[str, Any]:
        """All but the table of users and the seconds: the same for the same run."""
        return {"protocol": self.protocol, "metrics": self.metrics, "buckets": self.buckets}


def write_evaluation(
    found: Evaluation, path: Path, *, user_ids: Sequence[str], item_ids: pa.ChunkedArray
) -> None:
    """Write a result for programs: PATH (JSON), and every user's targets and metrics in PATH's
    .parquet.

    user_ids, item_ids: the id of each user and item row. Each file is written whole or not at all,
    the JSON last.
    """
    ids = pl.Series("user_id", user_ids, pl.String)
    users = found.users.select(ids.gather(found.users["user"]), pl.exclude("user")).to_arrow()
    rows = users["targets"].combine_chunks()
    targets = pa.LargeListArray.from_arrays(
        rows.offsets, item_ids.combine_chunks().take(rows.values)
    )
    table = users.set_column(1, "targets", targets)
    write_whole(path.with_suffix(".parquet"), lambda partial: pq.write_table(table, partial))
    differences = {
        ranker: {metric: asdict(gap) for metric, gap in gaps.items()}
        for ranker, gaps in found.differences(found.accuracy).items()
    }
    body = {**found.to_json(), "differences": differences, "seconds": found.seconds}
    write_text(path, json.dumps(body, indent=1) + "\n")


def evaluate_run(
    run: "Run",
    model: TwoTower,
    *,
    part: Part = "test",
    ks: Sequence[int] = KS,
    seen: "Seen | None" = None,
    baselines: Sequence[str] = ("popularity",),
    sample: int | None = None,
    with_circles: bool = True,
    reranker: Reranker | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Ask a run's split of its towers, and of baselines fitted on the same training events.

    seen: what lists leave out; None: as the run's config says. baselines: names of BASELINES; one
    that the dataset does not allow is left out. sample: at most so many users, the same for every
    run. with_circles: whether discovery is measured, which needs the circles of taste. reranker:
    what orders the towers' candidates anew, then the first of the table, before the towers.

    Raises DatasetError if the part asks for nothing.
    """
    say = progress or (lambda done, what: None)
    seen = seen or run.config.seen
    everyone = run.split.questions(part, seen=seen)
    questions = everyone.sample(sample, seed=SEED)
    training = run.split.training
    vectors = item_vectors(run.items, model)
    towers = TowerRanker(model, vectors, questions, profiles=run.profiles)
    rankers: list[Ranker] = [] if reranker is None else [reranker(towers, questions)]
    rankers.append(towers)
    rankers += [
        TowerRanker(model, vectors, questions, profiles=run.profiles, objective=code)
        for code in range(1, len(run.tower.objectives))
    ]
    fitted, refused = fit_baselines(
        baselines,
        training,
        run.read_items() if baselines else pa.table({}),
        seed=SEED,
        progress=lambda done, what: say(0.4 * done, what),
    )
    rankers += fitted
    circles = None
    if with_circles:
        say(0.4, "find circles of taste")
        circles = taste_circles(training, seed=SEED)
    evaluation = evaluate(
        questions,
        rankers,
        ks=sorted(set(ks)),
        popularity=training.popularity(),
        seen=seen,
        circles=circles,
        progress=lambda done, what: say(0.5 + 0.5 * done, what),
    )
    evaluation.protocol.update(
        {
            "split": run.split.kind,
            "part": part,
            "num_users_in_part": len(everyone.users),
            "not_allowed": refused,
        }
    )
    return evaluation


def validation_metrics(run: "Run", model: TwoTower) -> dict[str, float]:
    """What early stopping looks at: the validation part, a sample of users."""
    found = evaluate_run(
        run,
        model,
        part="validation",
        baselines=(),
        sample=run.config.validation_users,
        with_circles=False,
    )
    return found.metrics["towers"]


def evaluate(
    questions: Questions,
    rankers: Sequence[Ranker],
    *,
    ks: Sequence[int],
    popularity: Int64,
    seen: "Seen",
    circles: Int64 | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Rank all items for every user, by every ranker.

    popularity: [V] training events. circles: [V] the circle of each item, -1 for none.
    """
    num_items, depth = len(popularity), max(ks)
    gone = None if seen == "keep" else DistinctItems(filtered(questions.histories, seen))
    counts = {ranker.name: ListCounts(num_items, ks) for ranker in rankers}
    ranks = {ranker.name: np.zeros(len(questions.targets), np.int64) for ranker in rankers}
    seconds = dict.fromkeys(ranks, 0.0)
    lengths = questions.histories.lengths[questions.users]
    order = np.argsort(-lengths, kind="stable")  # long histories together: less to pad, to exclude
    for start in range(0, len(order), BATCH_USERS):
        batch = order[start : start + BATCH_USERS]
        users = questions.users[batch]
        asked = questions.take(batch)
        places = np.concatenate(
            [np.arange(questions.starts[i], questions.starts[i + 1]) for i in batch]
        )
        excluded = None if gone is None else gone.of(users)
        for ranker in rankers:
            started = time.perf_counter()
            rows = ranker.top(questions.histories, users, depth, excluded=excluded)
            seconds[ranker.name] += time.perf_counter() - started
            ranks[ranker.name][places] = target_ranks(rows[asked.owners], asked.targets)
            counts[ranker.name].add(rows)
        if progress is not None:
            progress((start + len(batch)) / len(order), "rank all items for every user")
    buckets = find_buckets(questions, popularity, seen=seen)
    discovered = discoveries(questions, circles) if circles is not None else None
    metrics: dict[str, dict[str, float]] = {}
    by_bucket: dict[str, dict[str, dict[str, float]]] = {}
    targets = pa.LargeListArray.from_arrays(questions.starts, questions.targets)
    columns: dict[str, Any] = {"user": questions.users, "targets": pl.Series(targets)}
    for name, found in ranks.items():
        each = user_metrics(found, ks, starts=questions.starts)
        columns.update({f"{name}/{metric}": values for metric, values in each.items()})
        metrics[name] = mean_metrics(each)
        if discovered is not None and discovered.any():
            who, starts = subset_starts(questions.owners, discovered)
            for metric, values in user_metrics(found[discovered], ks, starts=starts).items():
                if metric.startswith("recall@"):
                    label = metric.replace("recall", "discovery")
                    metrics[name][label] = float(values.mean())
                    column = np.full(len(questions.users), np.nan)
                    column[who] = values
                    columns[f"{name}/{label}"] = column
        metrics[name] |= counts[name].metrics(popularity)
        by_bucket[name] = {
            bucket: _in_bucket(found, questions, chosen, ks)
            for bucket, chosen in buckets.items()
            if chosen.any()
        }
    protocol = {
        "ranking": "full",
        "seen": seen,
        "num_items": num_items,
        "num_users": len(questions.users),
        "num_targets": len(questions.targets),
        "num_targets_left_out": questions.num_left_out,
        "ks": list(ks),
    }
    if discovered is not None:
        protocol["num_discoveries"] = int(discovered.sum())
    table = pl.DataFrame(columns)
    table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
    return Evaluation(protocol, metrics, by_bucket, table, seconds)


class DistinctItems:
    """The item rows in each user's history, each once; made at once for all users."""

    def __init__(self, histories: "Interactions") -> None:
        num_items = histories.num_items
        pairs = np.unique(histories.owners * num_items + histories.items)
        self._items = pairs % num_items
        self._starts = np.searchsorted(pairs, np.arange(histories.num_users + 1) * num_items)

    def of(self, users: Int64) -> list[Int64]:
        """Rising item rows of each of these users."""
        return [self._items[self._starts[u] : self._starts[u + 1]] for u in users]


def find_buckets(questions: Questions, popularity: Int64, *, seen: "Seen") -> dict[str, Bool]:
    """Bucket → which of the T targets are in it.

    `head`, `torso`, `tail`: the target is of the most popular tenth of items, the next 40 %, the
    rest; `new items`: it has no training event at all. `new users`: nothing is known of the user.
    `seen`, `unseen`: whether the item is in the user's history, where lists may hold such items.
    """
    targets = questions.targets
    place = np.empty(len(popularity), np.int64)
    place[np.argsort(-popularity, kind="stable")] = np.arange(len(popularity))
    share, new = place[targets] / len(popularity), popularity[targets] == 0
    histories = questions.histories
    buckets = {
        "head": (share < 0.1) & ~new,
        "torso": (share >= 0.1) & (share < 0.5) & ~new,
        "tail": (share >= 0.5) & ~new,
        "new items": new,
        "new users": (histories.lengths[questions.users] == 0)[questions.owners],
    }
    if seen != "filter":
        before = histories.owners * histories.num_items + histories.items
        known = np.isin(questions.users[questions.owners] * len(popularity) + targets, before)
        buckets |= {"seen": known, "unseen": ~known}
    return buckets


def discoveries(questions: Questions, circles: Int64) -> Bool:
    """[T] True where the target's circle is one that the user had never engaged with before."""
    histories = questions.histories
    num = int(circles.max()) + 2
    before = histories.owners * num + circles[histories.items]
    now = circles[questions.targets]
    asked = questions.users[questions.owners] * num + now
    known_user = (histories.lengths[questions.users] > 0)[questions.owners]
    new: Bool = (now != _NO_CIRCLE) & known_user & ~np.isin(asked, before)
    return new


def _in_bucket(
    ranks: Int64, questions: Questions, chosen: Bool, ks: Sequence[int]
) -> dict[str, float]:
    """Means over the users with a target in the bucket, of those targets alone."""
    users, starts = subset_starts(questions.owners, chosen)
    means: Mapping[str, float] = mean_metrics(user_metrics(ranks[chosen], ks, starts=starts))
    return {"num_users": len(users), "num_targets": int(chosen.sum()), **means}
