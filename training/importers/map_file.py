"""Reads a column map, MAP.toml, and says of a wrong one which field it is and what is allowed.

Knows TOML and the errors of pydantic; what a map may say is in `column_map.py`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from model.errors import ConfigError
from model.schema import Schema
from training.columns import closest
from training.importers.column_map import ColumnMap

EXAMPLE = Path(__file__).with_name("table_example.toml")
"""A map with every field explained, which `penchant import table --example` prints."""


def read_map(path: Path) -> tuple[ColumnMap, Schema]:
    """Read MAP.toml, and the dataset.toml that follows from it.

    Raises ConfigError naming the field, what was given and what is allowed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(
            f"{path}: {reason}. Write one with: penchant import table --example > {path.name}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        # A key that comes twice is an error of TOML itself: "Cannot overwrite a value".
        raise ConfigError(
            f"{path.name}: not valid TOML: {error}. Each column may have one source."
        ) from None
    try:
        mapped = ColumnMap.model_validate(data)
        return mapped, Schema.model_validate(mapped.schema_fields())
    except ValidationError as error:
        raise ConfigError(_explained(path.name, error, data)) from None


def _explained(file: str, error: ValidationError, data: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    field = f"field {'.'.join(place)!r}" if place else "the whole"
    said = first["msg"].removeprefix("Value error, ")
    fields = list(_fields_at(place[:-1]))
    if first["type"] == "extra_forbidden":
        said = f"there is no such field. {closest(place[-1], fields)}"
        return f"{file}, {field}: {said}Allowed are: {', '.join(fields)}."
    if first["type"] == "missing":
        return f"{file}, {field}: it is missing, and required. See: penchant import table --example"
    given = (
        "" if isinstance(first["input"], dict | BaseModel) else f" (given: {first['input']!r:.120})"
    )
    return f"{file}, {field}: {said}{given}."


def _fields_at(place: list[str]) -> tuple[str, ...]:
    """The fields that are allowed at a place of the map, such as items.features.brand."""
    kind: Any = ColumnMap
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found = kind.model_fields.get(part)
            kind = found.annotation if found is not None else None
        else:  # dict[str, X]
            kind = get_args(kind)[-1] if get_args(kind) else None
        while get_args(kind) and not (hasattr(kind, "__origin__") and kind.__origin__ is dict):
            kind = get_args(kind)[0]  # X | None, Annotated[X, …]
    return (
        tuple(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()
    )
