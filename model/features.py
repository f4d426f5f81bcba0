"""Feature arrays become one vector: categories and text n-grams, numbers, content vectors.

Reads the arrays of model/encode.py by name. Imports torch alone.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import FeatureSpec

_INIT_STD = 0.02


def bag_mean(table: Tensor, codes: Tensor) -> Tensor:
    """Mean embedding of each row's codes; code 0 is padding, and an empty row gives zeros.

    table: [C, D] float. codes: [B, W] int. Returns [B, D].
    """
    if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting():
        # ONNX has no EmbeddingBag with a padding index; the same sum, written out.
        real = (codes != 0).to(table.dtype)
        total = (F.embedding(codes, table) * real.unsqueeze(-1)).sum(dim=1)
        return total / real.sum(dim=1, keepdim=True).clamp(min=1)
    return F.embedding_bag(codes, table, mode="mean", padding_idx=0)


class FeatureMixer(nn.Module):
    """All features of an item (or of a user) → one vector, through a two-layer network."""

    def __init__(self, specs: tuple[FeatureSpec, ...], *, prefix: str, dim: int) -> None:
        """prefix: `item` or `profile`; the arrays are named `PREFIX.FEATURE`."""
        super().__init__()
        self.specs, self.prefix = specs, prefix
        self.tables = nn.ParameterDict()
        self.projections = nn.ModuleDict()
        for i, spec in enumerate(specs):
            if spec.type in ("number", "vector"):
                self.projections[str(i)] = nn.Linear(spec.size, dim)
            else:
                self.tables[str(i)] = nn.Parameter(torch.randn(spec.size, dim) * _INIT_STD)
        self.mix = nn.Sequential(
            nn.Linear(len(specs) * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def parts(self, arrays: Mapping[str, Tensor]) -> list[Tensor]:
        """The vector [B, D] that each feature stands for by itself, in the order of the specs.

        arrays: the encoded features of B rows, see Encoder.encode_items.
        """
        parts = []
        for i, spec in enumerate(self.specs):
            values = arrays[f"{self.prefix}.{spec.name}"]
            if str(i) in self.projections:
                parts.append(self.projections[str(i)](values))
            elif values.dim() == 1:
                table = self.tables[str(i)]
                known = (values != 0).to(table.dtype).unsqueeze(-1)
                parts.append(F.embedding(values, table) * known)
            else:
                parts.append(bag_mean(self.tables[str(i)], values))
        return parts

    def mixed(self, parts: Sequence[Tensor]) -> Tensor:
        """What the vectors of `parts` mean together. Returns [B, D]."""
        mixed: Tensor = self.mix(torch.cat(list(parts), dim=-1))
        return mixed

    def forward(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """arrays: as for `parts`. Returns [B, D]."""
        return self.mixed(self.parts(arrays))
