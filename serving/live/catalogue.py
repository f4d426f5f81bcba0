"""Every item there is: the bundle's, a sealed segment of live ones, and the delta in memory.

Rows are the bundle's first, then the segment's, then the delta's. While a catalogue lives, a row
means the same item in the same state, so a request that holds one catalogue from beginning to end
never mixes two. Rows are added and die meanwhile; which of several rows of an item is its newest,
`rows_of` says. One thread writes, any number read. Knows no requests and no stores.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.freshness import UNKNOWN
from model.items import Hashes, hash_ids
from serving.domain import Filter
from serving.generation import Generation
from serving.live.codes import LiveCodes
from serving.live.delta import Delta
from serving.live.encode import Encoded
from serving.live.expiry import Expiry
from serving.live.gathering import gathered
from serving.live.living import Living, search_living
from serving.live.part import Part
from serving.live.replaced import living_yet
from serving.live.segment import Contents, Segment
from serving.live.tally import Tally

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_NONE = np.empty(0, np.int64)


class Catalogue:
    """A generation and the live items beside it."""

    def __init__(
        self,
        generation: Generation,
        segment: Segment | None = None,
        *,
        tally: Tally | None = None,
    ) -> None:
        """tally: of what was done since the generation's bundle was made; None: nothing."""
        self.generation, self.segment, self._tally = generation, segment, tally
        value_dim = 0 if generation.value is None else generation.value.dim
        self._num_base = generation.items.num_items
        self._as_of = generation.as_of_us or UNKNOWN
        self._delta = Delta(
            generation.schema,
            generation.items.table.schema,
            dim=generation.bundle.dim,
            value_dim=value_dim,
        )
        self._starts = (self._num_base, self._num_base + (segment.num_rows if segment else 0))
        self._parts: tuple[tuple[int, Part], ...] = (
            *(((self._starts[0], segment),) if segment is not None else ()),
            (self._starts[1], self._delta),
        )
        self._base_alive = np.ones(self._num_base, bool)
        self._base_alive[generation.items.num_active :] = False
        self._living = Living(self._base_alive[: generation.items.num_active])
        """Of the rows in the index, by the same array."""
        self._codes = LiveCodes(self._num_base, generation.code_of)
        self.replacing = _NONE
        """Rows that die in a moment, their items having newer ones."""
        self.num_known = self._starts[1]
        """Of these rows, `rows_of` knows each that is the newest of its item."""
        self._expiry = Expiry(generation)
        self._has_live = segment is not None
        if segment is not None:
            self._kill_base(segment.replaced)
            self._expiry.add(segment.expires, segment.alive, self._starts[0])

    # --- reading: items by row --------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        """Rows are below this."""
        return self._starts[1] + self._delta.num_rows

    @property
    def num_active(self) -> int:
        """At most so many items can be retrieved."""
        return self.generation.items.num_active + self.num_rows - self._num_base

    @property
    def num_replaced(self) -> int:
        """Rows of the bundle that are not shown any more."""
        return self._living.num_dead

    @property
    def num_sealed(self) -> int:
        """Living rows of the segment."""
        return 0 if self.segment is None else int(np.count_nonzero(self.segment.alive))

    @property
    def num_in_memory(self) -> int:
        """Rows of the delta, those that died since included."""
        return self._delta.num_rows

    @property
    def num_delta(self) -> int:
        """Living rows of the delta."""
        return int(np.count_nonzero(self._delta.alive[: self._delta.num_rows]))

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """The newest row of each id: [n] int64, -1 where there is no such item."""
        rows = self.generation.rows_of(ids)
        if self._has_live:
            for start, part in self._parts:
                found = part.rows_of(ids)
                rows = np.where(found >= 0, found + start, rows)
        return rows

    def shown_of(self, ids: Sequence[str]) -> tuple[Int64, Bool]:
        """The newest row of each id [n], -1 where there is no such item, and whether it may be
        retrieved now [n].

        An item that changes in between is looked up again: its new row was there before its old
        one died.
        """
        rows = np.array(self.rows_of(ids))
        shown = (rows >= 0) & self.is_shown(np.maximum(rows, 0))
        while len(gone := np.flatnonzero((rows >= 0) & ~shown)):
            newest = self.rows_of([ids[i] for i in gone.tolist()])
            if np.array_equal(newest, rows[gone]):
                break
            rows[gone], shown[gone] = newest, self.is_shown(newest)
        return rows, shown

    def rows_of_item(self, item_id: str) -> Int64:
        """All rows of an item, in no order, those that died included."""
        return self.rows_of_hashes(hash_ids([item_id]))

    def rows_of_hashes(self, hashes: Hashes) -> Int64:
        """All rows, in no order and old ones too, of the items with these hashes of ids."""
        rows = self.generation.rows_of_hashes(hashes)
        if not self._has_live:
            return rows
        live = [part.rows_of_hashes(hashes) + start for start, part in self._parts]
        return np.concatenate([rows, *live])

    def ids_of(self, rows: Int64) -> list[str]:
        """Ids of these rows (each >= 0), in order."""
        if self._is_base(rows):
            return self.generation.ids_of(rows)
        ids = np.empty(len(rows), object)
        for part, places, local in self._split(rows):
            ids[places] = (part or self.generation).ids_of(local)
        return list(ids)

    def column(self, name: str, rows: Int64) -> pa.Array:
        """One of the generation's columns at these rows."""
        if self._is_base(rows):
            return self.generation.column(name, rows)
        split = list(self._split(rows))
        found = [(part or self.generation).column(name, local) for part, _, local in split]
        order = np.argsort(np.concatenate([places for _, places, _ in split]))
        return pa.concat_arrays(found).take(pa.array(order))

    def vectors_of(self, rows: Int64) -> Float32:
        """Vectors [..., D] of rows [...]; of -1, the bundle's last."""
        if self._is_base(rows):
            return self.generation.vectors.take(rows, axis=0)
        out = np.empty((rows.size, self.generation.bundle.dim), np.float32)
        for part, places, local in self._split(rows.ravel()):
            out[places] = (part or self.generation).vectors.take(local, axis=0)
        return out.reshape(*rows.shape, -1)

    def value_vectors_of(self, rows: Int64) -> Float32:
        """What the value model reads of rows [...]: [..., E]; of -1, anything."""
        value = self.generation.value
        assert value is not None
        if self._is_base(rows):
            return value.items.take(rows, axis=0)
        out = np.empty((rows.size, value.dim), np.float32)
        for part, places, local in self._split(rows.ravel()):
            source = value.items if part is None else part.value_vectors
            out[places] = source.take(local, axis=0)
        return out.reshape(*rows.shape, -1)

    def circles_of(self, rows: Int64) -> tuple[list[int], list[str]]:
        """Each row's circle, as an index into the names that occur, and those names."""
        places: dict[int, int] = {}
        circles = [
            places.setdefault(circle, len(places))
            for circle in self.codes_of("circle", rows).tolist()
        ]
        return circles, [self.generation.circle_names[circle] for circle in places]

    def codes_of(self, name: str, rows: Int64) -> Int32:
        """[n] a number for each row's value of a column that can be grouped by, -1 for none."""
        base = self.generation.codes_of(name)
        if self._is_base(rows):
            return base[rows]
        codes = np.empty(len(rows), np.int32)
        for part, places, local in self._split(rows):
            if part is None:
                codes[places] = base[local]
            elif name == "circle":
                codes[places] = part.circles[local]
            else:
                codes[places] = self._live_codes(name)[rows[places] - self._num_base]
        return codes

    def created_of(self, rows: Int64, *, later: int | None = None) -> Int64:
        """[n] UTC µs when each item came, freshness.UNKNOWN where it is not known: as the bundle
        says, or when it was first upserted. later: of one that came after the bundle was made, and
        no store says when; None: when that was."""
        base: Int64 = self.generation.created
        if self._is_base(rows):
            return base[rows]
        created = np.empty(len(rows), np.int64)
        for part, places, local in self._split(rows):
            if part is None:
                created[places] = base[local]
                continue
            beneath = self.generation.rows_of(part.ids_of(local))
            known = np.where(beneath >= 0, base[beneath], UNKNOWN)
            if self.generation.has_ages:
                column = part.column("created_at", local).cast(pa.timestamp("us", tz="UTC"))
                times = column.cast(pa.int64()).fill_null(UNKNOWN)
                known = times.to_numpy(zero_copy_only=False)
            unsaid = (known == UNKNOWN) & (beneath < 0)
            created[places] = np.where(unsaid, self._as_of if later is None else later, known)
        return created

    def events_of(self, rows: Int64) -> Int64:
        """[n] how many events of histories each item has had up to now: those that the bundle was
        made of, and those that were recorded since."""
        column = self.column("popularity", rows).fill_null(0)
        counts = np.asarray(column.to_numpy(zero_copy_only=False), np.int64)
        return counts if self._tally is None else counts + self._tally.of(self.ids_of(rows))

    def is_kind(self, kind: str, rows: Int64) -> Bool:
        """[n] which of the rows, all found by a search, are of this kind."""
        if self._is_base(rows):
            return self.generation.kind_mask(kind)[rows]
        mine = np.empty(len(rows), bool)
        for part, places, local in self._split(rows):
            if part is None:
                mine[places] = self.generation.kind_mask(kind)[local]
            else:
                wanted = self.generation.code_of("kind", kind)
                mine[places] = self._live_codes("kind")[rows[places] - self._num_base] == wanted
        return mine

    def is_shown(self, rows: Int64) -> Bool:
        """[n] which of these rows (each >= 0) may be retrieved now."""
        if self._is_base(rows):
            return self._base_alive[rows]
        shown = np.empty(len(rows), bool)
        for part, places, local in self._split(rows):
            shown[places] = (self._base_alive if part is None else part.alive)[local]
        return shown

    def holds(self, filters: tuple[Filter, ...], rows: Int64) -> Bool:
        """[n] of which of these rows, all of which may be retrieved, all (checked) filters hold."""
        if not filters:
            return np.ones(len(rows), bool)
        bitmap = self.generation.filters.bitmap(filters)
        assert bitmap is not None
        if self._is_base(rows):
            return bitmap.mask[rows]
        held = np.empty(len(rows), bool)
        for part, places, local in self._split(rows):
            held[places] = bitmap.mask[local] if part is None else part.holds(filters, local)
        return held

    # --- reading: search --------------------------------------------------------------------------

    def search(
        self,
        queries: Float32,
        k: int,
        filters: tuple[Filter, ...] = (),
        excluded: Sequence[Int64] = (),
        *,
        known: int | None = None,
        hurries: bool = False,
    ) -> tuple[Int64, Float32]:
        """The k best rows of each query [Q, D] where all of these (checked) filters hold.

        excluded: Q sorted arrays of rows, or none at all. known: `num_known` before they were
        looked up: a row from there on is left out where another of its item is, or where it is the
        first; None: there are none. hurries: some of the best may be left unfound. Returns rows
        [Q, k] (-1: none) and scores, as VectorIndex.search does; whoever has made an answer of them
        asks `still_shown` once more.
        """
        generation = self.generation
        index = generation.index
        if hurries and generation.quick_index is not None:
            index = generation.quick_index
        allowed = generation.filters.bitmap(filters)
        if not self._has_live and not self._living.num_dead:
            return index.search(queries, k, allowed=allowed, excluded=excluded or None)
        rows, scores = search_living(index, queries, k, allowed, excluded, self._living)
        for start, part in self._parts:
            if not part.num_rows:
                continue
            mine = [out[np.searchsorted(out, start) :] - start for out in excluded]
            better = part.better(queries, scores[:, -1], k, filters, mine)
            for i, (more, theirs) in enumerate(better):
                if len(more):
                    both = np.concatenate([scores[i], theirs])
                    order = np.argsort(-both, kind="stable")[:k]
                    rows[i] = np.concatenate([rows[i], more + start])[order]
                    scores[i] = both[order]
        return living_yet(self, rows, scores, excluded, known)

    # --- writing: by one thread -------------------------------------------------------------------

    def append(self, table: pa.Table, encoded: Encoded, expires: Int64, alive: Bool) -> None:
        """Add live items, distinct, in the newest state of each; what they were before dies.

        table: as items.arrow. expires, alive: [n].
        """
        # The new rows first: an item that changes is not gone for a moment. `still_shown` sees to
        # it that it is not there twice either.
        old, first = self._newest_rows(table["item_id"].to_pylist()), self.num_rows
        self._has_live = True
        self.replacing = old
        try:
            self._delta.append(table, encoded, expires, alive)
            self._kill_rows(old)
        finally:
            self.replacing = _NONE
        self.num_known = self.num_rows
        self._expiry.add(expires, alive, first)

    def kill(self, ids: Sequence[str]) -> None:
        """These items are not to be retrieved any more, in any state."""
        self._kill_rows(self._newest_rows(ids))

    def expire(self, now_us: int) -> int:
        """Let those die whose time is over; returns how many rows that were."""
        rows = self._expiry.take(now_us)
        self._kill_rows(rows)
        return len(rows)

    def contents(self, sequence: int, *, without: Collection[str] = ()) -> Contents:
        """All live items as a segment can hold them. sequence: the last change that is in them.
        without: those that were deleted since the last segment."""
        replaced = np.flatnonzero(~self._base_alive)
        return gathered(self.segment, self._delta, replaced, sequence, without)

    def _newest_rows(self, ids: Sequence[str]) -> Int64:
        """The newest row of each of these items in each part that has one."""
        rows = [self.generation.items.rows_of(ids)]
        for start, part in self._parts:
            found = part.find(ids)
            rows.append(np.where(found >= 0, found + start, -1))
        together = np.concatenate(rows)
        return together[together >= 0]

    def _kill_rows(self, rows: Int64) -> None:
        for part, _, local in self._split(rows):
            if part is None:
                self._kill_base(local)
            else:
                part.kill(local)

    def _kill_base(self, rows: Int64) -> None:
        self._living.kill(rows[rows < self.generation.items.num_active])
        self._base_alive[rows] = False

    # --- rows of several parts --------------------------------------------------------------------

    def _is_base(self, rows: Int64) -> bool:
        return not self._has_live or int(rows.max(initial=-1)) < self._num_base

    def _split(self, rows: Int64) -> Iterator[tuple[Part | None, Int64, Int64]]:
        """The parts that these rows lie in (None: the bundle): places in `rows`, rows there."""
        of_base = np.flatnonzero(rows < self._num_base)
        if len(of_base):
            yield None, of_base, rows[of_base]
        for number, (start, part) in enumerate(self._parts):
            mine = rows >= start
            if number + 1 < len(self._parts):
                mine &= rows < self._parts[number + 1][0]
            places = np.flatnonzero(mine)
            if len(places):
                yield part, places, rows[places] - start

    def _live_codes(self, name: str) -> Int32:
        """Codes of all live rows, in the numbers of the generation."""
        return self._codes.of(name, self.num_rows, self.column)
