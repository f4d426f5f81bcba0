"""What users engaged with and did not convert on, as candidates for the value model."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.items import hash_ids
from model.past import unconverted
from serving.domain import Candidates, RetrieveRequest
from serving.live.catalogue import Catalogue
from serving.readers import Reader

Float32 = npt.NDArray[np.float32]


def engaged(
    request: RetrieveRequest,
    readers: Sequence[Reader],
    vectors: Sequence[Float32],
    catalogue: Catalogue,
) -> Candidates:
    """At most `request.engaged` a query, of what its filters and exclusions allow, and the user has
    not rejected.

    readers, vectors: [Q], each query's user and interests [M, D]; a candidate's score is its best
    inner product with them.
    """
    items = np.concatenate([reader.rows for reader in readers])
    events = np.concatenate([reader.events for reader in readers])
    starts = np.concatenate([[0], np.cumsum([len(reader.rows) for reader in readers])])
    allowed = catalogue.is_shown(items)
    allowed[allowed] = catalogue.holds(request.filters, items[allowed])
    for i, (query, reader) in enumerate(zip(request.queries, readers, strict=True)):
        mine = slice(starts[i], starts[i + 1])
        # All rows of the items: `items` may hold one from before a change.
        excluded = catalogue.rows_of_hashes(hash_ids(query.exclude_item_ids))
        gone = np.concatenate([excluded, reader.rejected])
        if len(gone):
            allowed[mine] &= ~np.isin(items[mine], gone)
    rows, counts = unconverted(
        items,
        events,
        starts,
        catalogue.generation.conversions,
        most=request.engaged,
        has_order=catalogue.generation.schema.has_order,
        num_items=catalogue.num_rows,
        allowed=allowed,
    )
    ends = np.cumsum(counts).tolist()
    products = [
        catalogue.vectors_of(rows[end - count : end]) @ wanted.T
        for end, count, wanted in zip(ends, counts.tolist(), vectors, strict=True)
    ]
    return Candidates(
        rows,
        np.concatenate([one.max(axis=1) for one in products]),
        np.concatenate([one.argmax(axis=1) for one in products]).astype(np.int32),
        counts,
    )
