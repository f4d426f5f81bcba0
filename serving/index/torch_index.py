"""VectorIndex as one matrix on a GPU: exact, every row scored for every query.

Rows are ranked by a bf16 copy first, half the memory to read; the best of them, and enough more
that no better row can be missing, are scored again in float32. How many are enough follows from how
far the copy can be off (Cauchy-Schwarz); where that says too little, the query is scored in float32
one and all. The one module of serving that imports torch; it knows neither FAISS nor gRPC, so that
it runs under any CUDA machine's own torch.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from model.errors import ConfigError
from serving.index.base import Bitmap, DeviceName, Float32, Int64

SCAN_ROWS = 32_768
"""With at most this many rows allowed, those rows are copied out and scored in float32."""
_SPARE = 64
"""Rows re-scored beyond k, at least; otherwise k again."""
_MAX_SCORES = 1 << 28
"""Scores held at once (1 GiB in float32); more queries go in turns."""
_ROUNDING = 2e-5
"""What float32 may add to an inner product, as a share of the lengths' product."""


class TorchIndex:
    """The rows' vectors on one device, read-only. Safe across threads.

    vectors: [N, D] float32. device: `cuda` in service; `cpu` is the same code for tests.

    Raises ConfigError where the device is not to be had or its memory does not hold the vectors.
    """

    def __init__(self, vectors: Float32, *, device: DeviceName = "cuda") -> None:
        require_device(device)
        self._device = torch.device(device)
        try:
            self._vectors = torch.tensor(np.ascontiguousarray(vectors), device=self._device)
            coarse = self._vectors.bfloat16()
            widest = (self._vectors - coarse.float()).norm(dim=1)
        except torch.OutOfMemoryError:
            size = vectors.nbytes * 5 // 2 / 2**30
            raise ConfigError(
                f"the vectors of {len(vectors):,} items need {size:.1f} GiB, which the GPU has "
                "not free. Serve with --index bundle, or free the GPU."
            ) from None
        # On the CPU a bf16 product would come back rounded to bf16: keep the copy in float32.
        self._coarse = coarse if device == "cuda" else coarse.float()
        longest = self._vectors.norm(dim=1)
        self._longest, self._off = (
            float(length.max()) if len(vectors) else 0.0 for length in (longest, widest)
        )
        self._masks: WeakKeyDictionary[Bitmap, Tensor] = WeakKeyDictionary()

    @property
    def num_rows(self) -> int:
        """N: rows are 0 … N - 1."""
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """D: the length of a vector."""
        return int(self._vectors.shape[1])

    @torch.inference_mode()
    def search(
        self,
        queries: Float32,
        k: int,
        *,
        allowed: Bitmap | None = None,
        excluded: Sequence[Int64] | None = None,
    ) -> tuple[Int64, Float32]:
        """The k best rows of each query; see VectorIndex.search."""
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        num_allowed = self.num_rows if allowed is None else allowed.count
        depth = min(k, num_allowed)
        size = max(_MAX_SCORES // max(num_allowed, 1), 1)
        for start in range(0, len(queries) if depth else 0, size):
            part = slice(start, min(start + size, len(queries)))
            block = torch.tensor(queries[part], device=self._device)
            gone = _flat(excluded[part] if excluded is not None else (), self.num_rows)
            taken = self._best(block, depth, allowed, gone.to(self._device))
            found, values = (found.cpu().numpy() for found in taken)
            scores[part, :depth] = values
            rows[part, :depth] = np.where(np.isneginf(values), -1, found)
        return rows, scores

    def _best(
        self, queries: Tensor, k: int, allowed: Bitmap | None, gone: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rows and scores [Q, k] on the device; gone: [2, G] pairs of query and excluded row."""
        if allowed is not None and allowed.count <= SCAN_ROWS:
            return self._scan(queries, k, torch.from_numpy(allowed.rows).to(self._device), gone)
        mask = None if allowed is None else self._mask(allowed)
        fetch = min(k + max(k, _SPARE), self.num_rows)
        rounded = queries.bfloat16()
        coarse = _without(_product(rounded, self._coarse), mask, gone)
        tops, rows = coarse.topk(fetch)
        rows = rows.sort(dim=1).values  # a stable sort by score then puts the lower row first
        exact = (self._vectors[rows] * queries[:, None]).sum(dim=2)
        exact = exact.masked_fill(coarse.gather(1, rows).isneginf(), -torch.inf)
        order = exact.sort(dim=1, descending=True, stable=True)
        rows, scores = rows.gather(1, order.indices)[:, :k], order.values[:, :k]
        if fetch == self.num_rows:
            return rows, scores
        # |q·v - q'·v'| is at most |q - q'||v| + |q'||v - v'|, the primes being the bf16 copies.
        off = (queries - rounded.float()).norm(dim=1) * self._longest
        off += rounded.float().norm(dim=1) * (self._off + _ROUNDING * self._longest)
        # What was not fetched scores at most this, unless nothing is left that may be returned.
        unsure = (tops[:, -1] + off >= scores[:, -1]) & ~tops[:, -1].isneginf()
        again = unsure.nonzero()[:, 0]
        if len(again):
            place = torch.full((len(queries),), -1, device=self._device)
            place[again] = torch.arange(len(again), device=self._device)
            owner = place[gone[0]]
            gone = torch.stack([owner, gone[1]])[:, owner >= 0]
            whole = _without(queries[again] @ self._vectors.T, mask, gone)
            rows[again], scores[again] = _sorted_top(whole, k)
        return rows, scores

    def _scan(self, queries: Tensor, k: int, few: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
        """The best among `few` rows (rising), in float32."""
        place = torch.searchsorted(few, gone[1]).clamp(max=len(few) - 1)
        inside = few[place] == gone[1]
        gone = torch.stack([gone[0][inside], place[inside]])
        places, scores = _sorted_top(_without(queries @ self._vectors[few].T, None, gone), k)
        return few[places], scores

    def _mask(self, allowed: Bitmap) -> Tensor:
        """The bitmap on the device; copied there once for as long as it lives."""
        mask = self._masks.get(allowed)
        if mask is None:
            mask = torch.from_numpy(allowed.mask).to(self._device)
            self._masks[allowed] = mask
        return mask


def require_device(device: DeviceName) -> None:
    """Raise ConfigError where torch sees no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        build = "a CPU build" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        raise ConfigError(
            "index 'torch' on device 'cuda' was asked for, and torch sees no GPU here (torch "
            f"{torch.__version__}, {build}). Serve with --index bundle; or on a machine with an "
            "NVIDIA GPU install torch for it (scripts/setup --cuda) and look whether nvidia-smi "
            "lists the GPU."
        )


def _product(queries: Tensor, vectors: Tensor) -> Tensor:
    """[Q, D] bf16 times [N, D], summed and returned in float32: [Q, N]."""
    if vectors.dtype == torch.bfloat16:
        return torch.mm(queries, vectors.T, out_dtype=torch.float32)
    return queries.float() @ vectors.T


def _without(scores: Tensor, mask: Tensor | None, gone: Tensor) -> Tensor:
    """Scores [Q, N] with -inf, in place, outside the mask and for excluded pairs."""
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    scores[gone[0], gone[1]] = -torch.inf
    return scores


def _sorted_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns and values of the k largest of each row; among equals the lower column first."""
    columns = scores.topk(k).indices.sort(dim=1).values
    order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return columns.gather(1, order.indices), order.values


def _flat(excluded: Sequence[Int64], num_rows: int) -> Tensor:
    """[2, G] int64: which query must not return which row, of all that exist."""
    owners = np.repeat(np.arange(len(excluded)), [len(rows) for rows in excluded])
    rows = np.concatenate([*excluded, np.empty(0, np.int64)]).astype(np.int64)
    inside = rows < num_rows
    return torch.from_numpy(np.stack([owners[inside], rows[inside]]).astype(np.int64))
