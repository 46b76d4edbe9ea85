"""An opened policy: requests in, groups out, each weight load held to the training stack's numbers."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from alignment.execution import Engine
from alignment.probes import Probe
from alignment.rendering import ChatTokenizer, completion_ids, load_tokenizer, render
from alignment.sampling import Drawn, Request
from alignment.types import Candidate, Failure, Group, Prompt
from infra import checks, ray_pool
from infra.model_actor import Precision
from infra.model_folder import end_tokens, read_config
from infra.replicas import Replicas
from infra.training_stack import TrainingStack
from infra.vllm_actor import Ask, Draw, Loaded, VllmActor, vllm_env
from infra.weights import Model, folder_of, shape_of

if TYPE_CHECKING:
    from ray.actor import ActorHandle

TRAINED_IN: Mapping[str, Precision] = {"float32": "float32", "bfloat16": "bf16"}


class Samplers:
    """An opened policy: replicas that hold the same weights, each held to the weight probe."""

    def __init__(self, engine: Engine, stack: TrainingStack):
        self.probes: list[Probe] = []
        """One per weight load."""
        self.loads: list[Loaded] = []
        self._engine, self._stack = engine, stack
        self._rendering = threading.Lock()
        self._replicas = Replicas(engine.replicas, self._start, self._load, timeout=engine.timeout)

    def load(self, model: Model, stack: TrainingStack) -> None:
        """Serve this model: fresh engines, or the same ones with its weights in place of theirs.

        Raises ProbeFailed when a sampler and the training stack disagree on it afterwards.
        """
        folder = folder_of(model)
        self._model, self._stack, self.shape = model, stack, shape_of(folder)
        self._tokenizer = load_tokenizer(folder)
        self._vocabulary: int = read_config(folder)["vocab_size"]
        self._eos = cast(int, self._tokenizer.eos_token_id)  # a tokenizer without one is not loaded
        self._ends = end_tokens(folder) | {self._eos}
        self.probes, self.loads = [], []
        self._replicas.make_ready()
        self.context = min(load.context for load in self.loads)
        """Most tokens of prompt and completion together."""

    def groups(self, requests: Sequence[Request]) -> list[Group]:
        """One group per request, unscored. A prompt that does not fit the context has no candidates and a failure
        that says so; nothing is cut. Raises ProbeFailed for a completion that stopped without EOS, or went on after.
        """
        with self._rendering:  # the tokenizer is not for several threads
            prompt_ids = [render(self._tokenizer, r.prompt) for r in requests]
        refusals = [self._refusal(r, ids) for r, ids in zip(requests, prompt_ids, strict=True)]
        asks = [
            Ask(ids, r.n, r.seed, r.decoding)
            for r, ids, refusal in zip(requests, prompt_ids, refusals, strict=True)
            if refusal is None
        ]
        drawn_P: list[list[Draw]] = self._replicas.call("sample", asks, what=_naming(requests)) if asks else []
        checks.check_ends(str(self._model), [draw for draws in drawn_P for draw in draws], self._ends, self._eos)
        drawn = iter(drawn_P)
        return [
            Group(prompt=r.prompt, prompt_ids=ids, candidates=_candidates(next(drawn)))
            if refusal is None
            else Group(prompt=r.prompt, prompt_ids=ids, candidates=(), failures=(refusal,))
            for r, ids, refusal in zip(requests, prompt_ids, refusals, strict=True)
        ]

    def __call__(self, requests: Sequence[Request]) -> list[list[Candidate]]:
        """As a strategy sees it (``alignment.sampling.Generate``); a prompt that does not fit has an empty list, and
        ``groups`` says why."""
        return [list(group.candidates) for group in self.groups(requests)]

    def assembled(self, prompts: Sequence[Prompt], drawn_P: Sequence[Drawn]) -> list[Group]:
        """What a strategy drew, as groups: each prompt with its own rendering's ids, whatever was asked of the engine
        on the way. A prompt without candidates has a failure instead."""
        with self._rendering:
            return [self._assembled(prompt, drawn) for prompt, drawn in zip(prompts, drawn_P, strict=True)]

    def _assembled(self, prompt: Prompt, drawn: Drawn) -> Group:
        ids = render(self._tokenizer, prompt)
        return Group(
            prompt=prompt,
            prompt_ids=ids,
            candidates=tuple(tokenised(self._tokenizer, prompt, candidate) for candidate in drawn.candidates),
            failures=drawn.failures if drawn.candidates else (*drawn.failures, self._unanswered(prompt, ids)),
        )

    def _unanswered(self, prompt: Prompt, prompt_ids: Sequence[int]) -> Failure:
        reason = f"prompt of {len(prompt_ids)} tokens leaves too little room in the context of {self.context}"
        return Failure(prompt_id=prompt.id, reason=reason)

    def pids(self) -> list[int]:
        return self._replicas.pids()

    def close(self) -> None:
        self._replicas.close()

    def _refusal(self, request: Request, prompt_ids: Sequence[int]) -> Failure | None:
        prompt, tokens = len(prompt_ids), request.decoding.max_tokens
        if prompt + tokens <= self.context:
            return None
        reason = f"prompt of {prompt} tokens and completion of up to {tokens} exceed the context of {self.context}"
        return Failure(prompt_id=request.prompt.id, reason=reason)

    def _start(self) -> "ActorHandle[Any]":
        import ray

        engine = self._engine
        actor: Any = (
            ray.remote(VllmActor)
            .options(
                num_cpus=ray_pool.cpus_for(engine.threads),
                num_gpus=ray_pool.gpus_for(engine, engine.tensor_parallel, 0.75),
                runtime_env={"env_vars": ray_pool.worker_env(threads=engine.threads) | vllm_env(engine)},
                scheduling_strategy="SPREAD",
            )
            .remote(engine)
        )
        return actor

    def _load(self, actor: "ActorHandle[Any]") -> None:
        what, limit = f"a sampler of {self._model}", self._engine.timeout
        [loaded] = ray_pool.wait([actor.load.remote(self._model)], timeout=limit, what=what)
        prompts = checks.probe_prompts(self._vocabulary, loaded.context)
        [traces] = ray_pool.wait(
            [actor.trace.remote(prompts, checks.PROBE_TOKENS)], timeout=limit, what=f"probe of {what}"
        )
        trained = self._stack.token_logprobs(
            self._model,
            [(prompt, trace.token_ids) for prompt, trace in zip(prompts, traces, strict=True)],
            precision=TRAINED_IN[self._engine.dtype],
        )
        self.probes.append(checks.check_weights(str(self._model), prompts, traces, trained, self._engine))
        self.loads.append(loaded)


def tokenised(tokenizer: ChatTokenizer, prompt: Prompt, candidate: Candidate) -> Candidate:
    """A candidate that was shortened after it was sampled, with the ids of its text as a turn of its prompt's
    conversation; any other as it is, with the ids it was sampled with."""
    if candidate.token_ids or not candidate.text:
        return candidate
    ids = completion_ids(tokenizer, prompt, candidate.text)
    if candidate.finish_reason == "length":
        ids = ids[:-1]  # the template ended it; the sampler did not
    return candidate.model_copy(update={"token_ids": ids})


def _candidates(draws: Sequence[Draw]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(index=i, text=d.text, token_ids=d.token_ids, finish_reason=d.finish_reason, logprob=d.logprob)
        for i, d in enumerate(draws)
    )


def _naming(requests: Sequence[Request]) -> str:
    ids = [r.prompt.id for r in requests]
    return f"sampling of {len(ids)} prompts ({', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''})"
