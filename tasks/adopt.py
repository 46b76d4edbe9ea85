"""What a run begins with: policy, reward models and prompts, found, adopted or trained from scratch."""

import hashlib
import importlib
import inspect
from pathlib import Path
from typing import NamedTuple, assert_never

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.models import ModelSource, Pretrained, RewardModelSource, Scratch, Trained
from alignment.rewards import Ensemble, Implicit, Pairwise, RewardModel, ScalarHead, Verifier
from alignment.types import Artifact
from alignment.worlds import Preferences, World
from infra import artifacts, models, scratch_job
from infra.models import ModelKind
from infra.reward_job import Labelled, kind_of
from infra.vocabulary import same_tokenizer
from infra.weights import check_head, check_head_size
from infra.worlds import world_identity
from tasks import console
from tasks.judges import Judge
from tasks.reward_training import labelled_pairs, train_model
from tasks.steps import Place, find_step, made, making, step_task


class Origin(NamedTuple):
    """What a reward model that this run trains is made from, beside the world."""

    policy: Artifact
    labelled: Artifact | None


@step_task("adopt-policy")
def adopt_policy(config: RunConfig, *, at: Place) -> Artifact:
    """The policy the run begins with. UserError, before it is made, where the sampler could not run it."""
    if isinstance(config.policy, Scratch):
        shape = config.policy.architecture
        check_head(shape.hidden // shape.heads, "policy.architecture", config.engine)
    policy = adopt_model(config, config.policy, "policy", "policy", None, at=at)
    check_head_size(artifacts.fetch_tree(policy), config.engine)
    return policy


@step_task("adopt-judges")
def adopt_judges(config: RunConfig, policy: Artifact, labelled: Artifact | None, *, at: Place) -> tuple[Judge, ...]:
    """The reward, and the gold reward that training never sees. A reward model that is trained here starts from
    ``policy``, unless it names another, and learns from comparisons of the ``labelled`` completions, of the world's own
    answers, or from a file."""
    specs = {"reward": config.reward, "gold": config.gold}
    return tuple(
        _judge(config, name, spec, Origin(policy, labelled), at=at) for name, spec in specs.items() if spec is not None
    )


def adopt_model(
    config: RunConfig, source: ModelSource, kind: ModelKind, step: str, origin: Origin | None, *, at: Place
) -> Artifact:
    """One model as an artifact. A reward model trained from scratch has an ``origin``."""
    match source:
        case Pretrained():
            with making(at, step) as watch:
                return made(at, step, models.adopt_model(at.store, source, kind), watch)
        case Scratch():
            return _from_scratch(config, source, kind, step, origin, at=at)
        case _:
            assert_never(source)


def _judge(config: RunConfig, name: str, spec: RewardModel, origin: Origin, *, at: Place) -> Judge:
    learned: list[Labelled] = []

    def model(source: RewardModelSource, field: str) -> Artifact:
        kind: ModelKind = "policy" if isinstance(spec, Implicit | Pairwise) else "reward_model"
        if isinstance(source, Trained):
            assert isinstance(spec, ScalarHead | Pairwise)  # no other reward has such a model
            trained, labelled = _trained(config, spec, source, f"{name}-{field}", origin, at=at)
            learned.append(labelled)
            return trained
        start = origin if kind == "reward_model" else None
        return adopt_model(config, source, kind, f"{name}-{field}", start, at=at)

    match spec:
        case ScalarHead() | Pairwise():
            used = {"model": model(spec.model, "model")}
            return Judge(name=name, spec=spec, models=used, learned=tuple(learned))
        case Implicit():
            used = {"policy": model(spec.policy, "policy"), "reference": model(spec.reference, "reference")}
            for other in used.values():  # token ids of one must mean the same to the other
                same_tokenizer(artifacts.fetch_tree(origin.policy), artifacts.fetch_tree(other))
            return Judge(name=name, spec=spec, models=used)
        case Verifier():
            return Judge(name=name, spec=spec, source=source_digest(spec))
        case Ensemble():
            members = {m: _judge(config, f"{name}.{m}", of, origin, at=at) for m, of in spec.members.items()}
            return Judge(name=name, spec=spec, members=members)
        case _:
            assert_never(spec)


def _trained(
    config: RunConfig, spec: ScalarHead | Pairwise, source: Trained, step: str, origin: Origin, *, at: Place
) -> tuple[Artifact, Labelled]:
    start, skip = origin.policy, config.skip_bad_rows
    if source.start is not None:
        start = adopt_model(config, source.start, kind_of(spec), f"{step}-start", None, at=at)
    labelled = labelled_pairs(config, source, start, origin.policy, origin.labelled, step=f"{step}-pairs", at=at)
    model = train_model(spec, source, start, (labelled,), skip_bad_rows=skip, step=step, on=config.engine, at=at)
    return model, labelled


def source_digest(verifier: Verifier) -> str:
    """Digest of the file a verifier's function is defined in. UserError when there is no such function."""
    module, _, function = verifier.function.partition(":")
    try:
        found = inspect.getsourcefile(getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"verifier {verifier.function!r}: {error}; name a function as module:function") from None
    return hashlib.sha256(Path(found or "").read_bytes()).hexdigest()


def _world(config: RunConfig) -> World:
    """What models trained from scratch learn from: the run's world, or the pairs it is given."""
    if config.world is not None:
        return config.world
    if config.pairs is None:
        raise UserError("training from scratch has nothing to learn from: set world, or give a model")
    held_out, skip = config.evaluate.held_out, config.skip_bad_rows
    return Preferences(path=config.pairs.path, held_out=held_out, skip_bad_rows=skip)


def _from_scratch(
    config: RunConfig, source: Scratch, kind: ModelKind, step: str, origin: Origin | None, *, at: Place
) -> Artifact:
    world = _world(config)
    learned = {} if origin is None else {"policy": origin.policy, "labelled": origin.labelled}
    inputs = {"source": source, "world": world_identity(world), **learned}
    asked, recipe = artifacts.asked(kind, **inputs), artifacts.recipe_of(kind, **inputs)
    if done := find_step(at, step, kind, recipe):
        return done

    with making(at, step) as watch, console.progress(f"{step} from scratch", None) as advance:

        def heard(step_number: int, total: int, loss: float) -> None:
            advance(step_number, f"of {total}, loss {loss:.3f}")

        if origin is None:
            model = scratch_job.scratch_policy(at.store, recipe, asked, world, source, on=config.engine, advance=heard)
        else:
            model = scratch_job.scratch_reward_model(
                at.store, recipe, asked, world, origin.policy, origin.labelled, source, on=config.engine, advance=heard
            )
        return made(at, step, model, watch)
