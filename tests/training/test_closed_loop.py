"""The closed loop in worlds of a moment: days, twins, orders, what can be shown, and resuming."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from model.errors import ConfigError
from training.closed_loop import run_days
from training.closed_loop_run import MEASURED, POLICIES, WARM_UP, Plan, run_closed_loop
from training.loop_policies import Chance, Popularity
from training.loop_report import regret
from training.validate import validate_dataset
from training.world.config import DAY, WorldConfig
from training.world.economy import Economy
from training.world.log import EVENTS
from training.world.measures import Measured, gini, mean_entropy, measure
from training.world.oracle import Oracle
from training.world.tables import write_dataset

WORLD = WorldConfig(seed=3, num_users=150, num_items=600, num_days=10)
LOOP_DAYS = 4
PLAN = Plan(world=WORLD, loop_days=LOOP_DAYS, retrain_every=2)


@pytest.fixture(scope="module")
def economy() -> Economy:
    made = Economy(WORLD)
    made.warm_up(WORLD.num_days - LOOP_DAYS)
    return made


@pytest.fixture(scope="module")
def warm_up(economy: Economy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(economy, tmp_path_factory.mktemp("warm-up"))


def written(economy: Economy, folder: Path) -> Path:
    write_dataset(
        economy.config,
        folder,
        catalogue=economy.catalogue,
        people=economy.people,
        log=economy.log,
        until=economy.today,
    )
    return folder


class Watched(Chance):
    """Chance, and a note of what it was told and asked."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.asked: list[tuple[int, str, tuple[str, ...], tuple[str, ...]]] = []
        self.events: list[pa.Table] = []
        self.learned: list[int] = []

    def choose(
        self,
        time: int,
        *,
        users: Sequence[str],
        lengths: Sequence[int],
        excluded: Sequence[Sequence[str]],
    ) -> list[list[str]]:
        slates = super().choose(time, users=users, lengths=lengths, excluded=excluded)
        for user, left_out, slate in zip(users, excluded, slates, strict=True):
            self.asked.append((time, user, tuple(left_out), tuple(slate)))
        return slates

    def learn(self, events: pa.Table) -> None:
        super().learn(events)
        self.events.append(events)

    def retrain(self, items: pa.Table, links: pa.Table) -> None:
        self.learned.append(items.num_rows)


@pytest.fixture(scope="module")
def lived(economy: Economy, warm_up: Path) -> tuple[Economy, Watched]:
    twin, policy = economy.twin(), Watched(1)
    policy.begin(warm_up)
    run_days(twin, policy, num_days=LOOP_DAYS, retrain_every=2)
    return twin, policy


def test_the_warm_up_is_a_dataset_of_its_days_alone(economy: Economy, warm_up: Path) -> None:
    summary = validate_dataset(warm_up)
    assert summary.num_events > 2000
    items = pl.read_parquet(warm_up / "items.parquet")
    later = economy.catalogue.air >= economy.today
    assert later.sum() > 20
    assert set(items["item_id"]) == {
        name for name, is_later in zip(economy.catalogue.ids, later, strict=True) if not is_later
    }
    links = pl.read_parquet(warm_up / "links.parquet")
    assert links["to_item"].is_in(items["item_id"].implode()).all()
    assert not (warm_up / "truth").exists()


def test_what_is_shown_is_there_and_on_air(lived: tuple[Economy, Watched]) -> None:
    twin, policy = lived
    catalogue = twin.catalogue
    row = {name: at for at, name in enumerate(catalogue.ids)}
    hour, kinds = 3_600_000_000, set()
    for time, _, _, slate in policy.asked:
        rows = [row[name] for name in slate]
        assert (catalogue.air[rows] < time).all()
        assert (catalogue.gone[rows] > time + hour).all()
        kinds |= set(catalogue.kind[rows].tolist())
    assert len(kinds) == 5  # live rooms among them
    begin = twin.today - LOOP_DAYS * DAY
    shown = {row[name] for *_, slate in policy.asked for name in slate}
    assert sum(catalogue.air[at] >= begin for at in shown) > 10  # what came since is shown, too
    # Everything was reached: a room that had ended would have been left out of the log.
    log = twin.log.columns()
    exposed = (log["event"] == list(EVENTS).index("exposure")) & (log["time"] >= begin)
    assert exposed.sum() == sum(len(slate) for *_, slate in policy.asked)


def test_nothing_is_shown_twice_to_one_person(lived: tuple[Economy, Watched]) -> None:
    _, policy = lived
    seen: dict[str, set[str]] = {}
    second = 0
    for _, user, left_out, slate in policy.asked:
        assert len(set(slate)) == len(slate)
        assert not set(slate) & seen.setdefault(user, set())
        assert set(left_out) <= seen[user]
        second += bool(left_out)
        seen[user] |= set(slate)
    assert second > 10  # sessions that were not the day's first


def test_a_day_is_told_with_its_orders(lived: tuple[Economy, Watched], economy: Economy) -> None:
    twin, policy = lived
    begin = twin.today - LOOP_DAYS * DAY
    days = policy.events[1:]  # the first is the warm-up
    assert len(days) == LOOP_DAYS
    ids = [name for table in policy.events for name in table["event_id"].to_pylist()]
    assert len(ids) == len(set(ids))
    orders = 0
    for number, table in enumerate(days):
        told = pl.DataFrame(pl.from_arrow(table))
        placed = told.filter(pl.col("event") == "order")["timestamp"].dt.epoch("us").to_numpy()
        first = begin + number * DAY
        # What is due in the last second of a day belongs to the next.
        assert ((placed >= first - 1_000_000) & (placed < first + DAY)).all()
        orders += len(placed)
    judged = measure(twin, since=begin)
    assert orders == sum(judged.by_day["orders"]) > 5
    # A wish of the loop that fell due in it became one order, and only one.
    due = [
        wish.time[(wish.content >= 0) & (wish.exposure >= economy.first_exposure)]
        for wish in twin.life.wishes
    ]
    times = np.concatenate(due)
    due_now = ((times >= begin - 1_000_000) & (times < twin.today - 1_000_000)).sum()
    assert due_now == sum(judged.by_day["stirred_orders"]) > 0
    assert (times >= twin.today).sum() == sum(judged.by_day["to_come"]) > 0
    # What the warm-up stirred is ordered in the loop, too, and is no policy's.
    stirred = sum(int((orders.content >= 0).sum()) for _, orders in twin.orders[1:])
    assert stirred > due_now


def test_it_learns_anew_from_what_had_come_by_then(
    lived: tuple[Economy, Watched], economy: Economy
) -> None:
    twin, policy = lived
    assert len(policy.learned) == 1  # after two days; not after the last
    middle = economy.today + 2 * DAY - DAY // 24
    assert policy.learned == [int((twin.catalogue.air < middle).sum())]


def test_twins_live_apart_and_alike(economy: Economy, warm_up: Path) -> None:
    before = (economy.log.num_rows, economy.life.level.sum(), len(economy.life.wishes))
    found = []
    for _ in range(2):
        twin, policy = economy.twin(), Popularity()
        policy.begin(warm_up)
        run_days(twin, policy, num_days=LOOP_DAYS, retrain_every=0)
        found.append(measure(twin, since=economy.today))
    assert found[0] == found[1]
    assert before == (economy.log.num_rows, economy.life.level.sum(), len(economy.life.wishes))


def test_the_oracle_is_above_chance(economy: Economy, warm_up: Path) -> None:
    found = {}
    for name in ("oracle", "chance"):
        twin = economy.twin()
        policy = Oracle(twin) if name == "oracle" else Chance(1)
        policy.begin(warm_up)
        run_days(twin, policy, num_days=LOOP_DAYS, retrain_every=0)
        found[name] = measure(twin, since=economy.today).total
    for better in ("stirred_orders", "good_watches", "satisfaction", "discovered"):
        oracle, chance = found["oracle"][better], found["chance"][better]
        assert oracle is not None and chance is not None and oracle > 1.2 * chance, better


def test_in_the_null_world_no_policy_moves_an_order(tmp_path: Path) -> None:
    null = Economy(replace(WORLD, stirring=0.0))
    null.warm_up(WORLD.num_days - LOOP_DAYS)
    dataset = written(null, tmp_path)
    found = []
    for policy in (Popularity(), Chance(1)):
        twin = null.twin()
        policy.begin(dataset)
        run_days(twin, policy, num_days=LOOP_DAYS, retrain_every=0)
        found.append(measure(twin, since=null.today))
        assert not any(found[-1].by_day["stirred_orders"] + found[-1].by_day["card_orders"])
    assert found[0].by_day["orders"] == found[1].by_day["orders"]
    assert sum(found[0].by_day["orders"]) > 5
    assert found[0].by_day["gini"] != found[1].by_day["gini"]


def test_inequality_and_entropy_by_hand() -> None:
    assert gini(np.array([3.0, 3.0, 3.0])) == 0.0
    assert gini(np.array([0.0, 0.0, 0.0, 8.0])) == pytest.approx(0.75)  # 1 - 1/n
    # Sorted 1, 3: (2·1 - 3)·1 + (2·2 - 3)·3 = 2, by 2 · 4.
    assert gini(np.array([3.0, 1.0])) == pytest.approx(0.25)
    assert gini(np.zeros(3)) == 0.0
    # One bit for the first person, none for the second; the third saw nothing and is left out.
    assert mean_entropy(np.array([[2.0, 2.0], [5.0, 0.0], [0.0, 0.0]])) == pytest.approx(0.5)


def test_regret_is_what_is_missing_to_the_oracle() -> None:
    def policy(impressions: float, stirred: float, card: float, good: float) -> Measured:
        total = {"impressions": impressions, "stirred_orders": stirred, "card_orders": card}
        total["to_come"] = 0.0
        return Measured(by_day={}, total={**total, "good_watches": good, "discovered": 0.0})

    # 10 of 100 against 3 + 1 of 80: half. 20 good watches in a hundred against 5: three quarters.
    found = {"oracle": policy(100, 8, 2, 20.0), "mine": policy(80, 3, 1, 5.0)}
    assert regret(found) == {
        "caused orders": {"oracle": 0.0, "mine": pytest.approx(0.5)},
        "good watches": {"oracle": 0.0, "mine": pytest.approx(0.75)},
    }
    assert regret({"mine": found["mine"]}) == {}


def test_a_loop_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    out = tmp_path / "loop"
    first = run_closed_loop(PLAN, out, ["random"], open_server=None)
    kept = (out / POLICIES / "random" / MEASURED).stat().st_mtime_ns
    both = run_closed_loop(PLAN, out, ["popularity", "random"], open_server=None)
    assert (out / POLICIES / "random" / MEASURED).stat().st_mtime_ns == kept
    assert as_json(both["random"]) == as_json(first["random"])
    assert both["popularity"].total != both["random"].total
    assert (out / WARM_UP / "dataset.toml").exists()
    with pytest.raises(ConfigError, match=r"begun with world.seed = 3, and is now asked for 4"):
        other = replace(PLAN, world=replace(WORLD, seed=4))
        run_closed_loop(other, out, ["random"], open_server=None)
    with pytest.raises(ConfigError, match=r"begun with retrain_every = 2"):
        run_closed_loop(replace(PLAN, retrain_every=1), out, ["random"], open_server=None)


def as_json(found: Measured) -> tuple[object, object]:
    return dict(found.by_day), dict(found.total)


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no policy is called 'best'; there are: popularity"):
        run_closed_loop(PLAN, tmp_path / "a", ["random", "best"], open_server=None)
    with pytest.raises(ConfigError, match=r"'random' is given twice"):
        run_closed_loop(PLAN, tmp_path / "a", ["random", "random"], open_server=None)
    with pytest.raises(ConfigError, match=r"'interest' needs a server"):
        run_closed_loop(PLAN, tmp_path / "a", ["interest"], open_server=None)
    with pytest.raises(ConfigError, match=r"loop_days = 9 is not allowed"):
        Plan(world=WORLD, loop_days=9)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").touch()
    with pytest.raises(ConfigError, match=r"is no closed loop"):
        run_closed_loop(PLAN, tmp_path / "b", ["random"], open_server=None)
    assert not (tmp_path / "a").exists()
