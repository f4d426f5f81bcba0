"""Fields of a recipe on the command line: taken by type, refused by name."""

import pytest

from model.errors import ConfigError
from training.recipes import movielens
from training.settings import with_settings


def test_fields_are_taken_by_their_type() -> None:
    config = with_settings(
        movielens(),
        [
            "dim=128",
            "learning_rate=0.002",
            "content=false",
            "similarity=cosine",
            'targets=["order", "cart"]',
            "max_minutes=null",
            "recipe=mine",
        ],
    )
    assert (config.dim, config.learning_rate, config.content) == (128, 0.002, False)
    assert (config.similarity, config.targets) == ("cosine", ("order", "cart"))
    assert config.max_minutes is None and config.recipe == "mine"
    assert config.epochs == movielens().epochs and with_settings(movielens(), []) == movielens()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dim", "--set dim: write NAME=VALUE"),
        ("dims=8", "--set dims=8: no field is called 'dims'. Did you mean 'dim'"),
        ("zzz=8", "no field is called 'zzz'. There are: batch_tokens, clip_norm"),
        ("dim=wide", "--set dim=wide: input should be a valid integer"),
        ("dim=64.5", "--set dim=64.5: input should be a valid integer"),
        ("content=maybe", "--set content=maybe: input should be a valid boolean"),
        ("similarity=l2", "--set similarity=l2: input should be 'dot' or 'cosine'"),
        ("targets=7", "--set targets=7: input should be a valid tuple"),
        ("epochs=0", "epochs = 0 is not allowed; allowed: 1 or more"),
    ],
)
def test_what_is_no_field_or_no_such_value_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        with_settings(movielens(), [setting])
    assert message in str(refused.value)
