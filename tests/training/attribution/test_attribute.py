"""`penchant attribute`: its tables, its refusals, and the truth of small worlds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from model.errors import ConfigError, DatasetError
from tests.training.attribution.logs import SCHEMA, shop
from training.attribution.attribute import Attribution, attribute_dataset, credit_table, item_table
from training.attribution.config import MODELS, AttributionConfig
from training.cli import app
from training.world.simulate import WorldConfig, simulate

WORLD = WorldConfig(seed=4, num_users=1200, num_items=1500, num_days=28)
ITEMS = [("tea", "product", "Lin", "tea"), ("brew", "video", "Zhao", "tea")]
EVENTS: list[Any] = [
    ("ann", "brew", "watch", 1.0, {"value": 30.0}),
    ("ann", "tea", "order", 2.0, {"value": 50.0}),
    ("bob", "tea", "order", 3.0, {"value": 70.0}),
]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], catch_exceptions=False
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stirring") / "world"
    simulate(WORLD, out)
    return out


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("null") / "world"
    simulate(replace(WORLD, stirring=0.0), out)
    return out


def on_true_content(found: Attribution, world: Path) -> float:
    """Mean credit, over the orders that content stirred, on that content."""
    causes = pl.read_parquet(world / "truth" / "orders.parquet").filter(
        pl.col("cause") == "stirred"
    )
    credits = causes.join(
        credit_table(found),
        left_on=["event_id", "content_item_id"],
        right_on=["order_id", "item_id"],
        how="left",
    )
    return float(credits["credit"].fill_null(0.0).sum()) / causes.height


@pytest.mark.parametrize("model", MODELS)
def test_the_credits_of_an_order_add_up_to_one(world: Path, model: str) -> None:
    found = attribute_dataset(world, AttributionConfig(model=model))  # type: ignore[arg-type]
    credits = credit_table(found)
    assert (credits["credit"] >= -1e-9).all()
    sums = credits.group_by("order_id").agg(pl.col("credit").sum())
    num_orders = pl.read_parquet(world / "truth" / "orders.parquet").height
    assert sums.height == num_orders
    np.testing.assert_allclose(sums["credit"].to_numpy(), 1.0)
    stirred = item_table(found)["stirred_orders"].sum()
    assert stirred == pytest.approx(num_orders - found.unattributed.sum())


def test_where_content_causes_no_order_nearly_all_stays_unattributed(null: Path) -> None:
    touched = attribute_dataset(null, AttributionConfig(model="last-touch"))
    assert touched.unattributed.mean() < 0.6  # the rule credits whatever was touched
    found = attribute_dataset(null, AttributionConfig())
    assert found.unattributed.mean() > 0.97


def test_removal_finds_the_true_content_oftener_than_the_last_touch(world: Path) -> None:
    removal, last = (
        on_true_content(attribute_dataset(world, AttributionConfig(model=model)), world)
        for model in ("removal", "last-touch")
    )
    # 0.406 and 0.374 here: with few items the last touch is more often right by chance than in the
    # benchmark's worlds (0.436 and 0.267).
    assert removal > last + 0.02 and removal > 0.3


def test_the_command_writes_both_tables(tmp_path: Path) -> None:
    dataset = shop(tmp_path / "shop", EVENTS, items=ITEMS)
    out, credits = tmp_path / "new" / "stirred.parquet", tmp_path / "credits.parquet"
    command = ["attribute", dataset, "--out", out, "--model", "last-touch", "--circle", "craft"]
    done = invoke(*command, "--credits", credits)
    assert done.exit_code == 0 and "2 orders" in done.output and "50.0%" in done.output
    table = pl.read_parquet(out)
    assert table.rows() == [("brew", "video", "brew", 0, 0.0, 1, 1.0, 50.0)]
    assert table.columns[3:] == [
        "direct_orders",
        "direct_value",
        "touched_orders",
        "stirred_orders",
        "stirred_value",
    ]
    kept = pl.read_parquet(credits).drop("touched_at")
    assert kept.rows() == [
        ("e1", "ann", "brew", "circle", "enjoyed", 1.0),
        ("e1", "ann", None, None, None, 0.0),
        ("e2", "bob", None, None, None, 1.0),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "shapley"}, "model = 'shapley' is not allowed; allowed: removal, last-touch"),
        ({"days": 0.0}, "days = 0.0 is not allowed; allowed: above 0, at most 365"),
        ({"half_life_days": -1.0}, "half_life_days = -1.0"),
        ({"ends": 0.6}, "ends = 0.6 is not allowed; allowed: 0 to 0.5"),
    ],
)
def test_a_config_that_is_not_allowed(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttributionConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "name"), [("circle", "colour"), ("creator", "maker")])
def test_a_feature_that_is_not_there(tmp_path: Path, field: str, name: str) -> None:
    dataset = shop(tmp_path / "shop", EVENTS, items=ITEMS)
    config = AttributionConfig(**{field: name})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{field} = '{name}' is not allowed.*creator, craft"):
        attribute_dataset(dataset, config)


def test_a_dataset_without_times(tmp_path: Path) -> None:
    schema = SCHEMA.model_copy(update={"time": "none"})
    dataset = shop(tmp_path / "shop", EVENTS, items=ITEMS, schema=schema)
    part = dataset / "events" / "part-0.parquet"
    pl.read_parquet(part).drop("timestamp").write_parquet(part)
    with pytest.raises(DatasetError, match='time = "none", and attribution needs'):
        attribute_dataset(dataset, AttributionConfig())


def test_a_dataset_without_conversions(tmp_path: Path) -> None:
    dataset = shop(tmp_path / "shop", EVENTS[:1], items=ITEMS)
    with pytest.raises(DatasetError, match="there is no event named 'order'"):
        attribute_dataset(dataset, AttributionConfig())
    events = {name: event for name, event in SCHEMA.events.items() if name != "order"}
    schema = SCHEMA.model_copy(update={"events": events})
    dataset = shop(tmp_path / "views", EVENTS[:1], items=ITEMS, schema=schema)
    with pytest.raises(DatasetError, match="no event has the role conversion"):
        attribute_dataset(dataset, AttributionConfig())
