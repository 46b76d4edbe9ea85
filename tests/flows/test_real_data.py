"""Recipes on real data, at reduced size: what must hold whatever the size."""

import math
from pathlib import Path

import pytest
from whole_runs import ratchet

from alignment.types import Group, PreferencePair
from infra import artifacts
from tasks.history import NamedStep, read_run, read_steps
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = "{ hidden = 64, heads = 2, layers = 2, feed_forward = 128, context = 2048 }"


def steps_of(folder: Path, run: str, round: str) -> dict[str, NamedStep]:
    return read_steps(Place(store=str(folder / "runs"), run=run, folder=round))


@pytest.fixture(scope="module")
def offline(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DPO on 80 HH-RLHF rows around line 87, which has an empty completion, from a policy trained on chosen ones."""
    folder = tmp_path_factory.mktemp("offline")
    pairs = shared_data / "preferences" / "hh_rlhf_harmless_base_test.rows0000-0999.jsonl.gz"
    words = ["--pairs.path", str(pairs), "--pairs.limit", "90", "--policy.examples", "60"]
    driver = ratchet(folder, "run", "offline_dpo", *words, "--policy.architecture", SMALL, "--skip-bad-rows")
    said, _ = driver.communicate(timeout=1500)
    assert driver.returncode == 0, said
    return folder


def test_a_bad_row_is_named_by_line_and_reason(offline: Path):
    dropped = steps_of(offline, "offline_dpo", "start")["pairs"].artifact.facts["dropped"]
    bad = [row for row in dropped if row["item"].endswith("line 87")]
    assert [row["reason"] for row in bad] == ["chosen has an empty completion"]


def test_without_leave_to_skip_the_bad_row_stops_the_run_before_an_engine_starts(shared_data: Path, tmp_path: Path):
    pairs = shared_data / "preferences" / "hh_rlhf_harmless_base_test.rows0000-0999.jsonl.gz"
    driver = ratchet(tmp_path, "run", "offline_dpo", "--pairs.path", str(pairs))
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == 2
    assert "line 87" in said


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


def test_rso_on_labelled_sentences_runs_through_with_a_finite_kl(shared_data: Path, tmp_path: Path):
    corpora = shared_data / "corpora"
    words = ["--world.path", str(corpora / "sentence_polarity.zip"), "--rounds", "1", "--prompts.count", "60"]
    words += ["--gold.arguments.path", str(corpora / "opinion_lexicon.zip"), "--sampler.n", "8"]
    words += ["--policy.examples", "1500", "--policy.epochs", "1", "--reward.model.examples", "600"]
    driver = ratchet(tmp_path, "run", "sentiment", *words)
    said, _ = driver.communicate(timeout=1500)
    assert driver.returncode == 0, said
    (done,) = read_run(str(tmp_path / "runs"), "sentiment").rounds
    assert math.isfinite(done.metrics["kl_initial"])
    assert done.metrics["gold_mean"] is not None
    assert steps_of(tmp_path, "sentiment", "round-000")["select"].artifact.facts["metrics"]["accepted"] <= 4
