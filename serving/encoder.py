"""The towers of a bundle: histories become interests, features of items become vectors.

Knows the bundle's graphs and vectors; no stores, no requests.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.bundle import Bundle
from model.encode import HistoryBatch, pad_histories
from model.tower_session import TowerSession
from serving.domain import NO_LIMIT, Budget
from serving.profiles import Profiles, feature_column
from serving.stages import stage
from serving.turns import Turns

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

ITEMS_A_RUN = 64
"""Items that go through the item tower at once; between two such runs others have their turn."""


class UserTower:
    """user_tower.onnx of one bundle. Safe across threads."""

    def __init__(self, bundle: Bundle, profiles: Profiles, *, threads: int = 1) -> None:
        """Load the graph. Raises BundleRejected where it is not what the manifest says."""
        self._session = TowerSession(
            bundle.user_tower_path, inputs=bundle.user_tower_inputs, threads=threads
        )
        self._vectors = np.asarray(bundle.vectors)  # plain: indexing a numpy.memmap is slow
        self._profiles, self._max_history = profiles, bundle.max_history
        self._profile_inputs = [n for n in self._session.inputs if n.startswith("profile.")]

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
        vectors_of: Callable[[Int64], Float32] | None = None,
    ) -> Float32:
        """Interest vectors of B users: [B, M, D] float32.

        rows, events, times: B arrays of one length each, oldest first: item rows (all >= 0), event
        codes from 1, UTC µs (ignored unless `reads_times`). profiles: B JSON objects of raw user
        features, or empty; a feature that is not what the schema declares counts as missing.
        now: [B] int64 µs. objectives: [B] int64 codes. vectors_of: rows [...] → vectors [..., D],
        of -1 anything; None: those of the bundle.
        """
        batch = pad_histories(
            rows,
            events,
            times if self.reads_times else None,
            now=now,
            max_history=self._max_history,
        )
        arrays = history_arrays(batch, vectors_of or self._vectors_of)
        arrays["objective"] = objectives
        if self._profile_inputs:
            arrays.update(self._profiles.arrays(profiles, self._profile_inputs))
        return self._session.run(arrays)

    def _vectors_of(self, rows: Int64) -> Float32:
        return self._vectors.take(rows, axis=0)


class ItemTower:
    """item_tower.onnx of one bundle, for items that it does not have. Safe across threads."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        """Load the graph. Raises BundleRejected where it is not what the manifest says."""
        self._bundle, self._turns = bundle, Turns()
        self._session = TowerSession(
            bundle.item_tower_path, inputs=bundle.item_tower_inputs, threads=threads
        )

    def vectors(
        self,
        kinds: Sequence[str],
        features: Sequence[Mapping[str, Any]],
        budget: Budget = NO_LIMIT,
    ) -> Float32:
        """Vectors [N, D] of items that were never trained on, by their content alone.

        kinds: [N]. features: [N] raw item features by name; what is left out counts as missing.
        Raises DeadlineExceeded or Cancelled as the budget has it.
        """
        parts = []
        for start in range(0, len(kinds), ITEMS_A_RUN):
            some = slice(start, start + ITEMS_A_RUN)
            # A thousand long texts take 150 MB: one call at a time, and a part of it.
            with self._turns.held(budget), stage("encode"):
                parts.append(self._vectors(kinds[some], features[some]))
        return np.concatenate(parts)

    def _vectors(self, kinds: Sequence[str], features: Sequence[Mapping[str, Any]]) -> Float32:
        columns = {"kind": pa.array(kinds, pa.string())}
        for name, feature in self._bundle.schema.item_features.items():
            columns[name] = feature_column([one.get(name) for one in features], feature)
        arrays = self._bundle.encoder.encode_items(pa.table(columns))
        arrays["id_vector"] = np.zeros((len(kinds), self._bundle.dim), np.float32)
        return self.run(arrays)

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Float32:
        """Vectors [N, D] of N encoded items, with what was learned of their ids in `id_vector`."""
        return self._session.run(arrays)


def history_arrays(
    batch: HistoryBatch, vectors_of: Callable[[Int64], Float32]
) -> dict[str, npt.NDArray[Any]]:
    """What every network reads of B histories, by its inputs' names.

    vectors_of: rows [B, L] of the history's items → [B, L, D]. Of padding, -1, it may give any; the
    mask hides it.
    """
    return {
        "history": vectors_of(batch.rows),
        "events": batch.events,
        "gaps": batch.gaps,
        "mask": batch.mask,
        "idle": batch.idle,
    }
