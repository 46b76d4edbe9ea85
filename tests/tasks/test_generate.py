"""Sampling as a step: shards survive a death in the middle of a layer, and what was spent and lost is counted.

The store is real; in place of engines stands the toy language, whose completions depend on their seeds alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from toy_language import TURNS, ToyPolicy, gold, toy_prompts

from alignment.execution import Engine
from alignment.rewards import Verifier
from alignment.sampling import Drawn, Independent, Refine, Reflective, Request, Sampler
from alignment.types import Artifact, Candidate, Group, Prompt
from infra import artifacts
from tasks import generate as step
from tasks.judges import Judge
from tasks.steps import Place

ENGINE = Engine(shard_prompts=4)
SAMPLER = Reflective(n=8, refine=Refine(texts=TURNS))
generate = step.generate.__wrapped__


def toy_reward(prompt: Prompt, completion: str) -> float:
    return gold(completion)


JUDGE = Judge(name="reward", spec=Verifier(function=f"{__name__}:toy_reward"), source="1")


class ToySamplers(ToyPolicy):
    """Dies, as a killed process would, at the first refinement after so many completions."""

    probes = ()
    dies_after = 10**9

    def __call__(self, requests: Sequence[Request]) -> list[list[Candidate]]:
        if self.drawn >= self.dies_after and any(len(r.prompt.messages) == 5 for r in requests):
            raise KeyboardInterrupt
        return super().__call__(requests)

    def assembled(self, prompts: Sequence[Prompt], drawn_P: Sequence[Drawn]) -> list[Group]:
        return [
            Group(prompt=p, prompt_ids=(1,), candidates=d.candidates, failures=d.failures)
            for p, d in zip(prompts, drawn_P, strict=True)
        ]


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> ToySamplers:
    opened = ToySamplers()

    @contextmanager
    def open_toy(engine: Engine, model: Artifact) -> Iterator[ToySamplers]:
        yield opened

    monkeypatch.setattr(step, "open_samplers", open_toy)
    return opened


def sample(folder: Path, sampler: Sampler, judge: Judge = JUDGE, count: int = 12) -> Artifact:
    store = str(folder / "runs")
    recipe = artifacts.recipe_of("prompts", count=count)
    prompts = artifacts.commit_rows(store, "prompts", recipe, toy_prompts(count), Prompt)
    at = Place(store=store, run="r", folder="round-000")
    return generate(prompts, prompts, sampler, [judge], seed=(0, 0), on=ENGINE, at=at)


def test_a_death_in_the_second_layer_loses_nothing_and_doubles_nothing(policy: ToySamplers, tmp_path: Path):
    """Three shards of four prompts; the process dies while the second one is refined."""
    whole = sample(tmp_path / "undisturbed", SAMPLER)
    assert policy.drawn == 12 * 8
    policy.asked.clear()
    policy.dies_after = 4 * 8 + 1
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "killed", SAMPLER)
    policy.dies_after = 10**9
    policy.asked.clear()
    resumed = sample(tmp_path / "killed", SAMPLER)
    assert policy.drawn == 8 * 8  # the first shard was found
    assert resumed.digest == whole.digest
    groups = list(artifacts.read_rows(resumed, Group))
    assert [g.prompt.id for g in groups] == [p.id for p in toy_prompts(12)]
    assert [len(g.candidates) for g in groups] == [8] * 12


def test_feedback_is_counted_among_the_tokens_and_refinements_by_generation(policy: ToySamplers, tmp_path: Path):
    """12 prompts of 8 completions of 24 tokens each, and feedback beside them."""
    facts = sample(tmp_path, SAMPLER).facts
    assert facts["completions"] == 96
    assert isinstance(facts["tokens"], int)
    assert facts["tokens"] > 96 * 24
    drafts, refinements = facts["generations"]
    assert (drafts["completions"], refinements["completions"]) == (48, 48)
    assert facts["fallbacks"] == {}
    assert sample(tmp_path / "plain", Independent(n=8)).facts["tokens"] == 96 * 24


def test_fallbacks_are_counted_by_reason_and_are_no_dropped_prompts(policy: ToySamplers, tmp_path: Path):
    policy.context = 60
    facts = sample(tmp_path, SAMPLER).facts
    assert facts["fallbacks"] == {
        "refined without feedback: the draft and the request for feedback exceed the context": 48
    }
    assert facts["dropped"] == []


def test_another_reward_is_other_work_for_prs_and_the_same_for_independent_draws(policy: ToySamplers, tmp_path: Path):
    """The best draft is the reward's choice, so PRS under another reward must not find the first one's completions."""
    other = JUDGE.model_copy(update={"source": "2"})
    for sampler, same in ((SAMPLER, False), (Independent(n=8), True)):
        first, second = (sample(tmp_path / f"{sampler.type} {j.source}", sampler, j) for j in (JUDGE, other))
        assert (first.recipe == second.recipe) == same
