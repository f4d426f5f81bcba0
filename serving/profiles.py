"""User features as the networks read them, from the JSON that stores and requests hold.

Encoded once by content, so that a changed profile is never answered stale. Knows no networks.
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
from model.schema import Feature, FeatureType

Arrays = dict[str, npt.NDArray[Any]]

CACHED_PROFILE_BYTES = 16 << 20
"""Of encoded profiles kept."""

_ARROW: dict[FeatureType, pa.DataType] = {
    "category": pa.string(),
    "categories": pa.list_(pa.string()),
    "number": pa.float64(),
    "text": pa.string(),
    "vector": pa.list_(pa.float32()),
}


_PLAIN: dict[FeatureType, tuple[type, ...]] = {
    "category": (str,),
    "categories": (list,),
    "number": (float, int),
    "text": (str,),
}
"""Of these, a whole column is converted at once: a value by itself takes 8 µs, in a column 0.1."""


class Profiles:
    """The encoder of one bundle's user features. Safe across threads."""

    def __init__(self, bundle: Bundle) -> None:
        self._features, self._encoder = bundle.schema.user_features, bundle.encoder
        self._known: OrderedDict[str, Arrays] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def arrays(self, profiles: Sequence[str], names: Sequence[str]) -> Arrays:
        """The named inputs (`profile.FEATURE`) of B users, ragged ones 0-padded to the widest.

        profiles: JSON objects of raw user features, or empty; a feature that is not what the schema
        declares counts as missing.
        """
        encoded = [self._encoded(profile) for profile in profiles]
        return {name: _stack([one[name] for one in encoded]) for name in names}

    def _encoded(self, profile: str) -> Arrays:
        with self._lock:
            known = self._known.get(profile)
            if known is not None:
                self._known.move_to_end(profile)
                return known
        values = _raw_features(profile)
        columns = {
            name: feature_column([values.get(name)], feature)
            for name, feature in self._features.items()
        }
        encoded = self._encoder.encode_profiles(pa.table(columns))
        with self._lock:
            if profile not in self._known:  # another thread may have been as fast
                self._known[profile] = encoded
                self._num_bytes += _num_bytes(profile, encoded)
            while self._num_bytes > CACHED_PROFILE_BYTES:
                self._num_bytes -= _num_bytes(*self._known.popitem(last=False))
        return encoded


def feature_column(values: Sequence[Any], feature: Feature) -> pa.Array:
    """One raw feature of some users or items as a column; null where a value does not fit.

    A stored profile may be older than the schema of the bundle that is served.
    """
    kind, plain = _ARROW[feature.type], _PLAIN.get(feature.type, ())
    if all(value is None or type(value) in plain for value in values):
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            pass  # one of them does not fit after all
    return pa.array([_fitting(value, feature, kind) for value in values], kind)


def _fitting(value: Any, feature: Feature, kind: pa.DataType) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    # Arrow takes a string for a list of its characters, and a boolean for a number.
    if isinstance(value, bool) or (pa.types.is_list(kind) and not isinstance(value, list)):
        return None
    try:
        pa.array([value], kind)
        if feature.type == "vector" and value is not None:
            vector = np.asarray(value, np.float32)
            if vector.shape != (feature.dim,) or not np.isfinite(vector).all():
                return None
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return value


def _raw_features(profile: str) -> dict[str, Any]:
    """What a profile holds; nothing where it is not a JSON object."""
    try:
        values = json.loads(profile) if profile else {}
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


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
