"""From the log-probabilities of a step's completions to its loss: groups become pairs, pairs a sum."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.losses import Loss, PairLogprobs, preference_loss
from alignment.packing import TrainingGroup

if TYPE_CHECKING:
    from torch import Tensor


def pair_logprobs(
    groups: Sequence[TrainingGroup],
    policy_R: "Tensor",
    *,
    step: Sequence[TrainingGroup] = (),
    confidence_R: "Tensor | None" = None,
) -> PairLogprobs:
    """The n pairs of some groups, from the log-probabilities of their completions in order, (R,) float32.

    ``step`` are all groups of the optimiser step, where these are not all. ``confidence_R`` (R,) is each completion's
    mean over tokens of log p_t - log sum_v p_v^2, where the loss needs it.
    """
    import torch

    chosen, rejected = _rows_of_pairs(groups)
    device = policy_R.device
    reference_R = torch.tensor([value for group in groups for value in group.reference], device=device)
    length_R = torch.tensor([len(ids) for group in groups for ids in group.completions], device=device)
    margins = [group.reward_margins for group in groups if group.reward_margins is not None]
    return PairLogprobs(
        policy_R[chosen],
        policy_R[rejected],
        reference_R[chosen],
        reference_R[rejected],
        chosen_lengths=length_R[chosen],
        rejected_lengths=length_R[rejected],
        mean_lengths=_mean_lengths(step or groups),
        prompts=torch.tensor([k for k, group in enumerate(groups) for _ in group.chosen], device=device),
        reward_margin=torch.tensor([m for of_group in margins for m in of_group], device=device)
        if len(margins) == len(groups)
        else None,
        chosen_confidence=None if confidence_R is None else confidence_R[chosen],
        rejected_confidence=None if confidence_R is None else confidence_R[rejected],
    )


def _rows_of_pairs(groups: Sequence[TrainingGroup]) -> tuple[list[int], list[int]]:
    """Rows of each pair's chosen and rejected completion, counted over all groups."""
    chosen: list[int] = []
    rejected: list[int] = []
    offset = 0
    for group in groups:
        chosen += [offset + k for k in group.chosen]
        rejected += [offset + k for k in group.rejected]
        offset += len(group.completions)
    return chosen, rejected


def _mean_lengths(groups: Sequence[TrainingGroup]) -> tuple[float, float]:
    """Tokens of a chosen and of a rejected completion, means over all pairs."""
    chosen = [len(group.completions[k]) for group in groups for k in group.chosen]
    rejected = [len(group.completions[k]) for group in groups for k in group.rejected]
    return sum(chosen) / len(chosen), sum(rejected) / len(rejected)


def summed_loss(loss: Loss, groups: Sequence[TrainingGroup], lp: PairLogprobs) -> "Tensor":
    """Sum of weight times loss over the groups' pairs, (). Divide by the pairs of the whole step, and nothing else.

    A loss that spans the step (:func:`alignment.losses.spans_step`) takes all groups of the step at once.
    """
    import torch

    device = lp.policy_chosen.device
    p = torch.tensor([value for group in groups for value in group.p], device=device)
    weights = torch.tensor([value for group in groups for value in group.weights], device=device)
    return (weights * preference_loss(loss, lp, p)).sum()


def step_slopes(loss: Loss, groups: Sequence[TrainingGroup], policy_R: "Tensor") -> "tuple[Tensor, Tensor]":
    """Summed loss of a whole step, (), and its slope by the log-probability of each completion, (R,).

    Backward of ``(slopes * policy).sum()``, in any pieces, is backward of the loss: with one more forward pass a loss
    may depend on all of a step's pairs while passes and workers hold a few each.
    """
    import torch

    leaf = policy_R.detach().requires_grad_()
    with torch.enable_grad():
        total = summed_loss(loss, groups, pair_logprobs(groups, leaf))
    return total.detach(), torch.autograd.grad(total, leaf)[0]
