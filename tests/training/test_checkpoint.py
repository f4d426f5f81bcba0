"""Checkpoints: read back bit by bit, written whole or not at all, and refused when damaged."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.errors import CheckpointError
from training.checkpoint import load_checkpoint, save_checkpoint, unpack_optimizer

TENSORS = {
    "weight": torch.randn(7, 3, generator=torch.Generator().manual_seed(1)),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "step": torch.tensor(5.0),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "none": torch.empty(0, 4),
}
STATE = {"progress": {"epoch": 3, "losses": [0.1 + 0.2, 1e-9]}, "名": "竹"}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    tensors, state = load_checkpoint(path)
    assert state == STATE
    assert set(tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype and torch.equal(tensors[name], value)
    save_checkpoint(path, {"weight": torch.zeros(1)}, {})
    assert list(load_checkpoint(path)[0]) == ["weight"]
    assert [p.name for p in path.parent.iterdir()] == ["last.safetensors"]


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    with pytest.raises(TypeError):
        save_checkpoint(path, {}, {"state": object()})
    assert load_checkpoint(path)[1] == STATE


def test_a_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such checkpoint\. Train"):
        load_checkpoint(tmp_path / "gone.safetensors")


def test_any_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"weight": TENSORS["weight"]}, {"epoch": 3})
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 5):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        # Bytes that mean nothing, such as the case of an escape, may change and be read alike.
        try:
            tensors, state = load_checkpoint(path)
        except CheckpointError as error:
            assert "last.safetensors: damaged or not a Penchant checkpoint" in str(error)
        else:
            assert torch.equal(tensors["weight"], TENSORS["weight"]) and state == {"epoch": 3}


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="damaged or not a Penchant checkpoint"):
        load_checkpoint(path)


def test_another_program_s_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="damaged or not a Penchant checkpoint"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_an_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    def step(model: nn.Linear, optimizer: torch.optim.AdamW, number: int) -> None:
        optimizer.zero_grad()
        torch.manual_seed(number)
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(1)
    steady = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(steady.parameters(), lr=0.1)
    for number in range(3):
        step(steady, optimizer, number)
    names = [name for name, _ in steady.named_parameters()]
    saved = {
        f"optimizer.{key}.{name}": value.clone()
        for name, parameter in steady.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }
    resumed = nn.Linear(3, 2)
    resumed.load_state_dict(steady.state_dict())
    other = torch.optim.AdamW(resumed.parameters(), lr=0.1)
    unpack_optimizer(other, names, saved)
    for number in range(3, 6):
        step(steady, optimizer, number)
        step(resumed, other, number)
    for mine, theirs in zip(resumed.parameters(), steady.parameters(), strict=True):
        assert torch.equal(mine, theirs)
