"""Groups in passes give every loss the gradient that plain pairs give it in one batch."""

import pytest
import torch
from loss_batches import EVERY_LOSS
from pydantic import ValidationError
from transformers import LlamaForCausalLM
from unequal_groups import GROUPS, small_llama, training_group

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.group_loss import pair_logprobs, step_slopes, summed_loss
from alignment.logprobs import Row, row_confidences, row_logprobs, token_logprobs
from alignment.losses import AOT, KTO, MRPO, RWR, SFT, PairLogprobs, preference_loss, spans_step, weighs_tokens
from alignment.packing import check_loss

PASSES = (GROUPS[:1], GROUPS[1:])
PAIRS = 6


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return small_llama()


def gradient_of(model, losses) -> torch.Tensor:
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def logprobs(model, groups):
    return row_confidences(model, [Row(g.prompt_ids, c) for g in groups for c in g.completions])


def by_token(model, groups):
    return token_logprobs(model, [Row(g.prompt_ids, c) for g in groups for c in g.completions])


def grouped(model, loss):
    """As a training step: pass by pass, with a look ahead where the loss spans the step. What each loss sums to."""
    slopes = [None] * len(PASSES)
    if spans_step(loss):
        with torch.no_grad():
            policy_R = logprobs(model, GROUPS)[0]
        slopes = step_slopes(loss, GROUPS, policy_R)[1].split([3, 6])
    for groups, slopes_R in zip(PASSES, slopes, strict=True):
        policy_R, confidence_R = logprobs(model, groups)
        tokens_R_T = by_token(model, groups) if weighs_tokens(loss) else None
        lp = pair_logprobs(groups, policy_R, step=GROUPS, confidence_R=confidence_R, tokens_R_T=tokens_R_T)
        yield (summed_loss(loss, groups, lp) if slopes_R is None else (slopes_R * policy_R).sum()) / PAIRS


def plain(model, loss):
    """Each pair two rows of its own, all pairs one batch, the mean of their losses."""
    pairs = [(k, g, i, j) for k, g in enumerate(GROUPS) for i, j in zip(g.chosen, g.rejected, strict=True)]
    sides = {
        side: row_confidences(model, [Row(g.prompt_ids, g.completions[(i, j)[side]]) for _, g, i, j in pairs])
        for side in (0, 1)
    }
    lp = PairLogprobs(
        sides[0][0],
        sides[1][0],
        torch.tensor([g.reference[i] for _, g, i, _ in pairs]),
        torch.tensor([g.reference[j] for _, g, _, j in pairs]),
        chosen_lengths=torch.tensor([len(g.completions[i]) for _, g, i, _ in pairs]),
        rejected_lengths=torch.tensor([len(g.completions[j]) for _, g, _, j in pairs]),
        prompts=torch.tensor([k for k, *_ in pairs]),
        reward_margin=torch.tensor([float(j - i) for _, _, i, j in pairs]),
        chosen_confidence=sides[0][1],
        rejected_confidence=sides[1][1],
        shared=beginnings(model),
        second=PairLogprobs(
            sides[0][0],
            sides[1][0],
            torch.tensor([g.second_reference[i] for _, g, i, _ in pairs]),
            torch.tensor([g.second_reference[j] for _, g, _, j in pairs]),
        ),
    )
    return preference_loss(loss, lp).mean()


def beginnings(model) -> PairLogprobs:
    """Each pair's two completions cut to the length of the shorter one before the model sees them."""
    pairs = [(g, i, j) for g in GROUPS for i, j in zip(g.chosen, g.rejected, strict=True)]
    lengths = [min(len(g.completions[i]), len(g.completions[j])) for g, i, j in pairs]

    def policy(side: int) -> torch.Tensor:
        cut = zip(pairs, lengths, strict=True)
        return row_logprobs(model, [Row(pair[0].prompt_ids, pair[0].completions[pair[side]][:n]) for pair, n in cut])

    def reference(side: int) -> torch.Tensor:
        cut = zip(pairs, lengths, strict=True)
        return torch.tensor([sum(pair[0].reference_tokens[pair[side]][:n]) for pair, n in cut])

    return PairLogprobs(policy(1), policy(2), reference(1), reference(2))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=lambda loss: loss.type)
def test_groups_in_passes_have_the_gradient_of_plain_pairs(model, loss):
    """Three, one and two pairs, in passes of one and of two groups."""
    expected = gradient_of(model, [plain(model, loss)])
    assert apart(gradient_of(model, grouped(model, loss)), expected) < 1e-5
    assert expected.abs().max() > 0


@pytest.mark.parametrize("loss", [KTO(), AOT(), AOT(compare="unpaired"), SFT()], ids=lambda loss: loss.type)
def test_a_batch_statistic_of_each_pass_is_another_gradient(model, loss):
    """Negative control: baseline, ranks or mean length of the pass, where those of the step are meant, differ by a
    hundred times what the right ones do."""
    losses = (summed_loss(loss, groups, pair_logprobs(groups, logprobs(model, groups)[0])) / PAIRS for groups in PASSES)
    assert apart(gradient_of(model, losses), gradient_of(model, [plain(model, loss)])) > 1e-3


def test_the_looked_ahead_loss_is_the_steps(model):
    with torch.no_grad():
        policy_R = logprobs(model, GROUPS)[0]
        total, _ = step_slopes(KTO(), GROUPS, policy_R)
        assert total.item() / PAIRS == pytest.approx(plain(model, KTO()).item(), rel=1e-5)


def test_a_confidence_by_hand(model):
    """Of one token: log p - log sum_v p_v^2, from the logits themselves; two tokens give their mean."""
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        p_T_V = model(input_ids=ids).logits[0].softmax(-1)
        told = [(p_T_V[t, ids[0, t + 1]] / (p_T_V[t] ** 2).sum()).log().item() for t in (0, 1)]
        sums, (one, two) = row_confidences(model, [Row((3, 5), (7,)), Row((3,), (5, 7))])
        torch.testing.assert_close(sums, row_logprobs(model, [Row((3, 5), (7,)), Row((3,), (5, 7))]))
    assert one.item() == pytest.approx(told[1], abs=1e-5)
    assert two.item() == pytest.approx(sum(told) / 2, abs=1e-5)


def test_rwr_names_the_prompt_whose_pairs_have_no_rewards():
    bare = GROUPS[1].model_copy(update={"reward_margins": None})
    with pytest.raises(UserError, match="rwr' needs rewards, and a pair of prompt two"):
        check_loss(RWR(), [GROUPS[0], bare])
    check_loss(KTO(), [bare])


def test_aot_names_the_prompt_whose_pairs_have_soft_labels():
    with pytest.raises(UserError, match="sorts the pairs of a step, and prompt soft has"):
        check_loss(AOT(), [GROUPS[0], training_group("soft", ((1,), (2,)), [(0, 1)], p=0.8)])


def test_a_loss_by_token_without_the_references_tokens_is_named(model):
    bare = [group.model_copy(update={"reference_tokens": None}) for group in GROUPS]
    with torch.no_grad(), pytest.raises(ValueError, match="9 completions by token, and reference"):
        pair_logprobs(bare, logprobs(model, GROUPS)[0], tokens_R_T=by_token(model, GROUPS))


def test_a_loss_of_two_references_is_refused_where_both_are_one_throughout():
    asked = {"run": "a", "policy": "m", "reward": {"type": "scalar_head", "model": "r"},
             "prompts": {"type": "file", "path": "p"},
             "train": {"loss": {"type": "mrpo"}}}  # fmt: skip
    with pytest.raises(ValidationError, match="'mrpo' with rounds = 1: it mixes the previous and the initial policy"):
        RunConfig.model_validate({**asked, "rounds": 1})
    assert RunConfig.model_validate({**asked, "rounds": 2}).train.loss == MRPO()
