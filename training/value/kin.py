"""Which items are kin: those of one circle, one creator, one craft, or of whatever else a dataset
lists.

Columns that a request may filter on have a code in serving, too, and so have circles: both sides
compare the same values. Knows item tables and their vectors; no histories and no networks.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.schema import Schema
from training.circles.clusters import find_clusters, num_circles

CIRCLE = "circle"
"""The column that no dataset has: an item's circle."""

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def kin_columns(items: pa.Table, schema: Schema, *, most: int) -> tuple[str, ...]:
    """The circle, and the filterable category features of items with the most values, which say
    most; at most so many. One with a single value, or with one an item, makes no kin."""
    if not most:
        return ()
    counts = {
        name: len(pc.unique(items[name].drop_null()))
        for name, feature in schema.item_features.items()
        if feature.type == "category" and feature.filterable
    }
    telling = [name for name, count in counts.items() if 1 < count < items.num_rows]
    return CIRCLE, *sorted(telling, key=lambda name: -counts[name])[: most - 1]


def kin_codes(
    items: pa.Table, columns: Sequence[str], *, vectors: Float32, seed: int
) -> tuple[Int32, ...]:
    """Of each column [V] the value of each item, as a number; -1 for none.

    vectors: [V, D] of the item tower; seed: of the run. They make the circles that `penchant
    export` finds, but where it continues those of a bundle before, whose borders may lie elsewhere.
    """
    codes = []
    for name in columns:
        if name == CIRCLE:
            codes.append(find_clusters(vectors, num_circles(len(vectors)), seed=seed).of_item)
            continue
        values = items[name].combine_chunks().dictionary_encode()
        codes.append(pc.fill_null(values.indices, -1).to_numpy().astype(np.int32))
    return tuple(codes)
