"""Offline evaluation against a brute-force ranking in float64, user by user."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest
import torch

import training.evaluate as evaluating
from model.towers import TwoTower
from tests.model.reference import plain_interests, plain_states, randomise
from tests.training.tiny import TINY, interactions, run_of, schema
from training import tower_ranker
from training.config import Seen
from training.dataset import Interactions
from training.evaluate import (
    discoveries,
    evaluate,
    evaluate_run,
    find_buckets,
    validation_metrics,
    write_evaluation,
)
from training.run import Run
from training.splits import Part, Questions
from training.taste_circles import taste_circles
from training.tower_ranker import search_interests

LENGTHS = [1, 2, 3, 4, 5, 9, 14, 3, 20, 7, 6, 5, 4, 12]
DATA = interactions(LENGTHS, num_items=40, seed=3)
ITEMS = Path("items.parquet")
"""items.parquet of the 40 items; the fixture below puts it where a dataset would have it."""


@pytest.fixture(scope="module", autouse=True)
def items_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    global ITEMS
    ITEMS = tmp_path_factory.mktemp("dataset") / "items.parquet"
    pl.DataFrame({"title": [f"item {row}" for row in range(40)]}).write_parquet(ITEMS)
    yield


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
    run = run_of(tower, DATA, config=config, dataset=ITEMS.parent)
    return run, randomise(TwoTower(tower), seed=num_interests)


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


@pytest.mark.parametrize("seen", ["filter", "keep"])
@pytest.mark.parametrize(("part", "interests"), [("test", 1), ("validation", 1), ("test", 3)])
def test_ranks_are_those_of_brute_force(part: Part, interests: int, seen: Seen) -> None:
    run, model = made(interests)
    found = evaluate_run(run, model, part=part, ks=(3, 10), seen=seen, baselines=())
    filter_seen = seen == "filter"
    lists = by_hand(run, model, part, filter_seen=filter_seen, depth=10)
    targets = targets_of(part, only_first_time=filter_seen)
    lists = {user: lists[user] for user in targets}
    assert len(targets) < 12 or not filter_seen  # or the rule is not tried
    discoveries = found.protocol.pop("num_discoveries")
    assert found.protocol == {
        "split": "leave-one-out",
        "part": part,
        "ranking": "full",
        "seen": seen,
        "num_items": 40,
        "num_users": len(targets),
        "num_users_in_part": len(targets),
        "num_targets": len(targets),
        "num_targets_left_out": 12 - len(targets),
        "ks": [3, 10],
        "not_allowed": {},
    }
    ranks = [
        lists[user].index(target) + 1 if target in lists[user] else None
        for user, target in targets.items()
    ]
    assert sum(rank is not None for rank in ranks) >= 2
    covered = len({row for rows in lists.values() for row in rows}) / 40
    expected = {**metrics_of(ranks, 3), **metrics_of(ranks, 10), "coverage@10": covered}
    metrics = found.metrics["towers"]
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert ("discovery@10" in metrics) == (discoveries > 0)
    # Every user's own metrics are in the table.
    users = found.users
    assert users["user"].to_list() == list(targets)
    hits = [float(rank is not None and rank <= 3) for rank in ranks]
    assert users["towers/hr@3"].to_list() == hits
    if not filter_seen:
        known = [DATA.items[: DATA.starts[user + 1]].tolist() for user in targets]
        assert known and set(found.buckets["towers"]) >= {"seen", "unseen"}


@pytest.mark.parametrize("seen", ["filter", "keep"])
def test_popularity_is_ranked_by_brute_force(seen: Seen) -> None:
    run, model = made(1)
    found = evaluate_run(run, model, ks=(5, 40), seen=seen).metrics["popularity"]
    counts = [0] * 40
    for user in range(DATA.num_users):
        events = DATA.items[DATA.starts[user] : DATA.starts[user + 1]].tolist()
        for item in events[:-2] if len(events) >= 3 else events:
            counts[item] += 1
    order = sorted(range(40), key=lambda item: (-counts[item], item))
    ranks: list[int | None] = []
    for user, target in targets_of("test", only_first_time=seen == "filter").items():
        history = DATA.items[DATA.starts[user] : DATA.starts[user + 1] - 1].tolist()
        gone = set(history) if seen == "filter" else set()
        ranks.append([item for item in order if item not in gone].index(target) + 1)
    expected = {**metrics_of(ranks, 5), **metrics_of(ranks, 40)}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def questions(histories: list[list[int]], targets: list[list[int]], *, num_items: int) -> Questions:
    """Users 0, 1, ... with these histories and targets."""
    flat = np.array([item for items in histories for item in items], np.int32)
    data = Interactions(
        schema(),
        np.cumsum([0, *map(len, histories)]),
        flat,
        np.ones(len(flat), np.int32),
        np.arange(len(flat)),
        np.ones(len(flat), np.float32),
        np.zeros(len(flat), np.int8),
        num_items,
    )
    return Questions(
        data,
        np.arange(len(targets)),
        np.cumsum([0, *map(len, targets)]),
        np.array([item for items in targets for item in items]),
        np.zeros(len(targets), np.float32),
        0,
    )


def test_buckets_by_hand() -> None:
    # 20 items: the top 2 are head, the next 8 torso, the rest tail; without an event: new.
    popularity = np.array([*range(20, 4, -1), 0, 0, 0, 0])
    asked = questions([[0, 9], []], [[0, 1, 2, 9, 10], [15, 16, 19]], num_items=20)
    buckets = find_buckets(asked, popularity, seen="keep")
    by_item = ["head", "torso", "tail", "new items"]
    names = [next(n for n in by_item if buckets[n][i]) for i in range(8)]
    assert names == [*("head", "head", "torso", "torso"), *("tail", "tail"), *["new items"] * 2]
    assert (np.stack([buckets[n] for n in by_item]).sum(axis=0) == 1).all()
    assert buckets["new users"].tolist() == [False] * 5 + [True] * 3
    assert buckets["seen"].tolist() == [True, False, False, True, *[False] * 4]
    assert (buckets["unseen"] == ~buckets["seen"]).all()
    assert "seen" not in find_buckets(asked, popularity, seen="filter")


def test_a_discovery_is_a_target_in_a_circle_that_is_new_to_the_user() -> None:
    circles = np.array([0, 0, 1, 1, 2, -1])
    asked = questions([[0], [2, 4], []], [[1, 2, 4], [3, 0, 5], [0]], num_items=6)
    found = discoveries(asked, circles)
    # Item 5 has no circle; of a user without a history everything would be new.
    assert found.tolist() == [False, True, True, False, True, False, False]


class Fixed:
    """Gives everyone the same list, less what is excluded."""

    def __init__(self, name: str, rows: list[int]) -> None:
        self.name, self.rows = name, rows

    def top(
        self, histories: Interactions, users: Any, k: int, *, excluded: Any
    ) -> npt.NDArray[np.int64]:
        out = np.full((len(users), k), -1, np.int64)
        for i in range(len(users)):
            rows = [r for r in self.rows if excluded is None or r not in excluded[i]][:k]
            out[i, : len(rows)] = rows
        return out


def test_an_evaluation_of_several_targets_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "BATCH_USERS", 2)  # users are put into batches by length
    asked = questions([[0], [2, 4, 1], [5]], [[1, 2], [3], [0, 4, 1]], num_items=6)
    rankers = [Fixed("one", [1, 3, 0, 2]), Fixed("other", [5, 4, 3])]
    circles = np.array([0, 0, 1, 1, 2, 2])
    found = evaluate(
        asked, rankers, ks=(2,), popularity=np.arange(6), seen="filter", circles=circles
    )
    # Without what they had: user 0 is listed 1, 3; user 1 3, 0; user 2 1, 3.
    assert found.users["one/recall@2"].to_list() == pytest.approx([1 / 2, 1, 1 / 3])
    assert found.users["other/recall@2"].to_list() == pytest.approx([0, 1, 1 / 3])
    assert found.metrics["one"]["recall@2"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    # Discoveries: user 0's item 2 (not listed), none of user 1's, user 2's 0 and 1 (1 is listed).
    assert found.users["one/discovery@2"].to_list() == [0, None, 1 / 2]
    assert found.metrics["one"]["discovery@2"] == 1 / 4
    assert found.metrics["one"]["coverage@2"] == 3 / 6
    gap = found.differences(["recall@2"])["other"]["recall@2"]
    assert gap.mean == pytest.approx(1 / 6) and gap.num_users == 3


def test_buckets_of_a_run_add_up_to_the_whole() -> None:
    run, model = made(1)
    found = evaluate_run(run, model, ks=(10,))
    buckets = found.buckets["towers"]
    parts = [buckets[n] for n in ("head", "torso", "tail", "new items") if n in buckets]
    assert len(parts) >= 3
    weighted = sum(part["hr@10"] * part["num_users"] for part in parts)
    assert weighted / len(found.users) == pytest.approx(found.metrics["towers"]["hr@10"])


def test_a_sample_of_users_is_seeded_and_validation_uses_it() -> None:
    run, model = made(1)
    some = evaluate_run(run, model, sample=5)
    assert (some.protocol["num_users"], some.protocol["num_users_in_part"]) == (
        5,
        len(evaluate_run(run, model).users),
    )
    assert some.to_json() == evaluate_run(run, model, sample=5).to_json()
    assert evaluate_run(run, model, sample=500).to_json() == evaluate_run(run, model).to_json()
    limited = replace(run, config=replace(run.config, validation_users=5))
    expected = evaluate_run(run, model, part="validation", sample=5, with_circles=False)
    assert validation_metrics(limited, model) == expected.metrics["towers"]


def test_runs_of_two_seeds_are_asked_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sample of users, and the same circles of taste to discover, whatever the seed."""
    run, model = made(1)
    other = replace(run, config=replace(run.config, seed=run.config.seed + 1))
    one, two = (evaluate_run(r, model, sample=9, ks=(40,)) for r in (run, other))
    assert one.to_json() == two.to_json() and one.users.equals(two.users)
    assert one.protocol["num_discoveries"] > 0


def test_a_large_catalogue_is_scanned_to_the_same_lists() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(3000, 8)).astype(np.float32)
    interests = rng.normal(size=(7, 3, 8)).astype(np.float32)
    excluded = [np.sort(rng.choice(3000, n, replace=False)) for n in (0, 1, 5, 40, 300, 2995, 3000)]
    expected, _ = search_interests(interests, vectors, 20, excluded=excluded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tower_ranker, "FAISS_ROWS", 100)
        np.testing.assert_array_equal(
            search_interests(interests, vectors, 20, excluded=excluded)[0], expected
        )
    assert (expected[6] == -1).all() and (expected[5] >= 0).sum() == 5


def test_circles_of_taste_put_together_what_the_same_people_like() -> None:
    # Two camps of users, each with its own items; item 40 is nobody's.
    rng = np.random.default_rng(4)
    rows = [rng.choice(20, 8, replace=False) + 20 * (user % 2) for user in range(60)]
    camps = replace(
        interactions([8] * 60, num_items=41), items=np.concatenate(rows).astype(np.int32)
    )
    circles = taste_circles(camps, seed=1)
    assert circles[40] == -1 and (circles[:40] >= 0).all()
    assert not set(circles[:20].tolist()) & set(circles[20:40].tolist())
    np.testing.assert_array_equal(circles, taste_circles(camps, seed=1))


def test_a_result_is_written_whole(tmp_path: Path) -> None:
    run, model = made(1)
    found = evaluate_run(run, model, ks=(10,))
    ids = [f"u{user}" for user in range(DATA.num_users)]
    items = pa.chunked_array([[f"i{item}" for item in range(40)]])
    for _ in range(2):
        write_evaluation(found, tmp_path / "test.json", user_ids=ids, item_ids=items)
    body = json.loads((tmp_path / "test.json").read_text())
    assert body["metrics"] == found.metrics and set(body["seconds"]) == {"towers", "popularity"}
    table = pl.read_parquet(tmp_path / "test.parquet")
    assert table["user_id"].to_list() == [f"u{user}" for user in found.users["user"]]
    targets = targets_of("test", only_first_time=True)
    assert table["targets"].to_list() == [[f"i{item}"] for item in targets.values()]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test.json", "test.parquet"]


def test_what_is_not_asked_for_weighs_as_much_as_the_config_says() -> None:
    data = interactions([3, 5], num_items=9, num_events=2, seed=1)
    asked = data.schema.history_events[1]
    found = data.weighing_others((asked,), 0.25)
    expected = np.where(data.events == 2, 1, 0.25) * data.weights
    assert found.weights.tolist() == pytest.approx(expected.tolist())
    assert 0 < (data.events == 2).sum() < 8 and found.items is data.items


def test_repeats_weigh_nothing_where_they_are_not_learned() -> None:
    items = np.array([4, 5, 4, 4, 5, 4], np.int32)
    data = Interactions(
        schema(),
        np.array([0, 4, 6]),
        items,
        np.ones(6, np.int32),
        np.arange(6),
        np.arange(1, 7).astype(np.float32),
        np.zeros(6, np.int8),
        num_items=6,
    )
    weights: npt.NDArray[np.float32] = data.without_repeats().weights
    assert weights.tolist() == [1, 2, 0, 0, 5, 6]
    assert data.without_repeats().items is items
