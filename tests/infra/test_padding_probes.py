"""Models whose numbers depend on padding are caught, by probe (b) where they score and by probe (d) where they train;
and a sampler that kept the old output head by probe (a)."""

from pathlib import Path

import pytest
from padded_models import LONGROPE, InProcess, last_position_reader, saved

from alignment.config import Train
from alignment.execution import Engine, Trainer
from alignment.logprobs import Row, token_logprobs
from alignment.models import Pretrained
from alignment.packing import TrainingGroup
from alignment.probes import ProbeFailed
from alignment.rewards import ScalarHead
from alignment.types import Candidate, Group, Message, Prompt
from infra import checks
from infra.model_actor import ModelActor
from infra.reward_models import RewardSource
from infra.scoring import Scorers
from infra.train_data import TrainJob
from infra.train_probes import padding_changes_no_logprob
from infra.vllm_actor import GreedyTrace


@pytest.fixture
def last_position(tiny_reward_model: Path, tmp_path: Path) -> Path:
    return last_position_reader(tmp_path / "xlnet", tiny_reward_model)


@pytest.fixture
def longrope(tiny_policy: Path, tmp_path: Path):
    """Tiny Llamas whose positions depend on the longest row of a batch, to score or to write."""
    import torch
    from transformers import LlamaConfig

    def made(kind: type) -> Path:
        config = LlamaConfig.from_pretrained(tiny_policy, rope_parameters=LONGROPE, num_labels=1, initializer_range=0.2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return saved(tmp_path / kind.__name__, kind(config), tiny_policy)

    return made


def groups(*texts: str) -> list[Group]:
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=(), finish_reason="stop") for i, text in enumerate(texts)
    )
    return [Group(prompt=Prompt.of((Message(role="user", content="Hi"),)), prompt_ids=(), candidates=candidates)]


def scorers(model: Path) -> Scorers:
    rewards = {"rm": RewardSource(ScalarHead(model=Pretrained(model="rm")), {"model": model})}
    return Scorers(InProcess(), rewards, policy=None, seed=())  # pyright: ignore[reportArgumentType]


def test_a_reward_that_reads_the_last_position_whatever_it_is_fails(last_position):
    with pytest.raises(ProbeFailed, match=r"reward 'rm': completion \d scores .* alone and .* in a batch") as failed:
        scorers(last_position).score(groups("a", "b" * 20, "c" * 30))
    rows = failed.value.evidence.compared
    assert [len(row["first"]) + len(row["second"]) for row in rows] == [7, 26, 36] * 2
    assert rows[0]["alone"] != pytest.approx(rows[0]["in_a_batch"], abs=1e-3)
    assert rows[2]["alone"] == pytest.approx(rows[2]["in_a_batch"], abs=1e-6)  # the longest is not padded


def test_it_is_not_believed_for_having_scored_equal_lengths_first(last_position):
    """Nothing is padded there, so the probe looks again at the next batch."""
    opened = scorers(last_position)
    opened.score(groups("a", "b", "c"))
    with pytest.raises(ProbeFailed):
        opened.score(groups("a", "bbbbbb"))


def test_a_sound_reward_is_probed_until_it_met_padding_and_no_longer(tiny_reward_model, monkeypatch):
    seen = []
    check = checks.check_scores
    monkeypatch.setattr(checks, "check_scores", lambda *args: seen.append(args) or check(*args))
    opened = scorers(tiny_reward_model)
    for texts in (("a", "b"), ("a", "bbbbbb"), ("c", "dddddd")):
        opened.score(groups(*texts))
    assert len(seen) == 2
    assert opened.probes["rm"].count == 4


def test_a_reward_whose_positions_depend_on_its_neighbours_fails(longrope):
    """Both below 16 tokens, or both above, would agree."""
    from transformers import LlamaForSequenceClassification

    model = longrope(LlamaForSequenceClassification)
    assert scorers(model).score(groups("a", "bbbbb"))[0].failures == ()
    with pytest.raises(ProbeFailed, match="completion 0 scores"):
        scorers(model).score(groups("a", "b" * 40))


def test_a_sequence_that_ends_with_the_pad_token_scores_the_same_in_a_batch(tiny_reward_model):
    """transformers' own head looks for the last token that is not padding, which is the wrong place then."""
    actor, rows = ModelActor(threads=1, gpu=False), [[5, 6, 7, 0], [5, 6, 7, 8, 9, 10], [5, 6, 7]]
    alone, together = (actor.scores(tiny_reward_model, rows, batch_size=size) for size in (1, 3))
    assert together == pytest.approx(alone, abs=1e-6)
    assert alone[0] != pytest.approx(alone[2], abs=1e-3)


def training_group(*lengths: int) -> TrainingGroup:
    completions = tuple(tuple(range(20 + k, 20 + k + n)) for k, n in enumerate(lengths))
    chosen = tuple(range(1, len(lengths)))
    return TrainingGroup(
        prompt_id="one", prompt_ids=(7, 8, 9), completions=completions, reference=(0.0,) * len(lengths), chosen=chosen,
        rejected=(0,) * len(chosen), p=(1.0,) * len(chosen), weights=(1.0,) * len(chosen),
    )  # fmt: skip


def probed(folder: Path, *lengths: int):
    """Probe (d) with plain transformers where an engine would be: what it asks of both is one forward pass."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer, out = Trainer(threads=1), folder / "out"
    job = TrainJob(recipe="", policy=folder, out=out, train=Train(), trainer=trainer, seed=0, deadline=0.0)
    return padding_changes_no_logprob(model, job, [training_group(*lengths)])


def test_padding_changes_no_logprob_of_a_sound_model(tiny_policy):
    probe = probed(tiny_policy, 2, 5, 40)
    assert probe.worst < 1e-4
    assert probe.count == 2 + 5 + 40


def test_training_a_model_whose_positions_depend_on_its_neighbours_fails(longrope):
    from transformers import LlamaForCausalLM

    model = longrope(LlamaForCausalLM)
    assert probed(model, 2, 5).worst < 1e-4
    with pytest.raises(ProbeFailed, match=r"padded beside others, and .* in the same row alone") as failed:
        probed(model, 2, 5, 40)
    short, _, long = failed.value.evidence.compared
    assert short["padded"] != pytest.approx(short["alone"], abs=1e-2)
    assert long["padded"] == pytest.approx(long["alone"], abs=1e-4)


def test_the_probe_takes_rows_of_both_ends(tiny_policy):
    """Twelve rows of 1 to 12 tokens: the four shortest and the four longest."""
    assert probed(tiny_policy, *range(1, 13)).count == 1 + 2 + 3 + 4 + 9 + 10 + 11 + 12


@pytest.mark.parametrize("scale", [0.02, 0.2])
def test_a_sampler_that_kept_the_old_output_head_of_tied_embeddings_fails(tiny_policy, scale):
    """What a reload in place leaves of a model with tied embeddings: every weight is new, the head is the old one. At a
    fresh model's scale, where all logits are small, as at a trained one's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(tiny_policy, tie_word_embeddings=True, initializer_range=scale)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        old, new = LlamaForCausalLM(config).eval(), LlamaForCausalLM(config).eval()
    reloaded = LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_policy, tie_word_embeddings=False)).eval()
    reloaded.load_state_dict({**new.state_dict(), "lm_head.weight": old.state_dict()["lm_head.weight"]})
    prompts = checks.probe_prompts(384, 128)

    def checked(sampler) -> checks.Probe:
        with torch.no_grad():
            written = [
                sampler.generate(torch.tensor([p]), do_sample=False, min_new_tokens=16, max_new_tokens=16)[0, len(p) :]
                for p in prompts
            ]
            rows = [Row(p, tuple(ids.tolist())) for p, ids in zip(prompts, written, strict=True)]
            sampled, trained = ([token_logprobs(m, [row])[0].tolist() for row in rows] for m in (sampler, new))
        traces = [GreedyTrace(row.completion, tuple(s), tuple(s)) for row, s in zip(rows, sampled, strict=True)]
        return checks.check_weights("tied", prompts, traces, trained, Engine())

    assert checked(new).worst == 0.0
    with pytest.raises(ProbeFailed, match="tied embeddings"):
        checked(reloaded)


def test_ends_are_those_that_either_configuration_names(tmp_path):
    from infra.model_folder import end_tokens

    (tmp_path / "config.json").write_text('{"eos_token_id": 2}')
    assert end_tokens(tmp_path) == {2}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert end_tokens(tmp_path) == {2, 5}
    (tmp_path / "config.json").write_text('{"eos_token_id": null}')
    assert end_tokens(tmp_path) == {2, 5}
