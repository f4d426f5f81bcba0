"""The caller's own candidates become rows and scores, as if retrieval had found them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.domain import Candidates, PartError, RerankRequest
from serving.live.catalogue import Catalogue
from serving.readers import MAX_ERRORS

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def given_candidates(
    request: RerankRequest, vectors: Sequence[Float32], catalogue: Catalogue
) -> tuple[Candidates, Int64, list[PartError]]:
    """The candidates of a (checked) request that can be shown; each one's place in its query's
    list; and what was left aside.

    vectors: [Q], each query's interests [M, D]; a candidate's score is its best inner product with
    them. An item that is named twice counts where it is named first.
    """
    owner = np.repeat(np.arange(len(request.counts)), request.counts)
    starts = np.cumsum(request.counts, dtype=np.int64) - request.counts
    rows = catalogue.rows_of(request.item_ids)
    known = (rows >= 0) & catalogue.is_shown(np.maximum(rows, 0))
    first = np.zeros(len(rows), bool)
    first[np.unique(owner * catalogue.num_rows + rows, return_index=True)[1]] = True
    keep = np.flatnonzero(known & first)
    scores, interests = np.empty(len(keep), np.float32), np.empty(len(keep), np.int32)
    for query, wanted in enumerate(vectors):
        mine = np.flatnonzero(owner[keep] == query)
        found = catalogue.vectors_of(rows[keep[mine]]) @ wanted.T
        scores[mine], interests[mine] = found.max(axis=1), found.argmax(axis=1)
    counts = np.bincount(owner[keep], minlength=len(request.counts))
    candidates = Candidates(rows[keep], scores, interests, counts)
    return candidates, keep - starts[owner[keep]], _left_aside(request, rows, known, owner)


def _left_aside(
    request: RerankRequest, rows: Int64, known: npt.NDArray[np.bool_], owner: Int64
) -> list[PartError]:
    unknown = np.flatnonzero(~known)
    errors = [
        PartError(
            int(owner[i]),
            "UNKNOWN_ITEM" if rows[i] < 0 else "RETIRED_ITEM",
            f"item_ids[{i}]",
            f"no item {request.item_ids[i]!r:.80} in the bundle; left aside"
            if rows[i] < 0
            else f"item {request.item_ids[i]!r:.80} is retired; left aside",
        )
        for i in unknown[:MAX_ERRORS].tolist()
    ]
    num_more = len(unknown) - len(errors)
    if num_more:
        message = f"{num_more} more candidates were left aside"
        errors.append(PartError(errors[-1].index, "MORE_ERRORS", "item_ids", message))
    return errors
