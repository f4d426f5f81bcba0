"""Which items are kin: those of one creator, one craft, or of whatever else a dataset lists.

Columns that a request may filter on have a code in serving, too, so that both sides compare the
same values. Knows item tables; no histories and no networks.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.schema import Schema

Int32 = npt.NDArray[np.int32]


def kin_columns(items: pa.Table, schema: Schema, *, most: int) -> tuple[str, ...]:
    """The filterable category features of items with the most values, which say most; at most so
    many. One with a single value, or with one an item, makes no kin."""
    counts = {
        name: len(pc.unique(items[name].drop_null()))
        for name, feature in schema.item_features.items()
        if feature.type == "category" and feature.filterable
    }
    telling = [name for name, count in counts.items() if 1 < count < items.num_rows]
    return tuple(sorted(telling, key=lambda name: -counts[name])[:most])


def kin_codes(items: pa.Table, columns: tuple[str, ...]) -> tuple[Int32, ...]:
    """Of each column [V] the value of each item, as a number; -1 for none."""
    codes = []
    for name in columns:
        values = items[name].combine_chunks().dictionary_encode()
        codes.append(pc.fill_null(values.indices, -1).to_numpy().astype(np.int32))
    return tuple(codes)
