"""What the next segment is made of: the segment before, and what came to the delta since."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving.live.delta import Delta
from serving.live.part import Part
from serving.live.segment import Contents, Segment

Int64 = npt.NDArray[np.int64]


def gathered(
    segment: Segment | None,
    delta: Delta,
    replaced: Int64,
    sequence: int,
    without: Collection[str],
) -> Contents:
    """All live items, each in its newest state. replaced, sequence: as in Contents. without: items
    that were deleted since the last segment."""
    parts: list[tuple[Part, Int64]] = [(delta, delta.newest_rows())]
    if segment is not None:
        ids = segment.table()["item_id"].to_pylist()
        kept = delta.rows_of(ids) < 0
        kept &= np.array([one not in without for one in ids], bool)
        parts.insert(0, (segment, np.flatnonzero(kept)))
    tables = [part.table().take(pa.array(rows)) for part, rows in parts]
    return Contents(
        table=pa.concat_tables(tables).combine_chunks(),
        vectors=np.concatenate([part.vectors.take(rows, axis=0) for part, rows in parts]),
        value_vectors=np.concatenate(
            [part.value_vectors.take(rows, axis=0) for part, rows in parts]
        ),
        alive=np.concatenate([part.alive[rows] for part, rows in parts]),
        expires=np.concatenate([part.expires[rows] for part, rows in parts]),
        replaced=replaced,
        sequence=sequence,
    )
