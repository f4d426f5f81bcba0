"""Items and users through a bundle's towers: tables of features in, tables of vectors out.

Needs no torch: the towers run on ONNX Runtime, as they do where the bundle is served, on arrays
that the same code makes (model/encode.py). An embedder knows no files and no processes, so that
whatever maps tables over tables can run it: training/embed_files.py does on one machine.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from model.bundle import Bundle
from model.encode import Arrays, pad_flat
from model.histories import NO_TIME, is_read, known_times, whole_days
from model.tower_session import TowerSession, require_vectors
from training.id_lookup import IdLookup

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

BATCH_ITEMS = 256
"""Items of one run of the item tower: its arrays fit into a core's own cache."""
BATCH_EVENTS = 3072
"""Events of one run of the user tower, padding counted."""
BATCH_USERS = 1024
"""At most so many users in one run, however short their histories."""
_HASHED_TOGETHER = 1 << 16


class ItemEmbedder:
    """Items → vectors.

    An item that the bundle has with the same features keeps the vector it has there, which is what
    is searched; any other goes through the tower. One that the bundle does not have lives by its
    content alone.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._lookup, self._encoder = IdLookup(bundle.items), bundle.encoder
        self._vectors = np.asarray(bundle.vectors)  # plain: indexing a numpy.memmap is slow
        self._id_vectors = np.asarray(bundle.id_vectors)
        self._features = list(bundle.encoder.item_columns)
        parts = range(0, bundle.items.num_items, _HASHED_TOGETHER)
        self._known = np.concatenate(
            [self._hashes(bundle.items.table.slice(part, _HASHED_TOGETHER)) for part in parts]
        )
        self._tower = TowerSession(bundle.item_tower_path, inputs=bundle.item_tower_inputs)
        self._ragged = [
            f"item.{name}"
            for name, column in bundle.encoder.item_columns.items()
            if column.feature.type in ("categories", "text")
            and f"item.{name}" in self._tower.inputs
        ]

    def __call__(self, items: pa.Table) -> pa.Table:
        """`item_id` and `vector`, D float32, of each item in the order given.

        items: item_id, kind and the features as in items.parquet; one that the table lacks counts
        as missing. Raises NoVector.
        """
        ids = items["item_id"].combine_chunks().cast(pa.string())
        rows = self._lookup.rows_of(ids)
        vectors = self._vectors.take(rows, axis=0)
        for places, arrays in self.batches(items, rows):
            vectors[places] = self._tower.run(arrays)
        require_vectors(vectors, ids, of="item")
        schema = _schema("item_id", "vector", vectors.shape[1])
        return pa.table([ids, _lists(vectors)], schema=schema)

    def batches(self, items: pa.Table, rows: Int64) -> Iterator[tuple[Int64, Arrays]]:
        """The items that go through the tower: their places in the table [b], and its inputs.

        rows: [N] the items' rows in the bundle, -1 where it has no such item. Items with texts of
        about one length come together, so that little is padding.
        """
        computed = np.ones(len(rows), bool)
        if set(self._features) <= set(items.column_names):
            computed = (rows < 0) | (self._hashes(items) != self._known[rows])
        places = np.flatnonzero(computed)
        if len(places) < len(rows):
            items, rows = items.take(pa.array(places)), rows[places]
        arrays = self._encoder.encode_items(items)
        widths = {name: _widths(arrays[name]) for name in self._ragged}
        order = np.argsort(sum(widths.values(), np.zeros(len(rows), np.int64)), kind="stable")
        for start in range(0, len(order), BATCH_ITEMS):
            chosen = order[start : start + BATCH_ITEMS]
            batch = {
                name: arrays[name][chosen] for name in self._tower.inputs if name != "id_vector"
            }
            ids = self._id_vectors.take(rows[chosen], axis=0)
            ids[rows[chosen] < 0] = 0.0
            batch["id_vector"] = ids
            for name, width in widths.items():
                batch[name] = batch[name][:, : max(int(width[chosen].max()), 1)]
            yield places[chosen], batch

    def _hashes(self, items: pa.Table) -> UInt64:
        """[N] 64 bits of each item's features; the same for the same features, in this process."""
        frame = pl.from_arrow(items.select(self._features))
        assert isinstance(frame, pl.DataFrame)
        return frame.hash_rows().to_numpy()


class UserEmbedder:
    """Histories and profiles → interests, as a request at one moment would have them."""

    def __init__(self, bundle: Bundle, *, now: int = 0, objective: int = 0) -> None:
        """now: the moment of the request, UTC µs; later events count for nothing. objective: its
        position in the bundle's objectives."""
        self._lookup, self._encoder = IdLookup(bundle.items), bundle.encoder
        self._event_codes, self._max_history = bundle.event_codes, bundle.max_history
        self._vectors = np.asarray(bundle.vectors)
        self._by_day = bundle.schema.time == "day"
        self._now, self._objective = now, objective
        self._size = bundle.num_interests * bundle.dim
        self._tower = TowerSession(bundle.user_tower_path, inputs=bundle.user_tower_inputs)
        self._has_times = bundle.schema.has_times
        self._reads_profiles = any(name.startswith("profile.") for name in self._tower.inputs)

    def __call__(self, users: pa.Table) -> pa.Table:
        """`user_id`, `interests` (M x D float32, one interest after the other) and `num_events`
        (how many the tower read) of each user in the order given.

        users: user_id, item_ids, events and timestamps as in histories.parquet, and the declared
        user features; one that the table lacks counts as missing. Raises NoVector.
        """
        interests = np.empty((users.num_rows, self._size), np.float32)
        num_events = np.empty(users.num_rows, np.int32)
        for rows, arrays in self.batches(users):
            interests[rows] = self._tower.run(arrays).reshape(len(rows), self._size)
            num_events[rows] = arrays["mask"].sum(axis=1)
        ids = users["user_id"].combine_chunks().cast(pa.string())
        require_vectors(interests, ids, of="user")
        schema = _schema("user_id", "interests", self._size)
        schema = schema.append(pa.field("num_events", pa.int32(), nullable=False))
        return pa.table([ids, _lists(interests), pa.array(num_events)], schema=schema)

    def batches(self, users: pa.Table) -> Iterator[tuple[Int64, Arrays]]:
        """Rows of the table [b], and the tower's inputs for them; every row comes once.

        The longest histories come first, each with others of about its length, so that little is
        padding.
        """
        rows, events, times, lengths = self._read(users)
        profiles = self._encoder.encode_profiles(users) if self._reads_profiles else {}
        ends, kept = np.cumsum(lengths), np.minimum(lengths, self._max_history)
        order = np.argsort(-kept, kind="stable")
        start = 0
        while start < len(order):
            longest = max(int(kept[order[start]]), 1)
            chosen = order[start : start + min(max(BATCH_EVENTS // longest, 1), BATCH_USERS)]
            start += len(chosen)
            places = _spans(ends[chosen] - kept[chosen], kept[chosen])
            batch = pad_flat(
                rows[places],
                events[places],
                times[places] if self._has_times else None,
                kept[chosen],
                now=self._moment,
                max_history=self._max_history,
            )
            yield (
                chosen,
                {
                    # Padding reads the last row; the mask hides it from the tower.
                    "history": self._vectors.take(batch.rows, axis=0),
                    "events": batch.events,
                    "gaps": batch.gaps,
                    "mask": batch.mask,
                    "idle": batch.idle,
                    "objective": np.full(len(chosen), self._objective, np.int64),
                    **{name: values[chosen] for name, values in profiles.items()},
                },
            )

    @property
    def _moment(self) -> int:
        return int(whole_days(np.array([self._now]))[0]) if self._by_day else self._now

    def _read(self, users: pa.Table) -> tuple[Int64, Int64, Int64, Int64]:
        """Rows, codes and times [E] of the events that the tower reads, user after user, and how
        many each user has [B]."""
        histories = users["item_ids"].combine_chunks()
        lengths = _lengths(histories)
        rows = self._lookup.rows_of(pc.list_flatten(histories))
        names = pc.list_flatten(users["events"].combine_chunks()).dictionary_encode()
        known = [self._event_codes.get(name, 0) for name in names.dictionary.to_pylist()]
        codes = np.array(known, np.int64)[names.indices.to_numpy(zero_copy_only=False)]
        times = self._times(users, lengths)
        keep = is_read(rows, codes) & (times <= self._now if self._has_times else True)
        owners = np.repeat(np.arange(len(lengths)), lengths)[keep]
        lengths = np.bincount(owners, minlength=len(lengths))
        rows, codes, times = rows[keep], codes[keep], times[keep]
        unknown = times == NO_TIME
        if self._has_times and unknown.any():
            ends = np.cumsum(lengths)
            for user in np.unique(owners[unknown]):
                span = slice(ends[user] - lengths[user], ends[user])
                times[span] = known_times(times[span], self._now)
        if self._has_times and self._by_day:
            times = whole_days(times)
        return rows, codes, times, lengths

    def _times(self, users: pa.Table, lengths: Int64) -> Int64:
        """[E] UTC µs, NO_TIME where it is null or the user's whole list is."""
        out = np.full(int(lengths.sum()), NO_TIME)
        if self._has_times:
            stamps = users["timestamps"].combine_chunks()
            given = np.repeat(np.asarray(pc.is_valid(stamps)), lengths)
            flat = pc.list_flatten(stamps).cast(pa.int64())
            out[given] = pc.fill_null(flat, int(NO_TIME)).to_numpy(zero_copy_only=False)
        return out


def _lengths(lists: pa.Array) -> Int64:
    """[B] how long each list is; 0 where it is null."""
    counted = pc.fill_null(pc.list_value_length(lists), 0)
    lengths: Int64 = counted.to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def _spans(starts: Int64, lengths: Int64) -> Int64:
    """The places [starts[i], starts[i] + lengths[i]) of all i, one after the other."""
    before = np.cumsum(lengths) - lengths
    places: Int64 = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return places


def _widths(codes: Int32) -> Int64:
    """[N] how many columns of codes [N, W] a row needs: up to its last that is not 0."""
    places = np.where(codes != 0, np.arange(1, codes.shape[1] + 1), 0)
    widths: Int64 = places.max(axis=1, initial=0)
    return widths


def _lists(vectors: Float32) -> pa.Array:
    """[N, D] float32 as a column of lists of D."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1)), type=_vector(vectors.shape[1])
    )


def _vector(size: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), size)


def _schema(id_name: str, vector_name: str, size: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field(id_name, pa.string(), nullable=False),
            pa.field(vector_name, _vector(size), nullable=False),
        ]
    )
