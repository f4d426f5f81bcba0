"""Offline evaluation: leave-one-out, every target ranked among all items.

Streams over users in batches; what a user has seen is filtered out unless told otherwise. The
candidate lists are made as serving makes them: one exact search for all interests, merged by
model/merge.py. Popularity stands beside the model in every table.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from model.ann import exact_search
from model.errors import DatasetError
from model.merge import merge_interests
from model.ranking_metrics import coverage, ranking_metrics, target_ranks
from model.towers import TwoTower
from training.dataset import MIN_EVALUATED, Interactions
from training.loop import encode_users

if TYPE_CHECKING:
    from training.run import Run

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

Split = Literal["validation", "test"]
KS = (1, 5, 10, 20, 50)


def evaluate_run(
    run: "Run",
    model: TwoTower,
    *,
    split: Split = "test",
    ks: Sequence[int] = KS,
    filter_seen: bool = True,
    sample: int | None = None,
) -> dict[str, Any]:
    """Rank every evaluated user's held-out item among all items.

    split: `test` is each user's last event, `validation` the one before it. filter_seen: nothing
    that a user has seen is ranked, as serving does it; users whose held-out item is one of those
    are then left out and counted, for no list could hold it. sample: at most so many users, chosen
    by the run's seed.

    Returns {"protocol": ..., "model": metrics, "popularity": metrics, "buckets": metrics of the
    model by popularity of the target}.
    """
    data, users, targets, idle = held_out(run.data, split)
    num_repeats = 0
    if filter_seen:
        first = first_time(data, users, targets)
        num_repeats = int((~first).sum())
        users, targets, idle = users[first], targets[first], idle[first]
    if sample is not None and sample < len(users):
        chosen = np.sort(
            np.random.default_rng(run.config.seed).choice(len(users), sample, replace=False)
        )
        users, targets, idle = users[chosen], targets[chosen], idle[chosen]
    depth, popularity = max(ks), run.training_data.popularity()
    vectors = item_vectors(run, model)
    target_of = np.zeros(data.num_users, np.int64)
    target_of[users] = targets
    ranks, lists, owners = [], [], []
    matrix = vectors.float().cpu().numpy()
    for batch, interests in encode_users(model, vectors, data, users, idle, profiles=run.profiles):
        seen = seen_items(data, batch) if filter_seen else None
        rows = search_interests(interests, matrix, depth, excluded=seen)
        ranks.append(target_ranks(rows, target_of[batch]))
        lists.append(rows)
        owners.append(batch)
    all_ranks, order = np.concatenate(ranks), np.concatenate(owners)
    model_metrics = ranking_metrics(all_ranks, ks)
    model_metrics[f"coverage@{depth}"] = coverage(np.concatenate(lists), run.data.num_items)
    return {
        "protocol": {
            "split": f"leave-one-out, {split}",
            "ranking": "full",
            "num_items": run.data.num_items,
            "num_users": len(users),
            "num_repeats_left_out": num_repeats,
            "seen_items": "filtered" if filter_seen else "kept",
        },
        "model": model_metrics,
        "popularity": _popularity(
            popularity,
            data,
            order,
            target_of,
            ks=ks,
            filter_seen=filter_seen,
        ),
        "buckets": {
            name: ranking_metrics(all_ranks[inside], ks)
            for name, inside in popularity_buckets(popularity, target_of[order]).items()
            if inside.any()
        },
    }


def validation_metrics(run: "Run", model: TwoTower) -> dict[str, float]:
    """What early stopping looks at: the validation split, a sample of users."""
    result = evaluate_run(
        run, model, split="validation", ks=(10, 50), sample=run.config.validation_users
    )
    metrics: dict[str, float] = result["model"]
    return metrics


def held_out(data: Interactions, split: Split) -> tuple[Interactions, Int64, Int64, Float32]:
    """Histories before the held-out event, and the evaluated users with their targets.

    Returns histories, users [n] rows, targets [n] item rows, idle [n] float32 seconds from the last
    event of the history to the target's. Raises DatasetError if no user has MIN_EVALUATED events.
    """
    back = 1 if split == "test" else 2
    users = np.flatnonzero(data.lengths >= MIN_EVALUATED)
    if not len(users):
        raise DatasetError(
            f"no user has {MIN_EVALUATED} events that enter histories, so nothing can be held out.",
            file="events",
            remedy="Leave-one-out evaluation needs one to learn from, one to validate on, one to "
            "test on; give more events.",
        )
    place = data.starts[users + 1] - back
    idle = np.maximum(data.times[place] - data.times[place - 1], 0) / 1e6
    return (
        data.head(held_out=back),
        users,
        data.items[place].astype(np.int64),
        idle.astype(np.float32),
    )


@torch.no_grad()
def item_vectors(run: "Run", model: TwoTower, *, batch_items: int = 65_536) -> torch.Tensor:
    """Vectors [V, D] of every item row, on the model's device."""
    model.eval()
    rows = torch.arange(run.data.num_items, device=run.items.id_codes.device)
    return torch.cat([run.items.encode(model, part) for part in rows.split(batch_items)])


def search_interests(
    interests: Float32, vectors: Float32, k: int, *, excluded: Sequence[Int64] | None
) -> Int64:
    """Merged candidates of users: interests [B, M, D] → rows [B, k]. excluded: B arrays of rows."""
    batch, num_interests, dim = interests.shape
    repeated = None if excluded is None else [out for out in excluded for _ in range(num_interests)]
    rows, scores = exact_search(interests.reshape(-1, dim), vectors, k, excluded=repeated)
    shape = (batch, num_interests, k)
    return merge_interests(rows.reshape(shape), scores.reshape(shape), k)[0]


def seen_items(data: Interactions, users: Int64) -> list[Int64]:
    """The item rows in each user's history, each once."""
    return [
        np.unique(data.items[data.starts[u] : data.starts[u + 1]]).astype(np.int64) for u in users
    ]


def first_time(data: Interactions, users: Int64, targets: Int64) -> npt.NDArray[np.bool_]:
    """[n] True where the target is not in the user's history."""
    return np.array(
        [
            target not in data.items[data.starts[u] : data.starts[u + 1]]
            for u, target in zip(users, targets, strict=True)
        ],
        np.bool_,
    )


def popularity_buckets(popularity: Int64, targets: Int64) -> dict[str, npt.NDArray[np.bool_]]:
    """Which targets [n] are head (the most popular tenth of items), torso (the next 40 %), tail
    (the rest), or new (no training event at all)."""
    place = np.empty(len(popularity), np.int64)
    place[np.argsort(-popularity, kind="stable")] = np.arange(len(popularity))
    share, new = place[targets] / len(popularity), popularity[targets] == 0
    return {
        "head": (share < 0.1) & ~new,
        "torso": (share >= 0.1) & (share < 0.5) & ~new,
        "tail": (share >= 0.5) & ~new,
        "new": new,
    }


def _popularity(
    popularity: Int64,
    data: Interactions,
    users: Int64,
    target_of: Int64,
    *,
    ks: Sequence[int],
    filter_seen: bool,
) -> dict[str, float]:
    """The same lists from the training popularity alone."""
    order = np.argsort(-popularity, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ranks = place[target_of[users]] + 1
    if filter_seen:
        seen = seen_items(data, users)
        ahead = [(place[s] < p - 1).sum() for s, p in zip(seen, ranks, strict=True)]
        ranks = ranks - np.array(ahead, np.int64)
    return ranking_metrics(ranks, ks)


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result for programs, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.rename(path)
