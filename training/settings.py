"""`--set NAME=VALUE`: single fields of a config, named and checked on the command line."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from model.errors import ConfigError
from training.config import RunConfig
from training.value.config import ValueRunConfig
from training.world.config import WorldConfig

Config = TypeVar("Config", RunConfig, ValueRunConfig, WorldConfig)


def with_settings(config: Config, settings: Sequence[str], *, option: str = "--set") -> Config:
    """The config with each `NAME=VALUE` in place of what it has.

    A value is written as in JSON (64, 0.1, true, null, ["order"]); a word needs no quotes. option:
    how the setting was given, for messages. Raises ConfigError naming the setting: one without `=`,
    a name that the config lacks, a value of another type or outside what is allowed.
    """
    types = get_type_hints(type(config))
    given: dict[str, Any] = {}
    for setting in settings:
        name, is_pair, text = setting.partition("=")
        if not is_pair:
            raise ConfigError(
                f"{option} {setting}: write NAME=VALUE, such as {option} {next(iter(types))}=…."
            )
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{option} {setting}: no field is called {name!r}. {meant}"
                f"There are: {', '.join(sorted(types))}."
            )
        given[name] = _parsed(f"{option} {setting}", text, types[name])
    return replace(config, **given)


def _parsed(setting: str, text: str, kind: Any) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        reason = reason[:1].lower() + reason[1:]
        raise ConfigError(f"{setting}: {reason}.") from None
