"""Training a reward model on labelled pairs, in a Ray worker that commits what it made to the store itself."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from alignment.execution import Engine
from alignment.models import Trained
from alignment.rewards import Pairwise, ScalarHead
from alignment.types import Artifact, Group, PreferencePair, Record
from infra import artifacts
from infra.scratch_job import Advance, in_worker

if TYPE_CHECKING:
    from infra.reward_objectives import Objective, Question


class Labelled(Record):
    """Pairs of stored completions that someone has ordered."""

    groups: Artifact
    pairs: Artifact
    writer: Artifact
    """The model whose tokenizer wrote the completions' ids."""


def kind_of(spec: ScalarHead | Pairwise) -> Literal["policy", "reward_model"]:
    """A ranking model is a language model, whatever it is asked."""
    return "policy" if isinstance(spec, Pairwise) else "reward_model"


def train_on_pairs(
    store: str,
    recipe: str,
    asked: Mapping[str, JsonValue],
    spec: ScalarHead | Pairwise,
    how: Trained,
    start: Artifact,
    labelled: Sequence[Labelled],
    *,
    skip_bad_rows: bool,
    on: Engine,
    advance: Advance,
) -> Artifact:
    """Train what ``spec`` reads with from ``start``; ``advance`` hears (steps done, steps in all, loss). How it ranks
    held-out pairs is in the artifact's facts."""
    work = (store, recipe, dict(asked), spec, how, start, tuple(labelled), skip_bad_rows, on.gpu)
    return in_worker(_job, work, on, advance, "training the reward model", gpu=on.gpu)


def _job(
    store: str,
    recipe: str,
    asked: Mapping[str, JsonValue],
    spec: ScalarHead | Pairwise,
    how: Trained,
    start: Artifact,
    labelled: Sequence[Labelled],
    skip_bad_rows: bool,
    gpu: bool,
    out: Path,
    advance: Advance,
) -> Artifact:
    import torch

    from infra.reward_learning import learn, reload_probe
    from infra.reward_objectives import ranker, save, scalar_head

    torch.manual_seed(how.seed)  # a head that is made anew is drawn
    folder, device = artifacts.fetch_tree(start), "cuda" if gpu else "cpu"

    def opened(of: Path) -> "Objective":
        return ranker(spec, of, device) if isinstance(spec, Pairwise) else scalar_head(of, device)

    objective = opened(folder)
    questions = [question for of in labelled for question in _questions(of)]
    facts = learn(objective, questions, how, skip_bad_rows=skip_bad_rows, progress=advance)
    save(objective, folder, out)
    probe = reload_probe(objective, opened(out), questions, f"the {kind_of(spec)} trained from {folder}")
    facts["probes"] = {probe.name: probe.model_dump(mode="json")}
    parents = [start, *(artifact for of in labelled for artifact in (of.groups, of.pairs))]
    return artifacts.commit_tree(store, kind_of(spec), recipe, out, parents=parents, facts=facts, asked=asked)


def _questions(labelled: Labelled) -> "Iterator[Question]":
    from infra.reward_objectives import Question

    pairs: dict[str, list[PreferencePair]] = {}
    for pair in artifacts.read_rows(labelled.pairs, PreferencePair):
        pairs.setdefault(pair.prompt_id, []).append(pair)
    writer = artifacts.fetch_tree(labelled.writer)
    for group in artifacts.read_rows(labelled.groups, Group):
        if of_group := pairs.get(group.prompt.id):
            yield Question(group, tuple(of_group), writer)
