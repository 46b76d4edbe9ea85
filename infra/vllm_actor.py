"""vLLM inside a Ray actor: a sampler. Token ids in, token ids and numbers out."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from alignment.execution import Engine
from alignment.sampling import Decoding
from infra.weights import Model, folder_of

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.outputs import RequestOutput


class Ask(NamedTuple):
    """n completions of one prompt."""

    prompt_ids: tuple[int, ...]
    n: int
    seed: int
    decoding: Decoding


class Draw(NamedTuple):
    """One completion as vLLM gave it."""

    token_ids: tuple[int, ...]
    """EOS included when ``finish_reason`` is "stop"."""
    text: str
    finish_reason: Literal["stop", "length"]
    logprob: float
    """Summed over its tokens under the policy itself, whatever the decoding."""


class Loaded(NamedTuple):
    """What became of a load."""

    how: Literal["fresh", "reloaded"]
    seconds: float
    context: int
    """Most tokens of prompt and completion together."""


class GreedyTrace(NamedTuple):
    """A greedy continuation and the sampler's log-probability of each of its tokens, twice."""

    token_ids: tuple[int, ...]
    decoded: tuple[float, ...]
    """As they were sampled, one token at a time."""
    prefilled: tuple[float, ...]
    """The same tokens read as a prompt."""


def vllm_env(engine: Engine) -> dict[str, str]:
    """Environment of a sampler process, beside ``worker_env``."""
    env = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its own process would import everything again
        "VLLM_LOGGING_LEVEL": "INFO" if "RATCHET_DEBUG" in os.environ else "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if engine.gpu:
        return env
    return env | {
        "VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its own binding would put two samplers on the same cores
        "TORCHDYNAMO_DISABLE": "1",  # compiling one small log-prob function delays the first batch by 15 s
    }


class VllmActor:
    """One vLLM engine in this process. vLLM is imported when the actor starts, so that it costs nobody's turn."""

    def __init__(self, engine: Engine):
        import vllm  # noqa: F401

        self._engine = engine
        self._llm: LLM | None = None

    def pid(self) -> int:
        return os.getpid()

    def load(self, model: Model) -> Loaded:
        """Serve this model: a fresh engine, or this one's weights replaced in place.

        In place needs the same ``config.json``, and is believed only after the weight probe: vLLM reads tied
        embeddings wrongly then, without a word. Raises RuntimeError when old prefixes cannot be forgotten.
        """
        folder, began = folder_of(model), time.monotonic()
        how = "reloaded" if self._llm else "fresh"
        if self._llm is None:
            self._llm = self._start(folder)
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            if not self._llm.reset_prefix_cache():
                raise RuntimeError(f"{folder}: vLLM kept the prefix cache of the old weights")
        return Loaded(how, time.monotonic() - began, int(self._llm.model_config.max_model_len))

    def sample(self, asks: Sequence[Ask]) -> list[list[Draw]]:
        """``n`` completions of each prompt, from one request each (shared prefix).

        Child i of a request draws with ``seed + i``, so a completion depends on the prompt and its seed alone.
        """
        from vllm import SamplingParams

        params = [
            SamplingParams(
                n=ask.n,
                seed=ask.seed,
                temperature=ask.decoding.temperature,
                top_p=ask.decoding.top_p,
                top_k=ask.decoding.top_k,
                presence_penalty=ask.decoding.presence_penalty,
                max_tokens=ask.decoding.max_tokens,
                logprobs=0,
            )
            for ask in asks
        ]
        return [_draws(output) for output in self._generate([ask.prompt_ids for ask in asks], params)]

    def trace(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> list[GreedyTrace]:
        """Greedy continuations of exactly ``tokens`` tokens, for the weight probe."""
        from vllm import SamplingParams

        greedy = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=0)
        decoded = [output.outputs[0] for output in self._generate(prompts, [greedy] * len(prompts))]
        whole = [(*prompt, *one.token_ids) for prompt, one in zip(prompts, decoded, strict=True)]
        read = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        prefilled = self._generate(whole, [read] * len(whole))
        return [
            GreedyTrace(
                tuple(one.token_ids),
                _logprobs_of(one.token_ids, one.logprobs),
                _logprobs_of(one.token_ids, cast(Any, again.prompt_logprobs)[-tokens:]),
            )
            for one, again in zip(decoded, prefilled, strict=True)
        ]

    def _start(self, folder: Path) -> "LLM":
        from vllm import LLM

        engine = self._engine
        # a seeded prompt that is read in pieces ends the engine on a CPU: its generator cannot be wound back
        memory: dict[str, Any] = {"enable_chunked_prefill": False}
        if engine.gpu:  # the share is only a check at the start, which a neighbour on the same GPU would fail
            memory = {"kv_cache_memory_bytes": engine.kv_cache_gib * 2**30, "gpu_memory_utilization": 0.5}
        return LLM(
            model=str(folder),
            dtype=engine.dtype,
            load_format="safetensors",  # "auto" would open pickles where there is nothing else
            tensor_parallel_size=engine.tensor_parallel,
            distributed_executor_backend="mp" if engine.tensor_parallel > 1 else None,
            enforce_eager=True,
            enable_prefix_caching=True,
            disable_log_stats=True,
            **memory,
        )

    def _generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> "list[RequestOutput]":
        if self._llm is None:
            raise RuntimeError("no model is loaded")
        asked = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return self._llm.generate(cast(Any, asked), list(params), use_tqdm=False)


def _draws(output: "RequestOutput") -> list[Draw]:
    draws: list[Draw] = []
    for one in sorted(output.outputs, key=lambda one: one.index):
        if one.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a completion with {one.finish_reason!r}")
        if one.cumulative_logprob is None:
            raise RuntimeError("vLLM gave no log-probability")
        reason = cast(Literal["stop", "length"], one.finish_reason)
        draws.append(Draw(tuple(one.token_ids), one.text, reason, one.cumulative_logprob))
    return draws


def _logprobs_of(token_ids: Sequence[int], positions: Any) -> tuple[float, ...]:
    return tuple(float(at[token].logprob) for token, at in zip(token_ids, positions, strict=True))
