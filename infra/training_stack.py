"""Log-probabilities and rewards by the training stack, asked of the processes that compute them."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignment.execution import Engine
from alignment.types import Group, SequenceLogprobs, TokenLogprobs
from infra import ray_pool
from infra.model_actor import Ids, ModelActor, Precision
from infra.replicas import Replicas
from infra.weights import Model

if TYPE_CHECKING:
    from ray.actor import ActorHandle


class TrainingStack:
    """The training stack's own numbers, from processes that keep the models they last used.

    As many as there are samplers, whose cores they use in turn; on GPUs one, as each more would need a GPU of its own.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self.processes = 1 if engine.gpu else engine.replicas
        """How many calls are worked on at once."""
        self._replicas = Replicas(self.processes, self._start, _answers(engine), timeout=engine.timeout)
        self._ready = threading.Lock()
        self._made_ready = False

    def logprobs(self, model: Model, groups: Sequence[Group], *, precision: Precision) -> list[SequenceLogprobs]:
        """Of every candidate of every group under ``model``; ``precision`` is the one it is trained in."""
        rows = [(g.prompt_ids, [c.token_ids for c in g.candidates]) for g in groups]
        sums = self._call("logprobs", model, rows, precision=precision, batch_size=self._engine.batch_size)
        return [
            SequenceLogprobs(prompt_id=g.prompt.id, logprobs=tuple(sums_G), lengths=tuple(len(c) for c in row[1]))
            for g, row, sums_G in zip(groups, rows, sums, strict=True)
        ]

    def logprobs_by_token(self, model: Model, groups: Sequence[Group], *, precision: Precision) -> list[TokenLogprobs]:
        """As ``logprobs``, token by token."""
        rows = [(g.prompt_ids, c.token_ids) for g in groups for c in g.candidates]
        found = iter(self.token_logprobs(model, rows, precision=precision) if rows else [])
        return [
            TokenLogprobs(prompt_id=g.prompt.id, logprobs=tuple(tuple(next(found)) for _ in g.candidates))
            for g in groups
        ]

    def sums(self, model: Model, rows: Sequence[tuple[Ids, Sequence[Ids]]]) -> list[list[float]]:
        """Log-probability of each completion of each prompt, in float32."""
        return self._call("logprobs", model, rows, precision="float32", batch_size=self._engine.batch_size)

    def token_logprobs(
        self, model: Model, rows: Sequence[tuple[Ids, Ids]], *, precision: Precision
    ) -> list[list[float]]:
        """Of every completion token of each (prompt, completion)."""
        return self._call("token_logprobs", model, rows, precision=precision, batch_size=self._engine.batch_size)

    def scores(self, model: Model, sequences: Sequence[Ids], *, batch_size: int | None = None) -> list[float]:
        """A classifier's one output for each sequence."""
        return self._call("scores", model, sequences, batch_size=batch_size or self._engine.batch_size)

    def log_odds(
        self, model: Model, sequences: Sequence[Ids], first: int, second: int, *, batch_size: int | None = None
    ) -> list[float]:
        """Of token ``first`` against token ``second`` after each sequence."""
        size = batch_size or self._engine.batch_size
        return self._call("log_odds", model, sequences, first, second, batch_size=size)

    def pids(self) -> list[int]:
        return self._replicas.pids()

    def close(self) -> None:
        self._replicas.close()

    def _call(self, method: str, model: Model, *args: Any, **kwargs: Any) -> Any:
        with self._ready:
            if not self._made_ready:  # not before: it imports torch while the sampler imports vLLM
                self._replicas.make_ready()
                self._made_ready = True
        return self._replicas.call(method, model, *args, what=f"{method} of {model}", **kwargs)

    def _start(self) -> "ActorHandle[Any]":
        import ray

        engine = self._engine
        actor: Any = (
            ray.remote(ModelActor)
            .options(
                num_cpus=ray_pool.cpus_for(engine.threads),
                num_gpus=ray_pool.gpus_for(engine, 1, 0.25),
                runtime_env={"env_vars": ray_pool.worker_env(threads=engine.threads)},
            )
            .remote(threads=engine.threads, gpu=engine.gpu)
        )
        return actor


def _answers(engine: Engine) -> Any:
    def ready(actor: "ActorHandle[Any]") -> None:
        ray_pool.wait([actor.pid.remote()], timeout=engine.timeout, what="a process for reward models")

    return ready
