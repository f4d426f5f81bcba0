"""Configs of the networks: frozen dataclasses, validated when made, kept as JSON beside weights.

A network is rebuilt from its config alone, so whatever shapes depend on is in here. Imports nothing
but the error tree, and so runs wherever torch runs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from model.errors import ConfigError

Reader = Literal["sequence", "bag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """One input array of a tower, as model/encode.py makes it."""

    name: str
    type: Literal["category", "categories", "number", "text", "vector"]
    size: int
    """category, categories, text: number of codes, 0 (none) counted; number: 2; vector: length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """Shapes and regularisation of both towers."""

    num_items: int
    """Rows of the id table; item code 0 is kept for items that were never trained."""
    num_events: int
    """Event names that enter histories; codes 1..num_events, 0 is padding."""
    item_features: tuple[FeatureSpec, ...] = ()
    """Content inputs of the item tower; empty: an ID-only tower."""
    profile_features: tuple[FeatureSpec, ...] = ()
    """User features that join the state of the history."""
    reader: Reader = "sequence"
    """What makes a user's state of a history: `sequence`, a transformer over its order; `bag`, a
    sum over its events, each through a matrix of its kind of event."""
    has_order: bool = True
    """False drops positions: the dataset does not know the order of events, or a bag reads it."""
    has_times: bool = True
    """False leaves out gaps and idle time: the dataset has no times, and none are invented, or a
    bag reads it."""
    dim: int = 64
    """Length of item and interest vectors, and the transformer's width."""
    num_interests: int = 1
    """M, the vectors a user; 1 is the plain two-tower model."""
    max_history: int = 200
    """The most events that the user tower reads, the newest."""
    num_layers: int = 2
    num_heads: int = 2
    feedforward: int = 4
    """Width of the feed-forward layer in units of `dim`."""
    dropout: float = 0.2
    id_dropout: float = 0.1
    """Chance that a step hides an item's id, so that content alone stands for a new item."""
    similarity: Literal["dot", "cosine"] = "dot"
    """cosine scales both towers' vectors to length 1; the score is an inner product either way."""
    objectives: tuple[str, ...] = ("interest",)
    """User-side heads; the position is the code of the `objective` input."""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the first field that is not allowed."""
        for name in (
            "num_events",
            "dim",
            "num_interests",
            "max_history",
            "num_layers",
            "num_heads",
        ):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(
            self.dim % self.num_heads == 0, "num_heads", self.num_heads, f"a divisor of {self.dim}"
        )
        require(self.reader in get_args(Reader), "reader", self.reader, "sequence or bag")
        require(
            self.reader == "sequence" or not (self.has_order or self.has_times),
            "reader",
            self.reader,
            "sequence, where order and times are read",
        )
        for name in ("dropout", "id_dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, name, value, "at least 0 and below 1")
        require(
            self.id_dropout == 0 or bool(self.item_features),
            "id_dropout",
            self.id_dropout,
            "0 where items have no content features: nothing would stand for the item",
        )
        require(len(self.objectives) >= 1, "objectives", self.objectives, "at least one name")


def require(holds: bool, field: str, given: object, allowed: str) -> None:
    """Raise ConfigError unless a config field holds what is allowed."""
    if not holds:
        raise ConfigError(f"{field} = {given!r} is not allowed; allowed: {allowed}.")


def tower_to_json(config: TowerConfig) -> dict[str, Any]:
    """A JSON-ready copy; `tower_from_json` reads it back."""
    return asdict(config)


def tower_from_json(body: Mapping[str, Any]) -> TowerConfig:
    """Rebuild a TowerConfig. Raises ConfigError on a field this version does not know."""
    fields = dict(body)
    unknown = sorted(set(fields) - set(TowerConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r} in a tower config.")
    for name in ("item_features", "profile_features"):
        fields[name] = tuple(FeatureSpec(**spec) for spec in fields.get(name, ()))
    fields["objectives"] = tuple(fields.get("objectives", ("interest",)))
    return TowerConfig(**fields)


BOTTOMS = ("shared", "mmoe", "ple")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueConfig:
    """Shapes and regularisation of the value model (model/value.py)."""

    vector_dim: int
    """D, the length of the towers' vectors."""
    num_interests: int
    """M, the interest vectors that the user tower gives."""
    num_events: int
    """Event names that enter histories; codes 1..num_events, 0 is padding."""
    heads: tuple[str, ...]
    """Names of the outputs, in their order."""
    stats: tuple[str, ...]
    """Names of the item statistics, in the order of the columns of `stats`."""
    item_features: tuple[FeatureSpec, ...] = ()
    profile_features: tuple[FeatureSpec, ...] = ()
    has_order: bool = True
    """False drops positions: the dataset does not know the order of events."""
    has_times: bool = True
    """False leaves out gaps and idle time."""
    dim: int = 32
    """E, the length of an item's vector in the value model."""
    max_history: int = 50
    """The most events of a history that are read, the newest."""
    attention_heads: int = 2
    kin: tuple[str, ...] = ()
    """Item columns: of candidates, it reads what the user did with others of the same value."""
    reads_age: bool = False
    """Whether it reads how old candidates are (model/freshness.py)."""
    bottom: str = "shared"
    """What lies between inputs and heads, one of BOTTOMS (model/value_bottoms.py)."""
    num_experts: int = 4
    """Of a bottom that has experts."""
    hidden: tuple[int, int] = (128, 64)
    """Widths of the bottom's two layers; of an expert, a share of the first."""
    dropout: float = 0.2
    profile_dropout: float = 0.5
    """On what is made of user features: many of their values are almost a user's name."""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the first field that is not allowed."""
        for name in (
            "vector_dim",
            "num_interests",
            "num_events",
            "dim",
            "max_history",
            "attention_heads",
        ):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(
            self.dim % self.attention_heads == 0,
            "attention_heads",
            self.attention_heads,
            f"a divisor of {self.dim}",
        )
        require(self.bottom in BOTTOMS, "bottom", self.bottom, f"one of {', '.join(BOTTOMS)}")
        require(self.num_experts >= 1, "num_experts", self.num_experts, "1 or more")
        require(len(self.heads) >= 1, "heads", self.heads, "at least one name")
        require(len(set(self.heads)) == len(self.heads), "heads", self.heads, "each name once")
        require(len(self.stats) >= 1, "stats", self.stats, "at least one name")
        require(
            len(self.hidden) == 2 and min(self.hidden) >= 1,
            "hidden",
            self.hidden,
            "two widths of 1 or more",
        )
        for name in ("dropout", "profile_dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, name, value, "at least 0 and below 1")


def value_to_json(config: ValueConfig) -> dict[str, Any]:
    """A JSON-ready copy; `value_from_json` reads it back."""
    return asdict(config)


def value_from_json(body: Mapping[str, Any]) -> ValueConfig:
    """Rebuild a ValueConfig. Raises ConfigError on a field this version does not know."""
    fields = dict(body)
    unknown = sorted(set(fields) - set(ValueConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r} in a value model's config.")
    for name in ("item_features", "profile_features"):
        fields[name] = tuple(FeatureSpec(**spec) for spec in fields.get(name, ()))
    for name in ("heads", "stats", "hidden", "kin"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return ValueConfig(**fields)
