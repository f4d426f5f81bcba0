"""circles.parquet and districts.parquet: what a bundle says of its clusters, on two levels.

Row c of circles.parquet is circle c of the column `circle` in items.arrow; a row belongs to one
bundle. What lasts from one bundle to the next is the id. Knows neither how clusters are found nor
requests.
"""

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import BundleRejected

CIRCLES, DISTRICTS = "circles.parquet", "districts.parquet"

Level = Literal["circle", "district"]
LEVELS: tuple[Level, ...] = ("district", "circle")

_FIRST = pa.schema(
    [
        ("circle_id", pa.int32()),
        ("name", pa.string()),
        ("top_features", pa.list_(pa.string())),
        ("size", pa.int64()),
        ("centroid", pa.list_(pa.float32())),
        ("neighbours", pa.list_(pa.int32())),
    ]
)
"""What there always was. Where it is all there is, ids are rows, and there are no districts."""
CIRCLE_SCHEMA = pa.schema(
    [
        *_FIRST,
        ("district_id", pa.int32()),  # null in districts.parquet
        ("recent_events", pa.int64()),  # null where the dataset has no times
        ("growth", pa.float32()),  # null where it cannot be known
        ("sample_items", pa.list_(pa.string())),
        ("predecessors", pa.list_(pa.int32())),
        ("predecessor_shares", pa.list_(pa.float32())),
    ]
)
"""Of both files. `neighbours` and `predecessors` are ids of the same level; docs/bundle.md."""


def read_circles(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The circles and the districts of a verified bundle, both as CIRCLE_SCHEMA.

    A bundle from before there were districts has none, and nothing is known of growth, samples and
    predecessors. Raises BundleRejected where the two files do not fit each other.
    """
    circles = _completed(pq.read_table(folder / CIRCLES), folder / CIRCLES)
    path = folder / DISTRICTS
    districts = (
        _completed(pq.read_table(path), path) if path.exists() else CIRCLE_SCHEMA.empty_table()
    )
    ids = [*circles["circle_id"].to_pylist(), *districts["circle_id"].to_pylist()]
    if len(set(ids)) < len(ids):
        raise BundleRejected(f"{folder}: two circles or districts have one id. Export it again.")
    known = {None, *districts["circle_id"].to_pylist()}
    if districts.num_rows and not known.issuperset(circles["district_id"].to_pylist()):
        raise BundleRejected(
            f"{folder}: {CIRCLES} names a district that {DISTRICTS} lacks. Export it again."
        )
    return circles, districts


def _completed(table: pa.Table, path: Path) -> pa.Table:
    """The table with every column of CIRCLE_SCHEMA; nulls, or empty lists, where it lacks one."""
    for name in _FIRST.names:
        if name not in table.column_names:
            raise BundleRejected(f"{path}: there is no column {name}. Export the bundle again.")
    columns = []
    for field in CIRCLE_SCHEMA:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * table.num_rows, field.type))
        else:
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.table(columns, schema=CIRCLE_SCHEMA)
