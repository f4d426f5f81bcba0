"""The user tower: histories become interest vectors, by ONNX Runtime.

Knows the bundle's tower and vectors; no stores, no requests.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.bundle import Bundle
from model.encode import pad_histories
from model.schema import Feature, FeatureType
from model.tower_session import TowerSession

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

CACHED_PROFILE_BYTES = 16 << 20
"""Of encoded profiles kept, by their content, so that a changed profile is never answered stale."""

_ARROW: dict[FeatureType, pa.DataType] = {
    "category": pa.string(),
    "categories": pa.list_(pa.string()),
    "number": pa.float64(),
    "text": pa.string(),
    "vector": pa.list_(pa.float32()),
}


class UserTower:
    """user_tower.onnx of one bundle. Safe across threads."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        """Load the graph. Raises BundleRejected where it is not what the manifest says."""
        self._session = TowerSession(
            bundle.user_tower_path, inputs=bundle.user_tower_inputs, threads=threads
        )
        self._bundle = bundle
        self._vectors = np.asarray(bundle.vectors)  # plain: indexing a numpy.memmap is slow
        self._profile_inputs = [
            name for name in self._session.inputs if name.startswith("profile.")
        ]
        self._profile_bytes = 0
        self._profiles: OrderedDict[str, Arrays] = OrderedDict()
        self._lock = Lock()

    @property
    def reads_times(self) -> bool:
        """Whether the tower reads times at all."""
        return "gaps" in self._session.inputs or "idle" in self._session.inputs

    def interests(
        self,
        rows: Sequence[Int64],
        events: Sequence[Int64],
        times: Sequence[Int64],
        profiles: Sequence[str],
        *,
        now: Int64,
        objectives: Int64,
    ) -> Float32:
        """Interest vectors of B users: [B, M, D] float32.

        rows, events, times: B arrays of one length each, oldest first: item rows (all >= 0), event
        codes from 1, UTC µs (ignored unless `reads_times`). profiles: B JSON objects of raw user
        features, or empty; a feature that is not what the schema declares counts as missing.
        now: [B] int64 µs. objectives: [B] int64 codes.
        """
        batch = pad_histories(
            rows,
            events,
            times if self.reads_times else None,
            now=now,
            max_history=self._bundle.max_history,
        )
        # Padding reads the last row; the mask hides it from the tower.
        history = self._vectors[batch.rows]
        arrays: Arrays = {
            "history": history,
            "events": batch.events,
            "gaps": batch.gaps,
            "mask": batch.mask,
            "idle": batch.idle,
            "objective": objectives,
        }
        if self._profile_inputs:
            arrays.update(self._profile_arrays(profiles))
        return self._session.run(arrays)

    def _profile_arrays(self, profiles: Sequence[str]) -> Arrays:
        """The tower's profile inputs for B users, ragged ones padded with 0 to the widest."""
        encoded = [self._profile(profile) for profile in profiles]
        return {name: _stack([one[name] for one in encoded]) for name in self._profile_inputs}

    def _profile(self, profile: str) -> Arrays:
        with self._lock:
            known = self._profiles.get(profile)
            if known is not None:
                self._profiles.move_to_end(profile)
                return known
        values = _raw_features(profile)
        columns = {
            name: _column(values.get(name), feature)
            for name, feature in self._bundle.schema.user_features.items()
        }
        encoded = self._bundle.encoder.encode_profiles(pa.table(columns))
        with self._lock:
            if profile not in self._profiles:  # another thread may have been as fast
                self._profiles[profile] = encoded
                self._profile_bytes += _num_bytes(profile, encoded)
            while self._profile_bytes > CACHED_PROFILE_BYTES:
                self._profile_bytes -= _num_bytes(*self._profiles.popitem(last=False))
        return encoded


def _raw_features(profile: str) -> dict[str, Any]:
    """What a profile holds; nothing where it is not a JSON object."""
    try:
        values = json.loads(profile) if profile else {}
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _column(value: Any, feature: Feature) -> pa.Array:
    """One raw feature as a column of one row; null where it does not fit.

    A stored profile may be older than the schema of the bundle that is served.
    """
    kind = _ARROW[feature.type]
    # Arrow takes a string for a list of its characters, and a boolean for a number.
    if isinstance(value, bool) or (pa.types.is_list(kind) and not isinstance(value, list)):
        return pa.nulls(1, kind)
    try:
        column = pa.array([value], kind)
        if feature.type == "vector" and value is not None:
            vector = np.asarray(value, np.float32)
            if vector.shape != (feature.dim,) or not np.isfinite(vector).all():
                return pa.nulls(1, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.nulls(1, kind)
    return column


def _num_bytes(profile: str, encoded: Arrays) -> int:
    """About what a cached profile takes, the objects around the arrays counted."""
    return sys.getsizeof(profile) + sum(array.nbytes + 200 for array in encoded.values()) + 300


def _stack(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """B arrays [1, …] of one rank as one [B, …], padded with 0 where widths differ."""
    if len({array.shape for array in arrays}) == 1:
        return np.concatenate(arrays)
    out = np.zeros((len(arrays), max(array.shape[1] for array in arrays)), arrays[0].dtype)
    for i, array in enumerate(arrays):
        out[i, : array.shape[1]] = array[0]
    return out
