"""A reward model trained on labelled pairs: a step of its own, found or made."""

from collections.abc import Sequence

from alignment.config import RunConfig
from alignment.execution import Engine
from alignment.models import Trained
from alignment.pair_rows import PairRow
from alignment.rewards import Pairwise, ScalarHead
from alignment.splits import split_held_out
from alignment.types import Artifact, Dropped
from alignment.worlds import Sandbox
from infra import artifacts, reward_job
from infra.reward_job import Labelled, kind_of
from infra.sources import read_pairs
from infra.worlds import open_world
from tasks import console
from tasks.inputs import pair_batch, rows_by_prompt
from tasks.labels import world_labels
from tasks.steps import Place, find_step, made, making


def labelled_pairs(
    config: RunConfig,
    how: Trained,
    start: Artifact,
    policy: Artifact,
    samples: Artifact | None,
    *,
    step: str,
    at: Place,
) -> Labelled:
    """What a model is to learn from: the pairs of a file, else the sandbox's labels of the policy's ``samples`` or of
    answers by its own writer. Texts are tokenised for ``start``, and checked against its context."""
    if how.pairs is not None:
        rows = read_pairs(how.pairs, limit=how.examples, skip_bad_rows=config.skip_bad_rows)
        return _tokenised(config, how, start, rows.pairs, rows.dropped, step, at)
    if not isinstance(config.world, Sandbox) or how.examples is None:
        raise ValueError("the sandbox is asked for a number of labels, or there is a file")  # the contracts see to it
    if samples is not None:
        pairs = world_labels(samples, config.world, how.examples, step=step, at=at)
        return Labelled(groups=samples, pairs=pairs, writer=policy)
    written = open_world(config.world).labelled_pairs(how.examples)
    rows = [PairRow(prompt=pair.prompt, chosen=pair.chosen, rejected=pair.rejected) for pair in written]
    return _tokenised(config, how, start, rows, (), step, at)


def _tokenised(
    config: RunConfig,
    how: Trained,
    start: Artifact,
    rows: Sequence[PairRow],
    dropped: Sequence[Dropped],
    step: str,
    at: Place,
) -> Labelled:
    rows_P = list(rows_by_prompt(rows).values())
    split_held_out([of_prompt[0].prompt for of_prompt in rows_P], how.held_out, field="the reward model's held_out")
    batch = pair_batch(config, start, rows_P, step, dropped, at)
    return Labelled(groups=batch.groups, pairs=batch.pairs, writer=start)


def train_model(
    spec: ScalarHead | Pairwise,
    how: Trained,
    start: Artifact,
    labelled: Sequence[Labelled],
    *,
    skip_bad_rows: bool,
    step: str,
    on: Engine,
    at: Place,
) -> Artifact:
    """The model of ``spec``, trained from ``start`` on all of ``labelled``. Where its pairs came from and whether bad
    ones were skipped does not bear identity: the pairs do."""
    inputs = {
        "reward": spec.model_dump(mode="json", exclude={"model", "clip"}),
        "learn": how.model_dump(mode="json", exclude={"start", "pairs", "examples"}),
        "start": start,
        "groups": [of.groups for of in labelled],
        "pairs": [of.pairs for of in labelled],
    }
    kind = kind_of(spec)
    asked, recipe = artifacts.asked(kind, **inputs), artifacts.recipe_of(kind, **inputs)
    if done := find_step(at, step, kind, recipe):
        return done

    with making(at, step) as watch, console.progress(f"{step} on labelled pairs", None) as advance:

        def heard(step_number: int, total: int, loss: float) -> None:
            advance(step_number, f"of {total}, loss {loss:.3f}")

        model = reward_job.train_on_pairs(
            at.store, recipe, asked, spec, how, start, labelled, skip_bad_rows=skip_bad_rows, on=on, advance=heard
        )
        return made(at, step, model, watch)
