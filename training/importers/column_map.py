"""What a column map may say: which files hold the tables, and which column is which.

Opens no file: `map_file.py` reads a map and explains what is wrong with it, `table_files.py` finds
whether the columns are there. `table_example.toml` shows every field.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from model.schema import KINDS, Event, Feature, Head, ItemKind, TimeKind
from training.columns import SPLITS, closest
from training.importers.sources.opening import Format
from training.importers.times import TimeColumn
from training.validate import RELATIONS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Strict):
    """One of a few names: from a column, as it is or translated; or the same in every row."""

    column: str | None = None
    constant: str | None = None
    values: dict[str, str] = Field(default_factory=dict)
    """Cell → name. Empty: the cells are the names."""

    @model_validator(mode="after")
    def _one_source(self) -> "Choice":
        if (self.column is None) == (self.constant is None):
            raise ValueError('say either column = "…" or constant = "…"')
        if self.constant is not None and self.values:
            raise ValueError("`values` translate the cells of a column: leave them out")
        return self


class Numbering(_Strict):
    """A column, or none: then rows are counted."""

    column: str | None = None


def _column(given: object) -> object:
    return {"column": given} if isinstance(given, str) else given


def _column_or(keyword: str) -> BeforeValidator:
    def read(given: object) -> object:
        return {} if given == keyword else _column(given)

    return BeforeValidator(read)


def _of(allowed: tuple[str, ...]) -> AfterValidator:
    def check(choice: Choice) -> Choice:
        named = list(choice.values.values()) if choice.constant is None else [choice.constant]
        for name in named:
            if name not in allowed:
                raise ValueError(
                    f"{name!r} is not allowed. {closest(name, allowed)}"
                    f"Allowed are: {', '.join(allowed)}"
                )
        return choice

    return AfterValidator(check)


ChoiceField = Annotated[Choice, BeforeValidator(_column)]
TimeField = Annotated[TimeColumn, BeforeValidator(_column)]


class Table(_Strict):
    """The files of one table, and how they are written."""

    files: str | list[str]
    """Paths or patterns such as "logs/*.csv.gz", from the map's folder; read in order of names."""
    format: Format | None = None
    """csv, tsv, parquet or jsonl; left out, the files' names say it."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """What parts the cells of a line; left out, a comma in csv and a tab in tsv."""
    quotes: bool | None = None
    """Whether "…" may hold separators; left out, yes in csv and no in tsv."""
    encoding: str | None = None
    """Of csv and tsv; left out, UTF-8. Spreadsheets in China often write gb18030."""
    nulls: list[str] = [""]
    """Cells of csv and tsv that stand for nothing."""


class MappedFeature(Feature):
    """A feature as dataset.toml declares it, and where it comes from."""

    column: str | None = None
    """Left out: the column has the feature's name."""
    separator: str | None = Field(default=None, min_length=1)
    """What parts the entries of a list that is written as one text."""

    @model_validator(mode="after")
    def _separable(self) -> "MappedFeature":
        if self.separator is not None and self.type not in ("categories", "vector"):
            raise ValueError("`separator` is for categories and vectors")
        return self

    def declared(self) -> Feature:
        """What dataset.toml says of it."""
        return Feature(type=self.type, filterable=self.filterable, dim=self.dim)


class MappedEvent(Event):
    """An event as dataset.toml declares it, and the cells that mean it."""

    values: list[str] | None = None
    """Left out: the event's own name."""

    def declared(self) -> Event:
        """What dataset.toml says of it."""
        return Event(role=self.role, weight=self.weight, unit=self.unit)


class EventTable(Table):
    """[events]: who did what with which item."""

    user_id: str
    item_id: str
    event: ChoiceField
    timestamp: TimeField | None = None
    sequence: Annotated[Numbering, _column_or("file")] | None = None
    """A column of whole numbers, or "file": the rows of a user stand in order."""
    event_id: Annotated[Numbering, _column_or("row")] = Numbering()
    """A column, or "row": file and row number."""
    value: str | None = None
    exposure_id: str | None = None
    source_item_id: str | None = None
    position: str | None = None
    propensity: str | None = None
    split: Annotated[ChoiceField, _of(SPLITS)] | None = None
    drop: list[str] = []
    """Cells of the event column whose rows are left out."""
    missing: Literal["error", "drop"] = "error"
    """What becomes of a row without user, item, event, time or sequence where it needs one."""
    unknown_items: Literal["error", "drop", "add"] = "error"
    """What becomes of an event of an item that has no row in [items]."""
    added_kind: ItemKind | None = None
    """The kind of the items that unknown_items = "add" makes."""
    on_duplicate: Literal["error", "drop"] = "error"
    """What becomes of a row whose event_id an earlier row had."""

    @model_validator(mode="after")
    def _consistent(self) -> "EventTable":
        if (self.unknown_items == "add") != (self.added_kind is not None):
            raise ValueError(
                'unknown_items = "add" and added_kind = "product" (or another kind) go together'
            )
        if self.event.values:
            raise ValueError(
                "say what the cells mean in [event_names]: view = { role = …, values = [cells] }"
            )
        if self.event.constant is not None and self.drop:
            raise ValueError("`drop` names cells of the event column, and there is none")
        return self


class ItemTable(Table):
    """[items]: what there is."""

    item_id: str
    kind: Annotated[ChoiceField, _of(KINDS)]
    title: str | None = None
    created_at: TimeField | None = None
    expires_at: TimeField | None = None
    available: str | None = None
    features: dict[str, MappedFeature] = Field(default_factory=dict)
    on_duplicate: Literal["error", "drop"] = "error"
    """What becomes of a row whose id an earlier row had."""

    @field_validator("features")
    @classmethod
    def _one_title(cls, features: dict[str, MappedFeature]) -> dict[str, MappedFeature]:
        if "title" in features and features["title"].column is not None:
            raise ValueError(
                'two sources for one column: say title = "…" in [items] alone, and '
                'title = { type = "text" } among the features to learn from it'
            )
        return features

    @model_validator(mode="after")
    def _known_title(self) -> "ItemTable":
        if "title" in self.features and self.title is None:
            raise ValueError('the feature `title` needs title = "…" in [items], its column')
        return self


class UserTable(Table):
    """[users]: what is known of people."""

    user_id: str
    features: dict[str, MappedFeature] = Field(default_factory=dict)
    on_duplicate: Literal["error", "drop"] = "error"


class LinkTable(Table):
    """[links]: which item shows, has on air, or is by which."""

    from_item: str
    to_item: str
    relation: Annotated[ChoiceField, _of(RELATIONS)]
    start: TimeField | None = None
    end: TimeField | None = None
    unknown_items: Literal["error", "drop"] = "error"


class ColumnMap(_Strict):
    """The whole of MAP.toml."""

    name: str
    time: TimeKind
    language: str = "en"
    events: EventTable
    event_names: dict[str, MappedEvent]
    items: ItemTable | None = None
    users: UserTable | None = None
    links: LinkTable | None = None
    heads: list[Head] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> "ColumnMap":
        events = self.events
        if self.time in ("exact", "day") and events.timestamp is None:
            raise ValueError(
                f'time = "{self.time}" needs a timestamp in [events]; where only the order is '
                'known, say time = "order" and sequence = "file"'
            )
        if self.time == "exact" and events.timestamp is not None and events.timestamp.gives_days:
            raise ValueError('the timestamp\'s format has no time of day: say time = "day"')
        if self.time == "order" and events.sequence is None:
            raise ValueError(
                'time = "order" needs a sequence in [events]: a column of numbers, or "file" where '
                "the rows of a user stand in order"
            )
        if self.time == "none" and (events.timestamp or events.sequence):
            raise ValueError(
                'time = "none" says that not even the order is known: leave timestamp and sequence '
                'out, or say "exact", "day" or "order"'
            )
        if self.items is None and events.unknown_items != "add":
            raise ValueError(
                'without [items], say unknown_items = "add" and added_kind = "product" in [events]'
            )
        if self.items is not None and self.items.available and events.unknown_items == "add":
            raise ValueError(
                'items that unknown_items = "add" makes have no `available`: leave it out, or say '
                'unknown_items = "drop"'
            )
        constant = events.event.constant
        if constant is not None and constant not in self.event_names:
            raise ValueError(f"the event {constant!r} is not among [event_names]")
        self._refuse_two_meanings()
        return self

    def _refuse_two_meanings(self) -> None:
        meanings: dict[str, str] = {}
        for name, event in self.event_names.items():
            for value in event.values if event.values is not None else [name]:
                other = meanings.setdefault(value, name)
                if other != name or value in self.events.drop:
                    also = f"event {other!r}" if other != name else "`drop`"
                    raise ValueError(f"the cell {value!r} is given to event {name!r} and to {also}")

    def event_values(self) -> dict[str, str]:
        """Cell of the event column → event name."""
        return {
            value: name
            for name, event in self.event_names.items()
            for value in (event.values if event.values is not None else [name])
        }

    def schema_fields(self) -> dict[str, Any]:
        """What dataset.toml will say."""
        items = self.items.features if self.items is not None else {}
        users = self.users.features if self.users is not None else {}
        return {
            "name": self.name,
            "time": self.time,
            "language": self.language,
            "item_features": {name: feature.declared() for name, feature in items.items()},
            "user_features": {name: feature.declared() for name, feature in users.items()},
            "events": {name: event.declared() for name, event in self.event_names.items()},
            "heads": self.heads,
        }
