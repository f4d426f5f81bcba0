"""CircleService through the client and the command line, on a bundle with both levels."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.bundle import open_bundle
from model.circles import CIRCLE_SCHEMA, CIRCLES, DISTRICTS
from model.errors import BundleRejected
from model.histories import NO_TIME
from serving.circle_results import Circle
from serving.circles import event_weights
from serving.client import AsyncClient, Client
from serving.domain import Event, History, ItemChange, UserQuery
from serving.errors import BadRequest, UnknownCircle
from tests.serving.processes import Served, penchant, serve
from tests.serving.rewritten import rewritten
from tests.serving.tiny import DIM, SCHEMA, START, World, item_id

DAY_US = 86_400_000_000


def tables() -> tuple[pa.Table, pa.Table]:
    """Circles 4, 7 and 9 (rows 0, 1, 2) in districts 11 and 12."""
    rows = [
        (4, "flutes", 11, [7, 9], 0.5, [item_id(9), item_id(1)], [(7, 0.25)]),
        (7, "银饰", 11, [4, 9], -0.25, [item_id(2), "gone", item_id(590)], []),
        (9, "mushrooms", 12, [7, 4], None, [], []),
    ]
    circles = pa.Table.from_pylist(
        [
            {
                "circle_id": one,
                "name": name,
                "top_features": [name, "x"],
                "size": 150,
                "centroid": np.eye(DIM)[place].tolist(),
                "neighbours": near,
                "district_id": district,
                "recent_events": 10,
                "growth": growth,
                "sample_items": samples,
                "predecessors": [before for before, _ in came],
                "predecessor_shares": [share for _, share in came],
            }
            for place, (one, name, district, near, growth, samples, came) in enumerate(rows)
        ],
        schema=CIRCLE_SCHEMA,
    )
    districts = circles.slice(0, 2).drop(["circle_id", "name", "district_id", "neighbours"])
    given = {
        "circle_id": pa.array([12, 11], pa.int32()),
        "name": pa.array(["woods", "metal"]),
        "district_id": pa.nulls(2, pa.int32()),
        "neighbours": pa.array([[11], [12]], pa.list_(pa.int32())),
    }
    for name, column in given.items():
        districts = districts.append_column(name, column)
    return circles, districts.select(CIRCLE_SCHEMA.names)


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def write(folder: Path, body: dict[str, object]) -> None:
        circles, districts = tables()
        pq.write_table(circles, folder / CIRCLES)
        pq.write_table(districts, folder / DISTRICTS)
        ended = [
            {"circle_id": 5, "name": "tea", "into": [7, 99]},
            {"circle_id": 6, "name": "old", "into": []},
        ]
        body["circles"] = {"previous": "b", "next_id": 13, "circle": {"ended": ended}}

    return rewritten(world.bundle, tmp_path_factory.mktemp("circles") / "bundle", write)


@pytest.fixture(scope="module")
def circle_server(
    world: World, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("circle-state")
    done = penchant("load-users", str(world.snapshot), "--state", str(folder / "state"))
    assert done.returncode == 0, done.stderr
    with serve(bundle, folder / "state", folder / "log", "--drain-pause", "0.1") as served:
        yield served


@pytest.fixture(scope="module")
def client(circle_server: Served) -> Iterator[Client]:
    with Client(circle_server.address, timeout=10) as client:
        yield client


def test_districts_come_first_and_pages_follow_each_other(client: Client) -> None:
    everything = client.list_circles()
    assert [one.circle_id for one in everything.circles] == [11, 12, 4, 7, 9]
    assert [one.level for one in everything.circles] == ["district"] * 2 + ["circle"] * 3
    assert everything.next_page_token == ""
    found: list[Circle] = []
    token = ""
    while True:
        page = client.list_circles(page_size=2, page_token=token)
        assert 1 <= len(page.circles) <= 2
        found += page.circles
        token = page.next_page_token
        if not token:
            break
    assert found == everything.circles


def test_a_level_and_a_district(client: Client) -> None:
    assert [one.name for one in client.list_circles(level="district").circles] == ["metal", "woods"]
    assert [one.circle_id for one in client.list_circles(level="circle").circles] == [4, 7, 9]
    assert [one.circle_id for one in client.list_circles(district_id=11).circles] == [4, 7]
    assert client.list_circles(district_id=11, level="district").circles == []


def test_one_circle(client: Client) -> None:
    found = client.get_circle(4, fields=["title", "kind"])
    one = found.circle
    assert (one.level, one.name, one.size, one.district_id) == ("circle", "flutes", 150, 11)
    assert (one.top_features, one.growth, one.recent_events) == (["flutes", "x"], 0.5, 10)
    assert one.neighbours == [7, 9] and [n.name for n in found.neighbours] == ["银饰", "mushrooms"]
    assert (one.predecessors, one.predecessor_shares) == ([7], [0.25])
    assert one.sample_items == [item_id(9), item_id(1)]
    assert found.sample_columns["title"] == ["题 9", "题 1"]
    district = client.get_circle(12).circle
    assert (district.level, district.district_id) == ("district", None)


def test_what_is_not_known_is_absent(client: Client) -> None:
    one = client.get_circle(9).circle
    assert one.growth is None and one.sample_items == []


def test_samples_that_are_not_shown_are_left_out(client: Client) -> None:
    # One is not in the bundle, one is retired.
    assert client.get_circle(7).circle.sample_items == [item_id(2)]


def test_an_ended_circle_says_where_its_items_went(client: Client) -> None:
    with pytest.raises(UnknownCircle, match=r"5 \(tea\) ended .* in 7 \(银饰\) now") as refused:
        client.get_circle(5)
    assert refused.value.field == "circle_id"
    with pytest.raises(UnknownCircle, match="scattered"):
        client.get_circle(6)
    with pytest.raises(UnknownCircle, match="no circle or district 77; ListCircles"):
        client.get_circle(77)


def test_shares_weigh_roles_and_time(client: Client) -> None:
    # Item i has circle row i % 4 - 1: 1 is in circle 4, 2 in 7, 3 in 9, 4 in none.
    now = 400 * DAY_US
    history = History(
        [item_id(1), item_id(2), item_id(2), item_id(3), item_id(4)],
        ["watch", "order", "watch", "watch", "watch"],
        [now - 60 * DAY_US, now - 30 * DAY_US, now, now, now],
    )
    found = client.get_user_circles(UserQuery(history=history), n=3)
    # Watched 60 days ago: 1/4; bought 30 days ago: 3/2; watched now: 1; the last is in no circle.
    total = 0.25 + 1.5 + 1 + 1
    assert found.circles.ids.tolist() == [7, 9, 4]
    assert found.circles.names == ["银饰", "mushrooms", "flutes"]
    np.testing.assert_allclose(
        found.circles.shares, [2.5 / total, 1 / total, 0.25 / total], atol=1e-5
    )
    assert found.districts.ids.tolist() == [11, 12] and found.districts.names == ["metal", "woods"]
    np.testing.assert_allclose(found.districts.shares, [2.75 / total, 1 / total], atol=1e-5)
    assert found.history_lengths.tolist() == [5] and not found.cold[0]


def test_a_batch_with_a_stranger(client: Client, world: World) -> None:
    found = client.get_user_circles(["user-005", "nobody", "user-011"], n=1)
    assert found.cold.tolist() == [False, True, False]
    assert found.circles.counts.tolist() == [1, 0, 1]
    rows = np.array(world.histories["user-011"])
    circles = rows % 4 - 1
    assert found.circles.names[found.circles.query(2)][0] in ("flutes", "银饰", "mushrooms")
    assert found.history_lengths[2] == len(rows) and (circles >= 0).any()


def test_later_events_do_not_count(client: Client) -> None:
    early = client.get_user_circles("user-039", n=3, time_us=int(START.timestamp() * 1e6))
    assert early.history_lengths.tolist() == [1]
    later = int((START + timedelta(hours=4)).timestamp() * 1e6)
    assert client.get_user_circles("user-039", n=3, time_us=later).history_lengths.tolist() == [5]


def test_live_items_and_fresh_events_count(client: Client) -> None:
    client.upsert_items(
        ItemChange(item_id="fresh", kind="video", features={"craft": "silver", "title": "a"})
    )
    client.record_events([Event("newcomer", "fresh", "watch")])
    found = client.get_user_circles("newcomer")
    # The item tower puts the code of the craft in number 0, which is where circle 4 lies.
    assert found.circles.ids.tolist() == [4] and found.circles.shares.tolist() == [1.0]


async def test_async_answers_equal_sync_ones(circle_server: Served, client: Client) -> None:
    async with AsyncClient(circle_server.address, timeout=10) as asynchronous:
        assert (await asynchronous.list_circles()).circles == client.list_circles().circles
        assert (await asynchronous.get_circle(4)).circle == client.get_circle(4).circle
        one = await asynchronous.get_user_circles("user-011")
        np.testing.assert_array_equal(
            one.circles.shares, client.get_user_circles("user-011").circles.shares
        )


@pytest.mark.parametrize(
    ("field", "ask"),
    [
        ("level", lambda client: client.list_circles(level="town")),
        ("page_size", lambda client: client.list_circles(page_size=0)),
        ("page_token", lambda client: client.list_circles(page_token="circle-x")),
        ("district_id", lambda client: client.list_circles(district_id=4)),
        ("n", lambda client: client.get_user_circles("user-005", n=0)),
        (
            "queries[0].vectors",
            lambda client: client.get_user_circles(UserQuery(vectors=np.ones((1, DIM), "f4"))),
        ),
        ("fields[0]", lambda client: client.get_circle(4, fields=["colour"])),
    ],
)
def test_bad_requests_name_their_field(
    client: Client, field: str, ask: Callable[[Client], object]
) -> None:
    with pytest.raises(BadRequest) as refused:
        ask(client)
    assert refused.value.field == field


def test_a_bundle_from_before_there_were_districts(server: Served, world: World) -> None:
    with Client(server.address, timeout=10) as client:
        found = client.list_circles().circles
        assert [one.circle_id for one in found] == [0, 1, 2]
        assert {one.district_id for one in found} == {None}
        assert client.get_circle(0).circle.sample_items == []
        shares = client.get_user_circles("user-011")
        known = {row % 4 - 1 for row in world.histories["user-011"]} - {-1}
        assert set(shares.circles.ids.tolist()) == known
        assert shares.districts.counts.tolist() == [0]


def test_files_that_do_not_fit_each_other_are_refused(world: World, tmp_path: Path) -> None:
    def twice(folder: Path, body: dict[str, object]) -> None:
        circles, districts = tables()
        pq.write_table(circles, folder / CIRCLES)
        same = districts.set_column(0, "circle_id", pa.array([4, 11], pa.int32()))
        pq.write_table(same, folder / DISTRICTS)

    with pytest.raises(BundleRejected, match="have one id"):
        open_bundle(rewritten(world.bundle, tmp_path / "twice", twice))

    def lacking(folder: Path, body: dict[str, object]) -> None:
        circles, districts = tables()
        pq.write_table(circles, folder / CIRCLES)
        pq.write_table(districts.slice(0, 1), folder / DISTRICTS)

    with pytest.raises(BundleRejected, match="names a district"):
        open_bundle(rewritten(world.bundle, tmp_path / "lacking", lacking))


def test_weights_where_times_are_not_known() -> None:
    events, unknown = np.array([1, 2, 1]), np.full(3, NO_TIME)
    half = 0.5 ** (1 / 30)
    # `watch` is worth 1, `order` 3; each halves in 30 events.
    np.testing.assert_allclose(
        event_weights(SCHEMA, events, unknown), [half**2, 3 * half, 1.0], rtol=1e-6
    )
    no_order = SCHEMA.model_copy(update={"time": "none"})
    assert event_weights(no_order, events, unknown).tolist() == [1, 3, 1]
    assert (event_weights(SCHEMA, events, np.array([0, 0, 10**17])) > 0).all()


def test_the_command(circle_server: Served) -> None:
    where = ("--address", circle_server.address)
    for arguments, words in {
        (): ("metal", "woods", "+50%"),
        ("--level", "circle", "-n", "2"): ("flutes", "-25%", "1 more"),
        ("4",): ("circle 4: flutes", "7 (25%)", "题 9", "Neighbours", "银饰"),
        ("11",): ("district 11: metal", "Its circles", "flutes"),
        ("--user", "user-011"): ("districts, of", "metal", "flutes", "%"),
        ("--user", "nobody"): ("Nothing is known about nobody",),
    }.items():
        done = penchant("circles", *arguments, *where)
        assert done.returncode == 0, done.stderr
        for word in words:
            assert word in done.stdout, (arguments, word, done.stdout)
    for arguments, message in {
        ("5",): "ended with this bundle",
        ("4", "--user", "user-011"): "not both",
        ("--level", "town"): "give district or circle",
        ("-n", "0"): "give 1 or more",
    }.items():
        done = penchant("circles", *arguments, *where)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_help_teaches() -> None:
    done = penchant("circles", "--help")
    assert done.returncode == 0
    for word in ("penchant circles 17", "--user", "--level", "largest first"):
        assert word in done.stdout, word
