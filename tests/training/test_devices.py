"""Low precision and CUDA compute what the float32 CPU computes, as far as their precision goes."""

import numpy as np
import pytest
import torch

from model.towers import TwoTower
from tests.training.conftest import Trained
from training.batches import Batch, training_batch, training_windows
from training.negatives import NegativeSampler
from training.run import load_best
from training.step_loss import ItemInputs, StepLoss


def loss_and_gradient(
    trained: Trained, device: str, *, low_precision: bool
) -> tuple[float, torch.Tensor]:
    """The loss of one batch, and the gradient of every weight, end to end."""
    run = trained.open()
    model: TwoTower = load_best(run)[0].to(device).eval()
    place = torch.device(device)
    items = ItemInputs(run.items.features, run.items.id_codes, place)
    profiles = {name: value.to(place) for name, value in run.profiles.items()}
    step_loss = StepLoss(model, items, profiles, 1.0)
    data = run.split.training
    sampler = NegativeSampler(
        data.popularity().astype(np.float64), num_uniform=100, num_in_batch=50, batch_tokens=500
    )
    batch: Batch = training_batch(
        data,
        training_windows(data.starts, max_history=run.tower.max_history)[:30],
        max_history=run.tower.max_history,
        num_items=data.num_items,
        sampler=sampler,
        correction=1.0,
        rng=np.random.default_rng(0),
    ).to(place)
    with torch.autocast(device, torch.bfloat16, enabled=low_precision):
        loss = step_loss(batch)
    loss.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


def close(exact: tuple[float, torch.Tensor], other: tuple[float, torch.Tensor]) -> None:
    # bfloat16 keeps 8 bits: each product is off by up to 2^-8, sums by less.
    assert other[0] == pytest.approx(exact[0], rel=0.01)
    assert (other[1] - exact[1]).norm() < 0.05 * exact[1].norm()


def test_bfloat16_autocast_gives_the_same_loss_and_gradient(trained: Trained) -> None:
    exact = loss_and_gradient(trained, "cpu", low_precision=False)
    low = loss_and_gradient(trained, "cpu", low_precision=True)
    close(exact, low)
    assert low[0] != exact[0]  # or autocast did nothing


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_with_variable_length_attention_gives_the_same(trained: Trained) -> None:
    exact = loss_and_gradient(trained, "cpu", low_precision=False)
    close(exact, loss_and_gradient(trained, "cuda", low_precision=True))
    float32 = loss_and_gradient(trained, "cuda", low_precision=False)
    assert float32[0] == pytest.approx(exact[0], rel=1e-4)
