"""One opened bundle with all that requests need of it made ready: a generation.

Rows are the generation's own; whatever holds rows holds the generation too. Knows no stores and no
requests in flight.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.bundle import Bundle
from model.errors import BundleRejected
from model.freshness import UNKNOWN
from model.items import Hashes
from model.past import conversions
from serving.circles import CircleMap
from serving.domain import AnyOf
from serving.encoder import ItemTower, UserTower
from serving.index.base import DeviceName, IndexName
from serving.index.choice import open_index, quick_index
from serving.index.filters import FilterIndex
from serving.lately import Lately
from serving.profiles import Profiles
from serving.rank.value import ValueRanker

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_MOST_TAILS = 64


class Generation:
    """A bundle, opened for answering. Immutable; safe across threads."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        index: IndexName = "bundle",
        device: DeviceName = "cuda",
        onnx_threads: int = 1,
    ) -> None:
        """Load tower and index.

        index, device: see serving/index/choice.py. Raises BundleRejected where the parts do not fit
        each other, ConfigError where the index cannot be had on this machine.
        """
        self.bundle = bundle
        self.version = bundle.manifest.version
        self.schema = bundle.schema
        self.items = bundle.items
        # A plain view: fancy indexing of a numpy.memmap runs Python code of its own each time.
        self.vectors = np.asarray(bundle.vectors)
        lately = Lately(self.items.rows_of, self.items.ids_of)
        self.rows_of = lately.rows_of
        """Rows of ids: [n] int64, -1 where the bundle has no such item."""
        self.ids_of = lately.ids_of
        """Ids of rows (each >= 0), in order."""
        profiles = Profiles(bundle)
        self.tower = UserTower(bundle, profiles, threads=onnx_threads)
        self.item_tower = ItemTower(bundle, threads=onnx_threads)
        self.value = (
            ValueRanker(bundle, bundle.value, profiles, threads=onnx_threads)
            if bundle.value is not None
            else None
        )
        active = self.vectors[: bundle.items.num_active]
        self.index = open_index(bundle, active, index, device)
        self.quick_index = quick_index(self.index)
        bundle.require_in_place()  # tower and index are open now, too
        self.filters = FilterIndex(bundle.items, bundle.schema)
        self.event_codes = bundle.event_codes
        self.conversions = conversions(bundle.schema)
        self.objectives = {name: code for code, name in enumerate(bundle.objectives)}
        self.default_event = next(
            (n for n in self.event_codes if self.schema.events[n].role == "engagement"),
            next(iter(self.event_codes)),
        )
        # Circle -1 (none) is kept as the last name, which numpy's indexing then finds by itself.
        self.circle_names: list[str] = [*bundle.circles["name"].to_pylist(), ""]
        self.centroids: Float32 = _rows(bundle.circles["centroid"], bundle.dim, np.float32)
        """[num_circles, D]."""
        self.neighbours = _neighbours(bundle.circles)
        """[num_circles, N] rows of circles, -1 where one has fewer."""
        self.telling: Sequence[tuple[str, Mapping[str, int] | None]] | None = None
        """What serving/rank/explain.py takes words from, once it has looked."""
        self._small: dict[tuple[str, float], Bool] = {}
        self._circle_of_row = bundle.items.table["circle"].to_numpy().astype(np.int32, copy=False)
        self._codes: dict[str, Int32] = {"circle": self._circle_of_row}
        self._numbers: dict[str, dict[str, int]] = {}
        self._lock = Lock()
        self._columns: dict[str, pa.DataType] = {
            name: bundle.items.table.schema.field(name).type
            for name in ("kind", "title", *self.schema.item_features)
            if name in bundle.items.table.column_names
            and not _is_vector(bundle.items.table.schema.field(name).type)
        }

    @cached_property
    def circles(self) -> CircleMap:
        """The bundle's circles by their ids; made when they are first asked for."""
        return CircleMap(self.bundle)

    @property
    def columns(self) -> Sequence[str]:
        """The item columns that an answer may carry."""
        return tuple(self._columns)

    @property
    def groupable(self) -> Sequence[str]:
        """The columns that a slate may cap: `circle`, and each filterable category."""
        return "circle", *(
            name for name, one in self.schema.filterable().items() if one.type == "category"
        )

    @property
    def has_ages(self) -> bool:
        """Whether items have a created_at."""
        return "created_at" in self.items.table.column_names

    @cached_property
    def created(self) -> Int64:
        """[N] UTC µs of created_at, UNKNOWN where it is not known."""
        if not self.has_ages:
            return np.full(self.items.num_items, UNKNOWN)
        column = self.items.table["created_at"].combine_chunks()
        times = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        created: Int64 = pc.fill_null(times, UNKNOWN).to_numpy(zero_copy_only=False)
        return created

    @cached_property
    def as_of_us(self) -> int:
        """Until when the bundle knows what was done, UTC µs; 0 where it has no times."""
        as_of = self.bundle.manifest.as_of
        return 0 if as_of is None else round(as_of.timestamp() * 1e6)

    def expires_of(self, rows: Int64) -> Int64:
        """[n] when the items at these rows expire, UTC µs; 0 for never, and for a row of -1."""
        if "expires_at" not in self.items.table.column_names:
            return np.zeros(len(rows), np.int64)
        found = self.items.table["expires_at"].take(pa.array(rows, mask=rows < 0))
        times = found.combine_chunks().cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        until: Int64 = pc.fill_null(times, 0).to_numpy(zero_copy_only=False)
        return until

    def available_of(self, rows: Int64) -> Bool:
        """[n] whether the items at these rows were available when the bundle was made, expired or
        not; True for a row of -1."""
        if "available" not in self.items.table.column_names:
            # Nothing was retired for that then; or another writer has not kept the column.
            expires = self.expires_of(rows)
            had_expired = (expires > 0) & (expires <= self.as_of_us)
            there: Bool = (rows < self.items.num_active) | had_expired
            return there
        found = self.items.table["available"].take(pa.array(rows, mask=rows < 0))
        there = pc.fill_null(found.combine_chunks(), True).to_numpy(zero_copy_only=False)
        return there

    def codes_of(self, name: str) -> Int32:
        """[N] a number for each row's value of one of `groupable`, -1 for none; made once."""
        codes = self._codes.get(name)
        if codes is None:
            with self._lock:
                if name not in self._codes:
                    self._encode_column(name)
            codes = self._codes[name]
        return codes

    def code_of(self, name: str, value: str | None) -> int:
        """The number of one value of a column; a value that no item of the bundle has gets the next
        one, which it keeps. -1 for none."""
        if value is None:
            return -1
        with self._lock:
            if name not in self._numbers:
                self._encode_column(name)
            numbers = self._numbers[name]
            return numbers.setdefault(value, len(numbers))

    def small(self, name: str, tail: float) -> Bool:
        """[num_codes] which values of one of `groupable` are small: those that, fewest events
        first, have `tail` of all events of histories together when the bundle was made."""
        known = self._small.get((name, tail))
        if known is None:
            codes = self.codes_of(name)
            has = codes >= 0
            events = self.items.table["popularity"].to_numpy()[has]
            counts = np.bincount(codes[has], weights=events)
            order = np.argsort(counts, kind="stable")
            known = np.zeros(len(counts), bool)
            known[order] = np.cumsum(counts[order]) <= tail * counts.sum()
            if len(self._small) > _MOST_TAILS:
                self._small = {}
            self._small[name, tail] = known
        return known

    def _encode_column(self, name: str) -> None:
        values = self.items.table[name].combine_chunks().dictionary_encode()
        numbers = pc.fill_null(values.indices, -1)
        names = values.dictionary.cast(pa.string()).to_pylist()
        self._numbers[name] = {value: number for number, value in enumerate(names)}
        self._codes[name] = numbers.to_numpy(zero_copy_only=False).astype(np.int32)

    def kind_mask(self, kind: str) -> Bool:
        """[num_active] the rows of one kind."""
        bitmap = self.filters.bitmap((AnyOf("kind", (kind,)),))
        assert bitmap is not None
        return bitmap.mask

    def event_codes_of(self, names: Sequence[str]) -> Int64:
        """The user tower's code of each event name; 0 for those that enter no history."""
        return np.array([self.event_codes.get(name, 0) for name in names], np.int64)

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """Rows of the items with these hashes of ids, in no order; ItemTable.rows_of_hashes."""
        return self.items.rows_of_hashes(hashes)

    def circles_of(self, rows: Int64) -> tuple[list[int], list[str]]:
        """Each row's circle, as an index into the names that occur, and those names."""
        places: dict[int, int] = {}
        circles = [
            places.setdefault(circle, len(places)) for circle in self._circle_of_row[rows].tolist()
        ]
        return circles, [self.circle_names[circle] for circle in places]

    def column(self, name: str, rows: Int64) -> pa.Array:
        """One of `columns` at these rows."""
        return self.items.column(name, rows)

    def warm_up(self) -> None:
        """Run tower and search once at the shapes that requests have, so the first is not slow."""
        for num_users, length in ((1, 1), (1, self.bundle.max_history), (4, 8)):
            some = np.arange(length) % max(self.items.num_items, 1)
            interests = self.tower.interests(
                [some] * num_users,
                [np.ones(length, np.int64)] * num_users,
                [np.zeros(length, np.int64)] * num_users,
                [""] * num_users,
                now=np.zeros(num_users, np.int64),
                objectives=np.zeros(num_users, np.int64),
            )
            if interests.ndim != 3 or interests.shape[2] != self.bundle.dim:
                raise BundleRejected(
                    f"{self.bundle.path}: user_tower.onnx gives interests of shape "
                    f"{interests.shape}; [B, M, {self.bundle.dim}] is needed"
                )
            self.index.search(interests.reshape(-1, self.bundle.dim), 100)


def _rows(lists: pa.ChunkedArray, dim: int, dtype: Any) -> npt.NDArray[Any]:
    """[n, dim] out of n lists of dim numbers each."""
    return np.array(lists.to_pylist(), dtype).reshape(len(lists), dim)


def _neighbours(circles: pa.Table) -> Int32:
    """[num_circles, longest] the rows of each circle's neighbours, which are named by their ids."""
    row_of = {one: row for row, one in enumerate(circles["circle_id"].to_pylist())}
    rows = [[row_of[one] for one in some or ()] for some in circles["neighbours"].to_pylist()]
    found = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int32)
    for row, some in enumerate(rows):
        found[row, : len(some)] = some
    return found


def _is_vector(type_: pa.DataType) -> bool:
    lists = pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_)
    return bool(lists and pa.types.is_floating(type_.value_type))
