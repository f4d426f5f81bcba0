"""A sealed segment: live items in a checksummed folder that all workers map.

It holds every live item of one bundle as of a number in the feed of items, so there is never more
than one in use, and which of the bundle's own rows are replaced. Small ones are searched exactly;
large ones, beside a bundle with inverted lists, in lists of its own, few as befits its size.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model import ann
from model.errors import BundleRejected
from model.items import Hashes, IdIndex, ItemTable, read_items, write_items
from model.ivf import TARGET, Setting, build_ivf, tune
from model.manifest import open_verified, write_folder
from model.schema import Schema
from serving.domain import Filter
from serving.index.filters import FilterIndex
from serving.index.ivf_index import SCAN_ROWS, IvfIndex
from serving.lately import Lately
from serving.live.living import Living, scan_better, search_living

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

ITEMS, VECTORS, VALUE_VECTORS = "items.arrow", "vectors.npy", "value_vectors.npy"
ALIVE, EXPIRES, REPLACED, INDEX = "alive.npy", "expires.npy", "replaced.npy", "index.faiss"
ID_HASHES, ID_ROWS = "id_hashes.npy", "id_rows.npy"
"""Of IdIndex: made once, where it is sealed."""

_SPARE = 16
"""Rows that a search asks for beyond twice as many as are expected."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a segment is made of: n live items, and the bundle's rows that they stand for."""

    table: pa.Table
    """As items.arrow, n rows."""
    vectors: Float32
    value_vectors: Float32
    alive: Bool
    """[n] False where the item is not to be retrieved, but histories may name it."""
    expires: Int64
    replaced: Int64
    """Rows of the bundle that are not shown any more; sorted."""
    sequence: int
    """The last change of the feed that is in it."""


def write_segment(
    folder: Path,
    contents: Contents,
    *,
    schema: Schema,
    bundle_version: str,
    queries: Float32 | None,
) -> None:
    """Write a segment whole or not at all.

    queries: [Q, D] user vectors that inverted lists are made for; None: it is searched exactly.
    """
    lists = _lists(contents.vectors, queries)
    body: dict[str, Any] = {
        "bundle_version": bundle_version,
        "sequence": contents.sequence,
        "num_rows": len(contents.vectors),
        "lists": lists and asdict(lists[1]),
    }
    with write_folder(folder, kind="segment", schema=schema, as_of=None, body=body) as partial:
        write_items(contents.table, partial / ITEMS)
        ids = contents.table["item_id"].combine_chunks()
        hashes, rows = IdIndex(ids).arrays
        for name, array in (
            (ID_HASHES, hashes),
            (ID_ROWS, rows),
            (VECTORS, contents.vectors),
            (VALUE_VECTORS, contents.value_vectors),
            (ALIVE, contents.alive),
            (EXPIRES, contents.expires),
            (REPLACED, contents.replaced),
        ):
            np.save(partial / name, array)
        if lists:
            ann.write_index(lists[0], partial / INDEX)


def _lists(vectors: Float32, queries: Float32 | None) -> tuple[Any, Setting] | None:
    """Inverted lists over the vectors and how to search them; None where scoring all is as good.

    A quarter of the lists that a bundle of this size has: they are read beside the bundle's, for
    the few rows that are better than the bundle's best, and have to be made again and again.
    """
    if queries is None or len(vectors) <= SCAN_ROWS:
        return None
    num_lists = 1 << round(math.log2(math.sqrt(len(vectors))))
    index = build_ivf(vectors, queries, num_lists=num_lists)
    tuned = tune(index, vectors, queries)
    return (index, tuned.setting) if tuned.recall >= TARGET else None


class Segment:
    """An opened segment: a Part that does not grow. See serving/live/part.py."""

    def __init__(
        self, folder: Path, *, schema: Schema, bundle_version: str, num_beside: int
    ) -> None:
        """Verify and map. num_beside: how many items the bundle has.

        Raises BundleRejected where the folder is damaged or of another bundle.
        """
        manifest = open_verified(folder, kind="segment")
        found = manifest.body["bundle_version"]
        if found != bundle_version:
            raise BundleRejected(f"{folder} belongs to bundle {found}, not {bundle_version}.")
        self.folder = folder
        self.sequence = int(manifest.body["sequence"])
        made = (_mapped(folder / ID_HASHES), _mapped(folder / ID_ROWS))
        self._items: ItemTable = read_items(folder / ITEMS, made)
        self.num_rows = self._items.num_items
        lately = Lately(self._items.rows_of, self._items.ids_of)
        self.rows_of, self.ids_of, self.find = lately.rows_of, lately.ids_of, self._items.rows_of
        self._share = self.num_rows / max(self.num_rows + num_beside, 1)
        """Of all rows; so many of the best are expected here."""
        self.vectors: Float32 = _mapped(folder / VECTORS)
        self.value_vectors: Float32 = _mapped(folder / VALUE_VECTORS)
        self.circles: Int32 = self._items.table["circle"].to_numpy().astype(np.int32)
        self.living = Living(np.load(folder / ALIVE))
        self.expires: Int64 = np.load(folder / EXPIRES)
        self.replaced: Int64 = np.load(folder / REPLACED)
        self._filters = FilterIndex(self._items, schema)
        self._index: IvfIndex | None = None
        if lists := manifest.body.get("lists"):
            index = ann.open_index(folder / INDEX)
            self._index = IvfIndex(index, self.vectors, Setting(**lists))

    @property
    def alive(self) -> Bool:
        """[num_rows] whether each row may be retrieved."""
        return self.living.mask

    def kill(self, rows: Int64) -> None:
        """These rows, distinct, are not to be retrieved any more."""
        self.living.kill(rows)

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """Rows, in no order, of the items with these hashes of ids."""
        return self._items.rows_of_hashes(hashes)

    def column(self, name: str, rows: Int64) -> pa.Array:
        """One raw column at these rows."""
        return self._items.column(name, rows)

    def table(self) -> pa.Table:
        """All rows, as items.arrow."""
        return self._items.table

    def holds(self, filters: tuple[Filter, ...], rows: Int64) -> Bool:
        """See Part.holds."""
        bitmap = self._filters.bitmap(filters)
        assert bitmap is not None
        return bitmap.mask[rows]

    def better(
        self,
        queries: Float32,
        floors: Float32,
        k: int,
        filters: tuple[Filter, ...],
        excluded: Sequence[Int64],
    ) -> Sequence[tuple[Int64, Float32]]:
        """Rows that score above the floors; see Part.better."""
        allowed = self._filters.bitmap(filters)
        if self._index is None:
            mask = self.alive if allowed is None else self.alive & allowed.mask
            return scan_better(self.vectors, mask, queries, floors, k, excluded)
        # As many as are expected, twice over; all that may be wanted, where so many were found.
        share = self._share if allowed is None else 1.0
        width = min(k, _SPARE + math.ceil(2 * share * k))
        rows, scores = search_living(self._index, queries, width, allowed, excluded, self.living)
        found = [_above(*one) for one in zip(rows, scores, floors, strict=True)]
        more = np.flatnonzero((scores[:, -1] > floors) & (width < k))
        if len(more):
            out = [excluded[i] for i in more.tolist()] if len(excluded) else ()
            rows, scores = search_living(self._index, queries[more], k, allowed, out, self.living)
            for i, *one in zip(more, rows, scores, floors[more], strict=True):
                found[i] = _above(*one)
        return found


def _above(rows: Int64, scores: Float32, floor: np.float32) -> tuple[Int64, Float32]:
    """Of one query, what scores above the floor."""
    above = scores > floor
    return rows[above], scores[above]


def _mapped(path: Path) -> npt.NDArray[Any]:
    """A plain array over the mapped file: indexing a numpy.memmap is slow."""
    return np.asarray(np.load(path, mmap_mode="r"))
