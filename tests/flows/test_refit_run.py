"""The whole stack with a reward model that the run trains, and retrains between its rounds."""

from pathlib import Path

import pytest
from whole_runs import ratchet, run_tiny

from tasks.history import read_manifests, read_steps
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

LABELS = ["--labels.prompts", "24", "--labels.n", "3", "--labels.decoding.max_tokens", "48"]
REFIT = ["--refit.prompts", "8", "--refit.n", "3", "--refit.decoding.max_tokens", "48"]
MODEL = "{ type = 'trained', examples = 50, learning_rate = 1e-3, batch_tokens = 1024 }"
WORDS = ["--run", "refit", "--start_from", "initial", "--reward.model", MODEL, *LABELS, *REFIT]


def test_a_round_compares_under_the_reward_model_that_was_refitted_before_it(tmp_path: Path):
    store = str(tmp_path / "runs")
    run_tiny(tmp_path, store, *WORDS)
    first, second = (read_steps(Place(store=store, run="refit", folder=folder)) for folder in ("start", "round-001"))
    digests = [first["reward-model"].artifact.digest, second["refit-model"].artifact.digest]
    begin, round_0, round_1 = (m.rewards["reward.model"] for m in read_manifests(store, "refit", before=2))
    assert digests[0] != digests[1]
    assert [begin, round_0, round_1] == [digests[0], digests[0], digests[1]]

    driver = ratchet(tmp_path, "plan", str(Path(__file__).parent / "tiny.toml"), "--store", store, *WORDS)
    said, _ = driver.communicate(timeout=600)
    assert "Everything is found: a run would start no engine." in said
