"""The optimiser of small networks: the library's update, on every CPU's own arithmetic."""

import pytest
import torch

from infra.muon import Muon, orthogonal


def matrices(seed: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 8), (24, 8), (8, 24), (8, 8))]


def descended(optimizer_of, steps: int) -> list[torch.Tensor]:
    """After some steps towards fixed targets."""
    parameters, targets = matrices(0), matrices(1)
    optimizer = optimizer_of(parameters)
    for _ in range(steps):
        loss = sum((p - t.detach()).square().sum() for p, t in zip(parameters, targets, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("steps", [1, 5])
def test_it_steps_as_the_librarys_muon_up_to_its_bf16_rounding(steps):
    """Each step moves an entry by at most lr sqrt(3) = 0.035; bf16 has three digits."""
    ours = descended(lambda p: Muon(p, lr=0.02, weight_decay=0.1, dtype=torch.float32), steps)
    theirs = descended(lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1), steps)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < steps * 0.035 * 0.05


def test_singular_values_come_near_one():
    """The quintic's own bound is 0.5 to 1.5 for values above a thousandth of the norm."""
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 6, 30, generator=torch.Generator().manual_seed(2))))
    assert 0.5 < values.min() < values.max() < 1.5


def test_no_gradient_at_all_moves_nothing_but_by_weight_decay():
    [p] = matrices(0)[:1]
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    Muon([p], lr=0.5, weight_decay=0.1, dtype=torch.float32).step()
    assert torch.allclose(p.detach(), before * 0.95)


def test_a_matrix_without_a_gradient_is_an_error_not_a_standstill():
    with pytest.raises(ValueError, match=r"a matrix of shape \(8, 8\) has no gradient"):
        Muon(matrices(0)[:1], lr=0.1, weight_decay=0.0, dtype=torch.float32).step()
