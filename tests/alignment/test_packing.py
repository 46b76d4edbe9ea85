"""Groups as the unit of training: the same gradient as plain pairs, for unequal groups too."""

import pytest
import torch
from transformers import LlamaForCausalLM
from unequal_groups import GROUPS, small_llama, training_group

from alignment.group_loss import pair_logprobs, summed_loss
from alignment.logprobs import Row, completion_logprobs, row_logprobs
from alignment.losses import DPO, PairLogprobs, preference_loss
from alignment.packing import micro_batches, optimiser_steps, training_groups
from alignment.types import Candidate, Group, Message, PreferencePair, Prompt, SequenceLogprobs, TokenLogprobs

LOSS = DPO(beta=0.5)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return small_llama()


def gradient(model, *losses) -> torch.Tensor:
    """Of the sum of some losses, each given as a function and run backward apart; flattened."""
    model.zero_grad()
    for loss in losses:
        loss().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def apart(a, b) -> float:
    return float((a - b).abs().max() / b.abs().max())


def group_loss(model, groups):
    rows = [Row(g.prompt_ids, c) for g in groups for c in g.completions]
    return summed_loss(LOSS, groups, pair_logprobs(groups, row_logprobs(model, rows)))


def plain_pairs_gradient(model):
    """The mean over all six pairs, each pair two rows of its own."""

    def pair_loss(group, i, j):
        chosen, rejected = completion_logprobs(model, group.prompt_ids, [group.completions[i], group.completions[j]])
        ref = torch.tensor([group.reference[i], group.reference[j]])
        return preference_loss(LOSS, PairLogprobs(chosen, rejected, ref[0], ref[1])) / 6

    pairs = [(g, i, j) for g in GROUPS for i, j in zip(g.chosen, g.rejected, strict=True)]
    return gradient(model, *(lambda pair=pair: pair_loss(*pair) for pair in pairs))


def test_sum_over_groups_divided_by_all_pairs_is_plain_pair_training(model):
    """Three, one and two pairs in passes of one and of two groups: N = 6 wherever a group sits."""
    grouped = gradient(model, lambda: group_loss(model, GROUPS[:1]) / 6, lambda: group_loss(model, GROUPS[1:]) / 6)
    assert apart(grouped, plain_pairs_gradient(model)) < 1e-5


def test_a_mean_of_group_means_is_another_gradient(model):
    """Negative control: the group of one pair would weigh as much as the group of three."""
    means = gradient(model, *(lambda g=g: group_loss(model, [g]) / len(g.chosen) / 3 for g in GROUPS))
    assert apart(means, plain_pairs_gradient(model)) > 0.05


def test_a_weight_scales_its_pair_and_leaves_the_count_alone():
    """Margins are 0, so each DPO loss is log 2: weights 1, 1/2 and 0 sum to 1.5 log 2."""
    group = training_group("three", ((1, 2, 3), (4, 5), (6,)), [(0, 1), (0, 2), (1, 2)], weights=(1.0, 0.5, 0.0))
    lp = pair_logprobs([group], torch.tensor(group.reference))
    torch.testing.assert_close(summed_loss(LOSS, [group], lp), 1.5 * torch.tensor(2.0).log())


def test_pairs_of_several_groups_find_their_rows():
    """Rows 0..2, 3..4 and 5..8 belong to the three groups: the pair (3, 0) of the last one is rows 8 and 5."""
    lp = pair_logprobs(GROUPS, torch.arange(9.0))
    assert lp.policy_chosen.tolist() == [0, 0, 1, 4, 8, 7]
    assert lp.policy_rejected.tolist() == [1, 2, 2, 3, 5, 6]
    assert lp.ref_chosen.tolist() == [-10, -10, -11, -11, -13, -12]


def candidates(*token_ids):
    return tuple(Candidate(index=i, text="", token_ids=t, finish_reason="stop") for i, t in enumerate(token_ids))


PROMPT = Prompt.of((Message(role="user", content="hello"),))
GROUP = Group(prompt=PROMPT, prompt_ids=(1, 2), candidates=candidates((3,), (4, 5), (6,), (7, 8)))
REFERENCE = SequenceLogprobs(prompt_id=PROMPT.id, logprobs=(-1.0, -2.0, -3.0, -4.0), lengths=(1, 2, 1, 2))


def pair(chosen: int, rejected: int, **changes) -> PreferencePair:
    return PreferencePair(prompt_id=PROMPT.id, chosen=chosen, rejected=rejected, source="test", **changes)


def test_completions_without_a_pair_are_left_out_and_others_come_once():
    """Candidates 1 and 3 are used, by two pairs: two rows, at positions 0 and 1."""
    (group,) = training_groups([GROUP], [pair(3, 1), pair(1, 3, p=0.7, weight=0.5)], [REFERENCE])
    assert group.completions == ((4, 5), (7, 8))
    assert group.reference == (-2.0, -4.0)
    assert (group.chosen, group.rejected) == ((1, 0), (0, 1))
    assert (group.p, group.weights) == ((1.0, 0.7), (1.0, 0.5))


TOKENS = TokenLogprobs(prompt_id=PROMPT.id, logprobs=((-1.0,), (-1.5, -0.5), (-3.0,), (-3.0, -1.0)))


def test_more_of_the_reference_is_that_of_the_completions_used():
    second = REFERENCE.model_copy(update={"logprobs": (-5.0, -6.0, -7.0, -8.0)})
    (group,) = training_groups([GROUP], [pair(3, 1)], [REFERENCE], tokens=[TOKENS], second=[second])
    assert group.reference_tokens == ((-1.5, -0.5), (-3.0, -1.0))
    assert group.second_reference == (-6.0, -8.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tokens": []}, "no reference log-probabilities by token"),
        ({"second": []}, "no second reference log-probabilities"),
        ({"tokens": [TOKENS.model_copy(update={"logprobs": ((-1.0,),) * 4})]}, "those of other completions"),
        ({"second": [REFERENCE.model_copy(update={"lengths": (1, 2, 2, 2)})]}, "those of other completions"),
    ],
)
def test_more_of_the_reference_that_does_not_fit_is_refused_by_name(more, message):
    with pytest.raises(ValueError, match=message):
        training_groups([GROUP], [pair(1, 0)], [REFERENCE], **more)


def test_prompts_without_pairs_are_not_trained_on():
    assert training_groups([GROUP], [], [REFERENCE]) == []


@pytest.mark.parametrize(
    ("groups", "reference", "message"),
    [
        ([], [REFERENCE], "has pairs and no group"),
        ([GROUP], [], "no reference log-probabilities"),
        ([GROUP, GROUP], [REFERENCE], "group given twice"),
        ([GROUP], [REFERENCE.model_copy(update={"lengths": (1, 2, 2, 2)})], "those of other completions"),
        ([GROUP], [REFERENCE.model_copy(update={"logprobs": (-1.0, float("nan"), -3.0, -4.0)})], "nan"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(groups, reference, message):
    with pytest.raises(ValueError, match=message):
        training_groups(groups, [pair(1, 0)], reference)


def test_every_epoch_holds_each_group_once_in_an_order_of_its_own():
    """10 groups in steps of 4: steps of 4, 4 and 2, twice."""
    steps = optimiser_steps(10, groups_per_step=4, epochs=2, seed=7)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    first, second = ([i for step in epoch for i in step] for epoch in (steps[:3], steps[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert steps == optimiser_steps(10, groups_per_step=4, epochs=2, seed=7)
    assert steps != optimiser_steps(10, groups_per_step=4, epochs=2, seed=8)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_group_of_a_step_is_computed_once(workers):
    shares = micro_batches(GROUPS, [2, 0, 1], workers=workers, tokens=1)
    assert len(shares) == workers
    assert sorted(i for share in shares for group in share for i in group) == [0, 1, 2]
    assert all(len(group) == 1 for share in shares for group in share)


def test_a_pass_stays_below_its_tokens_with_padding_counted():
    """Widths 8, 7 and 7 with 3, 4 and 2 rows. The first two padded to 8 are 56 positions, all three 72."""
    assert [g.width for g in GROUPS] == [8, 7, 7]
    assert micro_batches(GROUPS, [0, 1, 2], workers=1, tokens=72) == [[[0, 1, 2]]]
    assert micro_batches(GROUPS, [0, 1, 2], workers=1, tokens=56) == [[[0, 1], [2]]]
    assert micro_batches(GROUPS, [0, 1, 2], workers=1, tokens=39) == [[[0], [1], [2]]]
