"""Reflective sampling through the real engine: random weights of 40,000, and completions that mostly do not end."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from alignment.execution import Engine
from alignment.packing import training_groups
from alignment.rendering import completion_ids, load_tokenizer, render
from alignment.rewards import Verifier
from alignment.sampling import Decoding, PreferenceConditioned, Refine, Reflective, Request
from alignment.sampling.growing import NO_BEST
from alignment.sampling.texts import Turns
from alignment.types import Candidate, Group, Message, PreferencePair, Prompt, SequenceLogprobs
from infra.engines import open_samplers, open_scorers, release
from infra.reward_models import RewardSource
from infra.samplers import Samplers, tokenised

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


def test_no_training_row_holds_a_draft_or_feedback(tiny_tokenizer: Path):
    """What the trainer is given of a tree is the prompt's own tokens before each completion's own:
    nothing of the draft that was refined, of the feedback, or of the requests for either."""
    tokenizer = load_tokenizer(tiny_tokenizer)
    turns = Turns()

    def generate(requests: Sequence[Request]) -> list[list[Candidate]]:
        said = {turns.ask_feedback: "Mention the weather.", turns.ask_refinement: "The weather looks fine."}
        texts = [said.get(r.prompt.messages[-1].content, "Dear Anna.") for r in requests]
        return [
            [
                Candidate(
                    index=i, text=text, token_ids=completion_ids(tokenizer, r.prompt, text), finish_reason="stop"
                )
                for i in range(r.n)
            ]
            for r, text in zip(requests, texts, strict=True)
        ]  # fmt: skip

    trees = Reflective(n=4, refine=Refine(texts=turns))(
        PROMPTS, generate, lambda prompts, texts: [{"reward": [1.0] * len(t)} for t in texts], seed=(0, 0)
    )
    samplers = Samplers.__new__(Samplers)  # no engine: its tokenizer alone is asked
    samplers._tokenizer, samplers._rendering = tokenizer, threading.Lock()
    groups = samplers.assembled(PROMPTS, trees)
    pairs = [PreferencePair(prompt_id=g.prompt.id, chosen=3, rejected=0, source="test") for g in groups]
    reference = [
        SequenceLogprobs(
            prompt_id=g.prompt.id, logprobs=(-1.0,) * 4, lengths=tuple(len(c.token_ids) for c in g.candidates)
        )
        for g in groups
    ]
    for prompt, row in zip(PROMPTS, training_groups(groups, pairs, reference), strict=True):
        asked = tokenizer.decode(list(row.prompt_ids))
        assert asked == f"<bos><|user|>{prompt.messages[0].content}\n\nBe kind.<|assistant|>"
        assert [tokenizer.decode(list(ids)) for ids in row.completions] == [
            "Dear Anna.<eos>", "The weather looks fine.<eos>"
        ]  # fmt: skip


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
