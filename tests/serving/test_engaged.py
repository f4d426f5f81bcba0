"""A bundle whose value model learned from candidates: what Recommend ranks for it."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import open_bundle
from model.manifest import DIGEST, MANIFEST
from serving.config import ServerConfig
from serving.domain import (
    NO_LIMIT,
    AnyOf,
    History,
    ItemChange,
    RecommendRequest,
    RerankRequest,
    UserQuery,
)
from serving.live.ingest import UpsertRequest
from serving.runtime import Runtime
from tests.model.test_manifest import remanifest
from tests.serving.tiny import START, World, item_id
from tests.serving.tiny_value import add_value, probabilities

RULE = {"retrieved": 40, "engaged": 6, "seen": "converted"}
NOW_US = int(START.timestamp() * 1e6) + 3 * 86_400_000_000

Open = Callable[[Mapping[str, Any] | None], Runtime]


@pytest.fixture(scope="module")
def opened(world: World, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """A runtime over a bundle whose lists are made by a rule."""
    runtimes: dict[str, Runtime] = {}

    def open_with(rule: Mapping[str, Any] | None) -> Runtime:
        name = json.dumps(rule)
        if name not in runtimes:
            folder = tmp_path_factory.mktemp("candidates") / "bundle"
            bundle = add_value(world, folder, candidates=None if rule is None else dict(rule))
            runtimes[name] = Runtime(ServerConfig(bundle=bundle, state=state))
        return runtimes[name]

    yield open_with
    for runtime in runtimes.values():
        runtime.close()


def shown(runtime: Runtime, user: UserQuery, **options: Any) -> list[int]:
    """The rows of a slate of all candidates."""
    request = RecommendRequest(queries=[user], k=1, time_us=NOW_US, **options)
    request.num_candidates = options.get("num_candidates", 40)
    request.k = request.num_candidates
    answer, slates = runtime.recommend(request)
    assert answer.candidates is not None and slates.left_out == ()
    rows: list[int] = answer.candidates.rows.tolist()
    return rows


def history_of(world: World, user: str) -> tuple[list[int], list[bool]]:
    """Item rows, and whether each event is an order."""
    rows = world.histories[user]
    return rows, [i % 3 == 2 for i in range(len(rows))]


def engaged(world: World, user: str, most: int) -> list[int]:
    """What the user watched and did not order, the last first."""
    rows, orders = history_of(world, user)
    ordered = {row for row, order in zip(rows, orders, strict=True) if order}
    newest = dict.fromkeys(reversed(rows))
    return [r for r in newest if r not in ordered and r < world.num_active][:most]


def test_what_was_engaged_with_comes_after_what_is_found(opened: Open, world: World) -> None:
    runtime = opened(RULE)
    for user in ("user-039", "user-013", "user-119"):
        rows = shown(runtime, UserQuery(user))
        history, orders = history_of(world, user)
        ordered = {row for row, order in zip(history, orders, strict=True) if order}
        assert len(set(rows)) == len(rows) and not ordered & set(rows)
        added = [row for row in engaged(world, user, 6) if row not in rows[:40]]
        assert rows[40:] == added and added
    assert len(shown(runtime, UserQuery("user-000"))) == 40  # who has done nothing yet
    assert len(shown(runtime, UserQuery(vectors=world.vectors[:1]))) == 40


def test_its_score_is_the_best_of_the_interests(opened: Open, world: World) -> None:
    request = RecommendRequest(queries=[UserQuery("user-039")], k=40, time_us=NOW_US)
    answer, _ = opened(RULE).recommend(request)
    assert request.num_candidates == 40  # the bundle's, where nobody says
    assert answer.candidates is not None
    found = answer.candidates
    products = world.vectors[found.rows] @ answer.vectors[0].T
    np.testing.assert_allclose(found.scores[40:], products.max(axis=1)[40:], atol=1e-5)
    assert found.interests[40:].tolist() == products.argmax(axis=1)[40:].tolist()


def test_filters_and_exclusions_hold_for_it(opened: Open, world: World) -> None:
    runtime, user = opened(RULE), "user-039"
    silver = AnyOf("craft", ("silver",))
    rows = shown(runtime, UserQuery(user), filters=(silver,))
    assert {world.crafts[row] for row in rows} == {"silver"}
    everything = engaged(world, user, 100)
    left = [row for row in everything if world.crafts[row] == "silver"][:6]
    assert rows[40:] == [row for row in left if row not in rows[:40]] and left
    first = engaged(world, user, 6)[0]
    rows = shown(runtime, UserQuery(user, exclude_item_ids=[item_id(first)]))
    assert first not in rows and len(rows[40:]) > 0


def test_the_bundle_says_what_is_left_out(opened: Open, world: World) -> None:
    user = UserQuery("user-039")
    history, orders = history_of(world, "user-039")
    for rule in (None, {**RULE, "seen": "filter"}):
        assert not set(history) & set(shown(opened(rule), user))
    all_items = shown(opened({**RULE, "seen": "keep"}), user, num_candidates=580)
    assert len(all_items) == world.num_active
    all_items = shown(opened(RULE), user, num_candidates=580, include_seen=True)
    assert len(all_items) == world.num_active
    assert any(orders)


def test_several_queries_have_their_own(opened: Open, world: World) -> None:
    watched = UserQuery(history=History([item_id(5), item_id(9)], ["watch", "order"]))
    queries = [UserQuery("user-039"), watched, UserQuery(vectors=world.vectors[:3])]
    request = RecommendRequest(queries=queries, k=40, num_candidates=40, time_us=NOW_US)
    answer, _ = opened(RULE).recommend(request)
    assert answer.candidates is not None
    rows = np.split(answer.candidates.rows, np.cumsum(answer.candidates.counts)[:-1])
    for query, found in zip(queries, rows, strict=True):
        assert found.tolist() == shown(opened(RULE), query)
    assert 5 in rows[1] and 9 not in rows[1]


def test_live_items_are_engaged_with_too(world: World, tmp_path: Path) -> None:
    bundle = add_value(world, tmp_path / "bundle", candidates=dict(RULE))
    runtime = Runtime(ServerConfig(bundle=bundle, state=tmp_path / "state"))
    try:
        changes = [
            ItemChange(
                item_id=f"new-{craft}", kind="product", features={"title": craft, "craft": craft}
            )
            for craft in ("silver", "bamboo")
        ]
        assert not runtime.upsert_items(UpsertRequest(changes=changes, budget=NO_LIMIT)).errors
        runtime.follower.look()
        names = ["new-silver", item_id(4), "new-bamboo", item_id(3)]
        user = UserQuery(history=History(names, ["watch"] * 4))
        rows = runtime.catalogue.rows_of(names).tolist()
        assert min(rows) >= 0 and set(rows) <= set(shown(runtime, user))
        silver = AnyOf("craft", ("silver",))
        crafts = [world.crafts[4], world.crafts[3]]
        assert crafts == ["bamboo", "silver"]
        wanted = set(shown(runtime, user, filters=(silver,)))
        assert {rows[0], rows[3]} <= wanted and not {rows[1], rows[2]} & wanted
        runtime.delete_items(["new-silver"])
        runtime.follower.look()
        assert rows[0] not in shown(runtime, user)
    finally:
        runtime.close()


def test_a_bundle_of_format_2_ranks_as_it_did(world: World, state: Path, tmp_path: Path) -> None:
    bundle = add_value(world, tmp_path / "bundle", reads_past=False)
    remanifest(bundle, format=2)
    assert (bundle / DIGEST).exists() and json.loads((bundle / MANIFEST).read_text())["format"] == 2
    opened_bundle = open_bundle(bundle)
    assert opened_bundle.value is not None and opened_bundle.value.candidates is None
    runtime = Runtime(ServerConfig(bundle=bundle, state=state))
    names = [item_id(row) for row in (3, 5, 9)]
    user = UserQuery(history=History(names, ["watch", "order", "order"]))
    request = RerankRequest(queries=[user], item_ids=names, counts=[3], time_us=NOW_US)
    answer, slates = runtime.rerank(request)
    items = np.asarray(opened_bundle.value.items)[[3, 5, 9]]
    scores = (world.vectors[[3, 5, 9]] @ answer.vectors[0].T).max(axis=1)
    times = (items, [1, 2, 2], [0.0, 0.0, 0.0], 0.0)
    expected = probabilities(*times, answer.vectors[0], 0, items, scores)
    order = np.argsort(slates.retrieval_ranks)
    np.testing.assert_allclose(slates.chances[order], expected, atol=2e-5)
    runtime.close()
