"""RunConfig: everything that decides a training run, in one frozen dataclass.

Imports nothing but model/config.py, so the training loop runs under any machine's own torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from model.config import FeatureSpec, Reader, TowerConfig, require
from model.errors import ConfigError

Seen = Literal["filter", "converted", "keep"]
Objective = Literal["interest", "direct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run. `training/recipes.py` has named ones; the fields that matter most come first."""

    recipe: str = "default"
    """Where the values came from; kept for the record."""
    seed: int = 17

    split: Literal["auto", "leave-one-out", "time", "published"] = "auto"
    """What is held out for validation and test (training/splits.py); auto: the dataset's own split
    where it has one, else leave-one-out."""
    holdout_days: float | None = None
    """split by time: the days of the test window, and of the validation window before it; None: a
    tenth of the dataset's span."""
    targets: tuple[str, ...] = ()
    """The events that validation and test ask for, such as ("order",); none named: all that enter
    histories."""
    seen: Seen = "filter"
    """What the ranked lists leave out: `filter` all of a user's history, `converted` only what the
    user bought, `keep` nothing."""

    dim: int = 64
    num_interests: int = 1
    reader: Reader = "sequence"
    """What reads a history: `sequence`, a transformer over its order and times; `bag`, a sum that
    knows neither."""
    max_history: int = 200
    """The most events of a history that the model reads, the newest."""
    num_layers: int = 2
    num_heads: int = 2
    feedforward: int = 4
    dropout: float = 0.2
    id_dropout: float = 0.1
    """Chance that a step hides an item's id (see TowerConfig)."""
    new_item_share: float = 0.0
    """How much of the first 50 places of lists goes to items that were never trained: content alone
    scores lower than content and id, and their vectors are weighed so as to make up for it
    (training/new_items.py). 0: they are left as they are."""
    content: bool = True
    """Whether the item tower reads the item features; without, it is ID-only."""
    text_start: float = 0.0
    """Length that an item's texts alone give its vector before training, by the main directions of
    their TF-IDF (training/text_init.py); 0 begins at random."""
    similarity: Literal["dot", "cosine"] = "dot"
    temperature: float = 1.0
    """Scores are divided by it in the loss: 1 for dot, about 0.07 for cosine."""

    loss: Literal["auto", "full", "sampled"] = "auto"
    """full: softmax over the whole catalogue; sampled: over shared negatives; auto: full up to
    `full_softmax_items` items."""
    full_softmax_items: int = 20_000
    num_uniform: int = 1024
    """Negatives drawn uniformly from the catalogue for each batch."""
    num_in_batch: int = 1024
    """Negatives drawn from the batch's own targets, so in proportion to popularity."""
    logq_correction: float = 1.0
    """0 leaves popular items favoured as negatives, 1 corrects fully (Yi et al., RecSys 2019)."""

    objectives: tuple[Objective, ...] = ()
    """Heads of the user tower that learn from future windows (training/objectives.py), one item
    space for all; the first is the default of a request. None named: one head that learns from the
    next event. Needs times and a split by time."""
    window_days: float = 14.0
    """objectives: how far ahead of a position its actions may lie."""
    half_life_days: float = 3.0
    """objectives: an action so much further ahead is drawn half as often."""
    credit_days: float = 7.0
    """objective `interest`: what engaged within so many days before an order weighs as much more as
    it is credited with (training/attribution/); 0: nothing is."""

    event_heads: bool = False
    """One head of the user tower for each event that enters histories, one item space for all: what
    a person will buy is not what they will look at. Their names are the bundle's objectives, those
    of `targets` first, then conversions."""
    other_weight: float = 1.0
    """What an event that is not among `targets` counts as a target, times its own weight; 0: the
    towers learn to find `targets` alone, from whole histories."""
    learn_repeats: bool = True
    """Whether an event on an item that the user engaged with before is a target. False suits
    logs where one visit leaves several events (watch, like) and serving leaves out seen items."""

    epochs: int = 40
    batch_tokens: int = 12_800
    """Real events in a batch; sequences are packed, so no token is padding."""
    min_steps_per_epoch: int = 30
    """Smaller datasets get smaller batches, so that an epoch still takes so many steps."""
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.1
    """The cosine schedule ends at this share of the learning rate."""
    warmup_steps: int = 100
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    evaluate_every: int = 1
    """Epochs between validations."""
    validation_users: int = 10_000
    """At most so many users (a seeded sample) rank the catalogue at a validation."""
    patience: int = 5
    """Validations without a better NDCG@10 before training stops."""
    max_minutes: float | None = None
    """Stops after the epoch in which this is passed; None: no limit."""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the first field that is not allowed."""
        require(0 <= self.seed < 1 << 63, "seed", self.seed, "0 to 9223372036854775807")
        for name in ("epochs", "batch_tokens", "evaluate_every", "patience", "validation_users"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in (
            "num_uniform",
            "num_in_batch",
            "min_steps_per_epoch",
            "warmup_steps",
            "weight_decay",
            "text_start",
            "other_weight",
        ):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("max_minutes", "holdout_days"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "above 0, or none")
        allowed = get_args(Objective)
        require(
            set(self.objectives) <= set(allowed)
            and len(set(self.objectives)) == len(self.objectives),
            "objectives",
            ",".join(self.objectives),
            f"each of {', '.join(allowed)} at most once",
        )
        require(0 <= self.credit_days <= 365, "credit_days", self.credit_days, "0 to 365")
        for name in ("window_days", "half_life_days"):
            value = getattr(self, name)
            require(0 < value <= 365, name, value, "above 0, at most 365")
        require(
            self.reader == "sequence" or not self.objectives,
            "objectives",
            ",".join(self.objectives),
            "none where the reader is a bag, which knows no days ahead",
        )
        for name in ("learning_rate", "temperature", "clip_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(self.reader in get_args(Reader), "reader", self.reader, "sequence or bag")
        require(
            not (self.event_heads and self.objectives),
            "event_heads",
            self.event_heads,
            "false where `objectives` are named: they have heads of their own",
        )
        require(
            self.other_weight == 1 or not self.objectives,
            "other_weight",
            self.other_weight,
            "1 where `objectives` are named: they say themselves what counts",
        )
        require(self.other_weight <= 100, "other_weight", self.other_weight, "100 or less")
        require(0 <= self.new_item_share < 1, "new_item_share", self.new_item_share, "0 to below 1")
        require(0 <= self.logq_correction <= 1, "logq_correction", self.logq_correction, "0 to 1")
        require(
            self.num_uniform + self.num_in_batch >= 1,
            "num_uniform",
            self.num_uniform,
            "1 or more where num_in_batch is 0: a loss needs negatives",
        )

    def tower(
        self,
        *,
        num_items: int,
        num_events: int,
        item_features: tuple[FeatureSpec, ...],
        profile_features: tuple[FeatureSpec, ...],
        has_order: bool,
        has_times: bool,
        heads: tuple[str, ...] = (),
    ) -> TowerConfig:
        """The towers' config for one dataset. Raises ConfigError if the two do not fit.

        heads: the events that enter histories, in the order of `event_heads`.
        """
        objectives = heads if self.event_heads else self.objectives
        features = item_features if self.content else ()
        return TowerConfig(
            num_items=num_items,
            num_events=num_events,
            item_features=features,
            profile_features=profile_features,
            reader=self.reader,
            has_order=has_order and self.reader == "sequence",
            has_times=has_times and self.reader == "sequence",
            dim=self.dim,
            num_interests=self.num_interests,
            max_history=self.max_history,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            feedforward=self.feedforward,
            dropout=self.dropout,
            id_dropout=self.id_dropout if features else 0.0,
            similarity=self.similarity,
            **({"objectives": objectives} if objectives else {}),
        )

    def batch_tokens_for(self, num_tokens: int) -> int:
        """Tokens in a batch when an epoch has so many."""
        return min(self.batch_tokens, max(num_tokens // max(self.min_steps_per_epoch, 1), 64))

    def uses_full_softmax(self, num_items: int) -> bool:
        """Whether the loss ranks the whole catalogue of this size."""
        if self.loss == "auto":
            return num_items <= self.full_softmax_items
        return self.loss == "full"


def run_to_json(config: RunConfig) -> dict[str, Any]:
    """A JSON-ready copy; `run_from_json` reads it back."""
    return asdict(config)


def run_from_json(body: Mapping[str, Any]) -> RunConfig:
    """Rebuild a RunConfig. Raises ConfigError on a field this version does not know."""
    unknown = sorted(set(body) - set(RunConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r} in a run config.")
    body = {name: tuple(v) if isinstance(v, list) else v for name, v in body.items()}
    return RunConfig(**body)
