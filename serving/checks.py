"""Checks of single values of a request: numbers, ids, texts, times, vectors, features.

Each raises BadRequest (or a kind of it) that names the field, says what was given and what is
allowed. What a whole request may say is in serving/validate.py.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from model.schema import Feature
from serving.config import Limits
from serving.domain import FeatureValue, FloatArray
from serving.errors import BadRequest, BadVector, UnknownField
from serving.generation import Generation

Features = Mapping[str, FeatureValue]
LARGEST = 1e15
"""Of a vector's numbers and of a weight, either way: squares and sums of such are float32 still."""


def between(where: str, number: int, least: int, most: int, unit: str = "") -> None:
    """Raise BadRequest for a number outside its limits."""
    if not least <= number <= most:
        unit = f" {unit}" if unit else ""
        raise BadRequest(f"{number}{unit} are not allowed; allowed: {least} to {most}", field=where)


def check_ids(ids: Sequence[str], where: str, limits: Limits) -> None:
    """Raise BadRequest for empty or too long ids."""
    most = limits.max_id_bytes
    for i, name in enumerate(ids):
        if not name:
            raise BadRequest("an empty string is no id and no value", field=f"{where}[{i}]")
        if 4 * len(name) > most:
            check_length(name, f"{where}[{i}]", most)


def check_length(text: str, where: str, most: int) -> None:
    """Raise BadRequest for a text of more than `most` bytes of UTF-8."""
    # A character has at most 4 bytes, so most texts need no encoding to be known short enough.
    if 4 * len(text) > most and len(text.encode()) > most:
        raise BadRequest(f"longer than {most} bytes: {text[:40]!r}…", field=where)


def check_time(time_us: int, where: str = "time_us") -> None:
    """Raise BadRequest for a moment that no calendar has."""
    most = 253_402_300_800_000_000  # the year 10000, beyond which Arrow and Python have no dates
    if not -most <= time_us <= most:
        raise BadRequest(f"{time_us} µs since 1970 is no time that a calendar has", field=where)


def check_vectors(vectors: FloatArray, where: str, most: int, generation: Generation) -> None:
    """vectors: [M, D] float32."""
    if vectors.ndim != 2 or vectors.shape[1] != generation.bundle.dim:
        dim = vectors.shape[1] if vectors.ndim == 2 else 0
        raise BadVector(
            f"vectors of dimension {dim}; this bundle's have {generation.bundle.dim}", field=where
        )
    between(where, len(vectors), 1, most, unit="vectors")
    check_numbers(vectors, where)


def check_numbers(vectors: FloatArray, where: str) -> None:
    """Raise BadVector for numbers [n, D] that cannot be reckoned with."""
    broken = np.flatnonzero(~(np.abs(vectors) <= LARGEST).all(axis=1))  # NaN is not, either
    if len(broken):
        raise BadVector(
            f"vector {broken[0]} holds NaN, infinity or a number beyond {LARGEST:g}", field=where
        )


def check_features(
    features: Features, declared: Mapping[str, Feature], where: str, limits: Limits, *, of: str
) -> None:
    """Raise BadRequest for features that the schema does not declare, or of another type.

    of: whose they are, `user` or `item`.
    """
    for name, value in features.items():
        feature = declared.get(name)
        if feature is None:
            raise UnknownField(
                f"no {of} feature {name!r:.80}; declared: {', '.join(declared) or 'none'}",
                field=where,
            )
        if isinstance(value, np.ndarray):
            given = "vector"
            if feature.type == "vector" and value.shape != (feature.dim,):
                raise BadVector(
                    f"{name!r} has dimension {value.size}, not {feature.dim}", field=where
                )
            check_numbers(value[np.newaxis], where)
        elif isinstance(value, str):
            given = "text" if feature.type == "text" else "category"
            if given == "category" and value:
                check_ids([value], where, limits)
            elif given == "text":
                check_length(value, where, limits.max_text_bytes)
        elif isinstance(value, float | int):
            given = "number"
            if not math.isfinite(value):
                raise BadRequest(f"{name!r} is {value}; leave out what is not known", field=where)
        else:
            given = "categories"
            between(where, len(value), 0, limits.max_values, unit="values")
            check_ids(list(map(str, value)), where, limits)
        if given != feature.type:
            raise BadRequest(f"{name!r} is of type {feature.type}, not {given}", field=where)
