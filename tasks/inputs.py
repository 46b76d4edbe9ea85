"""Prompts and existing pairs, read, checked against the policy's context, and split once."""

from collections.abc import Sequence
from typing import NamedTuple

from alignment.config import PromptFile, RunConfig
from alignment.errors import UserError
from alignment.pair_rows import PairRow
from alignment.rendering import ChatTokenizer, completion_ids, load_tokenizer, render
from alignment.splits import split_held_out
from alignment.template_probe import check_template
from alignment.types import Artifact, Candidate, Dropped, Group, PreferencePair, Prompt, Record, digest_of
from infra import artifacts
from infra.model_folder import context_length
from infra.sources import read_pairs, read_prompts
from infra.worlds import open_world
from tasks.batches import Batch
from tasks.judges import Judge
from tasks.steps import Place, find_step, made, making, step_task


class Inputs(Record):
    """Everything a round needs beside the policies."""

    prompts: Artifact
    held_out: Artifact
    judges: tuple[Judge, ...]
    offline: Batch | None = None
    """Existing pairs: nothing is sampled for training."""
    held_out_pairs: Batch | None = None

    @property
    def reward(self) -> tuple[Judge, ...]:
        """The judges that training may see."""
        return tuple(j for j in self.judges if j.name == "reward")

    @property
    def gold(self) -> Judge:
        """The judge that training may not see, but for a run whose labels are its own; ValueError without one."""
        (gold,) = (j for j in self.judges if j.name == "gold")
        return gold


class Reader(NamedTuple):
    """The policy, as far as lengths go."""

    tokenizer: ChatTokenizer
    context: int | None
    room: int
    """Tokens that must be left for a completion."""

    def too_long(self, prompt: Prompt, completion_tokens: int) -> str | None:
        """Why prompt and completion do not fit the context; None when they do."""
        length = len(render(self.tokenizer, prompt))
        if self.context is None or length + completion_tokens <= self.context:
            return None
        return (
            f"prompt {prompt.id} ({prompt.messages[-1].content[:40]!r}) has {length} tokens; with {completion_tokens} "
            f"for a completion that exceeds the model's context of {self.context}"
        )


@step_task("adopt-inputs")
def adopt_inputs(config: RunConfig, policy: Artifact, judges: tuple[Judge, ...], *, at: Place) -> Inputs:
    """Train and held-out prompts, split by digest, or the pairs that exist already."""
    if config.pairs is not None:
        return _from_pairs(config, policy, judges, at)
    prompts, dropped = _read_prompts(config)
    train, held_out = (
        _prompts(config, policy, part, name, dropped if name == "prompts" else (), at)
        for part, name in zip(split_held_out(prompts, config.evaluate.held_out), ("prompts", "held-out"), strict=True)
    )
    return Inputs(prompts=train, held_out=held_out, judges=judges)


def _read_prompts(config: RunConfig) -> tuple[Sequence[Prompt], Sequence[Dropped]]:
    if isinstance(config.prompts, PromptFile):
        rows = read_prompts(config.prompts.path, limit=config.prompts.limit, skip_bad_rows=config.skip_bad_rows)
        return [_stating(p, config.prompts.preference) for p in rows.prompts], rows.dropped
    if config.prompts is None or config.world is None:
        raise UserError("prompts are missing: set prompts.path to a file, or prompts.type = 'world' with a world")
    return open_world(config.world).prompts(config.prompts.count), ()


def _stating(prompt: Prompt, preference: str | None) -> Prompt:
    """The prompt with this preference where it states none of its own."""
    if preference is None or prompt.preference is not None:
        return prompt
    return Prompt.of(prompt.messages, preference, prompt.metadata)


def _prompts(
    config: RunConfig, policy: Artifact, prompts: Sequence[Prompt], step: str, dropped: Sequence[Dropped], at: Place
) -> Artifact:
    room = config.sampler.decoding.max_tokens if step == "prompts" else config.evaluate.decoding.max_tokens
    inputs = {"rows": digest_of([p.id for p in prompts]), "policy": policy, "room": room, "skip": config.skip_bad_rows}
    recipe = artifacts.recipe_of("prompts", **inputs)
    if done := find_step(at, step, "prompts", recipe):
        return done

    with making(at, step) as watch:
        reader = _reader(policy, room)
        for prompt in {tuple(m.role for m in p.messages): p for p in reversed(prompts)}.values():
            check_template(reader.tokenizer, prompt, "A plain sentence")  # the first of each order of turns
        refused = {p.id: why for p in prompts if (why := reader.too_long(p, room))}
        _refuse(refused, config.skip_bad_rows, len(prompts))
        fitting = [p for p in prompts if p.id not in refused]
        out = [*dropped, *(Dropped(step=step, item=item, reason=why) for item, why in refused.items())]
        facts = {"prompts": len(fitting), "dropped": [d.model_dump() for d in out]}
        asked = artifacts.asked("prompts", **inputs)
        artifact = artifacts.commit_rows(at.store, "prompts", recipe, fitting, Prompt, facts=facts, asked=asked)
        return made(at, step, artifact, watch)


def _reader(policy: Artifact, room: int) -> Reader:
    folder = artifacts.fetch_tree(policy)
    return Reader(load_tokenizer(folder), context_length(folder), room)


def _refuse(refused: dict[str, str], skip: bool, total: int) -> None:
    if refused and (not skip or len(refused) == total):
        raise UserError(
            f"{next(iter(refused.values()))}; {len(refused)} of {total} are too long. Shorten them, lower max_tokens, "
            "or report and drop them with --skip-bad-rows"
        )


def _from_pairs(config: RunConfig, policy: Artifact, judges: tuple[Judge, ...], at: Place) -> Inputs:
    if config.pairs is None:
        raise ValueError("no pairs are given")
    rows = read_pairs(config.pairs.path, limit=config.pairs.limit, skip_bad_rows=config.skip_bad_rows)
    by_prompt = rows_by_prompt(rows.pairs)
    prompts = [of_prompt[0].prompt for of_prompt in by_prompt.values()]
    train, held_out = split_held_out(prompts, config.evaluate.held_out)
    offline = pair_batch(config, policy, [by_prompt[p.id] for p in train], "pairs", rows.dropped, at)
    held_out_pairs = pair_batch(config, policy, [by_prompt[p.id] for p in held_out], "held-out-pairs", (), at)
    return Inputs(
        prompts=_prompts(config, policy, train, "prompts", (), at),
        held_out=_prompts(config, policy, held_out, "held-out", (), at),
        judges=judges,
        offline=offline,
        held_out_pairs=held_out_pairs,
    )


def rows_by_prompt(rows: Sequence[PairRow]) -> dict[str, list[PairRow]]:
    by_prompt: dict[str, list[PairRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt.id, []).append(row)
    return by_prompt


def pair_batch(
    config: RunConfig,
    policy: Artifact,
    rows_P: Sequence[Sequence[PairRow]],
    step: str,
    dropped: Sequence[Dropped],
    at: Place,
) -> Batch:
    """Pairs of each prompt as one group: each distinct completion once, tokenised for the model ``policy`` after the
    very same prompt ids."""
    inputs = {
        "rows": digest_of([r.model_dump(mode="json") for rows in rows_P for r in rows]),
        "policy": policy,
        "skip": config.skip_bad_rows,
    }
    groups_recipe, recipe = artifacts.recipe_of("groups", **inputs), artifacts.recipe_of("pairs", **inputs)
    groups_done = find_step(at, f"{step}-groups", "groups", groups_recipe)
    pairs_done = find_step(at, step, "pairs", recipe)
    if groups_done and pairs_done:
        return Batch(name=step, groups=groups_done, pairs=pairs_done)

    with making(at, step) as watch:
        reader = _reader(policy, 0)
        made_P = [_group(reader, rows) for rows in rows_P]
        refused = {g.prompt.id: why for g, _ in made_P if (why := _too_long(reader, g))}
        _refuse(refused, config.skip_bad_rows, len(made_P))
        kept = [(g, pairs) for g, pairs in made_P if g.prompt.id not in refused]
        out = [*dropped, *(Dropped(step=step, item=item, reason=why) for item, why in refused.items())]
        pairs = [pair for _, of_group in kept for pair in of_group]
        facts = {"pairs": len(pairs), "dropped": [d.model_dump() for d in out]}
        groups = artifacts.commit_rows(
            at.store, "groups", groups_recipe, [g for g, _ in kept], Group, asked=artifacts.asked("groups", **inputs)
        )
        asked = artifacts.asked("pairs", **inputs)
        artifact = artifacts.commit_rows(
            at.store, "pairs", recipe, pairs, PreferencePair, parents=[groups], facts=facts, asked=asked
        )
        made(at, f"{step}-groups", groups, watch)
        return Batch(name=step, groups=groups, pairs=made(at, step, artifact, watch))


def _group(reader: Reader, rows: Sequence[PairRow]) -> tuple[Group, list[PreferencePair]]:
    prompt = rows[0].prompt
    texts = list(dict.fromkeys(text for row in rows for text in (row.chosen, row.rejected)))
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=completion_ids(reader.tokenizer, prompt, text), finish_reason="stop")
        for i, text in enumerate(texts)
    )
    pairs = [
        PreferencePair(
            prompt_id=prompt.id, chosen=texts.index(row.chosen), rejected=texts.index(row.rejected), source="given"
        )
        for row in rows
    ]
    ids = render(reader.tokenizer, prompt)
    return Group(prompt=prompt, prompt_ids=ids, candidates=candidates, rewards=_given_scores(rows, texts)), pairs


def _given_scores(rows: Sequence[PairRow], texts: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
    """The scores that came with the pairs, as the run's reward; nothing where none came."""
    scores: dict[str, float] = {}
    for row in rows:
        for text, score in ((row.chosen, row.score_chosen), (row.rejected, row.score_rejected)):
            if score is not None and scores.setdefault(text, score) != score:
                raise UserError(
                    f"prompt {row.prompt.id}: the completion {text[:40]!r} has the scores {scores[text]:g} and "
                    f"{score:g}; give it one"
                )
    return {"reward": tuple(map(scores.get, texts))} if scores else {}


def _too_long(reader: Reader, group: Group) -> str | None:
    return reader.too_long(group.prompt, max(len(c.token_ids) for c in group.candidates))
