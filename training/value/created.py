"""When items came, where a dataset says so: what ages are counted from."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.freshness import UNKNOWN
from training.run import Run

Int64 = npt.NDArray[np.int64]


def created_at(run: Run, items: pa.Table) -> Int64 | None:
    """[V] UTC µs, UNKNOWN where a cell is null; None where the dataset has no times, or no item has
    one: then no age can be told."""
    if not run.data.schema.has_times or "created_at" not in items.column_names:
        return None
    column = items["created_at"].combine_chunks()
    if column.null_count == len(column):
        return None
    times = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    created: Int64 = pc.fill_null(times, UNKNOWN).to_numpy()
    return created
