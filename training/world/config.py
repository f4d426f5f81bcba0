"""The parameters of the synthetic world, and the clock they set. Knows nothing of items or users.

The defaults are a fixed yardstick: figures of attribution, discovery and long-term value are
comparable only between runs on the same parameters.
"""

import math
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime

from model.errors import ConfigError

SECOND = 1_000_000
"""Microseconds in a second: every time in the world is an int64 of UTC microseconds."""
DAY = 86_400 * SECOND
NEVER = 2**62
"""The time of what does not happen."""

# Allowed range of each numeric field, both ends allowed.
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "num_users": (10, 2_000_000),
    "num_items": (500, 5_000_000),
    "num_days": (2, 3650),
    "feed_length": (2, 40),
    "popular_share": (0, 1),
    "explore_share": (0, 1),
    "live_share": (0, 0.5),
    "new_items": (0, 0.9),
    "new_users": (0, 0.9),
    "cross_interest": (0, 1),
    "latent_adjacency": (0, 100),
    "taste": (0, 5),
    "focus": (0, 1),
    "satiation": (0, 1),
    "retention": (0, 20),
    "stirring": (0, 1),
    "stirred_rate": (0, 1),
    "stir_half_life_days": (0.05, 365),
    "delay_days": (0.05, 365),
    "delay_shape": (0.2, 50),
    "card_rate": (0, 1),
    "need_rate": (0, 10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """Everything that decides a world; the same config gives the same files."""

    seed: int = 1
    """Which world. Any whole number from 0."""
    num_users: int = 2000
    """People, those who join during the period among them."""
    num_items: int = 6000
    """Items of all kinds together: 44% products, 38% videos, 7% articles, 6% creators, 5% live."""
    num_days: int = 30
    """Days that are simulated and logged."""
    start: str = "2026-03-02"
    """The first day, YYYY-MM-DD; it starts at midnight UTC."""
    feed_length: float = 14.0
    """Mean number of slots in one session's feed."""
    popular_share: float = 0.25
    """Share of feed slots that the logging policy fills by popularity alone."""
    explore_share: float = 0.2
    """Share that it fills uniformly at random; the rest goes to what it knows the person likes."""
    live_share: float = 0.06
    """Share of slots kept for live rooms, while any is on air."""
    new_items: float = 0.3
    """Share of products, videos and articles that are created during the period."""
    new_users: float = 0.15
    """Share of users who join during the period."""
    cross_interest: float = 0.25
    """Share of videos, live rooms and articles that blend two crafts."""
    latent_adjacency: float = 6.0
    """How many times likelier an adjacent craft is than an unrelated one to be a latent interest
    (at adjacency 1). 0: latent interests ignore the circles."""
    taste: float = 1.0
    """How strongly a person's hidden taste (which makers and materials) bends the responses."""
    focus: float = 0.8
    """How much a person's attention stays with one interest for some days. 0: none."""
    satiation: float = 0.05
    """How much each recent item of one interest dulls the next. 0: people never tire."""
    retention: float = 6.0
    """How strongly satisfying sessions bring people back (change of the log-odds of a visit for
    a change of 1 in satisfaction). 0: visits do not depend on what was shown."""
    stirring: float = 1.0
    """Share of the orders that exposures would cause which they do cause. The rest are replaced
    by orders of the same number whose users, times and products do not depend on any exposure.
    0: the null world, where no content and no card causes an order."""
    stirred_rate: float = 0.5
    """Chance that one fully watched, fully stirring piece leads a ready person to an order."""
    stir_half_life_days: float = 4.0
    """How long it takes until half of a stirred level is gone."""
    delay_days: float = 3.0
    """Mean of the days that pass, past the first night, between stirring and its order."""
    delay_shape: float = 2.0
    """Gamma shape of that delay. 1: memoryless; large: all orders come after the same delay."""
    card_rate: float = 0.05
    """Chance that a well-liked product card that was clicked is ordered at once."""
    need_rate: float = 0.6
    """Mean orders a user a month for needs that nothing on the feed caused."""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the field, its value and what is allowed."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "start":
                _start(value)
                continue
            low, high = _RANGES[field.name]
            whole = isinstance(field.default, int)
            allowed = f"a {'whole ' if whole else ''}number from {low} to {high}"
            number = isinstance(value, int if whole else (int, float))
            if isinstance(value, bool) or not number or not low <= value <= high:
                raise ConfigError(f"{field.name} = {value!r} is not allowed: give {allowed}.")
        if self.popular_share + self.explore_share > 1:
            raise ConfigError(
                f"popular_share + explore_share = {self.popular_share + self.explore_share:g} is "
                "not allowed: the two shares of the feed may add up to 1 at most."
            )
        if self.explore_share == 0 and self.popular_share == 0:
            raise ConfigError(
                "popular_share and explore_share are both 0: give one of them more than 0, or "
                "nobody ever meets a new craft."
            )

    @property
    def begin(self) -> int:
        """The first instant of the period, UTC microseconds."""
        return round(_start(self.start).timestamp()) * SECOND

    @property
    def end(self) -> int:
        """The first instant after the period, UTC microseconds."""
        return self.begin + self.num_days * DAY

    @property
    def stir_decay(self) -> float:
        """What is left of a stirred level after a day."""
        return math.exp(-math.log(2.0) / self.stir_half_life_days)


def _start(text: object) -> datetime:
    try:
        day = date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        day = None
    if day is None or not 1971 <= day.year <= 2200:
        raise ConfigError(f"start = {text!r} is not allowed: give a date such as '2026-03-02'.")
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
