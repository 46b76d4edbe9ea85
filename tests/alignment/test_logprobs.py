"""The one function behind every log-probability of the training stack."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.logprobs import Row, completion_logprobs, row_logprobs, token_logprobs

PROMPT = (3, 1, 4, 1, 5)
COMPLETIONS = ((9, 2), (6, 5, 3, 5, 8, 9, 7), (9,), (3, 2, 3, 8))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, initializer_range=0.4,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


class Unigram:
    """Next-token logits that do not depend on the text: 3 tokens with odds 1 : 2 : 5."""

    device = torch.device("cpu")

    def __call__(self, *, input_ids, logits_to_keep, **_):
        logits = torch.tensor([1.0, 2.0, 5.0]).log().expand(len(input_ids), len(logits_to_keep), 3)
        return type("Output", (), {"logits": logits})


def plain(model, prompt, completion) -> float:
    """One unpadded row, full logits, each token's log-softmax picked by hand."""
    logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].float()
    picked = [
        logits[len(prompt) + t - 1, token] - logits[len(prompt) + t - 1].logsumexp(0)
        for t, token in enumerate(completion)
    ]
    return float(sum(picked))


def test_odds_one_two_five_by_hand():
    """P(2) P(2) P(0) = 5/8 · 5/8 · 1/8 = 25/512, and P(1) = 2/8: sums of logs, each ended where it ends."""
    logprobs = completion_logprobs(Unigram(), [0, 1], [[2, 2, 0], [1]])
    torch.testing.assert_close(logprobs, torch.tensor([math.log(25 / 512), math.log(1 / 4)]))


def test_ragged_completions_equal_plain_unpadded_rows(model):
    with torch.no_grad():
        expected = torch.tensor([plain(model, PROMPT, c) for c in COMPLETIONS])
        torch.testing.assert_close(completion_logprobs(model, PROMPT, COMPLETIONS), expected, atol=1e-5, rtol=0)


def test_ragged_prompts_in_one_pass_equal_plain_unpadded_rows(model):
    rows = [Row(PROMPT[:n], c) for n, c in zip((5, 1, 3, 2), COMPLETIONS, strict=True)]
    with torch.no_grad():
        expected = torch.tensor([plain(model, *row) for row in rows])
        torch.testing.assert_close(row_logprobs(model, rows), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_chunks_change_rounding_only(model, batch_size):
    with torch.no_grad():
        whole = completion_logprobs(model, PROMPT, COMPLETIONS)
        parts = completion_logprobs(model, PROMPT, COMPLETIONS, batch_size=batch_size)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_token_logprobs_are_zero_beyond_the_end_and_sum_to_the_sequence(model):
    rows = [Row(PROMPT, c) for c in COMPLETIONS]
    with torch.no_grad():
        tokens_R_T = token_logprobs(model, rows, batch_size=2)
    assert tokens_R_T.shape == (4, 7)
    assert (tokens_R_T != 0).sum(dim=1).tolist() == [2, 7, 1, 4]
    torch.testing.assert_close(tokens_R_T.sum(dim=1), row_logprobs(model, rows).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradients_of_padded_rows_equal_those_of_plain_ones(model, attention):
    """Padding on the left leaves query positions that see nothing; they must add no gradient and no NaN."""
    rows = [Row(PROMPT[:n], c) for n, c in zip((5, 1, 3, 2), COMPLETIONS, strict=True)]

    def gradients(*batches):
        model.zero_grad()
        model.set_attn_implementation(attention)
        for batch in batches:
            row_logprobs(model, batch).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    padded, alone = gradients(rows), gradients(*([row] for row in rows))
    assert (padded - alone).abs().max() < 1e-5 * alone.abs().max()


def test_a_bf16_model_is_summed_in_float32(model):
    """The sum of float32 terms is off the bf16 grid, whose steps are 0.25 around -50."""
    import copy

    half = copy.deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        logprobs = completion_logprobs(half, PROMPT, COMPLETIONS)
    assert logprobs.dtype == torch.float32
    assert not torch.equal(logprobs, logprobs.to(torch.bfloat16).float())


@pytest.mark.parametrize(("prompt", "completion"), [((), (1,)), ((1,), ())])
def test_an_empty_side_is_refused(model, prompt, completion):
    with pytest.raises(ValueError, match="row 0"):
        completion_logprobs(model, prompt, [completion])
