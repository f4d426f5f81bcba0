"""How old an item is when it is asked about: the same numbers in training and in serving.

Imports numpy alone.
"""

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

UNKNOWN = -1
"""`created_at` of an item of which it is not known."""
SIZE = 2
_DAY = 86_400_000_000


def freshness(created: Int64, now: Int64) -> Float32:
    """What the value model reads of the age of candidates.

    created: [B, C] UTC µs, UNKNOWN where it is not known. now: [B] UTC µs. Returns [B, C, 2]
    float32: 1 where the age is known, and log(1 + days), 0 for what is created later.
    """
    known = created != UNKNOWN
    days = np.maximum(now[:, None] - created, 0) / _DAY
    return np.stack([known, np.where(known, np.log1p(days), 0)], axis=-1).astype(np.float32)
