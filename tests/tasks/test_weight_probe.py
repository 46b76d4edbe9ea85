"""Probe (a) on a real sampler: tied embeddings that vLLM reloads in place end the step that would have sampled."""

from pathlib import Path

import pytest

from alignment.config import RunConfig
from alignment.execution import Engine
from alignment.probes import ProbeFailed
from alignment.sampling import Decoding, Independent
from alignment.types import Artifact, Message, Prompt
from infra import artifacts, storage
from infra.checks import PROBE_TOKENS, WEIGHT_BOUNDS
from infra.engines import open_samplers, release
from tasks import generate as step
from tasks.history import failed_probes, read_steps
from tasks.recipe import parse_config
from tasks.start import identity
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

WARM = Engine(keep_warm=True, threads=1, timeout=400)
RECIPE = b"""
policy = "m"
prompts = { type = "file", path = "p.jsonl" }
reward = { type = "scalar_head", model = "r" }
"""


@pytest.fixture(autouse=True)
def _processes():
    yield
    release()


def tied(store: str, tiny_policy: Path, folder: Path, seed: int) -> Artifact:
    """A random Llama whose output head is its embedding."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig.from_pretrained(tiny_policy, head_dim=32, tie_word_embeddings=True, initializer_range=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tiny_policy).save_pretrained(folder)
    return artifacts.commit_tree(store, "policy", f"tied-{seed}", folder)


def config_of(store: str) -> RunConfig:
    return parse_config(RECIPE, ["--store", store], where="r", run="r")


def test_a_reload_of_tied_embeddings_ends_the_step_and_leaves_both_sides_numbers(tiny_policy: Path, tmp_path: Path):
    store = str(tmp_path / "runs")
    artifacts.claim_run(store, "r", identity(config_of(store)))
    at = Place(store=store, run="r", folder="round-000")
    first, second = (tied(store, tiny_policy, tmp_path / f"tied-{seed}", seed) for seed in (0, 1))
    prompts = [Prompt.of((Message(role="user", content=f"Write note {i}."),)) for i in range(4)]
    asked = artifacts.commit_rows(store, "prompts", "p", prompts, Prompt)
    sampler = Independent(n=2, decoding=Decoding(max_tokens=8))

    with open_samplers(WARM, first) as samplers:
        assert samplers.probes[0].worst < WEIGHT_BOUNDS["float32"][0]
    with pytest.raises(ProbeFailed, match=r"Set engine\.keep_warm = false .* What was compared is in"):
        step.generate.__wrapped__(second, asked, sampler, (), seed=(0, 0), on=WARM, at=at)

    (kept,) = failed_probes(store, "r")
    assert (kept.folder, kept.step, kept.evidence.probe) == ("round-000", "generate", "weights")
    assert kept.evidence.numbers["worst"] > 100 * WEIGHT_BOUNDS["float32"][0]
    for row in kept.evidence.compared:
        assert (
            len(row["sampler_decoded"]) == len(row["sampler_prefilled"]) == len(row["training_stack"]) == PROBE_TOKENS
        )
    assert read_steps(at) == {}
    assert storage.folders(store, "objects") == ["policy", "prompts"]

    fresh = WARM.model_copy(update={"keep_warm": False})
    assert step.generate.__wrapped__(second, asked, sampler, (), seed=(0, 0), on=fresh, at=at).facts["completions"] == 8
    assert failed_probes(store, "r")[0].mended
