"""Raw rows become arrays: the one copy that training and serving both use.

`Encoder` holds what a dataset taught it (vocabularies, means) and turns item and user columns into
the input arrays of the towers; `pad_histories` turns histories into the user tower's arrays.
Knows nothing of tensors, networks or files but its own JSON.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.errors import BundleRejected
from model.schema import KINDS, Feature, Schema
from model.text import MAX_TEXT_TOKENS, NUM_TEXT_BUCKETS, TEXT_ORDER
from model.text_arrays import text_codes

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Arrays = dict[str, npt.NDArray[Any]]

_TEXT = {"buckets": NUM_TEXT_BUCKETS, "max_tokens": MAX_TEXT_TOKENS, "order": TEXT_ORDER}
MAX_CATEGORIES = 16
_FEW = 1000
"""Values that are looked up one by one, in a dictionary that is made once."""
MIN_COUNT = 2
"""A category value seen on fewer items than this has no embedding of its own: it would be an id."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one feature column is encoded."""

    feature: Feature
    vocabulary: tuple[str, ...] = ()
    """category, categories: value i has code i + 1; 0 stands for missing and unknown."""
    mean: float = 0.0
    scale: float = 1.0
    log: bool = False
    """number: (x' - mean) / scale with x' = log1p(x) if log."""

    @cached_property
    def codes(self) -> dict[str | None, int]:
        """The vocabulary, by value."""
        return {value: code for code, value in enumerate(self.vocabulary, 1)}

    @property
    def array_size(self) -> int:
        """What a network must know of the array: how many codes there are, 0 (none) counted, or
        for numbers and vectors how many floats a row has."""
        match self.feature.type:
            case "text":
                return NUM_TEXT_BUCKETS + 1
            case "category" | "categories":
                return len(self.vocabulary) + 1
            case "number":
                return 2
            case "vector":
                return cast(int, self.feature.dim)


class Encoder:
    """What a dataset's columns look like as arrays. Build with `fit_encoder` or `read_encoder`."""

    def __init__(self, items: Mapping[str, Column], profiles: Mapping[str, Column]) -> None:
        self._items, self._profiles = dict(items), dict(profiles)

    @property
    def item_columns(self) -> dict[str, Column]:
        """Item feature name → its encoding, `kind` first; the item tower's content inputs."""
        return dict(self._items)

    @property
    def profile_columns(self) -> dict[str, Column]:
        """User feature name → its encoding; the user tower's profile inputs."""
        return dict(self._profiles)

    def encode_items(self, table: pa.Table) -> Arrays:
        """Item columns → arrays named `item.FEATURE`, one row an item, B = table.num_rows.

        category int32 [B]; categories and text int32 [B, W], 0-padded; number float32 [B, 2]
        (value, 1 if present); vector float32 [B, dim], zeros where missing. A column that the
        table lacks counts as missing everywhere.
        """
        return {f"item.{name}": _encode(c, table, name) for name, c in self._items.items()}

    def encode_profiles(self, table: pa.Table) -> Arrays:
        """User columns → arrays named `profile.FEATURE`, shaped as in encode_items."""
        return {f"profile.{name}": _encode(c, table, name) for name, c in self._profiles.items()}

    def write(self, path: Path) -> None:
        """Write vocab/encoder.json."""
        body = {
            "text": _TEXT,
            "items": {n: _column_json(c) for n, c in self._items.items()},
            "profiles": {n: _column_json(c) for n, c in self._profiles.items()},
        }
        path.write_text(json.dumps(body, ensure_ascii=False, indent=1), encoding="utf-8")


def read_encoder(path: Path) -> Encoder:
    """Read vocab/encoder.json. Raises BundleRejected if its text was hashed in another way."""
    body = json.loads(path.read_text(encoding="utf-8"))
    items = {n: _column_of(c) for n, c in body["items"].items()}
    profiles = {n: _column_of(c) for n, c in body["profiles"].items()}
    reads_text = any(c.feature.type == "text" for c in (*items.values(), *profiles.values()))
    if reads_text and body["text"] != _TEXT:
        raise BundleRejected(
            f"{path.name}: text was hashed as {body['text']}; this version hashes it as {_TEXT}. "
            "Train and export again with this version."
        )
    return Encoder(items, profiles)


def fit_encoder(schema: Schema, items: pa.Table, users: pa.Table | None) -> Encoder:
    """Learn vocabularies (most frequent first) and number statistics from the raw tables."""
    kind = Column(feature=Feature(type="category", filterable=True), vocabulary=KINDS)
    return Encoder(
        {"kind": kind, **{n: _fit(f, items, n) for n, f in schema.item_features.items()}},
        {n: _fit(f, users, n) for n, f in schema.user_features.items()}
        if users is not None
        else {},
    )


def gap_seconds(times: Int64) -> Float32:
    """Seconds since the previous event: times [n] int64 µs, oldest first → [n] float32.

    The first gap is 0: what came before the window is not known.
    """
    gaps = np.zeros(len(times), np.float32)
    gaps[1:] = np.maximum(times[1:] - times[:-1], 0) / 1e6
    return gaps


@dataclass(frozen=True, slots=True)
class HistoryBatch:
    """B histories as the user tower reads them, the newest event in the last column."""

    rows: Int64
    """[B, L] item rows, -1 where padded (on the left)."""
    events: Int64
    """[B, L] event codes from 1, 0 where padded."""
    gaps: Float32
    """[B, L] seconds since the previous event; zeros where the dataset has no times."""
    mask: Bool
    """[B, L] True on real events."""
    idle: Float32
    """[B] seconds from the last event to the request; zeros where there are no times."""


def pad_histories(
    rows: Sequence[Int64],
    events: Sequence[Int64],
    times: Sequence[Int64] | None,
    *,
    now: Int64 | int = 0,
    max_history: int,
) -> HistoryBatch:
    """Pad B histories, oldest first, to the longest of them (1 ≤ L ≤ max_history; newest kept).

    rows, events, times: B arrays of one length each; times in UTC µs, or None where the dataset
    has none. now: [B] or one UTC µs, the moment of the request.
    """
    num_users = len(rows)
    width = min(max((len(r) for r in rows), default=0), max_history)
    shape = (num_users, max(width, 1))
    out_rows, out_events = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    gaps, idle = np.zeros(shape, np.float32), np.zeros(num_users, np.float32)
    moments = np.empty(num_users, np.int64)
    moments[:] = now
    for i, (row, event) in enumerate(zip(rows, events, strict=True)):
        length = min(len(row), shape[1])
        if length == 0:
            continue
        out_rows[i, -length:] = row[-length:]
        out_events[i, -length:] = event[-length:]
        if times is not None:
            window = times[i][-length:]
            gaps[i, -length:] = gap_seconds(window)
            idle[i] = max(int(moments[i]) - int(window[-1]), 0) / 1e6
    return HistoryBatch(out_rows, out_events, gaps, out_rows >= 0, idle)


def pad_flat(
    rows: Int64,
    events: Int64,
    times: Int64 | None,
    lengths: Int64,
    *,
    now: Int64 | int = 0,
    max_history: int,
) -> HistoryBatch:
    """pad_histories for histories that lie end to end: rows, events, times [E], lengths [B].

    For a thousand users it takes a tenth of the time, for a single one three times as long.
    """
    kept = np.minimum(lengths, max_history)
    shape = (len(lengths), max(int(kept.max(initial=0)), 1))
    owner = np.repeat(np.arange(len(lengths)), kept)
    # Counted from a history's newest event, -1, both in the flat arrays and in the padded ones.
    back = np.arange(len(owner)) - np.repeat(np.cumsum(kept), kept)
    source, column = np.cumsum(lengths)[owner] + back, shape[1] + back
    out_rows, out_events = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    out_rows[owner, column], out_events[owner, column] = rows[source], events[source]
    gaps, idle = np.zeros(shape, np.float32), np.zeros(len(lengths), np.float32)
    if times is not None and len(owner):
        window = times[source]
        between = gap_seconds(window)
        between[back == -kept[owner]] = 0  # the oldest that is read
        gaps[owner, column] = between
        newest = back == -1
        moments = np.broadcast_to(np.asarray(now, np.int64), len(lengths))[owner[newest]]
        idle[owner[newest]] = np.maximum(moments - window[newest], 0) / 1e6
    return HistoryBatch(out_rows, out_events, gaps, out_rows >= 0, idle)


def _encode(column: Column, table: pa.Table, name: str) -> npt.NDArray[Any]:
    feature, num_rows = column.feature, table.num_rows
    values = table[name].combine_chunks() if name in table.column_names else None
    if isinstance(values, pa.ChunkedArray):  # combine_chunks keeps an empty column chunked
        values = pa.array([], values.type)
    match feature.type:
        case "category":
            if values is None:
                return np.zeros(num_rows, np.int32)
            return _codes(values, column)
        case "categories":
            return _pad_lists(values, num_rows, column)
        case "text":
            return text_codes(values.to_pylist() if values is not None else [None] * num_rows)
        case "number":
            return _numbers(column, values, num_rows)
        case "vector":
            out = np.zeros((num_rows, cast(int, feature.dim)), np.float32)
            if values is not None and num_rows:
                present = np.asarray(pc.is_valid(values))
                flat = np.asarray(pc.list_flatten(values.filter(pa.array(present))), np.float32)
                out[present] = flat.reshape(-1, cast(int, feature.dim))
            return out


def _codes(values: pa.Array, column: Column) -> Int32:
    """Position in the vocabulary + 1, 0 for null and unknown."""
    values = values.cast(pa.string())
    if len(values) <= _FEW:
        codes = column.codes
        return np.array([codes.get(value, 0) for value in values.to_pylist()], np.int32)
    found = pc.index_in(values, value_set=pa.array(column.vocabulary, pa.string()))
    many: Int32 = pc.fill_null(pc.add(found, 1), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    return many


def _pad_lists(values: pa.Array | None, num_rows: int, column: Column) -> Int32:
    if values is None or not num_rows:
        return np.zeros((num_rows, 1), np.int32)
    codes = _codes(pc.list_flatten(values), column)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(num_rows), lengths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out = np.zeros((num_rows, max(min(int(lengths.max()), MAX_CATEGORIES), 1)), np.int32)
    keep = place < out.shape[1]
    out[owner[keep], place[keep]] = codes[keep]
    return out


def _numbers(column: Column, values: pa.Array | None, num_rows: int) -> Float32:
    out = np.zeros((num_rows, 2), np.float32)
    if values is None:
        return out
    raw = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    present = np.isfinite(raw)
    known = np.log1p(np.maximum(raw[present], 0)) if column.log else raw[present]
    out[present, 0] = np.clip((known - column.mean) / column.scale, -5, 5)
    out[:, 1] = present
    return out


def _fit(feature: Feature, table: pa.Table, name: str) -> Column:
    match feature.type:
        case "category" | "categories":
            values = table[name].combine_chunks()
            if feature.type == "categories":
                values = pc.list_flatten(values)
            return Column(feature=feature, vocabulary=_vocabulary(values))
        case "number":
            raw = table[name].cast(pa.float64()).to_numpy()
            known = raw[np.isfinite(raw)]
            if not len(known):
                return Column(feature=feature)
            # Prices and durations spread over magnitudes; years and ages do not.
            log = bool(known.min() >= 0 and known.max() > 20 * max(np.median(known), 1e-9))
            known = np.log1p(known) if log else known
            scale = float(known.std()) or 1.0
            return Column(feature=feature, mean=float(known.mean()), scale=scale, log=log)
        case _:
            return Column(feature=feature)


def _vocabulary(values: pa.Array) -> tuple[str, ...]:
    counts: Iterable[dict[str, Any]] = pc.value_counts(pc.drop_null(values)).to_pylist()
    often = [(c["counts"], c["values"]) for c in counts if c["counts"] >= MIN_COUNT]
    return tuple(value for _, value in sorted(often, key=lambda pair: (-pair[0], pair[1])))


def _column_json(column: Column) -> dict[str, Any]:
    return {
        "feature": column.feature.model_dump(exclude_none=True),
        "vocabulary": list(column.vocabulary),
        "mean": column.mean,
        "scale": column.scale,
        "log": column.log,
    }


def _column_of(body: Mapping[str, Any]) -> Column:
    return Column(
        feature=Feature.model_validate(body["feature"]),
        vocabulary=tuple(body["vocabulary"]),
        mean=body["mean"],
        scale=body["scale"],
        log=body["log"],
    )
