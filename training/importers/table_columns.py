"""From the columns that a map names to those of the contract, one batch at a time.

For each table: which field of the map fills which column, and how its cells are read. Knows nothing
of what to do with rows that are refused by a choice of the map: that is `tables.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import polars as pl

from model.schema import KINDS, TimeKind
from training.columns import SPLITS, closest
from training.importers.cells import Cells
from training.importers.column_map import (
    Choice,
    ColumnMap,
    EventTable,
    ItemTable,
    LinkTable,
    MappedFeature,
    UserTable,
)
from training.importers.table_files import Batch
from training.importers.times import Days, TimeColumn, TimeReader
from training.validate import RELATIONS

Read = Callable[[Cells], pl.Series]
_DAYS: Mapping[TimeKind, Days] = {"exact": "refused", "day": "only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One column of the contract, and where it comes from."""

    name: str
    column: str | None
    """The source's column; None: every row has `constant`."""
    read: Read
    constant: str | None = None
    field: str = ""
    """The field of the map that names the column, where it is not called as the target is."""


def named_columns(targets: list[Target]) -> dict[str, str]:
    """Field of the map → column of the source."""
    return {t.field or t.name: t.column for t in targets if t.column is not None}


def converted(batch: Batch, targets: list[Target]) -> pl.DataFrame:
    """The batch as columns of the contract. Raises DatasetError for the first wrong cell."""
    columns = []
    for target in targets:
        if target.column is None:
            constant = [target.constant] * batch.frame.height
            columns.append(pl.Series(target.name, constant, dtype=pl.String))
        else:
            columns.append(target.read(batch.cells(target.column)).alias(target.name))
    return pl.DataFrame(columns)


def event_targets(mapped: ColumnMap) -> list[Target]:
    """user_id, item_id and event first."""
    table: EventTable = mapped.events
    targets = [
        Target(name="user_id", column=table.user_id, read=Cells.ids),
        Target(name="item_id", column=table.item_id, read=Cells.ids),
        _choice(
            "event",
            table.event.model_copy(update={"values": mapped.event_values()}),
            remedy="Add it to the `values` of an event in [event_names], or to `drop` in [events].",
        ),
    ]
    if table.timestamp is not None:
        targets.append(_time("timestamp", table.timestamp, _DAYS.get(mapped.time, "allowed")))
    if table.sequence is not None and table.sequence.column is not None:
        targets.append(Target(name="sequence", column=table.sequence.column, read=Cells.integers))
    if table.event_id.column is not None:
        targets.append(Target(name="event_id", column=table.event_id.column, read=Cells.ids))
    optional: list[tuple[str, str | None, Read]] = [
        ("value", table.value, Cells.numbers),
        ("exposure_id", table.exposure_id, Cells.texts),
        ("source_item_id", table.source_item_id, _texts_or_null),
        ("position", table.position, partial(_in_range, read=Cells.integers, high=2**31 - 1)),
        ("propensity", table.propensity, partial(_in_range, read=Cells.numbers, high=1)),
    ]
    targets += [Target(name=n, column=c, read=read) for n, c, read in optional if c is not None]
    if table.split is not None:
        targets.append(_choice("split", table.split, allowed=SPLITS, nullable=True))
    return targets


def item_targets(table: ItemTable) -> list[Target]:
    """item_id first."""
    targets = [
        Target(name="item_id", column=table.item_id, read=Cells.ids),
        _choice("kind", table.kind, allowed=KINDS),
        Target(name="title", column=table.title, read=_texts_or_empty, constant=""),
    ]
    for name in ("created_at", "expires_at"):
        time = getattr(table, name)
        if time is not None:
            targets.append(_time(name, time, "allowed"))
    if table.available is not None:
        targets.append(Target(name="available", column=table.available, read=_known_truths))
    return targets + _features(table.features)


def user_targets(table: UserTable) -> list[Target]:
    """user_id first."""
    first = Target(name="user_id", column=table.user_id, read=Cells.ids)
    return [first, *_features(table.features)]


def link_targets(table: LinkTable) -> list[Target]:
    """from_item and to_item first."""
    targets = [
        Target(name="from_item", column=table.from_item, read=Cells.ids),
        Target(name="to_item", column=table.to_item, read=Cells.ids),
        _choice("relation", table.relation, allowed=RELATIONS),
    ]
    for name in ("start", "end"):
        time = getattr(table, name)
        if time is not None:
            targets.append(_time(name, time, "allowed"))
    return targets


def _features(features: Mapping[str, MappedFeature]) -> list[Target]:
    return [
        Target(
            name=name,
            column=feature.column or name,
            read=_feature(feature),
            field=f"features.{name}",
        )
        for name, feature in features.items()
        if name != "title"  # the fixed column holds it
    ]


def _feature(feature: MappedFeature) -> Read:
    match feature.type:
        case "category":
            return _texts_or_null
        case "text":
            return Cells.texts
        case "number":
            return Cells.numbers
        case "categories":
            return partial(Cells.lists, separator=feature.separator)
        case "vector":
            return partial(Cells.vectors, dim=feature.dim or 0, separator=feature.separator)


def _time(name: str, column: TimeColumn, days: Days) -> Target:
    reader = TimeReader(column, days=days)  # one for all files: it remembers how times are written
    return Target(name=name, column=column.column, read=reader.read)


def _choice(
    name: str,
    choice: Choice,
    *,
    allowed: tuple[str, ...] = (),
    nullable: bool = False,
    remedy: str = "Mend the cell, or translate it in the map: values = { cell = name }.",
) -> Target:
    values = choice.values or {value: value for value in allowed}

    def read(cells: Cells) -> pl.Series:
        texts = cells.texts()
        names = texts.replace_strict(values, default=None, return_dtype=pl.String)
        unknown = names.is_null()
        if nullable:
            unknown &= texts.is_not_null()
        strange = texts.filter(unknown)
        if len(strange):
            first = strange[0]
            found = ", ".join(repr(v) for v in texts.drop_nulls().unique(maintain_order=True)[:20])
            hint = "" if first is None else closest(first, values)
            cells.refuse(
                unknown,
                f"{{}} is none of the cells that the map knows: {', '.join(values)}. {hint}"
                f"Here are: {found or 'none'}.",
                remedy,
            )
        return names

    return Target(name=name, column=choice.column, read=read, constant=choice.constant)


def _texts_or_null(cells: Cells) -> pl.Series:
    texts = cells.texts()
    return texts.set(texts == "", None)


def _texts_or_empty(cells: Cells) -> pl.Series:
    return cells.texts().fill_null("")


def _known_truths(cells: Cells) -> pl.Series:
    truths = cells.truths()
    cells.refuse(truths.is_null(), "there is no value.", "Write true or false in every row.")
    return truths


def _in_range(cells: Cells, *, read: Read, high: float) -> pl.Series:
    numbers = read(cells)
    cells.refuse(
        ~numbers.is_between(0, high),
        f"{{}} is not from 0 to {high:.0f}.",
        "Mend it, or leave it empty where it is unknown.",
    )
    return numbers
