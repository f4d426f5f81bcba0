"""Recommend and Rerank on a real socket, against values worked out from the hand-made models."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from model.bundle import open_bundle
from serving.client import AsyncClient, Client
from serving.domain import AnyOf, Cap, History, KindShare, SlateRules, UserQuery
from serving.errors import BadRequest, UnknownField
from serving.results import Recommended
from tests.serving.processes import Served
from tests.serving.tiny import CITIES, START, World, item_id
from tests.serving.tiny_value import HEADS, VALUE_MAX_HISTORY, probabilities

NOW = START + timedelta(days=3)
NOW_US = int(NOW.timestamp() * 1e6)


@pytest.fixture(scope="module")
def client(value_server: Served) -> Iterator[Client]:
    with Client(value_server.address, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def items(value_bundle: Path) -> np.ndarray:
    value = open_bundle(value_bundle).value
    assert value is not None
    return np.asarray(value.items)


def row(name: str) -> int:
    return int(name.removeprefix("item-"))


def chances_of(world: World, items: np.ndarray, user: int, names: list[str]) -> np.ndarray:
    """[n, heads] for items shown to a stored user at NOW, from the fixtures' docstrings."""
    history = world.histories[f"user-{user:03d}"]
    city = user % 3
    interests = world.interests(history, city=("", *CITIES)[city])
    first = max(len(history) - VALUE_MAX_HISTORY, 0)
    window = range(first, len(history))
    last = START + timedelta(hours=len(history) - 1)
    rows = [row(name) for name in names]
    done = Counter((r, i % 3 == 2) for i, r in enumerate(history))
    return probabilities(
        items[[history[i] for i in window]],
        [2 if i % 3 == 2 else 1 for i in window],
        [0.0 if i == first else 3600.0 for i in window],
        (NOW - last).total_seconds() if history else 0.0,
        interests,
        city,
        items[rows],
        (world.vectors[rows] @ interests.T).max(axis=1),
        np.log1p([[done[r, False], done[r, True]] for r in rows]),
    )


@pytest.mark.parametrize("user", [0, 1, 5, 39, 119])
def test_values_are_those_of_the_model(
    client: Client, world: World, items: np.ndarray, user: int
) -> None:
    shown = client.recommend(f"user-{user:03d}", k=30, num_candidates=80, time_us=NOW_US)
    expected = chances_of(world, items, user, shown.item_ids)
    for i, head in enumerate(HEADS):
        np.testing.assert_allclose(shown.chances[head], expected[:, i], atol=2e-5)
    # The weights of dataset.toml: a watch 1, an order 3.
    np.testing.assert_allclose(shown.values, expected @ [1.0, 3.0], atol=1e-4)
    assert (np.diff(shown.values) <= 1e-6).all() and shown.counts.tolist() == [30]
    assert shown.value_ranks.tolist() == list(range(30)) and set(shown.reasons) == {"value"}
    assert len(set(shown.retrieval_ranks.tolist())) == 30 and shown.retrieval_ranks.max() < 80
    assert shown.source.left_out == () and shown.errors == ()
    assert shown.cold.tolist() == [user == 0]


def test_it_ranks_what_retrieve_finds(client: Client) -> None:
    found = client.retrieve("user-007", k=60, exclude_seen=True, time_us=NOW_US)
    shown = client.recommend("user-007", k=60, num_candidates=60, time_us=NOW_US)
    assert sorted(shown.item_ids) == sorted(found.item_ids)
    for name, rank, score, circle in zip(
        shown.item_ids, shown.retrieval_ranks, shown.scores, shown.circles, strict=True
    ):
        assert found.item_ids[rank] == name and found.circles[rank] == circle
        assert score == pytest.approx(found.scores[rank], abs=1e-6)


def test_seen_items_are_shown_only_on_request(client: Client, world: World) -> None:
    seen = {item_id(r) for r in world.histories["user-039"]}
    without = client.recommend("user-039", k=200, num_candidates=580, time_us=NOW_US)
    assert not seen & set(without.item_ids)
    everything = client.recommend(
        "user-039", k=580, num_candidates=580, include_seen=True, time_us=NOW_US
    )
    assert len(everything.item_ids) == world.num_active


def test_weights(client: Client, world: World, items: np.ndarray) -> None:
    shown = client.recommend("user-005", k=20, weights={"order": 2.0}, time_us=NOW_US)
    expected = chances_of(world, items, 5, shown.item_ids)
    np.testing.assert_allclose(shown.values, 2 * expected[:, 1], atol=1e-4)
    against = client.recommend("user-005", k=20, weights={"watch": -1.0}, time_us=NOW_US)
    assert (np.diff(against.chances["watch"]) >= -1e-6).all()


def test_a_batch_is_as_one_by_one(client: Client, world: World) -> None:
    users: list[str | UserQuery] = [
        "user-003",
        UserQuery(history=History([item_id(4), item_id(9)], ["watch", "order"])),
        UserQuery(vectors=world.vectors[:1]),
        UserQuery(vectors=world.vectors[:3]),
        "nobody",
    ]
    slate = SlateRules(diversity=0.4, caps=(Cap("craft", 4),), kinds=(KindShare("live", 0.2),))
    together = client.recommend(users, k=12, time_us=NOW_US, slate=slate)
    for i, user in enumerate(users):
        alone = client.recommend(user, k=12, time_us=NOW_US, slate=slate)
        place = together.query(i)
        assert together.item_ids[place] == alone.item_ids
        np.testing.assert_allclose(together.values[place], alone.values, atol=1e-5)
        assert together.reasons[place] == alone.reasons
        assert together.cold[i] == alone.cold[0]


def test_caps_hold(client: Client, world: World) -> None:
    caps = (Cap("craft", 2), Cap("circle", 3))
    shown = client.recommend("user-011", k=40, slate=SlateRules(caps=caps), fields=["craft"])
    crafts = [craft for craft in shown.columns["craft"] if craft]
    assert all(crafts.count(craft) == 2 for craft in ("silver", "bamboo", "leather"))
    named = [circle for circle in shown.circles if circle]
    assert all(named.count(circle) <= 3 for circle in set(named))
    # An item without craft and circle counts for neither, and there are enough of those.
    assert len(shown.item_ids) > 6


def test_shares_of_kinds_are_kept(client: Client) -> None:
    slate = SlateRules(kinds=(KindShare("live", 0.5), KindShare("creator", 0.25)))
    shown = client.recommend("user-011", k=20, num_candidates=20, slate=slate, fields=["kind"])
    kinds = list(shown.columns["kind"])
    assert kinds.count("live") >= 10 and kinds.count("creator") >= 5 and len(kinds) == 20
    assert "kind_share" in shown.reasons and shown.errors == ()


def test_a_share_that_cannot_be_kept_is_named(client: Client) -> None:
    shown = client.recommend(
        ["user-011", "user-012"],
        k=10,
        filters=[AnyOf("kind", ("video",))],
        slate=SlateRules(kinds=(KindShare("live", 0.3),)),
        fields=["kind"],
    )
    assert set(shown.columns["kind"]) == {"video"} and shown.counts.tolist() == [10, 10]
    assert [(e.index, e.code, e.field) for e in shown.errors] == [
        (0, "SHARE_NOT_MET", "slate.kinds[0]"),
        (1, "SHARE_NOT_MET", "slate.kinds[0]"),
    ]
    assert "3 items of kind 'live'" in shown.errors[0].message


def test_diversity_costs_value_and_says_so(client: Client, world: World) -> None:
    plain = client.recommend("user-011", k=20, time_us=NOW_US)
    varied = client.recommend("user-011", k=20, time_us=NOW_US, slate=SlateRules(diversity=0.8))
    assert varied.item_ids[0] == plain.item_ids[0]
    assert varied.values.sum() < plain.values.sum() and "diversity" in varied.reasons

    def likeness(shown: Recommended) -> float:
        vectors = world.vectors[[row(name) for name in shown.item_ids]]
        return float((vectors @ vectors.T).mean())

    assert likeness(varied) < likeness(plain)


def test_rerank_ranks_the_callers_candidates(
    client: Client, world: World, items: np.ndarray
) -> None:
    names = [item_id(r) for r in range(100, 140)]
    ranked = client.rerank("user-005", names, time_us=NOW_US, fields=["kind"])
    assert sorted(ranked.item_ids) == names and ranked.counts.tolist() == [40]
    assert [names[rank] for rank in ranked.retrieval_ranks] == ranked.item_ids
    expected = chances_of(world, items, 5, ranked.item_ids)
    np.testing.assert_allclose(ranked.values, expected @ [1.0, 3.0], atol=1e-4)
    assert (np.diff(ranked.values) <= 1e-6).all()
    assert client.rerank("user-005", names, k=3, time_us=NOW_US).item_ids == ranked.item_ids[:3]
    assert client.rerank("user-005", []).item_ids == []


def test_what_was_done_before_counts_however_long_ago(
    client: Client, world: World, items: np.ndarray
) -> None:
    """user-039 has 39 events, of which the value model reads the newest 5."""
    history = world.histories["user-039"]
    names = list(dict.fromkeys(item_id(r) for r in history if r < world.num_active))
    ranked = client.rerank("user-039", names, time_us=NOW_US)
    expected = chances_of(world, items, 39, ranked.item_ids)
    np.testing.assert_allclose(ranked.values, expected @ [1.0, 3.0], atol=1e-4)
    found = client.recommend(
        "user-039", k=580, num_candidates=580, include_seen=True, time_us=NOW_US
    )
    expected = chances_of(world, items, 39, found.item_ids)
    np.testing.assert_allclose(found.values, expected @ [1.0, 3.0], atol=1e-4)


def test_rerank_leaves_aside_what_cannot_be_shown(client: Client, world: World) -> None:
    lists = [
        [item_id(1), "ghost", item_id(2), item_id(1)],
        [],
        [item_id(world.num_active), item_id(3)],
    ]
    ranked = client.rerank(["user-005", "user-006", "user-007"], lists)
    assert ranked.counts.tolist() == [2, 0, 1] and ranked.item_ids[2] == item_id(3)
    assert sorted(ranked.retrieval_ranks[:2].tolist()) == [0, 2] and ranked.retrieval_ranks[2] == 1
    assert [(e.index, e.code, e.field) for e in ranked.errors] == [
        (0, "UNKNOWN_ITEM", "item_ids[1]"),
        (2, "RETIRED_ITEM", "item_ids[4]"),
    ]


def test_without_a_value_model_the_score_decides(server: Served, world: World) -> None:
    with Client(server.address, timeout=10) as client:
        shown = client.recommend("user-005", k=10, time_us=NOW_US)
        assert shown.chances == {} and (np.diff(shown.values) <= 1e-6).all()
        np.testing.assert_array_equal(shown.values, shown.scores)
        assert client.status().bundle["heads"] == []
        with pytest.raises(BadRequest, match="no value model") as refused:
            client.recommend("user-005", weights={"order": 1.0})
        assert refused.value.field == "weights[0].head"


def test_status_names_the_heads(client: Client) -> None:
    bundle = client.status().bundle
    assert bundle["heads"] == list(HEADS) and bundle["default_weights"] == [1.0, 3.0]


BAD = [
    ({"k": 0}, "k"),
    ({"k": 2000}, "k"),
    ({"k": 10, "num_candidates": 9}, "num_candidates"),
    ({"num_candidates": 2001}, "num_candidates"),
    ({"objective": "x"}, "objective"),
    ({"weights": {"click": 1.0}}, "weights[0].head"),
    ({"weights": {"watch": float("nan")}}, "weights[0].weight"),
    ({"weights": {"watch": float("inf")}}, "weights[0].weight"),
    ({"weights": {"watch": -1e300}}, "weights[0].weight"),  # no float32 holds such a value
    ({"slate": SlateRules(diversity=1.5)}, "slate.diversity"),
    ({"slate": SlateRules(diversity=float("nan"))}, "slate.diversity"),
    ({"slate": SlateRules(caps=(Cap("craft", 0),))}, "slate.caps[0].most"),
    ({"slate": SlateRules(kinds=(KindShare("car", 0.1),))}, "slate.kinds[0].kind"),
    ({"slate": SlateRules(kinds=(KindShare("live", 0.0),))}, "slate.kinds[0].share"),
    ({"slate": SlateRules(kinds=(KindShare("live", 1.1),))}, "slate.kinds[0].share"),
    (
        {"slate": SlateRules(kinds=(KindShare("live", 0.6), KindShare("video", 0.6)))},
        "slate.kinds",
    ),
    (
        {"slate": SlateRules(kinds=(KindShare("live", 0.2), KindShare("live", 0.2)))},
        "slate.kinds[1].kind",
    ),
    ({"slate": SlateRules(caps=(Cap("craft", 1),) * 33)}, "slate.caps"),
    ({"time_us": 2**62}, "time_us"),
]


@pytest.mark.parametrize(
    ("options", "field"), BAD, ids=[f"{f}-{i}" for i, (_, f) in enumerate(BAD)]
)
def test_what_recommend_refuses(client: Client, options: dict[str, object], field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        client.recommend("user-005", **options)  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize("field", ["tags", "price", "ghost"])
def test_caps_are_for_categories(client: Client, field: str) -> None:
    with pytest.raises(UnknownField, match="circle, kind, craft") as refused:
        client.recommend("user-005", slate=SlateRules(caps=(Cap(field, 1),)))
    assert refused.value.field == "slate.caps[0].field"


def test_the_servers_own_number_of_candidates_counts_too(client: Client, world: World) -> None:
    many = UserQuery(vectors=np.tile(world.vectors[:1], (32, 1)))
    assert len(client.recommend([many] * 62, k=1).item_ids) == 62
    with pytest.raises(BadRequest, match=r"2048 vectors .* x k = 500"):
        client.recommend([many] * 64, k=1)


def test_what_rerank_refuses(client: Client) -> None:
    with pytest.raises(BadRequest, match="values; allowed") as refused:
        client.rerank(["user-001"] * 20, [[item_id(1)] * 2000] * 20, fields=["title"] * 26)
    assert refused.value.field == "fields"
    with pytest.raises(BadRequest, match="1 counts for 2 queries"):
        client.rerank(["user-001", "user-002"], [["item-0001"]])
    with pytest.raises(BadRequest, match="one string"):
        client.rerank("user-001", "item-0001")
    with pytest.raises(BadRequest) as refused:
        client.rerank("user-001", [item_id(1)] * 2001)
    assert refused.value.field == "counts[0]"
    with pytest.raises(BadRequest) as refused:
        client.rerank("user-001", ["item-0001", ""])
    assert refused.value.field == "item_ids[1]"


async def test_the_async_client_says_the_same(value_server: Served, client: Client) -> None:
    async with AsyncClient(value_server.address, timeout=10) as asynchronous:
        for user in ("user-003", "user-040"):
            ours = await asynchronous.recommend(user, k=7, time_us=NOW_US)
            theirs = client.recommend(user, k=7, time_us=NOW_US)
            assert ours.item_ids == theirs.item_ids
            np.testing.assert_array_equal(ours.values, theirs.values)
        names = client.recommend("user-003", k=7, time_us=NOW_US).item_ids
        ranked = await asynchronous.rerank("user-003", names, time_us=NOW_US)
        assert set(ranked.item_ids) == set(names)
        vectors = await asynchronous.embed_items(names)
        assert vectors.vectors.shape == (7, 8)
