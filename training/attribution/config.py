"""AttributionConfig: how far back a touch may lie, and what shares out the credit."""

from dataclasses import dataclass
from typing import Literal, get_args

from model.config import require

Model = Literal["removal", "last-touch", "time-decay", "position"]
MODELS: tuple[Model, ...] = get_args(Model)
TASTE = "taste"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionConfig:
    """Everything that decides an attribution."""

    model: Model = "removal"
    """removal: what an order's rate would lose without the touch, fitted to the log; the others
    are rules, which credit every order that any touch came before."""
    days: float = 7.0
    """A touch may lie so many days before the order."""
    circle: str = TASTE
    """What makes a circle of items: a category feature by name, or `taste`: who engages with what
    (training/taste_circles.py)."""
    creator: str = "creator"
    """The category feature that names an item's creator, beside `by` links."""
    half_life_days: float = 2.0
    """time-decay: a touch so many days older gets half the credit."""
    ends: float = 0.4
    """position: the first and the last touch get this share each, the rest is for those between."""
    seed: int = 17
    """Of the circles of taste."""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the first field that is not allowed."""
        require(self.model in MODELS, "model", self.model, ", ".join(MODELS))
        require(0 < self.days <= 365, "days", self.days, "above 0, at most 365")
        require(0 < self.half_life_days < 1e6, "half_life_days", self.half_life_days, "above 0")
        require(0 <= self.ends <= 0.5, "ends", self.ends, "0 to 0.5")
