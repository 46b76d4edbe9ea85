"""A plan: the steps that are found, the first that is not, and what the rest would cost at most."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignment.config import RunConfig, WorldPrompts
from alignment.selection import SeRA
from alignment.types import Artifact, Record
from tasks.steps import NotMade


class PlannedStep(Record):
    """A step whose artifact stands in the store."""

    folder: str
    step: str
    uri: str


class Plan(Record):
    """What ``ratchet plan`` prints."""

    run: str
    store: str
    found: tuple[PlannedStep, ...]
    first_missing: str | None
    """``folder/step``; None when the whole run is there."""
    rounds_to_make: int
    """Rounds that have at least one step to make."""
    completions_at_most: int | None
    """Sampled in those rounds, held-out answers and refits included; None where the number of prompts is not known
    yet."""
    tokens_at_most: int | None


def forecast(config: RunConfig, found: Sequence[tuple[str, str, Artifact]], missing: NotMade | None) -> Plan:
    """The most that the missing rounds can cost: every completion as long as its limit."""
    rounds = 0 if missing is None else config.rounds - max(0, missing.round)
    prompts = _prompt_counts(config, found)
    completions = tokens = None
    if prompts is not None:
        train, held_out = prompts
        sampled = 0 if config.pairs and not isinstance(config.select, SeRA) else train * config.sampler.n
        answered = held_out * config.evaluate.n
        refit = _refit_completions(config, rounds)
        completions = rounds * (sampled + answered) + refit
        tokens = rounds * (
            (0 if config.pairs else train * config.sampler.tokens_at_most)
            + answered * config.evaluate.decoding.max_tokens
        )
        tokens += refit * (config.refit.decoding.max_tokens if config.refit else 0)
    return Plan(
        run=config.run,
        store=config.store,
        found=tuple(PlannedStep(folder=f, step=s, uri=a.uri) for f, s, a in found),
        first_missing=None if missing is None else str(missing),
        rounds_to_make=rounds,
        completions_at_most=completions,
        tokens_at_most=tokens,
    )


def _refit_completions(config: RunConfig, rounds: int) -> int:
    """Sampled for the reward model before the last ``rounds`` rounds, where each has its refit."""
    if config.refit is None:
        return 0
    return config.refit.possible(config.rounds - rounds, config.rounds) * config.refit.prompts * config.refit.n


def _prompt_counts(config: RunConfig, found: Sequence[tuple[str, str, Artifact]]) -> tuple[int, int] | None:
    """Train and held-out prompts: counted where they are adopted, expected where a world will write them."""
    counted = {step: artifact.facts.get("prompts") for _, step, artifact in found if artifact.kind == "prompts"}
    train, held_out = counted.get("prompts"), counted.get("held-out")
    if isinstance(train, int) and isinstance(held_out, int):
        return train, held_out
    if isinstance(config.prompts, WorldPrompts):
        held = round(config.prompts.count * config.evaluate.held_out)
        return config.prompts.count - held, held
    return None


def plan_text(plan: Plan) -> RenderableType:
    """The plan for a terminal."""
    steps = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for column in ("found", "step", "object"):
        steps.add_column(column, overflow="fold")
    for step in plan.found:
        steps.add_row(step.folder, step.step, "/".join(step.uri.split("/")[-2:])[:40])
    said = (
        "Everything is found: a run would start no engine."
        if plan.first_missing is None
        else f"First to be made: {plan.first_missing}; then everything after it, {plan.rounds_to_make} rounds."
    )
    if plan.rounds_to_make and plan.completions_at_most is not None:
        said += f" At most {plan.completions_at_most:,} completions and {plan.tokens_at_most:,} tokens."
    title = Text.assemble(("plan of ", "dim"), (plan.run, "bold"), ("  in ", "dim"), plan.store)
    return Group(title, *([steps] if plan.found else []), Text(said))
