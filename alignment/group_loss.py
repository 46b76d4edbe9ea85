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
    tokens_R_T: "Tensor | None" = None,
) -> PairLogprobs:
    """The n pairs of some groups, from the log-probabilities of their completions in order, (R,) float32.

    ``step`` are all groups of the optimiser step, where these are not all. Where the loss needs it, ``confidence_R``
    (R,) is each completion's mean over tokens of log p_t - log sum_v p_v^2, and ``tokens_R_T`` (R, T) are
    ``policy_R`` token by token, 0 beyond an end.
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
        shared=None if tokens_R_T is None else _shared(groups, tokens_R_T, length_R, (chosen, rejected)),
        second=_second(groups, policy_R, (chosen, rejected)),
    )


def _shared(
    groups: Sequence[TrainingGroup], tokens_R_T: "Tensor", length_R: "Tensor", sides: tuple[list[int], list[int]]
) -> PairLogprobs:
    """The pairs, each side summed over the first tokens, as many as both sides have."""
    import torch

    rows = [row for group in groups for row in group.reference_tokens or ()]
    if len(rows) != len(tokens_R_T):
        raise ValueError(f"{len(tokens_R_T)} completions by token, and reference log-probabilities of {len(rows)}")
    width = tokens_R_T.shape[1]
    reference_R_T = torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], device=tokens_R_T.device)
    chosen, rejected = sides
    shared_B = torch.minimum(length_R[chosen], length_R[rejected])
    inside_B_T = torch.arange(width, device=tokens_R_T.device) < shared_B[:, None]
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = (
        (values_R_T[side] * inside_B_T).sum(dim=1) for values_R_T in (tokens_R_T, reference_R_T) for side in sides
    )
    return PairLogprobs(policy_chosen, policy_rejected, ref_chosen, ref_rejected)


def _second(
    groups: Sequence[TrainingGroup], policy_R: "Tensor", sides: tuple[list[int], list[int]]
) -> PairLogprobs | None:
    """The pairs against the second reference; None where some group has none."""
    import torch

    known = [group.second_reference for group in groups if group.second_reference is not None]
    if len(known) < len(groups):
        return None
    second_R = torch.tensor([value for of_group in known for value in of_group], device=policy_R.device)
    chosen, rejected = sides
    return PairLogprobs(policy_R[chosen], policy_R[rejected], second_R[chosen], second_R[rejected])


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
