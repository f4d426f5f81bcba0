"""The caller's own candidates become rows and scores, as if retrieval had found them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.domain import Candidates, PartError, RerankRequest
from serving.live.catalogue import Catalogue
from serving.readers import MAX_ERRORS, Reader

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def given_candidates(
    request: RerankRequest,
    vectors: Sequence[Float32],
    readers: Sequence[Reader],
    catalogue: Catalogue,
) -> tuple[Candidates, Int64, list[PartError]]:
    """The candidates of a (checked) request that can be shown; each one's place in its query's
    list; and what was left aside: what the bundle lacks, and what the user has rejected.

    vectors, readers: [Q], each query's interests [M, D] and user; a candidate's score is its best
    inner product with the interests. An item that is named twice counts where it is named first.
    """
    owner = np.repeat(np.arange(len(request.counts)), request.counts)
    starts = np.cumsum(request.counts, dtype=np.int64) - request.counts
    rows, known = catalogue.shown_of(request.item_ids)
    first = np.zeros(len(rows), bool)
    first[np.unique(owner * catalogue.num_rows + rows, return_index=True)[1]] = True
    rejected = np.zeros(len(rows), bool)
    for query, reader in enumerate(readers):
        if len(reader.rejected):
            rejected |= known & (owner == query) & np.isin(rows, reader.rejected)
    keep = np.flatnonzero(known & first & ~rejected)
    scores, interests = np.empty(len(keep), np.float32), np.empty(len(keep), np.int32)
    for query, wanted in enumerate(vectors):
        mine = np.flatnonzero(owner[keep] == query)
        found = catalogue.vectors_of(rows[keep[mine]]) @ wanted.T
        scores[mine], interests[mine] = found.max(axis=1), found.argmax(axis=1)
    counts = np.bincount(owner[keep], minlength=len(request.counts))
    candidates = Candidates(rows[keep], scores, interests, counts)
    left_aside = np.flatnonzero(~known | rejected)
    errors = [
        PartError(int(owner[i]), *_reason(request.item_ids[i], int(rows[i]), bool(rejected[i]), i))
        for i in left_aside[:MAX_ERRORS].tolist()
    ]
    num_more = len(left_aside) - len(errors)
    if num_more:
        message = f"{num_more} more candidates were left aside"
        errors.append(PartError(errors[-1].index, "MORE_ERRORS", "item_ids", message))
    return candidates, keep - starts[owner[keep]], errors


def _reason(item_id: str, row: int, is_rejected: bool, place: int) -> tuple[str, str, str]:
    """Code, field and message of a candidate that is left aside."""
    where = f"item_ids[{place}]"
    if is_rejected:
        return "REJECTED_ITEM", where, f"the user does not want item {item_id!r:.80}; left aside"
    if row < 0:
        return "UNKNOWN_ITEM", where, f"no item {item_id!r:.80} in the bundle; left aside"
    return "RETIRED_ITEM", where, f"item {item_id!r:.80} is retired; left aside"
