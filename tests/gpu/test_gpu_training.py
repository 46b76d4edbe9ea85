"""The training job in bf16 on one GPU: a tiny random model, and one of Qwen2.5-0.5B's shape."""

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

HALF_BILLION = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}


@pytest.fixture(params=["tiny", "half_billion"])
def policy(request: pytest.FixtureRequest, tiny_policy: Path, tiny_tokenizer: Path, tmp_path: Path) -> Path:
    if request.param == "tiny":
        return tiny_policy
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=151936, max_position_embeddings=1024, tie_word_embeddings=False, **HALF_BILLION)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "policy")
    PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_bf16_training_begins_at_log_two_lowers_the_loss_and_exports_what_it_trained(policy: Path, tmp_path: Path):
    """References are the policy's own log-probabilities in bf16, by the function the trainer uses, so the first margin
    is 0 up to bf16's rounding; two epochs over the same pairs lower the loss; probe (e) holds or raises."""
    from transformers import AutoModelForCausalLM

    from alignment.config import Train
    from alignment.execution import Engine, Trainer
    from alignment.logprobs import completion_logprobs
    from alignment.packing import TrainingGroup
    from infra.launch import run_training
    from infra.ray_pool import open_ray

    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.bfloat16).cuda()
    groups = []
    for i in range(8):
        prompt, completions = (7, 8, 9 + i), ((20 + i, 21, 22, 2), (40 + i, 41, 2))
        with torch.no_grad():
            reference = tuple(completion_logprobs(model, prompt, completions).tolist())
        groups.append(
            TrainingGroup(
                prompt_id=str(i), prompt_ids=prompt, completions=completions, reference=reference,
                chosen=(0,), rejected=(1,), p=(1.0,), weights=(1.0,),
            )
        )  # fmt: skip
    del model
    open_ray(Engine(gpu=True))
    result = run_training(
        policy,
        groups,
        train=Train(precision="bf16", learning_rate=1e-4, epochs=4, groups_per_step=8, warmup_fraction=0),
        trainer=Trainer(gpu=True),
        seed=0,
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        recipe="gpu",
        on_step=lambda step: None,
    )
    assert result.steps[0].loss == pytest.approx(math.log(2), abs=0.05)
    assert result.steps[-1].loss < result.steps[0].loss
    assert result.probes["reload"].worst <= result.probes["reload"].bound
