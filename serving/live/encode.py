"""Live items → what the networks of one bundle make of them.

A live item is what the bundle knows of it, if it does, with what was written since laid over it.
The item tower gives its vector; where it is linked to others (a live room to the products on air),
the vector lies between its own and theirs. Knows no stores and no rows of live items.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.bundle import Bundle
from model.tower_session import TowerSession
from serving.domain import NO_LIMIT, Budget
from serving.encoder import ITEMS_A_RUN
from serving.generation import Generation
from serving.profiles import feature_column
from serving.stages import stage
from serving.store.item_log import StoredItem
from serving.turns import Turns

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

LINK_SHARE = 0.5
"""How much of a linked item's vector is made of those that it is linked to."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a bundle's networks made of n items."""

    vectors: Float32
    """[n, D] of the item tower; of a linked item, between its own and those of the others."""
    value_vectors: Float32
    """[n, E] of the value model's item side; E = 0 where the bundle has no value model."""

    def take(self, rows: Int64) -> "Encoded":
        """Some of the items, in this order."""
        return Encoded(self.vectors[rows], self.value_vectors[rows])

    def packed(self) -> list[bytes]:
        """One blob an item, for the store."""
        both = np.concatenate([self.vectors, self.value_vectors], axis=1).astype("<f4", copy=False)
        return [row.tobytes() for row in both]

    @classmethod
    def unpacked(cls, blobs: Sequence[bytes], dim: int) -> "Encoded":
        """What `packed` made, of at least one item with vectors of length `dim`."""
        both = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1)
        return cls(np.ascontiguousarray(both[:, :dim]), np.ascontiguousarray(both[:, dim:]))


VectorsOf = Callable[[Sequence[str]], tuple[npt.NDArray[np.bool_], Float32]]
"""Item ids → which of them are known [n], and the vectors [n, D] (anything for the others)."""


class ItemEncoder:
    """The item side of one generation's networks. Safe across threads."""

    def __init__(self, generation: Generation, *, threads: int = 1) -> None:
        """Load the graph of the value model's item side, where there is one."""
        bundle = generation.bundle
        self._generation, self._turns = generation, Turns()
        self._schema, self._table = bundle.schema, bundle.items.table.schema
        self._value = (
            None
            if bundle.value is None
            else TowerSession(
                bundle.value.item_path, inputs=bundle.value.item_inputs, threads=threads
            )
        )
        self._centroids = _centroids(bundle)

    def resolved(self, items: Sequence[StoredItem]) -> list[StoredItem]:
        """The items, with what nobody has said of them as the bundle has it."""
        if all(one.is_available is not None and one.expires_us is not None for one in items):
            return list(items)
        generation, rows = self._generation, self.rows_beneath(items)
        expires, available = generation.expires_of(rows), generation.available_of(rows)
        return [
            replace(
                item,
                is_available=there if item.is_available is None else item.is_available,
                expires_us=until if item.expires_us is None else item.expires_us,
            )
            for item, there, until in zip(items, available.tolist(), expires.tolist(), strict=True)
        ]

    def encode(
        self,
        items: Sequence[StoredItem],
        vectors_of: VectorsOf,
        budget: Budget = NO_LIMIT,
    ) -> Encoded:
        """Run the networks. vectors_of: where the vectors of linked items are found.

        Raises DeadlineExceeded or Cancelled as the budget has it.
        """
        parts = []
        for start in range(0, len(items), ITEMS_A_RUN):
            with self._turns.held(budget), stage("encode"):
                parts.append(self._encode(items[start : start + ITEMS_A_RUN]))
        vectors = np.concatenate([part.vectors for part in parts])
        value_vectors = np.concatenate([part.value_vectors for part in parts])
        return Encoded(_led(items, vectors, vectors_of), value_vectors)

    def rows_beneath(self, items: Sequence[StoredItem]) -> Int64:
        """[n] the bundle's row that lies beneath each item; -1 for none.

        Beneath one that was given whole it lies if the bundle was made of what came since: then it
        has learned of this item, and not of one that had its id before.
        """
        rows = self._generation.items.rows_of([item.item_id for item in items])
        known = [
            not one.is_whole or 0 < one.created_us <= self._generation.as_of_us for one in items
        ]
        return np.where(known, rows, -1)

    def known(self, items: Sequence[StoredItem]) -> list[StoredItem]:
        """Those of which it is known what they are: no changes of what this bundle lacks."""
        beneath = self.rows_beneath(items).tolist()
        return [one for one, row in zip(items, beneath, strict=True) if one.is_whole or row >= 0]

    def table(self, items: Sequence[StoredItem], vectors: Float32) -> pa.Table:
        """The items as rows of items.arrow: its columns, and the circle nearest to each vector."""
        beneath = self.rows_beneath(items)
        kinds, features = self._raw(items, beneath)
        table, under = self._generation.items.table, pa.array(beneath, mask=beneath < 0)
        columns: dict[str, Any] = {
            "item_id": [item.item_id for item in items],
            "kind": kinds,
            "popularity": pc.fill_null(table["popularity"].take(under), 0).combine_chunks(),
            "retired": np.zeros(len(items), bool),
            "circle": self.circles(vectors),
        }
        if self._generation.has_ages:
            columns["created_at"] = self._created(items, beneath)
        for name, feature in self._schema.item_features.items():
            columns[name] = feature_column([one.get(name) for one in features], feature)
        if "title" not in columns:  # every item has one, declared as a feature or not
            columns["title"] = [one.get("title") for one in features]
        arrays = []
        for field in self._table:
            values = columns.get(field.name)
            if values is None:
                arrays.append(pa.nulls(len(items), field.type))
            elif isinstance(values, pa.Array):
                arrays.append(values.cast(field.type))
            else:
                arrays.append(pa.array(values, field.type))
        return pa.table(arrays, schema=self._table)

    def circles(self, vectors: Float32) -> Int32:
        """[n] the circle whose centroid points most in the direction of each vector [n, D]; -1
        where the bundle has none."""
        if not len(self._centroids):
            return np.full(len(vectors), -1, np.int32)
        nearest: Int32 = (vectors @ self._centroids.T).argmax(axis=1).astype(np.int32)
        return nearest

    def _created(self, items: Sequence[StoredItem], beneath: Int64) -> pa.Array:
        """[n] when each item came: as the bundle says, else when it was first upserted."""
        of_bundle = self._generation.items.table["created_at"]
        under = of_bundle.take(pa.array(beneath, mask=beneath < 0)).combine_chunks()
        first = pa.array(
            [
                None if row >= 0 else item.created_us or None
                for row, item in zip(beneath.tolist(), items, strict=True)
            ],
            pa.timestamp("us", "UTC"),
        )
        return pc.coalesce(under.cast(first.type), first)

    def _encode(self, items: Sequence[StoredItem]) -> Encoded:
        beneath = self.rows_beneath(items)
        kinds, features = self._raw(items, beneath)
        columns = {"kind": pa.array(kinds, pa.string())}
        for name, feature in self._schema.item_features.items():
            columns[name] = feature_column([one.get(name) for one in features], feature)
        bundle = self._generation.bundle
        arrays = bundle.encoder.encode_items(pa.table(columns))
        own = np.zeros((len(items), bundle.dim), np.float32)
        known = np.flatnonzero(beneath >= 0)
        own[known] = bundle.id_vectors[beneath[known]]
        vectors = self._generation.item_tower.run({**arrays, "id_vector": own})
        value_vectors = np.empty((len(items), 0), np.float32)
        if bundle.value is not None and self._value is not None:
            arrays["vector"] = vectors
            arrays["stats"] = np.repeat(bundle.value.prior[np.newaxis], len(items), axis=0)
            value_vectors = self._value.run(arrays)
            # Their statistics went into these, and are known nowhere else.
            value_vectors[known] = bundle.value.items[beneath[known]]
        return Encoded(vectors, value_vectors)

    def _raw(
        self, items: Sequence[StoredItem], beneath: Int64
    ) -> tuple[list[str], list[Mapping[str, Any]]]:
        """Kinds, and raw features by name, with the bundle's beneath what was written since."""
        known = np.flatnonzero(beneath >= 0)
        kinds, features = [item.kind for item in items], [dict(item.features) for item in items]
        if not len(known):
            return kinds, [*features]
        names = [n for n in {"title": None, **self._schema.item_features} if n in self._table.names]
        rows = pa.array(beneath[known])
        under = self._generation.items.table.select(["kind", *names]).take(rows).to_pylist()
        for place, row in zip(known.tolist(), under, strict=True):
            kinds[place] = kinds[place] or row["kind"]
            features[place] = {**row, **features[place]}
        return kinds, [*features]


def _led(items: Sequence[StoredItem], vectors: Float32, vectors_of: VectorsOf) -> Float32:
    """[n, D] the vectors, those of linked items drawn to what they are linked to.

    Lengths are mixed as directions are, so that two that disagree do not make a short vector, whose
    inner products would all be small.
    """
    linked = [i for i, item in enumerate(items) if item.links]
    if not linked:
        return vectors
    own = {item.item_id: i for i, item in enumerate(items)}
    led = vectors.copy()
    # What comes together counts as it comes; all others are asked for at once.
    asked = list({to: None for i in linked for _, to in items[i].links if to not in own})
    known, found = vectors_of(asked)
    place_of = {to: place for place, to in enumerate(asked) if known[place]}
    for i in linked:
        named = [to for _, to in items[i].links]
        others = np.array(
            [
                vectors[own[to]] if to in own else found[place_of[to]]
                for to in named
                if to in own or to in place_of
            ]
        )
        if not len(others):
            continue
        mixed = (1 - LINK_SHARE) * vectors[i] + LINK_SHARE * others.mean(axis=0)
        lengths = np.linalg.norm(others, axis=1).mean()
        length = (1 - LINK_SHARE) * np.linalg.norm(vectors[i]) + LINK_SHARE * lengths
        led[i] = mixed * (length / max(float(np.linalg.norm(mixed)), 1e-12))
    return led


def _centroids(bundle: Bundle) -> Float32:
    """[C, D] unit centroids."""
    if not bundle.circles.num_rows:
        return np.empty((0, bundle.dim), np.float32)
    found = np.array(bundle.circles["centroid"].to_pylist(), np.float32)
    unit: Float32 = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return unit
