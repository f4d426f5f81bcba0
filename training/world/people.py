"""The users of the synthetic world: whom they are, what they love, and what they do not know yet.

Everything here is fixed before the first day; what changes by the day is in life.py. Knows nothing
of items.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world.catalogue import TASTE_DIM
from training.world.config import DAY, WorldConfig
from training.world.crafts import adjacency, crafts

AGE_BANDS = ("under-18", "18-24", "25-34", "35-44", "45-54", "55-plus")
CITY_TIERS = ("tier-1", "new-tier-1", "tier-2", "tier-3", "tier-4-and-below")
CHANNELS = ("organic", "friend", "app-store", "creator-page")


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """U users as arrays over K interests."""

    ids: list[str]
    joined: NDArray[np.int64]
    """[U], UTC microseconds; never later than the start of the last day."""
    age: NDArray[np.int64]
    """[U], positions in AGE_BANDS."""
    city: NDArray[np.int64]
    """[U], positions in CITY_TIERS."""
    channel: NDArray[np.int64]
    """[U], positions in CHANNELS."""
    habit: NDArray[np.float64]
    """[U], log-odds of a visit on a day with nothing to like or dislike."""
    spend: NDArray[np.float64]
    """[U], readiness to buy, mean 1."""
    patience: NDArray[np.float64]
    """[U], slots in a mean session, relative to the config's; mean 1."""
    taste: NDArray[np.float64]
    """[U, TASTE_DIM], unit vectors: what style each person likes."""
    strength: NDArray[np.float64]
    """[U, K], 0.55 to 1 for an expressed or latent interest, else 0."""
    expressed: NDArray[np.bool_]
    """[U, K], interests that are awake from the start; the others with a strength are latent."""
    threshold: NDArray[np.float64]
    """[U], the stirred level at which a latent interest awakens."""


def draw_people(config: WorldConfig) -> People:
    """Draw every user of the world, seeded by the config alone."""
    rng = np.random.default_rng([config.seed, 2])
    num, num_crafts = config.num_users, len(crafts())
    age = rng.choice(len(AGE_BANDS), num, p=(0.06, 0.2, 0.3, 0.22, 0.13, 0.09))
    city = rng.choice(len(CITY_TIERS), num, p=(0.16, 0.2, 0.2, 0.22, 0.22))

    # Interests: what is loved overall, bent a little by age and city; then one craft to begin
    # with, others that are often its neighbours, and latent ones around all of them.
    popular = -0.7 * np.log(rng.permutation(num_crafts) + 1.0)
    by_age = rng.normal(0, 0.3, (len(AGE_BANDS), num_crafts))
    by_city = rng.normal(0, 0.2, (len(CITY_TIERS), num_crafts))
    leaning = popular + by_age[age] + by_city[city]
    near = adjacency()
    first = _top(leaning + rng.gumbel(size=leaning.shape), np.ones(num, np.int64))
    expressed = first | _top(
        leaning + np.log(0.3 + 2.0 * (first @ near)) + rng.gumbel(size=leaning.shape) - 1e9 * first,
        rng.integers(1, 5, num),
    )
    nearest = _nearest(expressed)
    latent = _top(
        0.4 * leaning
        + np.log(1.0 + config.latent_adjacency * nearest)
        + rng.gumbel(size=leaning.shape)
        - 1e9 * expressed,
        rng.integers(2, 5, num),
    )
    strength = rng.uniform(0.55, 1.0, leaning.shape) * (expressed | latent)

    taste = rng.normal(size=(num, TASTE_DIM))
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    joined = np.full(num, config.begin) - (rng.uniform(1, 700, num) * DAY).astype(np.int64)
    late = np.flatnonzero(rng.random(num) < config.new_users)
    joined[late] = config.begin + rng.integers(0, config.num_days, len(late)) * DAY
    spend = np.exp(rng.normal(-0.32, 0.8, num))
    width = max(5, len(str(num)))
    return People(
        ids=[f"u{number:0{width}d}" for number in range(num)],
        joined=joined,
        age=age,
        city=city,
        channel=rng.choice(len(CHANNELS), num, p=(0.45, 0.25, 0.2, 0.1)),
        habit=rng.normal(-0.35, 0.9, num),
        spend=spend,
        patience=np.exp(rng.normal(-0.06, 0.35, num)),
        taste=taste,
        strength=strength,
        expressed=expressed,
        threshold=rng.uniform(0.08, 0.35, num),
    )


def _top(scores: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[U, K] bool: in each row the `count` best columns."""
    rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    best: NDArray[np.bool_] = rank < count[:, None]
    return best


def _nearest(expressed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[U, K]: the largest adjacency of each interest to any expressed one of the user's."""
    near = adjacency()
    nearest = np.zeros(expressed.shape)
    for row in range(len(near)):
        np.maximum(nearest, np.outer(expressed[:, row], near[row]), out=nearest)
    return nearest
