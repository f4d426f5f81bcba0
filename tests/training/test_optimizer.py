"""Row-wise AdamW: AdamW where all rows are touched, by hand where they are not; clipping."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.optimizer import RowWiseAdamW, clip_gradients

OPTIONS = {"lr": 0.1, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}


def table(seed: int = 0) -> nn.Parameter:
    torch.manual_seed(seed)
    return nn.Parameter(torch.randn(5, 3))


def run(optimizer: torch.optim.Optimizer, rows: Sequence[Sequence[int]], *, sparse: bool) -> Tensor:
    """A step for each list of rows: the sum of squares of what is looked up."""
    (parameter,) = optimizer.param_groups[0]["params"]
    for each in rows:
        optimizer.zero_grad(set_to_none=True)
        F.embedding(torch.tensor(each), parameter, sparse=sparse).square().sum().backward()
        optimizer.step()
    found: Tensor = parameter.detach().clone()
    return found


def test_it_is_adamw_where_every_step_touches_every_row() -> None:
    steps = [[0, 1, 2, 3, 4], [4, 2, 2, 0, 1, 3], [1, 0, 3, 4, 2]]  # 2 twice: gradients add up
    ours = run(RowWiseAdamW([table()], **OPTIONS), steps, sparse=True)  # type: ignore[arg-type]
    theirs = run(torch.optim.AdamW([table()], **OPTIONS), steps, sparse=False)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, theirs)
    dense = run(RowWiseAdamW([table()], **OPTIONS), steps, sparse=False)  # type: ignore[arg-type]
    assert torch.equal(dense, theirs)


def test_a_row_that_was_left_out_catches_up_when_it_is_touched() -> None:
    parameter = table()
    start = parameter.detach().clone()
    optimizer = RowWiseAdamW([parameter], **OPTIONS)  # type: ignore[arg-type]
    after_one = run(optimizer, [[0, 3]], sparse=True)
    assert torch.equal(after_one[[1, 2, 4]], start[[1, 2, 4]])
    found = run(optimizer, [[3], [3], [0]], sparse=True)
    # Row 0: steps 1 and 4. The gradient of x² is 2x; its weight decays three times by 0.99.
    g1, g4 = 2 * start[0], 2 * after_one[0]
    mean = 0.9**3 * 0.1 * g1 + 0.1 * g4
    square = 0.98**3 * 0.02 * g1**2 + 0.02 * g4**2
    moved = 0.1 / (1 - 0.9**4) * mean / ((square / (1 - 0.98**4)).sqrt() + 1e-8)
    torch.testing.assert_close(found[0], after_one[0] * 0.99**3 - moved)
    assert torch.equal(found[[1, 2, 4]], start[[1, 2, 4]])


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_clipped_together(sparse: bool) -> None:
    rows, other = table(), nn.Parameter(torch.tensor([2.0]))
    loss = 3 * F.embedding(torch.tensor([1, 1, 2]), rows, sparse=sparse).sum() + 4 * other.sum()
    loss.backward()
    # Row 1 has 6 three times, row 2 has 3 three times, the other 4: √(108 + 27 + 16) = 12.288.
    norm = clip_gradients([rows, other, nn.Parameter(torch.ones(1))], 2.0)
    assert norm.item() == pytest.approx(12.288, abs=1e-3)
    assert other.grad is not None and rows.grad is not None
    assert other.grad.item() == pytest.approx(4 * 2 / 12.288, abs=1e-4)
    found = rows.grad.to_dense() if sparse else rows.grad
    torch.testing.assert_close(found[1], torch.full((3,), 6 * 2 / 12.28821), rtol=1e-4, atol=0)
    assert (found[[0, 3, 4]] == 0).all()
    assert clip_gradients([rows], 100.0).item() < 2.0  # nothing to clip
    assert torch.equal(rows.grad.to_dense() if sparse else rows.grad, found)
