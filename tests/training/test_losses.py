"""The softmax loss: by hand, against torch in float64, its gradient, and across its chunks."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses import pick_interest, softmax_loss

NO_HIT = torch.tensor([-1])


def one_row(**changes: Any) -> float:
    """A row with score 1 for its positive and scores 0 and 1 for two candidates."""
    user = torch.tensor([[1.0, 0.0]])
    given: dict[str, Any] = {"hits": NO_HIT, **changes}
    candidates = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    return softmax_loss(user, user, candidates, given.pop("hits"), **given).item()


def test_one_row_by_hand() -> None:
    # log(e^1 + e^0 + e^1) - 1 = ln 6.436564 - 1 = 0.861995
    assert one_row() == pytest.approx(0.861995, abs=1e-6)


def test_an_accidental_hit_counts_as_no_negative() -> None:
    # Candidate 1 is the positive itself: log(e^1 + e^0) - 1 = ln 3.718282 - 1 = 0.313262
    assert one_row(hits=torch.tensor([1])) == pytest.approx(0.313262, abs=1e-6)
    # Where every candidate is the positive there is nothing to lose.
    row = torch.ones(1, 2)
    assert softmax_loss(row, row, row, torch.tensor([0])).item() == 0


def test_a_temperature_divides_every_score() -> None:
    # At temperature 0.5 the scores are 2, 0 and 2: ln(2 e^2 + 1) - 2 = ln 15.778112 - 2 = 0.758624
    assert one_row(temperature=0.5) == pytest.approx(0.758624, abs=1e-6)


def test_log_q_lowers_what_is_often_sampled() -> None:
    # The positive is sampled with chance 1/2, the candidates with 1/4 and 1: minus their logs,
    # scores are 1 + ln 2, 0 + ln 4 and 1: ln(2e + 4 + e) - 1 - ln 2 = ln 12.154845 - 1.693147.
    bias = one_row(
        positive_bias=torch.tensor([math.log(2)]), candidate_bias=torch.tensor([math.log(4), 0.0])
    )
    assert bias == pytest.approx(2.497728 - 1.693147, abs=2e-6)


def test_weights_are_shares() -> None:
    users = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    candidates, hits = torch.tensor([[0.5, 1.0], [1.0, 1.0]]), torch.tensor([-1, -1])
    first, second = (
        softmax_loss(users[i : i + 1], users[i : i + 1], candidates, hits[:1]).item()
        for i in range(2)
    )
    weighted = softmax_loss(users, users, candidates, hits, weights=torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * first + second) / 4, rel=1e-6)
    unweighted = softmax_loss(users, users, candidates, hits)
    assert unweighted.item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert softmax_loss(users, users, candidates, hits, weights=torch.zeros(2)).item() == 0


def double(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("num_rows", [1, 1023, 1024, 1025, 2500])
def test_the_full_softmax_is_cross_entropy_in_float64(num_rows: int) -> None:
    # Chunks hold 1,024 rows: below, at, just past one, and several.
    users, items = double(num_rows, 6, seed=1), double(37, 6, seed=2)
    targets = torch.randint(37, (num_rows,), generator=torch.Generator().manual_seed(3))
    weights = torch.rand(num_rows, dtype=torch.float64) + 0.1
    ours = softmax_loss(users, items[targets], items, targets, weights=weights, temperature=0.7)
    each = F.cross_entropy(users @ items.T / 0.7, targets, reduction="none")
    theirs = (each * weights).sum() / weights.sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(ours, (users, items))
    expected = torch.autograd.grad(theirs, (users, items))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_the_sampled_softmax_is_cross_entropy_over_what_was_sampled() -> None:
    users, items = double(9, 4, seed=1), double(30, 4, seed=2)
    targets = torch.arange(9) % 5
    drawn = torch.tensor([2, 3, 11, 17, 29])  # holds the targets 2 and 3
    log_q = -torch.rand(30, dtype=torch.float64) * 4
    hits = torch.tensor([drawn.tolist().index(t) if t in drawn else -1 for t in targets.tolist()])
    ours = softmax_loss(
        users,
        items[targets],
        items[drawn],
        hits,
        positive_bias=-0.5 * log_q[targets],
        candidate_bias=-0.5 * log_q[drawn],
    )
    logits = torch.full((9, 30), -math.inf, dtype=torch.float64)
    scores = users @ items.T - 0.5 * log_q
    for row, target in enumerate(targets):
        kept = [*drawn.tolist(), int(target)]  # the target once, drawn or not
        logits[row, kept] = scores[row, kept]
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets), rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    hits, weights = torch.tensor([1, -1, 0, -1]), torch.tensor([1.0, 2.0, 0.5, 0.0]).double()
    bias = double(5, seed=9).detach()

    def loss(users: Tensor, positives: Tensor, candidates: Tensor, own: Tensor) -> Tensor:
        return softmax_loss(
            users,
            positives,
            candidates,
            hits,
            positive_bias=own,
            candidate_bias=bias,
            weights=weights,
            temperature=0.5,
        )

    given = (double(4, 3, seed=1), double(4, 3, seed=2), double(5, 3, seed=3), double(4, seed=4))
    assert torch.autograd.gradcheck(loss, given)


def test_scores_that_would_overflow_are_finite() -> None:
    users = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = softmax_loss(users, items[[0, 0]], items, torch.tensor([0, 0]))
    # Rows cost log(1 + e^-200) = 0 and log(1 + e^200) = 200.
    assert loss.item() == pytest.approx(100)
    loss.backward()
    assert users.grad is not None and torch.isfinite(users.grad).all()


def test_a_row_is_answered_by_the_interest_that_likes_its_positive_best() -> None:
    interests = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]]])
    positives = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert pick_interest(interests, positives).tolist() == [[0, 2], [3, 0]]
    assert pick_interest(interests[:, :1], positives).tolist() == [[1, 0], [3, 0]]
    learned = interests.clone().requires_grad_()
    pick_interest(learned, positives).sum().backward()
    assert learned.grad is not None
    assert learned.grad.tolist() == [[[0, 0], [1, 1]], [[1, 1], [0, 0]]]


@pytest.mark.parametrize("num_candidates", [1023, 1024, 5000])
def test_many_candidates_may_be_multiplied_in_bfloat16_and_the_gradient_still_holds(
    num_candidates: int,
) -> None:
    torch.manual_seed(0)
    users = F.normalize(torch.randn(600, 16), dim=1)
    items = F.normalize(torch.randn(num_candidates, 16), dim=1)
    target = torch.randint(0, num_candidates, (600,))

    def gradients(dtype: torch.dtype) -> tuple[float, list[Tensor]]:
        given = [users.to(dtype).requires_grad_(), items.to(dtype).requires_grad_()]
        loss = softmax_loss(given[0], given[1][target], given[1], target, temperature=0.07)
        return loss.item(), list(torch.autograd.grad(loss, given))

    exact, wanted = gradients(torch.float64)
    close, found = gradients(torch.float32)
    assert close == pytest.approx(exact, abs=2e-3)
    for near, right in zip(found, wanted, strict=True):
        assert (near - right).norm() < 0.01 * right.norm()
