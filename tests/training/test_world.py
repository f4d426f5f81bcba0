"""The synthetic world: its contract, its seeds, and that its truth is in the data or is not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from model.errors import ConfigError, DatasetError
from model.schema import KINDS, read_schema
from training.world.catalogue import draw_catalogue
from training.world.crafts import adjacency, crafts
from training.world.log import Sessions
from training.world.people import draw_people
from training.world.policy import LoggingPolicy
from training.world.simulate import WorldConfig, simulate

SMALL = WorldConfig(seed=3, num_users=150, num_items=600, num_days=8)
LARGER = WorldConfig(seed=7, num_users=1200, num_items=1500, num_days=28)
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "world"
    simulate(SMALL, out)
    return out


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("larger") / "world"
    simulate(LARGER, out)
    return out


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("null") / "world"
    simulate(replace(LARGER, stirring=0.0), out)
    return out


def events(world: Path) -> pl.DataFrame:
    return pl.read_parquet(world / "events" / "*.parquet")


def table(world: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(world / f"{name}.parquet")


def test_the_same_config_gives_the_same_files(small: Path, tmp_path: Path) -> None:
    simulate(SMALL, tmp_path / "again")
    names = sorted(str(path.relative_to(small)) for path in small.rglob("*") if path.is_file())
    assert "truth/orders.parquet" in names
    assert names == sorted(
        str(path.relative_to(tmp_path / "again"))
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    )
    for name in names:
        assert (small / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_another_seed_gives_another_world(small: Path, tmp_path: Path) -> None:
    simulate(replace(SMALL, seed=4), tmp_path / "other")
    assert not events(small).equals(events(tmp_path / "other"))
    assert not table(small, "items").equals(table(tmp_path / "other", "items"))


def test_columns_and_types_are_those_of_the_contract(small: Path) -> None:
    schema = read_schema(small)
    assert (schema.language, schema.time) == ("zh", "exact")
    arrow = {"category": pa.string(), "text": pa.string(), "number": pa.float64()}
    arrow["categories"] = pa.list_(pa.string())
    fixed = {"item_id": pa.string(), "kind": pa.string(), "title": pa.string()}
    fixed |= {"created_at": TIME, "expires_at": TIME, "available": pa.bool_()}
    declared = {name: arrow[feature.type] for name, feature in schema.item_features.items()}
    assert columns(small / "items.parquet") == fixed | declared
    profile = {name: arrow[feature.type] for name, feature in schema.user_features.items()}
    assert columns(small / "users.parquet") == {"user_id": pa.string()} | profile
    assert columns(small / "links.parquet") == {
        "from_item": pa.string(), "to_item": pa.string(), "relation": pa.string(),
        "start": TIME, "end": TIME,
    }  # fmt: skip
    assert columns(small / "events" / "part-00000.parquet") == {
        "event_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(),
        "event": pa.string(), "timestamp": TIME, "sequence": pa.int64(), "value": pa.float64(),
        "exposure_id": pa.string(), "source_item_id": pa.string(), "position": pa.int32(),
        "propensity": pa.float64(),
    }  # fmt: skip
    assert set(table(small, "items")["kind"]) == set(KINDS)
    assert set(events(small)["event"]) == set(schema.events)


def columns(path: Path) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in pq.read_schema(path)}


def test_ids_are_unique_and_nothing_names_an_unknown_one(small: Path) -> None:
    items, users, log = table(small, "items"), table(small, "users"), events(small)
    links = table(small, "links")
    assert items["item_id"].is_unique().all() and users["user_id"].is_unique().all()
    assert log["event_id"].is_unique().all()
    known = items["item_id"].implode()
    for column in (
        log["item_id"], log["source_item_id"].drop_nulls(), links["from_item"], links["to_item"],
        items["creator"].drop_nulls(),
    ):  # fmt: skip
        assert column.is_in(known).all()
    assert log["user_id"].is_in(users["user_id"].implode()).all()
    shown = log.filter(pl.col("event") == "exposure")["exposure_id"]
    assert shown.is_unique().all()
    assert log["exposure_id"].drop_nulls().is_in(shown.implode()).all()


def test_links_join_the_kinds_that_their_relation_says(small: Path) -> None:
    kind = table(small, "items").select("item_id", "kind", "created_at", "expires_at")
    links = (
        table(small, "links")
        .join(kind, left_on="from_item", right_on="item_id")
        .join(kind, left_on="to_item", right_on="item_id", suffix="_to")
    )
    pairs = set(links.select("relation", "kind", "kind_to").unique().rows())
    assert pairs == {
        ("shows", "video", "product"), ("shows", "article", "product"),
        ("on_air", "live", "product"), ("by", "product", "creator"), ("by", "video", "creator"),
        ("by", "live", "creator"), ("by", "article", "creator"),
    }  # fmt: skip
    assert (links["created_at_to"] <= links["created_at"]).all()
    on_air = links.filter(pl.col("relation") == "on_air")
    assert (on_air["start"] >= on_air["created_at"]).all()
    assert (on_air["start"] < on_air["end"]).all()
    assert (on_air["end"] <= on_air["expires_at"]).all()
    assert links.filter(pl.col("relation") != "on_air")["start"].is_null().all()


def test_events_stay_inside_the_period_and_the_life_of_their_items(larger: Path) -> None:
    log = events(larger).join(table(larger, "items"), on="item_id")
    end = BEGIN + timedelta(days=LARGER.num_days)
    assert log["timestamp"].is_between(BEGIN, end, closed="left").all()
    assert (log["timestamp"] >= log["created_at"]).all()
    live = log.filter(pl.col("expires_at").is_not_null())
    assert live.height > 100
    assert (live["timestamp"] <= live["expires_at"]).all()
    # New items arrive on every day of the period, and some are found.
    fresh = table(larger, "items").filter(pl.col("created_at") >= BEGIN)
    days = (fresh["created_at"] - BEGIN).dt.total_days()
    assert days.n_unique() == LARGER.num_days
    assert log.filter(pl.col("created_at") >= BEGIN).height > 1000
    gone = log.filter(~pl.col("available"))
    assert gone.height > 0 and gone["kind"].unique().to_list() == ["product"]


def test_a_users_events_have_an_order_and_reactions_follow_their_exposure(small: Path) -> None:
    log = events(small)
    by_user = log.sort("user_id", "timestamp", "sequence")
    steps = by_user.select(pl.col("sequence").diff().over("user_id"))["sequence"].drop_nulls()
    assert (steps == 1).all()
    shown = log.filter(pl.col("event") == "exposure").select("exposure_id", "user_id", "timestamp")
    reactions = log.filter((pl.col("event") != "exposure") & pl.col("exposure_id").is_not_null())
    joined = reactions.join(shown, on="exposure_id", suffix="_shown")
    assert joined.height == reactions.height
    assert (joined["user_id"] == joined["user_id_shown"]).all()
    assert (joined["timestamp"] > joined["timestamp_shown"]).all()
    watches = log.filter(pl.col("event") == "watch").join(table(small, "items"), on="item_id")
    assert (watches["value"] > 0).all() and (watches["value"] <= watches["duration"]).all()


def test_the_cause_of_an_order_is_nowhere_but_in_the_truth(larger: Path) -> None:
    log = events(larger)
    orders = log.filter(pl.col("event") == "order")
    for column in ("source_item_id", "exposure_id", "position", "propensity"):
        assert orders[column].is_null().all()
    assert (orders["value"] > 0).all()
    names = {column for path in larger.glob("*.parquet") for column in columns(path)}
    names |= set(log.columns)
    hidden = {"interest", "weight", "strength", "state", "awakened_at", "cause", "district"}
    hidden |= {"appeal", "quality", "stirring_power", "reach", "taste", "spend", "joined_at"}
    hidden |= {"content_item_id", "content_exposure_id", "content_event_id", "satisfaction"}
    assert not names & hidden
    assert not {"interest", "district"} & set(read_schema(larger).item_features)


def test_stirred_orders_follow_the_good_watch_that_the_truth_names(larger: Path) -> None:
    log, orders = events(larger), table(larger, "truth/orders")
    logged = log.filter(pl.col("event") == "order").select("event_id", "user_id", "timestamp")
    assert set(orders["event_id"]) == set(logged["event_id"])
    stirred = orders.filter(pl.col("cause") == "stirred").join(logged, on="event_id")
    assert stirred.height > 300
    cause = log.filter(pl.col("event") == "watch").join(table(larger, "items"), on="item_id")
    both = stirred.join(cause, left_on="content_event_id", right_on="event_id", suffix="_watch")
    assert both.height == stirred.height
    assert (both["user_id"] == both["user_id_watch"]).all()
    assert (both["content_item_id"] == both["item_id"]).all()
    assert (both["content_exposure_id"] == both["exposure_id"]).all()
    assert (both["value"] >= 0.6 * both["duration"]).all()
    waited = (both["timestamp"] - both["timestamp_watch"]).dt.total_seconds()
    assert (waited > 0).all()
    assert (waited.to_numpy() > 86_400).mean() > 0.6  # most come days later
    others = orders.filter(pl.col("cause") != "stirred")
    assert others["content_item_id"].is_null().all()
    assert others["content_exposure_id"].is_null().all()
    loved = stirred.join(
        table(larger, "truth/user_interests"), on=["user_id", "interest"], how="inner"
    )
    assert loved.height == stirred.height


def test_orders_depend_on_what_was_watched_unless_the_world_is_null(
    larger: Path, null: Path
) -> None:
    # In the null world an order is as likely in the days before a watch as in those after it,
    # because its time has nothing to do with the watch: the score is about standard normal.
    assert after_minus_before(larger) > 5.0
    assert abs(after_minus_before(null)) < 3.0
    causes = table(null, "truth/orders")["cause"]
    assert causes.unique().to_list() == ["need"]
    assert abs(len(causes) / table(larger, "truth/orders").height - 1.0) < 0.05


def after_minus_before(world: Path, *, days: int = 7) -> float:
    """How far orders of an interest in the days after a user's first good watch of it outnumber
    those in the days before: sum over users / its standard error under no dependence."""
    window = timedelta(days=days)
    end = BEGIN + timedelta(days=LARGER.num_days)
    about = (
        table(world, "truth/item_interests")
        .sort("weight", descending=True, maintain_order=True)
        .unique("item_id", keep="first")
    )
    log = events(world)
    watches = (
        log.filter(pl.col("event") == "watch")
        .join(table(world, "items").select("item_id", "duration"), on="item_id")
        .filter(pl.col("value") >= 0.6 * pl.col("duration"))
        .join(about, on="item_id")
        .join(table(world, "truth/users").filter(pl.col("joined_at") < BEGIN), on="user_id")
        .sort("timestamp")
        .unique(["user_id", "interest"], keep="first")
        .filter(pl.col("timestamp").is_between(BEGIN + window, end - window))
    )
    orders = log.select("event_id", "user_id", at="timestamp").join(
        table(world, "truth/orders").select("event_id", "interest"), on="event_id"
    )
    near = watches.join(orders, on=["user_id", "interest"]).with_columns(
        wait=pl.col("at") - pl.col("timestamp")
    )
    near = near.filter(pl.col("wait").abs() <= window)
    by_user = near.group_by("user_id").agg(
        difference=(pl.col("wait") > timedelta(0)).sum().cast(pl.Int64)
        - (pl.col("wait") < timedelta(0)).sum().cast(pl.Int64)
    )["difference"]
    assert near.height > 50
    return float(by_user.sum() / np.sqrt((by_user.to_numpy() ** 2).sum()))


def test_popularity_has_a_long_tail(larger: Path) -> None:
    watched = events(larger).filter(pl.col("event").is_in(["watch", "click"]))
    counts = table(larger, "items").select("item_id").join(
        watched.group_by("item_id").len(), on="item_id", how="left"
    )["len"].fill_null(0).sort().to_numpy()  # fmt: skip
    rank = np.arange(1, len(counts) + 1)
    gini = 2 * (rank * counts).sum() / (len(counts) * counts.sum()) - 1 - 1 / len(counts)
    assert 0.6 < gini < 0.95


def test_latent_interests_sleep_at_first_and_some_awaken(larger: Path) -> None:
    interests = table(larger, "truth/user_interests")
    latent = interests.filter(pl.col("state") == "latent")
    awakened = latent["awakened_at"].drop_nulls()
    assert 0.02 < len(awakened) / latent.height < 0.5
    assert (awakened >= BEGIN).all()
    assert interests.filter(pl.col("state") == "expressed")["awakened_at"].is_null().all()
    # Latent interests are far likelier next to an expressed one than a random craft is.
    keys = [craft.key for craft in crafts()]
    loves = np.zeros((LARGER.num_users, len(keys)), bool)
    dreams = np.zeros_like(loves)
    for user, interest, state in interests.select("user_id", "interest", "state").iter_rows():
        (loves if state == "expressed" else dreams)[int(user[1:]), keys.index(interest)] = True
    close = ((loves.astype(float) @ (adjacency() >= 0.8)) > 0) & ~loves
    assert close[dreams].mean() > 1.5 * close[~loves].mean()


def test_true_interests_explain_what_people_engage_with(larger: Path) -> None:
    loves = table(larger, "truth/user_interests").filter(pl.col("state") == "expressed")
    about = table(larger, "truth/item_interests").filter(pl.col("weight") == 1.0)
    log = events(larger)
    engaged = log.filter(pl.col("event").is_in(["watch", "click"]))["exposure_id"].drop_nulls()
    shown = (
        log.filter(pl.col("event") == "exposure")
        .join(about, on="item_id")
        .join(loves, on=["user_id", "interest"], how="left")
        .with_columns(engaged=pl.col("exposure_id").is_in(engaged.implode()))
    )
    loved = pl.col("strength").is_not_null()
    by_interest = shown.filter(loved)["engaged"].to_numpy().mean()
    assert by_interest > 4 * shown.filter(~loved)["engaged"].to_numpy().mean()


def test_logged_propensities_are_the_frequencies_of_the_policy() -> None:
    config = replace(SMALL, live_share=0.3)
    catalogue, people = draw_catalogue(config), draw_people(config)
    policy = LoggingPolicy(config, catalogue, people)
    num = 60_000
    noon = config.begin + 3 * 86_400_000_000
    one_slot_each = Sessions(
        user=np.full(num, 5),
        start=np.full(num, noon + 13 * 3_600_000_000),
        length=np.ones(num, np.int64),
    )
    feed = policy.choose(noon, one_slot_each, np.random.default_rng(0))
    assert len(feed.item) == num
    assert (catalogue.kind[feed.item] == KINDS.index("live")).any()
    _, first, counts = np.unique(feed.item, return_index=True, return_counts=True)
    expected: NDArray[np.float64] = num * feed.propensity[first]
    often = expected >= 5
    assert often.sum() > 50
    # Pearson's statistic over its degrees of freedom; 1 in the mean, 4 deviations allowed.
    statistic = ((counts - expected)[often] ** 2 / expected[often]).mean()
    assert abs(statistic - 1.0) < 4 * np.sqrt(2 / often.sum())
    assert feed.propensity[first].sum() == pytest.approx(1.0, abs=0.02)


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="remove this one first"):
        simulate(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_breaks_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(share: float, what: str) -> None:
        if what == "writing":
            (tmp_path / "world").mkdir()
            (tmp_path / "world" / "mine.txt").write_text("somebody was faster")

    with pytest.raises(DatasetError):
        simulate(SMALL, tmp_path / "world", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_users", 0), ("num_users", 20.5), ("stirring", 1.5), ("stirring", float("nan")),
        ("seed", True), ("start", "March"), ("popular_share", 0.9),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        WorldConfig(**{field: value})  # type: ignore[arg-type]


def test_progress_runs_from_0_to_1(tmp_path: Path) -> None:
    shares: list[float] = []
    simulate(SMALL, tmp_path / "world", progress=lambda share, what: shares.append(share))
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares)
