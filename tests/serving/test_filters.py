"""Filters against what plain Python says of each item."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from model.bundle import open_bundle
from model.items import ItemTable
from serving.domain import AnyOf, Filter, Not, Range
from serving.errors import BadRequest, UnknownField
from serving.index import filters as filters_module
from serving.index.filters import CACHED_BITMAPS, FilterIndex
from tests.serving.tiny import SCHEMA, World

CASES: list[tuple[Filter, Callable[[World, int], bool]]] = [
    (AnyOf("kind", ("video",)), lambda w, i: w.kinds[i] == "video"),
    (AnyOf("kind", ("video", "live")), lambda w, i: w.kinds[i] in ("video", "live")),
    (AnyOf("craft", ("silver",)), lambda w, i: w.crafts[i] == "silver"),
    (AnyOf("craft", ("no such craft",)), lambda w, i: False),
    (Not(AnyOf("craft", ("silver",))), lambda w, i: w.crafts[i] != "silver"),
    (AnyOf("tags", ("t1",)), lambda w, i: "t1" in w.tags[i]),
    (AnyOf("tags", ("t4", "t2")), lambda w, i: bool({"t4", "t2"} & set(w.tags[i]))),
    (Not(Not(AnyOf("tags", ("t1",)))), lambda w, i: "t1" in w.tags[i]),
    (Range("price", 10, 20), lambda w, i: w.prices[i] is not None and 10 <= i <= 20),
    (Range("price", None, 30), lambda w, i: w.prices[i] is not None and i <= 30),
    (Range("price", 500, None), lambda w, i: w.prices[i] is not None and i >= 500),
    (Not(Range("price", 10, 20)), lambda w, i: w.prices[i] is None or not 10 <= i <= 20),
]


@pytest.fixture(scope="module")
def filters(world: World) -> FilterIndex:
    return FilterIndex(open_bundle(world.bundle).items, SCHEMA)


@pytest.mark.parametrize(("filter_", "holds"), CASES)
def test_each_kind(
    world: World, filters: FilterIndex, filter_: Filter, holds: Callable[[World, int], bool]
) -> None:
    filters.check((filter_,))
    bitmap = filters.bitmap((filter_,))
    assert bitmap is not None
    want = [i for i in range(world.num_active) if holds(world, i)]
    assert bitmap.rows.tolist() == want
    assert bitmap.count == len(want)


def test_all_must_hold(world: World, filters: FilterIndex) -> None:
    bitmap = filters.bitmap((AnyOf("craft", ("silver",)), Range("price", 100, 200)))
    assert bitmap is not None
    assert bitmap.rows.tolist() == [
        i for i in range(100, 201) if world.crafts[i] == "silver" and world.prices[i] is not None
    ]


def test_no_filter_is_no_bitmap(filters: FilterIndex) -> None:
    assert filters.bitmap(()) is None


def test_a_bitmap_is_computed_once(filters: FilterIndex) -> None:
    first = filters.bitmap((AnyOf("kind", ("live",)),))
    assert filters.bitmap((AnyOf("kind", ("live",)),)) is first
    for low in range(CACHED_BITMAPS):
        filters.bitmap((Range("price", low, None),))
    assert filters.bitmap((AnyOf("kind", ("live",)),)) is not first


def test_bitmaps_of_many_rows_are_kept_in_smaller_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters_module, "CACHED_BYTES", 20 * 653)  # of 580 rows each
    bundle = open_bundle(world.bundle)
    filters = FilterIndex(bundle.items, bundle.schema)
    for low in range(100):
        filters.bitmap((Range("price", low, None),))
    assert len(filters._cache) == 20


@pytest.mark.parametrize(
    ("filter_", "error", "field", "message"),
    [
        (AnyOf("colour", ("x",)), UnknownField, "filters[0].any_of.field", "craft"),
        (AnyOf("title", ("x",)), UnknownField, "filters[0].any_of.field", "title"),
        (AnyOf("price", ("3",)), UnknownField, "filters[0].any_of.field", "range"),
        (Range("craft", 1, 2), UnknownField, "filters[0].range.field", "any_of"),
        (Not(Range("craft", 1, 2)), UnknownField, "filters[0].negation.range.field", "any_of"),
        (AnyOf("kind", ("vidio",)), BadRequest, "filters[0].any_of.values[0]", "video"),
    ],
)
def test_what_cannot_be_answered(
    filters: FilterIndex, filter_: Filter, error: type[BadRequest], field: str, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        filters.check((filter_,))
    assert caught.value.field == field


def test_an_empty_catalogue(world: World) -> None:
    table = open_bundle(world.bundle).items.table.slice(0, 0)
    filters = FilterIndex(ItemTable(pa.table(table)), SCHEMA)
    for filter_, _ in CASES:
        bitmap = filters.bitmap((filter_,))
        assert bitmap is not None and bitmap.count == 0 and not len(bitmap.mask)
