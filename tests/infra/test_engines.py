"""Real vLLM and real transformers in Ray actors, at a size of 40,000 weights."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.rendering import load_tokenizer
from alignment.rewards import Implicit, Pairwise, ScalarHead
from alignment.sampling import Decoding, Request
from alignment.types import Group, Message, Prompt
from infra import checks
from infra.engines import open_samplers, open_scorers, open_training_stack, release
from infra.reward_models import RewardSource, baseline_of
from infra.weights import check_head_size

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

ENGINE = Engine(keep_warm=True, threads=1, timeout=400)
DECODING = Decoding(max_tokens=24)


def prompts(count: int) -> list[Prompt]:
    return [Prompt.of((Message(role="user", content=f"Write note {i} to Anna."),)) for i in range(count)]


def requests(count: int, n: int = 4, seed: int = 0) -> list[Request]:
    return [Request(prompt=p, n=n, seed=seed + 1000 * i, decoding=DECODING) for i, p in enumerate(prompts(count))]


def tokens(groups: list[Group]) -> dict[str, list[tuple[int, ...]]]:
    return {g.prompt.id: [c.token_ids for c in g.candidates] for g in groups}


@pytest.fixture(scope="module", autouse=True)
def _processes():
    yield
    release()


@pytest.fixture(scope="module")
def policies(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random Llamas with heads that vLLM's CPU attention knows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_policy)
    folders = {}
    for seed, name in enumerate(("one", "two")):
        config = LlamaConfig.from_pretrained(tiny_policy, head_dim=32, tie_word_embeddings=False, initializer_range=0.2)
        folders[name] = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            LlamaForCausalLM(config).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def sampled(policies: dict[str, Path]) -> list[Group]:
    """Eight prompts, four completions each, from the first policy, as one shard."""
    with open_samplers(ENGINE, policies["one"]) as samplers:
        return samplers.groups(requests(8))


def test_sharding_and_order_change_no_token(policies, sampled):
    asked = requests(8)
    with open_samplers(ENGINE, policies["one"]) as samplers:
        answered = [samplers.groups(shard) for shard in (asked[5:], asked[2:5], asked[:2][::-1])]
    assert tokens([g for groups in answered for g in groups]) == tokens(sampled)


def test_fewer_completions_are_the_first_of_more(policies, sampled):
    with open_samplers(ENGINE, policies["one"]) as samplers:
        two = samplers(requests(8, n=2))
    assert [[c.token_ids for c in candidates] for candidates in two] == [
        [c.token_ids for c in g.candidates[:2]] for g in sampled
    ]


def test_completions_end_with_eos_exactly_when_they_stop(policies):
    """EOS is one of 384 tokens, so some of 256 completions of up to 24 tokens meet it and most do not."""
    with open_samplers(ENGINE, policies["one"]) as samplers:
        candidates = [c for answered in samplers(requests(8, n=32)) for c in answered]
    eos = load_tokenizer(policies["one"]).eos_token_id
    for c in candidates:
        assert (c.token_ids[-1] == eos) == (c.finish_reason == "stop")
        assert eos not in c.token_ids[:-1]
        assert c.finish_reason == "stop" or len(c.token_ids) == 24
    assert {c.finish_reason for c in candidates} == {"stop", "length"}


def test_sampler_and_training_stack_give_one_logprob(policies, sampled):
    with open_training_stack(ENGINE) as stack:
        rows = stack.logprobs(policies["one"], sampled, precision="float32")
    for group, row in zip(sampled, rows, strict=True):
        assert row.lengths == tuple(len(c.token_ids) for c in group.candidates)
        np.testing.assert_allclose(row.logprobs, [c.logprob for c in group.candidates], atol=1e-3)


def test_two_samplers_and_two_training_stacks_give_what_one_of_each_gives(policies, sampled):
    two = ENGINE.model_copy(update={"replicas": 2})
    asked = requests(8)
    with open_samplers(two, policies["one"]) as samplers, ThreadPoolExecutor(2) as threads:
        answered = list(threads.map(samplers.groups, (asked[:4], asked[4:])))
        assert len(set(samplers.pids())) == len(samplers.probes) == 2
    assert tokens([g for groups in answered for g in groups]) == tokens(sampled)
    with open_training_stack(two) as stack, ThreadPoolExecutor(stack.processes) as threads:
        assert len(set(stack.pids())) == 2
        shards = [sampled[start : start + 2] for start in range(0, 8, 2)]
        measured = threads.map(lambda shard: stack.logprobs(policies["one"], shard, precision="float32"), shards)
        rows = [row for shard in measured for row in shard]
    with open_training_stack(ENGINE) as stack:
        assert rows == stack.logprobs(policies["one"], sampled, precision="float32")


def test_a_reload_in_place_samples_as_a_fresh_process_does(policies, sampled):
    with open_samplers(ENGINE, policies["two"]) as samplers:
        assert [load.how for load in samplers.loads] == ["reloaded"]
        other = samplers.groups(requests(8))
    with open_samplers(ENGINE, policies["one"]) as samplers:
        assert [load.how for load in samplers.loads] == ["reloaded"]
        again = samplers.groups(requests(8))
    assert tokens(other) != tokens(sampled)
    assert tokens(again) == tokens(sampled)


def test_a_killed_sampler_is_replaced_and_its_shard_done_again(policies, sampled):
    """kill -9 while the shard is under way. The replacement is a fresh process, and gives the same tokens."""
    with open_samplers(ENGINE, policies["one"]) as samplers:
        [pid] = samplers.pids()
        killer = threading.Thread(target=lambda: (time.sleep(0.05), os.kill(pid, signal.SIGKILL)))
        killer.start()
        groups = samplers.groups(requests(8))
        killer.join()
        assert samplers.pids() != [pid]
        assert [load.how for load in samplers.loads] == ["reloaded", "fresh"]
        assert len(samplers.probes) == 2
    assert tokens(groups) == tokens(sampled)


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(policies):
    """The context is 128: a prompt of over 104 tokens leaves no room for 24 more."""
    long = Prompt.of((Message(role="user", content="x" * 120),))
    fits = requests(1)
    with open_samplers(ENGINE, policies["one"]) as samplers:
        refused, answered = samplers.groups([Request(prompt=long, n=4, seed=1, decoding=DECODING), *fits])
    assert refused.candidates == ()
    assert "exceed the context of 128" in refused.failures[0].reason
    assert len(answered.candidates) == 4


def test_more_prompt_tokens_than_one_step_reads_are_sampled_too(policies):
    """64 prompts of some 100 tokens, 16 times each: a seeded prompt read in pieces would end vLLM on a CPU."""
    long = [Prompt.of((Message(role="user", content=f"{i:02} " + "x" * 80),)) for i in range(64)]
    short = Decoding(max_tokens=2)
    with open_samplers(ENGINE, policies["one"]) as samplers:
        answered = samplers([Request(prompt=p, n=16, seed=i, decoding=short) for i, p in enumerate(long)])
    assert [len(candidates) for candidates in answered] == [16] * 64


def test_a_head_size_that_vllm_lacks_is_refused_before_it_starts(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 32, "num_attention_heads": 4}')
    with pytest.raises(UserError, match=r"heads of size 8; vLLM on a CPU has 32, 64"):
        check_head_size(tmp_path, ENGINE)


def test_a_reward_is_the_classifiers_output_whatever_shares_its_batch(policies, sampled, tiny_reward_model):
    import torch
    from transformers import AutoModelForSequenceClassification

    rewards = {"rm": RewardSource(ScalarHead(model="rm"), {"model": tiny_reward_model})}
    with open_scorers(ENGINE, rewards, policy=policies["one"]) as scorers:
        scored = scorers.score(sampled)
        assert scorers.probes["rm"].worst < checks.SCORE_BOUND
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model)
    for group in scored[:3]:
        for candidate, reward in zip(group.candidates, group.rewards["rm"], strict=True):
            with torch.no_grad():
                alone = model(torch.tensor([[*group.prompt_ids, *candidate.token_ids]])).logits[0, 0]
            assert reward == pytest.approx(alone.item(), abs=1e-5)


def test_text_scores_as_its_tokens_do(sampled, tiny_reward_model):
    """Without the policy's tokenizer at hand the text is rendered anew, which comes to the same ids here."""
    rewards = {"rm": RewardSource(ScalarHead(model="rm"), {"model": tiny_reward_model})}
    group = sampled[0].model_copy(update={"candidates": sampled[0].candidates[:0]})
    with open_scorers(ENGINE, rewards) as scorers:
        [by_text] = scorers([group.prompt], [["Dear Anna.", "Best wishes."]])
    assert len(by_text["rm"]) == 2
    assert None not in by_text["rm"]


def test_an_overlong_completion_fails_with_a_reason_and_no_number(tiny_reward_model):
    rewards = {"rm": RewardSource(ScalarHead(model="rm"), {"model": tiny_reward_model})}
    with open_scorers(ENGINE, rewards) as scorers:
        [scores] = scorers(prompts(1), [["short", "z" * 200]])
    assert scores["rm"][0] is not None
    assert scores["rm"][1] is None


def test_a_language_model_is_no_reward_model(policies):
    rewards = {"rm": RewardSource(ScalarHead(model="rm"), {"model": policies["one"]})}
    with (
        open_scorers(ENGINE, rewards) as scorers,
        pytest.raises(UserError, match=r"opened as a classifier model, its weights lack score.weight"),
    ):
        scorers(prompts(1), [["text"]])


def test_the_baseline_scores_zero_and_the_order_of_answers_cancels(policies, sampled):
    """r(y) = (odds(y first) - odds(y second)) / 2 against the baseline, which is 0 by definition."""
    config = Pairwise(model="lm", template="{prompt}{a}|{b}|", clip=15)
    with open_scorers(ENGINE, {"pair": RewardSource(config, {"model": policies["one"]})}, seed=(7, 0)) as scorers:
        scored = scorers.score(sampled)
    for group in scored:
        at = baseline_of((7, 0, "pair"), group.prompt.id, 4)
        assert group.rewards["pair"][at] == 0.0
        assert all(r is not None and abs(r) <= 15 for r in group.rewards["pair"])
    assert len({baseline_of((7, 0, "pair"), g.prompt.id, 4) for g in scored}) > 1


def test_an_implicit_reward_is_zero_for_the_reference_itself(policies, sampled):
    def scored(policy: str) -> list[Group]:
        models = {"policy": policies[policy], "reference": policies["one"]}
        source = RewardSource(Implicit(policy="p", reference="r", beta=0.5), models)
        with open_scorers(ENGINE, {"implicit": source}, policy=policies["one"]) as scorers:
            return scorers.score(sampled)

    assert all(r == 0.0 for g in scored("one") for r in g.rewards["implicit"])
    with open_training_stack(ENGINE) as stack:
        ours, theirs = (stack.logprobs(policies[p], sampled, precision="float32") for p in ("two", "one"))
    for group, a, b in zip(scored("two"), ours, theirs, strict=True):
        expected = 0.5 * (np.array(a.logprobs) - np.array(b.logprobs))
        np.testing.assert_allclose(group.rewards["implicit"], expected, rtol=1e-6)
