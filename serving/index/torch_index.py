"""VectorIndex as one matrix on a GPU: exact, every row scored for every query.

Rows are ranked by a bf16 copy first, half the memory to read; the best of them, and enough more
that no better row can be missing, are scored again in float32. How many are enough follows from how
far the copy can be off (Cauchy-Schwarz); where that says too little, the query is scored in float32
one and all. Rows are taken a block at a time, of which the best alone are kept, so that scores stay
in the GPU's cache and their memory does not grow with the rows. The one module of serving that
imports torch; it knows neither FAISS nor gRPC, so that it runs under any CUDA machine's own torch.
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
_MAX_NUMBERS = 1 << 23
"""Scores of a block, and numbers of fetched vectors, held at once: 32 MiB in float32, which a
GPU's cache holds. More rows, and more queries, go in turns."""
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
        size = max(_MAX_NUMBERS // max(self._fetch(depth) * self.dim, 1), 1)
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
        fetch, rounded = self._fetch(k), queries.bfloat16()
        tops, rows = _top(rounded, self._coarse, fetch, mask, gone)
        exact = (self._vectors[rows] * queries[:, None]).sum(dim=2)
        scores, rows = _in_order(exact.masked_fill(tops.isneginf(), -torch.inf), rows)
        scores, rows = scores[:, :k], rows[:, :k]
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
            scores[again], rows[again] = _in_order(
                *_top(queries[again], self._vectors, k, mask, gone)
            )
        return rows, scores

    def _fetch(self, k: int) -> int:
        """How many rows are scored again in float32 for the k best."""
        return min(k + max(k, _SPARE), self.num_rows)

    def _scan(self, queries: Tensor, k: int, few: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
        """The best among `few` rows (rising), in float32."""
        place = torch.searchsorted(few, gone[1]).clamp(max=len(few) - 1)
        inside = few[place] == gone[1]
        gone = torch.stack([gone[0][inside], place[inside]])
        scores, places = _in_order(*_top(queries, self._vectors[few], k, None, gone))
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


def _top(
    queries: Tensor, vectors: Tensor, k: int, mask: Tensor | None, gone: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores and rows [Q, k] of the k largest products of queries [Q, D] with vectors [N, D].

    Best first, in any order among equals. mask: [N] bool, rows allowed. gone: [2, G] pairs of query
    and excluded row, by row. A row that is not allowed, or excluded, has the score -inf.
    """
    size = max(_MAX_NUMBERS // max(len(queries), 1), k)
    starts = range(0, len(vectors), size)
    ends = torch.searchsorted(
        gone[1], torch.tensor([*starts[1:], len(vectors)], device=gone.device)
    )
    best = torch.empty((len(queries), 0), device=queries.device)
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    before = 0
    for start, end in zip(starts, ends.tolist(), strict=True):
        block = _product(queries, vectors[start : start + size])
        if mask is not None:
            block.masked_fill_(~mask[start : start + size], -torch.inf)
        owners, out = gone[:, before:end]
        block[owners, out - start] = -torch.inf
        before = end
        scores, columns = block.topk(min(k, block.shape[1]))
        best, rows = torch.cat([best, scores], dim=1), torch.cat([rows, columns + start], dim=1)
        if best.shape[1] > k:
            best, kept = best.topk(k)
            rows = rows.gather(1, kept)
    return best, rows


def _product(queries: Tensor, vectors: Tensor) -> Tensor:
    """[Q, D] times [N, D], summed and returned in float32: [Q, N]; both bf16 or both float32."""
    if vectors.dtype == torch.bfloat16:
        return torch.mm(queries, vectors.T, out_dtype=torch.float32)
    return queries.float() @ vectors.T


def _in_order(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Both [Q, k], the best first; among equals the lower row first."""
    rows, order = rows.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores, rows.gather(1, order)


def _flat(excluded: Sequence[Int64], num_rows: int) -> Tensor:
    """[2, G] int64: which query must not return which row, of all that exist; by row."""
    owners = np.repeat(np.arange(len(excluded)), [len(rows) for rows in excluded])
    rows = np.concatenate([*excluded, np.empty(0, np.int64)]).astype(np.int64)
    order = np.argsort(rows, kind="stable")[: np.count_nonzero(rows < num_rows)]
    return torch.from_numpy(np.stack([owners[order], rows[order]]).astype(np.int64))
