"""`dataset.toml`: which features items and users have, which events there are and what they mean.

One Schema travels the whole way: the importer writes it beside the data, training reads it, the
bundle's manifest carries it, and serving checks requests against it. Knows no files of events.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model.errors import DatasetError

FORMAT: Literal[1] = 1

TimeKind = Literal["exact", "day", "order", "none"]
Role = Literal["exposure", "engagement", "conversion", "negative"]
FeatureType = Literal["category", "categories", "number", "text", "vector"]
HeadOf = Literal["item", "linked", "any"]
ItemKind = Literal["product", "video", "live", "article", "creator"]

KINDS: tuple[ItemKind, ...] = ("product", "video", "live", "article", "creator")

# Columns that mean the same in every dataset; a feature may not take one of these names, except
# `title`, which every item has and which may also be declared as a text feature.
ITEM_COLUMNS = ("item_id", "kind", "title", "created_at", "expires_at", "available")
USER_COLUMNS = ("user_id",)
ADDED_COLUMNS = ("popularity", "retired", "circle")
"""What a bundle's items.arrow adds to the columns of items.parquet."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Feature(_Strict):
    """One feature column of items.parquet or users.parquet."""

    type: FeatureType
    """category: a string; categories: a list of strings; number: a float; text: a string that is
    cut into n-grams; vector: a list of `dim` floats (a content embedding)."""
    filterable: bool = False
    """Whether a request may filter on it: category, categories and number only."""
    dim: int | None = Field(default=None, ge=1, le=8192)
    """The length of a vector feature; absent for every other type."""

    @model_validator(mode="after")
    def _consistent(self) -> "Feature":
        if (self.type == "vector") != (self.dim is not None):
            raise ValueError('`dim` is required for type = "vector" and allowed for no other')
        if self.filterable and self.type in ("text", "vector"):
            raise ValueError(f"a {self.type} feature cannot be filterable")
        return self


class Event(_Strict):
    """What one event name means."""

    role: Role
    """exposure: was shown; engagement: enjoyed; conversion: bought; negative: did not want."""
    weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    """How much one such event counts as a training target, relative to the others."""
    unit: str | None = None
    """What the events' `value` column holds, if anything: "seconds", "stars", "CNY"."""


class Head(_Strict):
    """One output of the value model: the chance that an event follows an exposure."""

    name: str = Field(min_length=1, max_length=200)
    event: str
    threshold: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    """The least `value` that counts; none: any event of that name."""
    window_days: float | None = Field(default=None, gt=0, le=36_500, strict=True)
    """How long after the exposure the event still counts; none: the same session."""
    of: HeadOf = "item"
    """What the event has to be on. item: what was shown; linked: an item that it links to, such as
    the product in a video; any: whatever item."""
    after_days: float | None = Field(default=None, gt=0, le=36_500, strict=True)
    """How long after the exposure the event begins to count; none: at once."""

    @model_validator(mode="after")
    def _consistent(self) -> "Head":
        if self.window_days is None and (self.of != "item" or self.after_days is not None):
            raise ValueError(
                "`of` and `after_days` need `window_days`: what has the exposure's id is of the "
                "item shown, and of the same session"
            )
        if self.after_days is not None and self.after_days >= (self.window_days or 0):
            raise ValueError("`after_days` must be less than `window_days`")
        return self


class Schema(_Strict):
    """The whole of `dataset.toml`."""

    format: Literal[1] = FORMAT
    name: str = Field(min_length=1, max_length=200)
    time: TimeKind
    """exact: timestamps to the second or better; day: to the day; order: only the order of a
    user's events is known; none: not even that."""
    language: str = "en"
    """The language of titles and names, an ISO 639-1 code."""
    item_features: dict[str, Feature] = Field(default_factory=dict)
    user_features: dict[str, Feature] = Field(default_factory=dict)
    events: dict[str, Event]
    heads: list[Head] = Field(default_factory=list)

    @field_validator("item_features")
    @classmethod
    def _item_names(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name, feature in features.items():
            if name == "title" and feature.type == "text":
                continue
            if name in ITEM_COLUMNS:
                raise ValueError(f"{name!r} is a fixed column of items.parquet; rename the feature")
            if name in ADDED_COLUMNS:
                raise ValueError(f"{name!r} is a column that bundles add; rename the feature")
        return features

    @field_validator("user_features")
    @classmethod
    def _user_names(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name in features:
            if name in USER_COLUMNS:
                raise ValueError(f"{name!r} is a fixed column of users.parquet; rename the feature")
        return features

    @model_validator(mode="after")
    def _consistent(self) -> "Schema":
        if not any(event.role in ("engagement", "conversion") for event in self.events.values()):
            raise ValueError("at least one event needs the role engagement or conversion")
        self._check_heads()
        return self

    def _check_heads(self) -> None:
        possible = [name for name, event in self.events.items() if event.role != "exposure"]
        names: set[str] = set()
        for place, head in enumerate(self.heads):
            where = f"heads.{place}"
            # Being shown something later says that the person came back.
            returns = head.after_days is not None and head.event in self.events
            if head.event not in possible and not returns:
                what = "an exposure" if head.event in self.events else "an undeclared event"
                raise ValueError(
                    f"{where}.event, of head {head.name!r}, names {what}: {head.event!r}; allowed "
                    f"are {', '.join(possible)}"
                )
            if head.name in names:
                raise ValueError(
                    f"{where}.name is {head.name!r}, which another head has; give each its own"
                )
            names.add(head.name)

    @property
    def history_events(self) -> tuple[str, ...]:
        """The events that enter a user's history, in the order that gives them their codes."""
        return tuple(
            name
            for name, event in self.events.items()
            if event.role in ("engagement", "conversion")
        )

    @property
    def negative_events(self) -> frozenset[str]:
        """The events that say that the item was not wanted."""
        return frozenset(n for n, event in self.events.items() if event.role == "negative")

    @property
    def has_order(self) -> bool:
        """Whether the events of a user have an order at all."""
        return self.time != "none"

    @property
    def has_times(self) -> bool:
        """Whether gaps between events are real seconds (or days)."""
        return self.time in ("exact", "day")

    def worth(self, event: str) -> float:
        """What one such event is worth in a slate: its weight; less than 0 where it is unwanted.
        Nothing for an exposure, which nobody did."""
        declared = self.events[event]
        if declared.role == "exposure":
            return 0.0
        return -declared.weight if declared.role == "negative" else declared.weight

    def filterable(self) -> dict[str, Feature]:
        """The item columns that a request may filter on, `kind` among them."""
        columns = {"kind": Feature(type="category", filterable=True)}
        columns.update({n: f for n, f in self.item_features.items() if f.filterable})
        return columns


def parse_schema(data: Mapping[str, Any], *, file: str) -> Schema:
    """Check a decoded dataset.toml (or a manifest's copy of it).

    Raises DatasetError naming the field, what was given and what is allowed.
    """
    try:
        return Schema.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if first["loc"]:  # else a rule between fields, whose message names them
            given = "" if first["type"] == "missing" else f" (given: {first['input']!r:.120})"
            said = f"field {'.'.join(str(part) for part in first['loc'])!r}: {said}{given}"
        raise DatasetError(
            f"{said}.",
            file=file,
            remedy="See docs/dataset.md for every field and its allowed values.",
        ) from None


def read_schema(dataset: Path) -> Schema:
    """Read DATASET/dataset.toml. Raises DatasetError if it is missing, broken or not allowed."""
    path = dataset / "dataset.toml"
    if dataset.is_file():
        raise DatasetError(
            f"{dataset} is a file.", file="dataset.toml", remedy="Name the dataset's folder."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DatasetError(
            f"there is no such file in {dataset}.",
            file="dataset.toml",
            remedy="Make a dataset with `penchant import` or `penchant simulate`, or write the "
            "file as docs/dataset.md describes.",
        ) from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"not UTF-8 ({error.reason}).", file="dataset.toml") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DatasetError(f"not valid TOML: {error}.", file="dataset.toml") from None
    return parse_schema(data, file="dataset.toml")


def write_schema(schema: Schema, dataset: Path) -> None:
    """Write DATASET/dataset.toml so that a person can read and edit it."""
    lines = [
        f"format = {schema.format}",
        f"name = {_toml(schema.name)}",
        f"time = {_toml(schema.time)}",
        f"language = {_toml(schema.language)}",
    ]
    for table, entries in (
        ("item_features", schema.item_features),
        ("user_features", schema.user_features),
        ("events", schema.events),
    ):
        if entries:
            lines += ["", f"[{table}]"]
            lines += [f"{_toml_key(name)} = {_inline(entry)}" for name, entry in entries.items()]
    for head in schema.heads:
        lines += ["", "[[heads]]"]
        given = head.model_dump(exclude_none=True, exclude_defaults=True)
        lines += [f"{k} = {_toml(v)}" for k, v in given.items()]
    (dataset / "dataset.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _inline(entry: BaseModel) -> str:
    fields = entry.model_dump(exclude_none=True, exclude_defaults=True)
    return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in fields.items()) + " }"


def _toml_key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _toml(name)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        controls = {c: f"\\u{c:04x}" for c in (*range(32), 127)}
        return f'"{escaped.translate(controls)}"'
    return repr(value)
