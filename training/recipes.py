"""Named runs: each is a function that returns a full RunConfig. `penchant train --recipe NAME`."""

from collections.abc import Callable
from dataclasses import replace

from model.errors import ConfigError
from training.config import RunConfig


def default() -> RunConfig:
    """A sound start for a dataset of any size."""
    return RunConfig()


def demo() -> RunConfig:
    """The demo's world in about a minute on two cores: short histories, small batches."""
    return RunConfig(
        recipe="demo",
        max_history=50,
        id_dropout=0.3,
        loss="sampled",
        num_uniform=1024,
        num_in_batch=512,
        learn_repeats=False,
        epochs=12,
        batch_tokens=2048,
        learning_rate=2e-3,
        warmup_steps=30,
        evaluate_every=2,
    )


def movielens() -> RunConfig:
    """MovieLens-1M: full softmax over 3,416 movies; well under an hour on two cores."""
    return RunConfig(recipe="movielens", epochs=60, batch_tokens=6400, evaluate_every=3, patience=4)


def sparse() -> RunConfig:
    """Few events a user and an item: directions alone count, and much is left out in training."""
    return RunConfig(
        recipe="sparse",
        max_history=50,
        similarity="cosine",
        temperature=0.07,
        dropout=0.5,
        id_dropout=0.2,
        text_start=0.5,
        weight_decay=0.05,
        loss="sampled",
        num_uniform=3072,
        num_in_batch=1024,
        epochs=40,
        batch_tokens=4096,
        evaluate_every=2,
        patience=4,
    )


def fresh() -> RunConfig:
    """As sparse, where many items are new: ids are often hidden, so that content stands in, and
    what content alone finds weighs more."""
    return replace(
        sparse(),
        recipe="fresh",
        dropout=0.3,
        id_dropout=0.3,
        num_uniform=2048,
        num_in_batch=1024,
        logq_correction=0.5,
        new_item_share=0.25,
        epochs=30,
    )


def behaviours() -> RunConfig:
    """Logs of several acts on one item (view, cart, buy): what was looked at before comes again."""
    return RunConfig(
        recipe="behaviours",
        max_history=100,
        dropout=0.3,
        loss="sampled",
        num_uniform=2048,
        num_in_batch=1024,
        epochs=30,
        batch_tokens=8192,
        learning_rate=2e-3,
        evaluate_every=2,
        patience=3,
    )


def bags() -> RunConfig:
    """As behaviours, where the order of a user's events is not known or says little of what will be
    asked: a bag reads them, and each act has a head of its own."""
    return replace(
        behaviours(),
        recipe="bags",
        dim=128,
        reader="bag",
        event_heads=True,
        max_history=200,
        similarity="cosine",
        temperature=0.1,
        batch_tokens=4096,
        evaluate_every=1,
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (default, demo, movielens, sparse, fresh, behaviours, bags)
}


def find_recipe(name: str) -> RunConfig:
    """The recipe of that name. Raises ConfigError that lists the names there are."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}.")
    return RECIPES[name]()
