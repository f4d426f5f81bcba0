"""Filters over item columns become bitmaps over rows, computed once for each distinct filter.

Knows the item table and which columns the schema declares filterable; no vectors, no requests.
"""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.items import ItemTable
from model.schema import KINDS, Feature, Schema
from serving.domain import AnyOf, Filter, Not, Range
from serving.errors import BadRequest, UnknownField
from serving.index.base import Bitmap

Bool = npt.NDArray[np.bool_]
CACHED_BITMAPS = 256
"""Bitmaps kept at most, least recently used first out."""
CACHED_BYTES = 128 << 20
"""What they may take: 9 bits a row each, and 64 for each row in it where those are few."""
_LEAST_CACHED = 8


class FilterIndex:
    """Answers filters for the first `num_active` rows of one item table. Safe across threads."""

    def __init__(self, items: ItemTable, schema: Schema) -> None:
        self._items = items
        self._columns: dict[str, Feature] = schema.filterable()
        self._cache: OrderedDict[tuple[Filter, ...], Bitmap] = OrderedDict()
        fitting = CACHED_BYTES // (items.num_active * 9 // 8 + 1)
        self._most_cached = min(max(fitting, _LEAST_CACHED), CACHED_BITMAPS)
        self._lock = Lock()

    def check(self, filters: Sequence[Filter]) -> None:
        """Raise UnknownField or BadRequest, naming the field, for what cannot be answered."""
        for i, filter_ in enumerate(filters):
            self._check(filter_, f"filters[{i}]")

    def bitmap(self, filters: tuple[Filter, ...]) -> Bitmap | None:
        """The rows where all of these (checked) filters hold; None where there are none."""
        if not filters:
            return None
        with self._lock:
            known = self._cache.get(filters)
            if known is not None:
                self._cache.move_to_end(filters)
                return known
        bitmap = Bitmap(np.logical_and.reduce([self._mask(filter_) for filter_ in filters]))
        with self._lock:
            self._cache[filters] = bitmap
            if len(self._cache) > self._most_cached:
                self._cache.popitem(last=False)
        return bitmap

    def _check(self, filter_: Filter, where: str) -> None:
        if isinstance(filter_, Not):
            self._check(filter_.filter, f"{where}.negation")
            return
        part = "any_of" if isinstance(filter_, AnyOf) else "range"
        feature = self._columns.get(filter_.field)
        if feature is None:
            raise UnknownField(
                f"no filterable column {filter_.field!r}; filterable: "
                f"{', '.join(sorted(self._columns))}",
                field=f"{where}.{part}.field",
            )
        if isinstance(filter_, Range) != (feature.type == "number"):
            fitting = "range" if feature.type == "number" else "any_of"
            raise UnknownField(
                f"column {filter_.field!r} is of type {feature.type}; filter it with {fitting}",
                field=f"{where}.{part}.field",
            )
        if isinstance(filter_, AnyOf) and filter_.field == "kind":
            for j, value in enumerate(filter_.values):
                if value not in KINDS:
                    raise BadRequest(
                        f"no kind {value!r}; kinds: {', '.join(KINDS)}",
                        field=f"{where}.any_of.values[{j}]",
                    )

    def _mask(self, filter_: Filter) -> Bool:
        """[num_active] bool: the rows where one filter holds."""
        if isinstance(filter_, Not):
            return ~self._mask(filter_.filter)
        column = self._items.table[filter_.field].slice(0, self._items.num_active)
        values = column.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # combine_chunks keeps an empty column chunked
            return np.zeros(self._items.num_active, bool)
        if isinstance(filter_, Range):
            numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            holds: Bool = ~np.isnan(numbers)
            if filter_.min is not None:
                holds &= numbers >= filter_.min
            if filter_.max is not None:
                holds &= numbers <= filter_.max
            return holds
        wanted = pa.array(filter_.values, pa.string())
        if not pa.types.is_list(values.type) and not pa.types.is_large_list(values.type):
            return _is_in(values, wanted)
        lists = np.zeros(self._items.num_active, bool)
        parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
        lists[parents[_is_in(pc.list_flatten(values), wanted)]] = True
        return lists


def _is_in(values: pa.Array, wanted: pa.Array) -> Bool:
    found: Bool = pc.is_in(values.cast(pa.string()), value_set=wanted).to_numpy(
        zero_copy_only=False
    )
    return found
