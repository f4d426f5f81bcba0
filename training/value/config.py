"""ValueRunConfig: everything that decides how the value model of a run is trained."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model.config import require
from model.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRunConfig:
    """The shapes that matter, and the optimisation."""

    seed: int = 17
    dim: int = 32
    """E, the length of an item's vector in the value model."""
    max_history: int = 50
    """The most events of a history that are read, the newest."""
    attention_heads: int = 2
    num_kin: int = 4
    """So many item columns at most, of which it reads what the user did with others of a
    candidate's value; training/value/kin.py chooses them."""
    bottom: str = "shared"
    """shared, mmoe or ple: what heads share (model/value_bottoms.py)."""
    num_experts: int = 4
    """Of mmoe and ple."""
    hidden: tuple[int, int] = (128, 64)
    dropout: float = 0.2
    profile_dropout: float = 0.5
    """On what is made of user features: many of their values are almost a user's name."""
    candidates: int = 0
    """What is learned from: 0, logged exposures; else so many best of retrieval a user."""
    engaged: int = 200
    """Beside those, so many items at most that the user engaged with and did not convert on, where
    lists may hold items of the history."""
    choosing_share: float = 0.2
    """The share of users with candidates who decide when to stop; exposures have their last day."""
    epochs: int = 5
    batch_exposures: int = 1024
    batch_candidates: int = 8192
    """The same where candidates are learned from: some users' lists."""
    min_steps_per_epoch: int = 60
    """Fewer exposures are cut into smaller batches, so that an epoch still takes so many steps."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    ranking_weight: float = 1.0
    """What the order of one user's exposures counts beside the log loss; 0: nothing."""
    rare_heads: float = 0.5
    """How much more what is rare counts, 0 to 1; 0: each exposure counts the same for all heads."""
    patience: int = 2
    """Epochs without a better loss on the choosing day before training stops."""
    warmup_steps: int = 50
    final_learning_rate: float = 0.05
    """The cosine schedule ends at this share of the learning rate."""
    clip_norm: float = 5.0
    averaging: float = 0.995
    """The decay of the running mean of the weights, which is what is kept; 0: the last ones."""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the first field that is not allowed."""
        require(0 <= self.seed < 1 << 63, "seed", self.seed, "0 to 9223372036854775807")
        for name in ("dim", "max_history", "epochs", "batch_exposures", "patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.batch_candidates >= 1, "batch_candidates", self.batch_candidates, "1 or more")
        share = self.choosing_share
        require(0 < share < 1, "choosing_share", share, "above 0 and below 1")
        for name in (
            "candidates",
            "engaged",
            "min_steps_per_epoch",
            "ranking_weight",
            "warmup_steps",
            "weight_decay",
        ):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("learning_rate", "clip_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(0 <= self.averaging < 1, "averaging", self.averaging, "at least 0 and below 1")
        for name in ("rare_heads", "final_learning_rate"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / max(num_steps, 1), 1.0)))
        floor = self.final_learning_rate
        return self.learning_rate * warm * (floor + (1 - floor) * cosine)

    def batch_size(self, num_examples: int) -> int:
        """Exposures, or candidates, in a batch when an epoch has so many."""
        most = self.batch_candidates if self.candidates else self.batch_exposures
        return min(most, max(num_examples // max(self.min_steps_per_epoch, 1), 16))


def run_to_json(config: ValueRunConfig) -> dict[str, Any]:
    """A JSON-ready copy; `run_from_json` reads it back."""
    return asdict(config)


def run_from_json(body: Mapping[str, Any]) -> ValueRunConfig:
    """Rebuild a ValueRunConfig. Raises ConfigError on a field this version does not know."""
    unknown = sorted(set(body) - set(ValueRunConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r} in a value run's config.")
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in body.items()
    }
    return ValueRunConfig(**fields)
