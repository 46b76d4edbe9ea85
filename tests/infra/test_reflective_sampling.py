"""Reflective sampling through the real engine: random weights of 40,000, and completions that mostly do not end."""

from pathlib import Path

import pytest

from alignment.execution import Engine
from alignment.rendering import load_tokenizer, render
from alignment.rewards import Verifier
from alignment.sampling import Decoding, PreferenceConditioned, Refine, Reflective
from alignment.sampling.growing import NO_BEST
from alignment.sampling.texts import Turns
from alignment.types import Candidate, Group, Message, Prompt
from infra.engines import open_samplers, open_scorers, release
from infra.reward_models import RewardSource
from infra.samplers import tokenised

ENGINE = Engine(keep_warm=True, threads=1, timeout=400)
DECODING = Decoding(max_tokens=12)
SAMPLER = Reflective(n=33, depth=3, split=(24, 4, 5), decoding=DECODING, refine=Refine(texts=Turns()))
PROMPTS = [Prompt.of((Message(role="user", content=f"Write note {i}."),), "Be kind.") for i in range(6)]


def length(prompt: Prompt, completion: str) -> float:
    """Also a witness: it is given the prompt as it stands, with its preference and nothing of a draft."""
    if prompt not in PROMPTS:
        raise ValueError("not a prompt of this test")
    return float(len(completion))


def test_a_shortened_candidate_has_the_ids_of_its_text(tiny_tokenizer: Path):
    tokenizer = load_tokenizer(tiny_tokenizer)
    cut = Candidate(index=0, text="Dear Anna.", token_ids=(), finish_reason="stop")
    ids = tokenised(tokenizer, PROMPTS[0], cut).token_ids
    assert tokenizer.decode(list(ids)) == "Dear Anna.<eos>"
    open_ended = tokenised(tokenizer, PROMPTS[0], cut.model_copy(update={"finish_reason": "length"}))
    assert open_ended.token_ids == ids[:-1]
    sampled = cut.model_copy(update={"token_ids": (7, 8)})
    assert tokenised(tokenizer, PROMPTS[0], sampled) == sampled
    blank = cut.model_copy(update={"text": ""})
    assert tokenised(tokenizer, PROMPTS[0], blank) == blank


@pytest.fixture(scope="module")
def policy(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with heads that vLLM's CPU attention knows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("policy-32")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_policy, head_dim=32)).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tiny_policy).save_pretrained(folder)
    return folder


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prs_on_the_real_engine_spends_its_budget_and_does_not_depend_on_shards(policy: Path):
    """EOS is one of 384 tokens, so some 3% of drafts end, and half of the prompts have one to refine: both paths are
    taken. The context is 128, where two turns more are tight."""
    reward = {"reward": RewardSource(Verifier(function=f"{__name__}:length"))}
    try:
        with open_samplers(ENGINE, policy) as samplers, open_scorers(ENGINE, reward) as scorers:
            whole = SAMPLER(PROMPTS, samplers, scorers, seed=(0, 0))
            sharded = [d for p in PROMPTS for d in SAMPLER([p], samplers, scorers, seed=(0, 0))]
            plain = PreferenceConditioned(n=24, decoding=DECODING)(PROMPTS, samplers, scorers, seed=(0, 0))
            groups = samplers.assembled(PROMPTS, whole)
    finally:
        release()
    assert whole == sharded
    assert [d.candidates[:24] for d in whole] == [d.candidates for d in plain]
    assert [len(d.candidates) for d in whole] == [33] * 6
    tokenizer = load_tokenizer(policy)
    refined = 0
    for group in groups:
        assert group.prompt_ids == render(tokenizer, group.prompt)
        refined += _check(group)
    assert 0 < refined < 6 * 9


def _check(group: Group) -> int:
    """Its refinements. Every other candidate after the drafts says why it is none."""
    told = {f.candidate: f.reason for f in group.failures}
    for c in group.candidates:
        assert (c.logprob is None) == (c.parent is not None)
        if c.parent is not None:
            assert group.candidates[c.parent].finish_reason == "stop"
            assert c.feedback is not None or c.index in told
        elif c.index >= 24:
            assert told[c.index] == NO_BEST or "exceed" in told[c.index]
    return sum(c.parent is not None for c in group.candidates)
