"""The timings that docs/decisions/ quotes for ways that were tried and lost.

    python benchmarks/decisions.py

Attention with and without dropout on its weights (0002), and the chunked softmax beside torch's own
cross-entropy (0003): forward and backward, one thread, CPU time, best of several.
"""

import time
from collections.abc import Callable

import torch
from results import write_result
from torch.nn import functional as F

from training.losses import softmax_loss

RUNS = 9
BATCH, HEADS, LENGTH, HEAD_DIM = 32, 2, 200, 32
TARGETS, ITEMS, DIM = 6400, 3416, 64


def best(step: Callable[[], torch.Tensor]) -> float:
    """Milliseconds of CPU time of the fastest forward and backward."""
    spent = []
    for _ in range(RUNS):
        started = time.process_time()
        step().backward()
        spent.append(time.process_time() - started)
    return min(spent) * 1000


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = (BATCH, HEADS, LENGTH, HEAD_DIM)
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    block = torch.nn.Sequential(
        torch.nn.Linear(DIM, 4 * DIM), torch.nn.GELU(), torch.nn.Linear(4 * DIM, DIM)
    )
    tokens = torch.randn(BATCH * LENGTH, DIM, requires_grad=True)
    users, items = torch.randn(TARGETS, DIM), torch.randn(ITEMS, DIM)
    users.requires_grad_(True)
    items.requires_grad_(True)
    rows = torch.randint(ITEMS, (TARGETS,))
    weights = torch.ones(TARGETS)

    def attention(dropout: float) -> torch.Tensor:
        attended = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=dropout
        )
        return attended.sum()

    def chunked() -> torch.Tensor:
        return softmax_loss(
            users,
            F.embedding(rows, items),
            items,
            rows,
            positive_bias=None,
            candidate_bias=None,
            weights=weights,
            temperature=1.0,
        )

    measured = {
        "attention_dropout_ms": best(lambda: attention(0.2)),
        "attention_ms": best(lambda: attention(0.0)),
        "feed_forward_ms": best(lambda: block(tokens).sum()),
        "plain_softmax_ms": best(lambda: F.cross_entropy(users @ items.T, rows)),
        "chunked_softmax_ms": best(chunked),
    }
    names = {
        "attention_dropout_ms": "attention, dropout 0.2 on its weights",
        "attention_ms": "attention, none",
        "feed_forward_ms": "the feed-forward layer of the same block",
        "plain_softmax_ms": "`F.cross_entropy(users @ items.T, targets)`",
        "chunked_softmax_ms": "`training.losses.softmax_loss`",
    }
    write_result(
        "decisions",
        title="Ways that were tried and lost",
        figures={name: round(value, 2) for name, value in measured.items()},
        table=[["", "ms"], *([names[n], f"{v:.1f}"] for n, v in measured.items())],
        notes=(
            f"Forward and backward, CPU time of one thread, best of {RUNS}. Attention: {BATCH} "
            f"sequences of {LENGTH}, {HEADS} heads of {HEAD_DIM}, causal. Softmax: {TARGETS:,} "
            f"targets, {ITEMS:,} items, {DIM} dimensions."
        ),
    )


if __name__ == "__main__":
    main()
