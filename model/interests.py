"""M interest vectors out of one state of the sequence. M = 1 is the state itself."""

import torch
from torch import Tensor, nn


class Interests(nn.Module):
    """State [..., D] → interests [..., M, D].

    Interest 0 is the state; each other is the state and a learned linear view of it. Training
    routes every target to the interest that scores it best (max over interests, as in MIND, Li et
    al., CIKM 2019), so the views specialise.
    """

    def __init__(self, dim: int, num_interests: int) -> None:
        super().__init__()
        self.views = (
            nn.Parameter(torch.randn(num_interests - 1, dim, dim) / dim**0.5)
            if num_interests > 1
            else None
        )

    def forward(self, state: Tensor) -> Tensor:
        """state: [..., D]. Returns [..., M, D]."""
        first = state.unsqueeze(-2)
        if self.views is None:
            return first
        others = first + torch.einsum("...d,mde->...me", state, self.views)
        return torch.cat([first, others], dim=-2)
