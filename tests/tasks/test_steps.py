"""Steps without Prefect: find or make, names, counts, verdicts that are given once."""

from pathlib import Path

import pytest

from alignment.errors import Conflict, UserError
from alignment.gate import WinRate
from alignment.selection import BestWorst, SeRA
from alignment.types import Artifact, Candidate, Group, Message, PreferencePair, Prompt, SequenceLogprobs
from infra import artifacts
from tasks.batches import Batch
from tasks.decide import Evaluation, Standing, decide, measure_initial
from tasks.history import read_manifest, read_run, read_steps
from tasks.join import join, joined
from tasks.recipe import parse_config
from tasks.select import select
from tasks.start import identity
from tasks.steps import NotMade, Place, planning

select_plainly = select.__wrapped__
decide_plainly = decide.__wrapped__
measure_plainly = measure_initial.__wrapped__

RECIPE = b"""
rounds = 2
policy = "m"
prompts = { type = "file", path = "p.jsonl" }
reward = { type = "scalar_head", model = "r" }
evaluate.bootstrap = 200
gate = { type = "win_rate", min_distinct_ratio = 0.1 }
"""


def group(i: int, rewards: tuple[float | None, ...]) -> Group:
    prompt = Prompt.of((Message(role="user", content=f"prompt {i}"),))
    candidates = tuple(
        Candidate(index=k, text=f"answer {k}", token_ids=(5, 6 + k, 2), finish_reason="stop")
        for k in range(len(rewards))
    )
    return Group(prompt=prompt, prompt_ids=(1, 7), candidates=candidates, rewards={"reward": rewards})


def store_groups(store: str, name: str, groups: list[Group]) -> Artifact:
    return artifacts.commit_rows(store, "groups", artifacts.recipe_of("groups", name=name), groups, Group)


@pytest.fixture
def at(tmp_path: Path) -> Place:
    place = Place(store=str(tmp_path / "runs"), run="r", folder="round-000")
    artifacts.claim_run(place.store, "r", identity(parse_config(RECIPE, [], where="r", run="r")))
    return place


def test_pairs_are_made_once_and_every_prompt_is_accounted_for(at: Place):
    """Rewards 0, 1, 2 pair candidate 2 with 0; three equal rewards give no pair, and that prompt is in ``dropped``."""
    groups = store_groups(at.store, "a", [group(0, (0.0, 1.0, 2.0)), group(1, (1.0, 1.0, 1.0))])
    first = select_plainly(groups, BestWorst(), seed=(0, 0), at=at)
    again = select_plainly(groups, BestWorst(), seed=(0, 0), at=at)
    (pair,) = artifacts.read_rows(first.pairs, PreferencePair)
    assert (pair.chosen, pair.rejected) == (2, 0)
    assert again.pairs == first.pairs
    assert [row["item"] for row in first.pairs.facts["dropped"]] == [group(1, (1.0,)).prompt.id]
    assert not read_steps(at)["select"].note.reused


def test_another_run_finds_equal_work_and_says_so(at: Place):
    groups = store_groups(at.store, "a", [group(0, (0.0, 1.0))])
    made = select_plainly(groups, BestWorst(), seed=(0, 0), at=at)
    elsewhere = at.model_copy(update={"run": "other"})
    assert select_plainly(groups, BestWorst(), seed=(0, 0), at=elsewhere).pairs == made.pairs
    assert read_steps(elsewhere)["select"].note.reused


def test_a_round_whose_groups_give_no_pair_says_why(at: Place):
    groups = store_groups(at.store, "a", [group(0, (1.0, 1.0)), group(1, (None, 2.0))])
    with pytest.raises(UserError, match="found no pair in 2 groups"):
        select_plainly(groups, BestWorst(), seed=(0, 0), at=at)


def test_a_round_with_too_many_missing_scores_fails_and_says_how_many(at: Place):
    """Two of six scores are missing: 33.3%, over 20% and not over 40%."""
    groups = store_groups(at.store, "a", [group(0, (0.0, 1.0, None)), group(1, (0.0, None, 1.0))])
    with pytest.raises(UserError, match=r"33\.3% of the completions have no score, more than max_missing = 20\.0%"):
        select_plainly(groups, BestWorst(), seed=(0, 0), at=at, max_missing=0.2)
    select_plainly(groups, BestWorst(), seed=(0, 0), at=at, max_missing=0.4)


def test_pairs_that_a_more_lenient_run_made_are_not_found_past_a_stricter_threshold(at: Place):
    """Two of six scores are missing, which 40% bears and 20% does not, whoever selected first."""
    groups = store_groups(at.store, "a", [group(0, (0.0, 1.0, None)), group(1, (0.0, None, 1.0))])
    select_plainly(groups, BestWorst(), seed=(0, 0), at=at, max_missing=0.4)
    with pytest.raises(UserError, match=r"33\.3% of the completions have no score, more than max_missing = 20\.0%"):
        select_plainly(groups, BestWorst(), seed=(0, 0), at=at.model_copy(update={"run": "strict"}), max_missing=0.2)


def test_sera_reviews_labelled_pairs_beside_fresh_completions(at: Place):
    """Four labelled pairs of two answers each, and two fresh answers a prompt, which become candidates 2 and 3. Of the
    margins 0, 1, 2, 3 half are kept; the widest fresh pair, that of prompt 3, is added: 0.5 per kept one."""
    offline = [group(i, (0.0, 0.0)).model_copy(update={"rewards": {}}) for i in range(4)]
    existing = store_groups(at.store, "existing", offline)
    fresh = store_groups(at.store, "fresh", [group(i, (0.0, 0.0)) for i in range(4)])
    groups = join.__wrapped__(existing, fresh, at=at)
    rows = list(artifacts.read_rows(groups, Group))
    assert [c.index for c in rows[0].candidates] == [0, 1, 2, 3]
    renamed = [
        g.model_copy(update={"candidates": tuple(c.model_copy(update={"text": str(c.index)}) for c in g.candidates)})
        for g in rows
    ]
    whole = store_groups(at.store, "whole", renamed)
    labelled = [PreferencePair(prompt_id=g.prompt.id, chosen=0, rejected=1, source="given") for g in rows]
    given = artifacts.commit_rows(
        at.store, "pairs", artifacts.recipe_of("pairs", name="given"), labelled, PreferencePair
    )
    sums = {"current": [(i, 0.0, 0.0, 0.1 * i) for i in range(4)], "initial": [(0.0,) * 4] * 4}
    logprobs = {
        name: artifacts.commit_rows(
            at.store,
            "logprobs",
            artifacts.recipe_of("logprobs", name=name),
            [
                SequenceLogprobs(prompt_id=g.prompt.id, logprobs=s, lengths=(3,) * 4)
                for g, s in zip(rows, sums_P, strict=True)
            ],
            SequenceLogprobs,
        )
        for name, sums_P in sums.items()
    }
    sera = SeRA(keep=0.5, bootstrap=0.5)
    batch = select_plainly(whole, sera, seed=(0, 0), at=at, logprobs=logprobs, labelled=given)
    pairs = list(artifacts.read_rows(batch.pairs, PreferencePair))
    assert pairs[:2] == labelled[2:]
    assert [(p.prompt_id, p.chosen, p.rejected) for p in pairs[2:]] == [(rows[3].prompt.id, 3, 2)]
    assert set(batch.pairs.parents) >= {f"logprobs/{a.recipe}" for a in logprobs.values()}


def test_fresh_completions_of_another_prompt_text_are_refused(at: Place):
    other = group(0, (0.0,)).model_copy(update={"prompt_ids": (1, 8)})
    with pytest.raises(ValueError, match="continue other tokens"):
        joined(group(0, (0.0,)), other)


def test_a_promoted_policy_knows_what_stood_before_it(at: Place):
    config = parse_config(RECIPE, ["--store", at.store], where="r", run="r")
    old, new = standing(at, "old", 1.0), standing(at, "new", 2.0)
    best = measure_plainly(config, old.policy, old.evaluation, at=at.model_copy(update={"folder": "start"}))
    batch = Batch(name="round-000", groups=old.evaluation.groups, pairs=old.evaluation.groups)
    after = decide_plainly(config, 0, new.policy, new.evaluation, batch, best, best, at=at)
    assert best.before is None
    assert after.before == old.policy


def test_a_step_that_would_become_something_else_is_a_conflict(at: Place):
    for name, rewards in (("a", (0.0, 1.0)), ("b", (1.0, 0.0))):
        groups = store_groups(at.store, name, [group(0, rewards)])
        if name == "a":
            select_plainly(groups, BestWorst(), seed=(0, 0), at=at)
    with pytest.raises(Conflict, match="round-000/select"):
        select_plainly(groups, BestWorst(), seed=(0, 0), at=at)


def test_while_planning_nothing_is_made_and_the_first_missing_step_is_told(at: Place):
    groups = store_groups(at.store, "a", [group(0, (0.0, 1.0))])
    token = planning.set([])
    try:
        with pytest.raises(NotMade, match="round-000/select") as missing:
            select(groups, BestWorst(), seed=(0, 0), at=at)
    finally:
        planning.reset(token)
    assert missing.value.round == 0
    assert not read_steps(at)


def standing(at: Place, name: str, reward: float) -> Standing:
    """A policy whose 20 answers all have one reward, and the log-probability -1 under every model."""
    groups = [group(i, (reward, reward)) for i in range(20)]
    scored = store_groups(at.store, name, groups)
    rows = [SequenceLogprobs(prompt_id=g.prompt.id, logprobs=(-1.0, -1.0), lengths=(3, 3)) for g in groups]
    recipe = artifacts.recipe_of("logprobs", name=name)
    logprobs = artifacts.commit_rows(at.store, "logprobs", recipe, rows, SequenceLogprobs)
    policy = artifacts.commit_rows(at.store, "policy", artifacts.recipe_of("policy", name=name), groups, Group)
    return Standing(policy=policy, evaluation=Evaluation(groups=scored, own=logprobs, base=logprobs))


@pytest.mark.parametrize(("reward", "verdict"), [(2.0, "promoted"), (0.5, "rejected")])
def test_the_pointer_moves_to_what_wins_and_stays_where_it_does_not(at: Place, reward: float, verdict: str):
    """Rewards 2 against 1 win every pair (rate 1); 0.5 against 1 lose every one (rate 0)."""
    config = parse_config(RECIPE, ["--store", at.store], where="r", run="r")
    assert isinstance(config.gate, WinRate)
    old, new = standing(at, "old", 1.0), standing(at, "new", reward)
    start = at.model_copy(update={"folder": "start"})
    best = measure_plainly(config, old.policy, old.evaluation, at=start)
    batch = Batch(name="round-000", groups=old.evaluation.groups, pairs=old.evaluation.groups)
    for _ in range(2):  # the second time the verdict is found, and a promotion repeated without harm
        after = decide_plainly(config, 0, new.policy, new.evaluation, batch, best, best, at=at)
    manifest = read_manifest(at)
    assert manifest is not None
    assert manifest.verdict == verdict
    assert manifest.metrics["win_rate"] == (1.0 if verdict == "promoted" else 0.0)
    assert manifest.metrics["kl_initial"] == 0.0
    promotion = artifacts.promoted(at.store, "r")
    assert (promotion is not None) == (verdict == "promoted")
    assert after.policy == (new.policy if verdict == "promoted" else old.policy)
    assert read_run(at.store, "r").rounds[0].verdict == verdict
