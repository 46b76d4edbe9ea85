"""Muon for small networks on a CPU: matrices of one shape are orthogonalised together, in the CPU's own arithmetic.

``torch.optim.Muon`` takes them one by one and always in bf16, which a CPU without bf16 units has to emulate: there it
was three to four times slower (107 ms a step against 27 for the 28 matrices of a 1.1 million weight Llama, two cores).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn import Parameter

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial whose repetition pushes singular values towards 1 (Jordan et al. 2024)."""
STEPS = 5


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices itself."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))


class Muon(torch.optim.Optimizer):
    """Momentum 0.95 with Nesterov, the update orthogonalised, scaled by sqrt(max(1, rows / columns)).

    Jordan et al. 2024; the same update as ``torch.optim.Muon`` up to rounding. Every parameter is a matrix (R, C)
    that has a gradient.
    """

    def __init__(self, matrices: "Iterable[Parameter]", *, lr: float, weight_decay: float, dtype: torch.dtype):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            ordered = sorted(group["params"], key=_wide_shape)
            for _, alike in groupby(ordered, key=_wide_shape):
                self._step(list(alike), group)

    def _step(self, matrices: "Sequence[Parameter]", group: dict[str, Any]) -> None:
        updates = [_wide(self._momentum(p, group["momentum"])) for p in matrices]
        for p, update_R_C in zip(matrices, orthogonal(torch.stack(updates).to(self._dtype)), strict=True):
            rows, columns = p.shape
            p.mul_(1 - group["lr"] * group["weight_decay"])
            turned = update_R_C.T if rows > columns else update_R_C
            p.add_(turned, alpha=-group["lr"] * sqrt(max(1, rows / columns)))

    def _momentum(self, p: "Parameter", momentum: float) -> Tensor:
        if p.grad is None:
            raise ValueError(f"a matrix of shape {tuple(p.shape)} has no gradient")
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def orthogonal(matrices_B_R_C: Tensor) -> Tensor:
    """Each matrix (R <= C) with its singular values brought near 1, the zero matrix as it is. (B, R, C)"""
    a, b, c = QUINTIC
    x = matrices_B_R_C / matrices_B_R_C.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def _wide_shape(p: Tensor) -> tuple[int, int]:
    rows, columns = p.shape
    return (min(rows, columns), max(rows, columns))


def _wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
