"""The user tower: histories become interest vectors, by ONNX Runtime.

Knows the bundle's tower and vectors; no stores, no requests.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pyarrow as pa

from model.bundle import Bundle
from model.encode import pad_histories
from model.errors import BundleRejected
from model.schema import FeatureType

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

CACHED_PROFILES = 10_000
"""Encoded profiles kept, by their content, so that a changed profile is never answered stale."""

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
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
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                str(bundle.user_tower_path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many types, none of them public
            raise BundleRejected(f"user_tower.onnx cannot be loaded: {error}") from error
        inputs = {entry.name: entry.type for entry in self._session.get_inputs()}
        if set(inputs) != set(bundle.user_tower_inputs):
            raise BundleRejected(
                f"user_tower.onnx takes {sorted(inputs)}, the manifest says "
                f"{sorted(bundle.user_tower_inputs)}"
            )
        self._dtypes = {name: _DTYPES[kind] for name, kind in inputs.items()}
        self._bundle = bundle
        self._vectors = np.asarray(bundle.vectors)  # plain: indexing a numpy.memmap is slow
        self._profile_inputs = [name for name in inputs if name.startswith("profile.")]
        self._profile_types = {n: _ARROW[f.type] for n, f in bundle.schema.user_features.items()}
        self._profiles: OrderedDict[str, Arrays] = OrderedDict()
        self._lock = Lock()

    @property
    def reads_times(self) -> bool:
        """Whether the tower reads times at all."""
        return "gaps" in self._dtypes or "idle" in self._dtypes

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
        features, or empty. now: [B] int64 µs. objectives: [B] int64 codes.
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
        feeds = {
            name: arrays[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()
        }
        (interests,) = self._session.run(["interests"], feeds)
        return np.asarray(interests)

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
        values = json.loads(profile) if profile else {}
        columns = {
            name: pa.array([values.get(name)], type_) for name, type_ in self._profile_types.items()
        }
        encoded = self._bundle.encoder.encode_profiles(pa.table(columns))
        with self._lock:
            self._profiles[profile] = encoded
            if len(self._profiles) > CACHED_PROFILES:
                self._profiles.popitem(last=False)
        return encoded


def _stack(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """B arrays [1, …] of one rank as one [B, …], padded with 0 where widths differ."""
    if len({array.shape for array in arrays}) == 1:
        return np.concatenate(arrays)
    out = np.zeros((len(arrays), max(array.shape[1] for array in arrays)), arrays[0].dtype)
    for i, array in enumerate(arrays):
        out[i, : array.shape[1]] = array[0]
    return out
