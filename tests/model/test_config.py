"""Tower configs: refused by field when made, and read back from JSON as they were."""

import json
from typing import Any

import pytest

from model.config import FeatureSpec, TowerConfig, tower_from_json, tower_to_json
from model.errors import ConfigError

CONTENT = (FeatureSpec(name="craft", type="category", size=5),)


def test_a_config_is_read_back_from_json() -> None:
    config = TowerConfig(
        num_items=9,
        num_events=2,
        item_features=CONTENT,
        profile_features=(FeatureSpec(name="年龄", type="number", size=2),),
        objectives=("interest", "direct"),
        similarity="cosine",
        dropout=0.1 + 0.2,
    )
    assert tower_from_json(json.loads(json.dumps(tower_to_json(config)))) == config
    with pytest.raises(ConfigError, match="unknown field 'depth'"):
        tower_from_json({**tower_to_json(config), "depth": 3})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dim": 0}, "dim = 0 is not allowed; allowed: 1 or more"),
        ({"num_interests": 0}, "num_interests = 0"),
        ({"max_history": 0}, "max_history = 0"),
        ({"num_layers": -1}, "num_layers = -1"),
        ({"num_heads": 3}, "num_heads = 3 is not allowed; allowed: a divisor of 64"),
        ({"dropout": 1.0}, "dropout = 1.0 is not allowed; allowed: at least 0 and below 1"),
        ({"item_features": ()}, "id_dropout = 0.1 .*nothing would stand for the item"),
        ({"objectives": ()}, "objectives"),
        ({"reader": "set"}, "reader = 'set' is not allowed; allowed: sequence or bag"),
        ({"reader": "bag"}, "reader = 'bag' is not allowed; allowed: sequence, where order"),
    ],
)
def test_a_field_that_is_not_allowed_is_named(changes: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"num_items": 9, "num_events": 2, "item_features": CONTENT, **changes}
    with pytest.raises(ConfigError, match=says):
        TowerConfig(**given)
