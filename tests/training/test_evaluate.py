"""Offline evaluation against a brute-force ranking in float64, user by user."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.errors import DatasetError
from model.towers import TwoTower
from tests.model.reference import plain_interests, plain_states, randomise
from tests.training.tiny import SECOND, TINY, interactions, run_of, schema
from training.dataset import Interactions
from training.evaluate import (
    evaluate_run,
    held_out,
    popularity_buckets,
    validation_metrics,
    write_json,
)
from training.run import Run

LENGTHS = [1, 2, 3, 4, 5, 9, 14, 3, 20, 7, 6, 5, 4, 12]
DATA = interactions(LENGTHS, num_items=40, seed=3)


def made(num_interests: int) -> tuple[Run, TwoTower]:
    config = replace(TINY, num_interests=num_interests, content=False)
    tower = config.tower(
        num_items=DATA.num_items,
        num_events=2,
        item_features=(),
        profile_features=(),
        has_order=True,
        has_times=True,
    )
    run = run_of(tower, DATA, config=config)
    return run, randomise(TwoTower(tower), seed=num_interests)


def test_what_is_held_out_by_hand() -> None:
    data = Interactions(
        schema(),
        np.array([0, 4, 6, 9]),
        np.array([7, 8, 9, 6, 1, 2, 3, 4, 5], np.int32),
        np.ones(9, np.int32),
        np.array([0, 10, 40, 45, 0, 1, 100, 160, 150]) * SECOND,
        np.ones(9, np.float32),
        num_items=10,
    )
    # User 1 has two events: not evaluated, and keeps both.
    history, users, targets, idle = held_out(data, "test")
    assert (users.tolist(), targets.tolist()) == ([0, 2], [6, 5])
    assert idle.tolist() == [5, 0]  # 45 - 40; a clock that ran backwards was idle for 0 seconds
    assert history.items.tolist() == [7, 8, 9, 1, 2, 3, 4]
    history, users, targets, idle = held_out(data, "validation")
    assert (users.tolist(), targets.tolist(), idle.tolist()) == ([0, 2], [9, 4], [30, 60])
    assert history.items.tolist() == [7, 8, 1, 2, 3]
    assert data.head(held_out=2).popularity().tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1, 0]


def by_hand(
    run: Run, model: TwoTower, split: str, *, filter_seen: bool, depth: int
) -> dict[int, list[int]]:
    """User → list of item rows, each user alone, in float64, with quotas worked out plainly."""
    exact = TwoTower(run.tower)
    exact.load_state_dict(model.state_dict())
    exact.double().eval()
    back = 1 if split == "test" else 2
    with torch.no_grad():
        vectors = exact.item_tower(run.items.id_codes, {})
        lists = {}
        for user in range(DATA.num_users):
            span = slice(DATA.starts[user], DATA.starts[user + 1] - back)
            if DATA.lengths[user] < 3:
                continue
            rows = torch.from_numpy(DATA.items[span].astype(np.int64))
            times, moment = DATA.times[span], DATA.times[span.stop]
            window = slice(-run.tower.max_history, None)
            states = plain_states(
                exact,
                vectors[rows[window]],
                torch.from_numpy(DATA.events[span][window].astype(np.int64)),
                torch.from_numpy(np.diff(times[window], prepend=times[window][:1]) / 1e6),
            )
            idle = torch.tensor((moment - times[-1]) / 1e6)
            scores = plain_interests(exact, states[-1], idle) @ vectors.T
            seen = set(rows.tolist()) if filter_seen else set()
            ranked = [
                [r for r in row.argsort(descending=True, stable=True).tolist() if r not in seen][
                    :depth
                ]
                for row in scores
            ]
            lists[user] = in_turns(ranked, scores.max(dim=0).values.tolist())[:depth]
    return lists


def in_turns(ranked: list[list[int]], best: list[float]) -> list[int]:
    """The 1st of every interest, then the 2nd of every one; within a turn the best score first."""
    merged: list[int] = []
    for turn in zip(*ranked, strict=True):
        merged += sorted(set(turn) - set(merged), key=lambda row: -best[row])
    return merged


def metrics_of(ranks: list[int | None], k: int) -> dict[str, float]:
    hits = [rank for rank in ranks if rank is not None and rank <= k]
    return {
        f"hr@{k}": len(hits) / len(ranks),
        f"recall@{k}": len(hits) / len(ranks),
        f"ndcg@{k}": sum(1 / math.log2(1 + rank) for rank in hits) / len(ranks),
        f"mrr@{k}": sum(1 / rank for rank in hits) / len(ranks),
    }


def targets_of(split: str, *, only_first_time: bool) -> dict[int, int]:
    """User → target; without those whose target is in their history, if only_first_time."""
    targets = {}
    for user in range(DATA.num_users):
        place = int(DATA.starts[user + 1]) - (1 if split == "test" else 2)
        history = DATA.items[DATA.starts[user] : place].tolist()
        target = int(DATA.items[place])
        if DATA.lengths[user] >= 3 and not (only_first_time and target in history):
            targets[user] = target
    return targets


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize(("split", "interests"), [("test", 1), ("validation", 1), ("test", 3)])
def test_ranks_are_those_of_brute_force(
    split: Literal["test", "validation"], interests: int, filter_seen: bool
) -> None:
    run, model = made(interests)
    found = evaluate_run(run, model, split=split, ks=(3, 10), filter_seen=filter_seen)
    lists, targets = (
        by_hand(run, model, split, filter_seen=filter_seen, depth=10),
        targets_of(split, only_first_time=filter_seen),
    )
    lists = {user: lists[user] for user in targets}
    assert len(targets) < 12 or not filter_seen  # or the rule is not tried
    assert found["protocol"] == {
        "split": f"leave-one-out, {split}",
        "ranking": "full",
        "num_items": 40,
        "num_users": len(targets),
        "num_repeats_left_out": 12 - len(targets),
        "seen_items": "filtered" if filter_seen else "kept",
    }
    ranks = [
        lists[user].index(target) + 1 if target in lists[user] else None
        for user, target in targets.items()
    ]
    assert sum(rank is not None for rank in ranks) >= 2
    covered = len({row for rows in lists.values() for row in rows}) / 40
    expected = {**metrics_of(ranks, 3), **metrics_of(ranks, 10), "coverage@10": covered}
    assert found["model"] == pytest.approx(expected)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_popularity_is_ranked_by_brute_force(filter_seen: bool) -> None:
    run, model = made(1)
    found = evaluate_run(run, model, ks=(5, 40), filter_seen=filter_seen)["popularity"]
    counts = [0] * 40
    for user in range(DATA.num_users):
        events = DATA.items[DATA.starts[user] : DATA.starts[user + 1]].tolist()
        for item in events[:-2] if len(events) >= 3 else events:
            counts[item] += 1
    order = sorted(range(40), key=lambda item: (-counts[item], item))
    ranks: list[int | None] = []
    for user, target in targets_of("test", only_first_time=filter_seen).items():
        history = DATA.items[DATA.starts[user] : DATA.starts[user + 1] - 1].tolist()
        seen = set(history) if filter_seen else set()
        ranks.append([item for item in order if item not in seen].index(target) + 1)
    assert found == pytest.approx({**metrics_of(ranks, 5), **metrics_of(ranks, 40)})


def test_buckets_part_the_targets_by_popularity() -> None:
    # 20 items: the top 2 are head, the next 8 torso, the rest tail; without an event: new.
    popularity = np.array([*range(20, 4, -1), 0, 0, 0, 0])
    targets = np.array([0, 1, 2, 9, 10, 15, 16, 19])
    buckets = popularity_buckets(popularity, targets)
    names = [next(n for n, inside in buckets.items() if inside[i]) for i in range(8)]
    assert names == ["head", "head", "torso", "torso", "tail", "tail", "new", "new"]
    assert (np.stack(list(buckets.values())).sum(axis=0) == 1).all()


def test_buckets_of_a_run_add_up_to_the_whole() -> None:
    run, model = made(1)
    found = evaluate_run(run, model, ks=(10,))
    popularity = run.training_data.popularity()
    targets = list(targets_of("test", only_first_time=True).values())
    places = popularity_buckets(popularity, np.array(targets))
    weighted = sum(found["buckets"][n]["hr@10"] * places[n].sum() for n in found["buckets"])
    assert weighted / len(targets) == pytest.approx(found["model"]["hr@10"])


def test_a_sample_of_users_is_seeded_and_validation_uses_it() -> None:
    run, model = made(1)
    some = evaluate_run(run, model, sample=5)
    assert some["protocol"]["num_users"] == 5
    assert some == evaluate_run(run, model, sample=5)
    assert evaluate_run(run, model, sample=500) == evaluate_run(run, model)
    limited = replace(run, config=replace(run.config, validation_users=5))
    expected = evaluate_run(run, model, split="validation", ks=(10, 50), sample=5)
    assert validation_metrics(limited, model) == expected["model"]


def test_nothing_to_hold_out_is_said_so() -> None:
    with pytest.raises(DatasetError, match=r"no user has 3 events .* give more events"):
        held_out(interactions([1, 2, 2, 1], num_items=5), "test")


def test_a_result_is_written_whole(tmp_path: Path) -> None:
    result: dict[str, Any] = {"model": {"hr@10": 0.25}}
    write_json(result, tmp_path / "test.json")
    write_json(result, tmp_path / "test.json")
    assert json.loads((tmp_path / "test.json").read_text()) == result
    assert [p.name for p in tmp_path.iterdir()] == ["test.json"]


def test_repeats_weigh_nothing_where_they_are_not_learned() -> None:
    items = np.array([4, 5, 4, 4, 5, 4], np.int32)
    data = Interactions(
        schema(),
        np.array([0, 4, 6]),
        items,
        np.ones(6, np.int32),
        np.arange(6),
        np.arange(1, 7).astype(np.float32),
        num_items=6,
    )
    weights: npt.NDArray[np.float32] = data.without_repeats().weights
    assert weights.tolist() == [1, 2, 0, 0, 5, 6]
    assert data.without_repeats().items is items
