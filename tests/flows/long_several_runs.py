"""Whole runs that one driver makes one after the other, as the sandbox's claims do: a reward model that is retrained
between rounds, losses that need more of the reference, two cells of a claim, and recipes on real data at reduced size,
where it is at hand."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_runs import RECIPE, Done, Driver

from alignment.types import Group, PreferencePair, SequenceLogprobs, TokenLogprobs
from infra import artifacts
from tasks.history import NamedStep, read_manifests, read_run, read_steps
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

LABELS = ["--labels.prompts", "24", "--labels.n", "3", "--labels.decoding.max_tokens", "48"]
REFIT = ["--refit.prompts", "8", "--refit.n", "3", "--refit.decoding.max_tokens", "48"]
TRAINED = "{ type = 'trained', examples = 50, learning_rate = 1e-3, batch_tokens = 1024 }"
REFITTED = [str(RECIPE), "--run", "refit", "--start_from", "initial", "--reward.model", TRAINED, *LABELS, *REFIT]
BRIEF = "{ hidden = 64, heads = 2, layers = 2, feed_forward = 128 }"
SMALL = "{ hidden = 64, heads = 2, layers = 2, feed_forward = 128, context = 2048 }"


def hh_rows(data: Path) -> str:
    return str(data / "preferences" / "hh_rlhf_harmless_base_test.rows0000-0999.jsonl.gz")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(tmp_path_factory.mktemp("driver"))
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the driver's runs are."""
    return tmp_path_factory.mktemp("several")


def said(done: Done) -> str:
    """What a command printed that succeeded."""
    assert done.status == 0, done.said
    return done.said


def steps_of(folder: Path, run: str, round: str) -> dict[str, NamedStep]:
    return read_steps(Place(store=str(folder / "runs"), run=run, folder=round))


def test_a_round_compares_under_the_reward_model_that_was_refitted_before_it(driver: Driver, folder: Path):
    """And a plan of the finished run knows that it is finished."""
    said(driver(folder, "run", *REFITTED))
    models = [
        steps_of(folder, "refit", of)[step].artifact.digest
        for of, step in (("start", "reward-model"), ("round-001", "refit-model"))
    ]
    begin, round_0, round_1 = (
        m.rewards["reward.model"] for m in read_manifests(str(folder / "runs"), "refit", before=2)
    )
    assert models[0] != models[1]
    assert [begin, round_0, round_1] == [models[0], models[0], models[1]]
    assert "Everything is found: a run would start no engine." in said(driver(folder, "plan", *REFITTED))


def test_ld_dpo_trains_on_the_references_tokens(driver: Driver, folder: Path):
    """Their sums are the reference's, which is the policy that training starts from: the first loss is log 2."""
    said(driver(folder, "run", str(RECIPE), "--run", "ld", "--rounds", "1", "--train.loss", "{ type = 'ld_dpo' }"))
    steps = steps_of(folder, "ld", "round-000")
    sums = artifacts.read_rows(steps["logprobs-round-000"].artifact, SequenceLogprobs)
    for row, by_token in zip(
        sums, artifacts.read_rows(steps["logprobs-tokens-round-000"].artifact, TokenLogprobs), strict=True
    ):
        assert row.prompt_id == by_token.prompt_id
        assert [len(tokens) for tokens in by_token.logprobs] == list(row.lengths)
        assert [sum(tokens) for tokens in by_token.logprobs] == pytest.approx(row.logprobs, abs=1e-3)
    assert steps["train"].artifact.facts["first_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_mrpo_trains_against_the_promoted_and_the_initial_policy(driver: Driver, folder: Path):
    """One and the same in the first round, which begins at log 2; two once a policy is promoted."""
    said(driver(folder, "run", str(RECIPE), "--run", "mr", "--train.loss", "{ type = 'mrpo' }"))
    first, then = (steps_of(folder, "mr", f"round-00{k}") for k in range(2))
    assert first["train"].artifact.facts["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["logprobs-second-round-000"].artifact == first["logprobs-round-000"].artifact
    promoted, initial = (then[name].artifact for name in ("logprobs-round-001", "logprobs-second-round-001"))
    assert promoted.digest != initial.digest
    assert f"logprobs/{initial.recipe}" in then["train"].artifact.parents


def test_two_cells_of_a_claim_run_on_the_real_engines_and_are_found_again(driver: Driver, folder: Path):
    """The claims' own configuration at the smallest size. Plain completions are those that PRS's tokens buy, so both
    arms generated about as much; the second call makes nothing, and gives the same numbers."""
    assert "made in" in said(driver(folder, "claims", "runs", "first.json"))
    first = json.loads((folder / "first.json").read_text())
    prs, plain = (first[f"claims-{arm}-best_worst-dpo-s0"] for arm in ("prs", "preference_conditioned"))
    assert plain["tokens"] == pytest.approx(prs["tokens"], rel=0.25)
    assert prs["best"].keys() & plain["best"].keys()  # all of a prompt's completions may have been cut in one of them
    assert prs["trained"].keys() == plain["trained"].keys()
    assert prs["draft_tokens"] > 0
    assert "made in" not in said(driver(folder, "claims", "runs", "again.json"))
    assert json.loads((folder / "again.json").read_text()) == first


@pytest.fixture(scope="module")
def offline(shared_data: Path, driver: Driver, folder: Path) -> Path:
    """DPO on 80 HH-RLHF rows around line 87, which has an empty completion, from a policy trained on chosen ones."""
    words = ["--pairs.path", hh_rows(shared_data), "--pairs.limit", "90", "--policy.examples", "60"]
    said(driver(folder, "run", "offline_dpo", *words, "--policy.architecture", SMALL, "--skip-bad-rows"))
    return folder


def test_a_bad_row_is_named_by_line_and_reason(offline: Path):
    dropped = steps_of(offline, "offline_dpo", "start")["pairs"].artifact.facts["dropped"]
    bad = [row for row in dropped if row["item"].endswith("line 87")]
    assert [row["reason"] for row in bad] == ["chosen has an empty completion"]


def test_without_leave_to_skip_the_bad_row_stops_the_run(shared_data: Path, driver: Driver, tmp_path: Path):
    done = driver(tmp_path, "run", "offline_dpo", "--pairs.path", hh_rows(shared_data))
    assert done.status == 2
    assert "line 87" in done.said


def test_the_first_loss_on_real_pairs_is_log_two(offline: Path):
    train = steps_of(offline, "offline_dpo", "round-000")["train"].artifact
    assert train.facts["first_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_chosen_and_rejected_continue_the_very_same_prompt_ids(offline: Path):
    """One group has one prompt's ids; every pair's two completions are of one group and differ."""
    start = steps_of(offline, "offline_dpo", "start")
    groups = {g.prompt.id: g for g in artifacts.read_rows(start["pairs-groups"].artifact, Group)}
    pairs = list(artifacts.read_rows(start["pairs"].artifact, PreferencePair))
    assert pairs
    for pair in pairs:
        group = groups[pair.prompt_id]
        assert group.prompt_ids
        assert group.candidates[pair.chosen].token_ids != group.candidates[pair.rejected].token_ids


def test_rso_on_labelled_sentences_runs_through_with_a_finite_kl(shared_data: Path, driver: Driver, folder: Path):
    corpora = shared_data / "corpora"
    words = ["--world.path", str(corpora / "sentence_polarity.zip"), "--rounds", "1", "--prompts.count", "60"]
    words += ["--gold.arguments.path", str(corpora / "opinion_lexicon.zip"), "--sampler.n", "8"]
    words += ["--policy.examples", "800", "--policy.epochs", "1", "--reward.model.examples", "300"]
    words += ["--policy.architecture", BRIEF, "--reward.model.architecture", BRIEF]
    said(driver(folder, "run", "sentiment", *words))
    (done,) = read_run(str(folder / "runs"), "sentiment").rounds
    assert math.isfinite(done.metrics["kl_initial"])
    assert done.metrics["gold_mean"] is not None
    assert steps_of(folder, "sentiment", "round-000")["select"].artifact.facts["metrics"]["accepted"] <= 4
