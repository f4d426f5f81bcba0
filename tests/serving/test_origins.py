"""Where candidates come from, by hand; shares of origins and explanations on a real socket."""

from collections.abc import Iterator

import numpy as np
import pytest

from serving.client import Client
from serving.domain import (
    AnyOf,
    ExposureFloor,
    History,
    NewItems,
    OriginShare,
    SlateRules,
    SmallCreators,
    UserQuery,
)
from serving.errors import BadRequest
from serving.origins import ORIGINS, origins_of_circles
from serving.results import Recommended
from tests.serving.processes import Served
from tests.serving.tiny import START, World, item_id

NEIGHBOURS = np.array([[1, -1], [0, 2], [3, -1], [2, -1], [0, -1], [5, -1]], np.int32)
DAY_US = 86_400_000_000
START_US = int(START.timestamp() * 1e6)
NOW_US = START_US + 400 * DAY_US
LATER_US = START_US + 30 * DAY_US
"""So long after what user-011 did, chances of the fixture are neither all 0 nor all 1."""


@pytest.fixture(scope="module")
def client(value_server: Served) -> Iterator[Client]:
    with Client(value_server.address, timeout=20) as client:
        yield client


def named(circles: list[int], recent: list[bool]) -> list[str]:
    found = origins_of_circles(np.array(circles, np.int32), np.array(recent, bool), NEIGHBOURS)
    return [ORIGINS[one] for one in found]


def test_circles_by_hand() -> None:
    # 0 lately; 3 once; 1 is next to 0. Next to 3 is 2, but nobody does 3 any more. -1: no circle.
    assert named([3, 0, -1], [False, True, True]) == [
        *("known", "adjacent", "exploratory", "forgotten", "exploratory", "exploratory"),
        "exploratory",
    ]
    # Nothing is recent: what is next to what was once done is adjacent.
    assert named([3], [False])[2:4] == ["adjacent", "forgotten"]
    # One event of a hundred makes no circle the user's.
    assert named([0] * 99 + [4], [True] * 100)[4] == "exploratory"
    assert named([0] * 40 + [4], [True] * 41)[4] == "known"
    # Known goes before forgotten, forgotten before adjacent.
    assert named([0, 1, 0], [False, False, True])[:2] == ["known", "forgotten"]
    assert named([], []) == ["exploratory"] * 7


def history(client: Client, rows: list[int], ages_days: list[int]) -> UserQuery:
    times = [NOW_US - age * DAY_US for age in ages_days]
    return UserQuery(history=History([item_id(r) for r in rows], ["watch"] * len(rows), times))


def expected_origin(row: int, recent: list[int], old: list[int]) -> str:
    """From the fixture: item row is of circle row % 4 - 1; circle c's neighbour is (c + 1) % 3."""
    circle = row % 4 - 1
    known = {r % 4 - 1 for r in recent} - {-1}
    forgotten = {r % 4 - 1 for r in old} - known - {-1}
    near = {(c + 1) % 3 for c in (known or forgotten)} - known - forgotten
    if circle in known:
        return "known"
    if circle in forgotten:
        return "forgotten"
    return "adjacent" if circle in near else "exploratory"


def row(name: str) -> int:
    return int(name.removeprefix("item-"))


def test_every_candidate_says_where_it_comes_from(client: Client) -> None:
    who = history(client, [6, 5], [90, 1])  # circle 1 once, circle 0 lately; 1 is next to 0
    shown = client.recommend(who, k=40, time_us=NOW_US)
    assert shown.origins == [expected_origin(row(n), [5], [6]) for n in shown.item_ids]
    found = client.retrieve(who, k=40, time_us=NOW_US)
    assert found.origins == [expected_origin(row(n), [5], [6]) for n in found.item_ids]
    assert {"known", "forgotten", "exploratory"} <= set(found.origins)
    assert set(client.retrieve("nobody", k=5).origins) == {"exploratory"}
    assert client.find_similar(item_id(3)).origins == []


@pytest.mark.parametrize("candidates", [20, 100])
def test_shares_of_origins_hold(client: Client, candidates: int) -> None:
    who = history(client, [5, 9, 13], [3, 2, 1])  # circle 0 lately; adjacent is 1
    shares = (OriginShare("adjacent", 0.4), OriginShare("exploratory", 0.2))
    shown = client.recommend(
        who, k=20, num_candidates=candidates, time_us=NOW_US, slate=SlateRules(origins=shares)
    )
    assert shown.origins.count("adjacent") >= 8 and shown.origins.count("exploratory") >= 4
    assert shown.errors == () and len(set(shown.item_ids)) == 20
    assert float(shown.best_values[0]) - sum(float(c[0]) for c in shown.costs.values()) == (
        pytest.approx(float(shown.values.sum()), abs=1e-4)
    )


def test_an_origin_that_there_is_none_of_is_named(client: Client) -> None:
    who = history(client, [5], [1])
    slate = SlateRules(origins=(OriginShare("forgotten", 0.5),))
    shown = client.recommend(who, k=10, time_us=NOW_US, slate=slate)
    assert len(shown.item_ids) == 10
    ((error),) = shown.errors
    assert (error.code, error.field) == ("SHARE_NOT_MET", "slate.origins[0]")
    assert "5 items of origin 'forgotten' are missing" in error.message


def test_the_interests_of_others_candidates_are_the_users_own(client: Client, world: World) -> None:
    who = history(client, [5, 9], [2, 1])
    slate = SlateRules(origins=(OriginShare("adjacent", 1.0),))
    shown = client.recommend(who, k=30, num_candidates=30, time_us=NOW_US, slate=slate)
    interests = world.interests([5, 9])
    products = world.vectors[[row(name) for name in shown.item_ids]] @ interests.T
    np.testing.assert_allclose(
        shown.scores, products[np.arange(len(products)), shown.interests], atol=1e-5
    )


@pytest.mark.parametrize("language", ["en", "zh", ""])
def test_explanations_name_what_is_shared(client: Client, world: World, language: str) -> None:
    rows = [5, 9, 14]
    who = history(client, rows, [2, 1, 0])
    shown = client.recommend(
        who, k=30, time_us=NOW_US, explain=True, language=language, fields=["craft"]
    )
    assert len(shown.explanations) == 30
    number = 0
    for name, why, origin in zip(shown.item_ids, shown.explanations, shown.origins, strict=True):
        near = rows[int((world.vectors[rows] @ world.vectors[row(name)]).argmax())]
        craft = world.crafts[row(name)]
        if craft is None or craft != world.crafts[near]:
            continue
        number += 1
        assert origin != "forgotten"
        expected = f"因为你看过 {craft}" if language == "zh" else f"because you watched {craft}"
        assert why == expected
    assert number > 3


def test_explanations_without_anything_shared(client: Client, world: World) -> None:
    stranger = client.recommend("nobody", k=3, explain=True, language="zh")
    assert stranger.explanations == ["为新朋友挑选"] * 3
    # Item 77 has neither craft nor tags, and no item shares what it has not.
    only = history(client, [77], [1])
    shown = client.recommend(only, k=40, time_us=NOW_US, explain=True)
    for why, origin in zip(shown.explanations, shown.origins, strict=True):
        if origin == "adjacent":
            assert why == 'close to "题 77", which you watched'
        elif origin == "exploratory":
            assert why == 'something new, nearest to "题 77"'
        else:
            assert why == 'because you watched "题 77"'
    assert len(set(shown.origins)) > 1
    once = history(client, [77], [200])
    shown = client.recommend(once, k=40, time_us=NOW_US, explain=True)
    assert 'because you once watched "题 77"' in shown.explanations
    assert client.recommend(only, k=4).explanations == []


def costs(shown: Recommended) -> dict[str, float]:
    return {step: float(cost[0]) for step, cost in shown.costs.items()}


def test_exposure_floors_on_the_socket(client: Client, world: World) -> None:
    plain = client.recommend("user-011", k=20, time_us=LATER_US)
    assert costs(plain) == dict.fromkeys(costs(plain), 0.0)
    # popularity of item row is row: at most 99 events.
    new = ExposureFloor(NewItems(max_events=99), 0.5)
    shown = client.recommend("user-011", k=20, time_us=LATER_US, slate=SlateRules(floors=(new,)))
    assert sum(row(name) <= 99 for name in shown.item_ids) >= 10
    assert "exposure_floor" in shown.reasons and costs(shown)["floors"] > 0
    assert costs(shown)["floors"] == pytest.approx(
        float(plain.values.sum() - shown.values.sum()), abs=1e-4
    )
    # All three crafts have about as many events: only the one with the fewest is below 0.4 of all.
    totals = {
        craft: sum(r for r in range(600) if world.crafts[r] == craft)
        for craft in ("silver", "bamboo", "leather")
    }
    smallest = min(totals, key=lambda craft: totals[craft])
    small = ExposureFloor(SmallCreators("craft", 0.4), 0.6)
    slate = SlateRules(floors=(small,))
    shown = client.recommend("user-011", k=20, time_us=LATER_US, slate=slate, fields=["craft"])
    assert list(shown.columns["craft"]).count(smallest) >= 12
    videos = ExposureFloor(AnyOf("kind", ("video",)), 0.5)
    slate = SlateRules(floors=(videos,))
    shown = client.recommend("user-011", k=20, time_us=LATER_US, slate=slate, fields=["kind"])
    assert list(shown.columns["kind"]).count("video") >= 10


def test_a_floor_that_cannot_be_met_is_named(client: Client) -> None:
    nobody = ExposureFloor(NewItems(max_events=2), 0.5)
    shown = client.recommend("user-011", k=20, time_us=LATER_US, slate=SlateRules(floors=(nobody,)))
    assert len(shown.item_ids) == 20
    ((error),) = shown.errors
    assert (error.code, error.field) == ("FLOOR_NOT_MET", "slate.floors[0]")
    assert "of the group are missing for a share of 0.5" in error.message


def test_a_paced_floor_holds_over_slates(client: Client) -> None:
    # A floor of its own, so that the account is new; items of many events are few among the best.
    floor = ExposureFloor(NewItems(max_events=57), 0.3, paced=True)
    users = [f"user-{u:03d}" for u in range(120)]
    shares, latest = [], list[list[float]]()
    for start in range(0, 120, 20):
        shown = client.recommend(
            users[start : start + 20], k=10, time_us=LATER_US, slate=SlateRules(floors=(floor,))
        )
        shares.append(np.mean([row(name) <= 57 for name in shown.item_ids]))
        latest.append(shown.paced_shares)
        assert shown.errors == ()
    # The price begins at 0 and rises, then it keeps the share.
    assert shares[0] < 0.3 and np.mean(shares[2:]) == pytest.approx(0.3, abs=0.05)
    assert latest[-1] == [pytest.approx(0.3, abs=0.08)]
    least = ExposureFloor(NewItems(max_events=58), 0.01, paced=True, least=4)
    shown = client.recommend("user-011", k=10, time_us=LATER_US, slate=SlateRules(floors=(least,)))
    assert sum(row(name) <= 58 for name in shown.item_ids) >= 4


def test_exploration_is_a_draw_that_a_seed_repeats(client: Client) -> None:
    def shown(seed: int) -> Recommended:
        slate = SlateRules(exploration=1.0, seed=seed)
        return client.recommend("user-011", k=20, time_us=START_US + 40 * DAY_US, slate=slate)

    plain = client.recommend("user-011", k=20, time_us=START_US + 40 * DAY_US)
    first, again, other = shown(5), shown(5), shown(6)
    assert first.item_ids == again.item_ids != other.item_ids
    assert first.item_ids != plain.item_ids and "exploration" in first.reasons
    assert costs(first)["exploration"] > 0
    assert shown(0).item_ids != shown(0).item_ids


def test_exploration_needs_a_value_model(server: Served) -> None:
    with Client(server.address, timeout=10) as client, pytest.raises(BadRequest) as refused:
        client.recommend("user-005", slate=SlateRules(exploration=0.5))
    assert refused.value.field == "slate.exploration" and "no value model" in str(refused.value)


def floor(**of: object) -> dict[str, SlateRules]:
    given: dict[str, object] = {"group": NewItems(max_events=1), "share": 0.5, **of}
    return {"slate": SlateRules(floors=(ExposureFloor(**given),))}  # type: ignore[arg-type]


def some_floors(number: int) -> tuple[ExposureFloor, ...]:
    return tuple(ExposureFloor(NewItems(max_events=i + 1), 0.1) for i in range(number))


BAD = [
    ({"slate": SlateRules(method="best")}, "slate.method"),
    ({"slate": SlateRules(window=3)}, "slate.window"),
    ({"slate": SlateRules(method="dpp", window=5000)}, "slate.window"),
    ({"slate": SlateRules(exploration=-0.1)}, "slate.exploration"),
    ({"slate": SlateRules(exploration=float("nan"))}, "slate.exploration"),
    (floor(share=float("nan")), "slate.floors[0].share"),
    (floor(share=1.5), "slate.floors[0].share"),
    (floor(share=0.0), "slate.floors[0].share"),
    (floor(least=3), "slate.floors[0].least"),
    (floor(group=NewItems(max_age_days=-1)), "slate.floors[0].new_items.max_age_days"),
    (floor(group=NewItems(max_age_days=7)), "slate.floors[0].new_items.max_age_days"),
    (floor(group=SmallCreators()), "slate.floors[0].small_creators.field"),
    (floor(group=SmallCreators("craft", 1.0)), "slate.floors[0].small_creators.tail"),
    (floor(group=AnyOf("ghost", ("x",))), "slate.floors[0].filter.any_of.field"),
    ({"slate": SlateRules(origins=(OriginShare("new", 0.1),))}, "slate.origins[0].origin"),
    ({"slate": SlateRules(origins=(OriginShare("known", -1),))}, "slate.origins[0].share"),
    (
        {"slate": SlateRules(origins=(OriginShare("known", 0.1),) * 2)},
        "slate.origins[1].origin",
    ),
    (
        {"slate": SlateRules(origins=(OriginShare("known", 0.6), OriginShare("adjacent", 0.6)))},
        "slate.origins",
    ),
    ({"slate": SlateRules(floors=some_floors(13))}, "slate"),
    ({"slate": SlateRules(floors=some_floors(2) + some_floors(1))}, "slate.floors[2]"),
    ({"explain": True, "language": "fr"}, "language"),
]


@pytest.mark.parametrize(
    ("options", "field"), BAD, ids=[f"{f}-{i}" for i, (_, f) in enumerate(BAD)]
)
def test_what_is_refused(client: Client, options: dict[str, object], field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        client.recommend("user-005", **options)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_all_that_floors_search_for_is_bounded_together(client: Client) -> None:
    users = [UserQuery("user-005")] * 50
    client.recommend(users, k=10, num_candidates=500, slate=SlateRules(floors=some_floors(1)))
    with pytest.raises(BadRequest, match="rows in all; allowed: at most") as refused:
        client.recommend(users, k=10, num_candidates=500, slate=SlateRules(floors=some_floors(12)))
    assert refused.value.field == "slate"
