"""A round's pairs in the order that a labeler gives them."""

from collections import Counter
from collections.abc import Sequence

from alignment.errors import UserError
from alignment.labeling import JudgeFailure, LanguageJudge, budgeted, labelled
from alignment.rendering import prompt_text
from alignment.types import Dropped, Group, PreferencePair
from infra import artifacts
from infra.judge_client import Comparison, Judged, compare
from tasks.batches import Batch
from tasks.steps import Place, find_step, made, making, step_task


@step_task("label")
def label(batch: Batch, judge: LanguageJudge, *, at: Place) -> Batch:
    """The batch's pairs as the judge orders them; ties and pairs it did not decide are dropped and counted."""
    unnamed = judge.model_dump(mode="json", exclude={"key", "timeout", "retries", "concurrency"})
    inputs = {"groups": batch.groups, "pairs": batch.pairs, "label": unnamed}
    recipe = artifacts.recipe_of("pairs", **inputs)
    if done := find_step(at, "label", "pairs", recipe):
        return Batch(name=batch.name, groups=batch.groups, pairs=done)

    with making(at, "label") as watch:
        groups = list(artifacts.read_rows(batch.groups, Group))
        pairs = list(artifacts.read_rows(batch.pairs, PreferencePair))
        asked = budgeted(judge, groups, pairs)
        by_prompt = {g.prompt.id: g for g in groups}
        answers = compare(judge, [_comparison(by_prompt[pair.prompt_id], pair) for pair in asked])
        failures = Counter(f.kind for judged in answers.judged for f in judged if isinstance(f, JudgeFailure))
        failed = sum(_failure(judged) is not None for judged in answers.judged)
        _check(judge, answers.judged, at)
        kept, dropped = _decided(judge, asked, answers.judged)
        if not kept:
            raise UserError(
                f"{at.folder}: of {len(asked)} pairs the judge tied {len(asked) - failed} and failed at {failed}, so "
                "that none is left; set label.ties = 'half', or check that the judge answers"
            )
        facts = {
            "pairs": len(kept),
            "dropped": [d.model_dump() for d in dropped],
            "metrics": {
                "label_asked": len(asked),
                "label_calls": answers.calls,
                "label_over_budget": len(pairs) - len(asked),
                "label_turned": sum(pair.margin is None for pair in kept),
                **{f"label_failed_{kind}": count for kind, count in failures.items()},
            },
        }
        artifact = artifacts.commit_rows(
            at.store, "pairs", recipe, kept, PreferencePair, parents=[batch.groups, batch.pairs], facts=facts,
            asked=artifacts.asked("pairs", **inputs),
        )  # fmt: skip
        return Batch(name=batch.name, groups=batch.groups, pairs=made(at, "label", artifact, watch))


def _comparison(group: Group, pair: PreferencePair) -> Comparison:
    first, second = (group.candidates[i].text for i in (pair.chosen, pair.rejected))
    return Comparison(prompt_text(group.prompt), first, second)


def _check(judge: LanguageJudge, judged: Sequence[Judged], at: Place) -> None:
    failed = [f for j in judged if (f := _failure(j)) is not None]
    if judged and len(failed) / len(judged) > judge.max_failure_rate:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(f.kind for f in failed).most_common())
        raise UserError(
            f"{at.folder}: judge {judge.url} decided {len(judged) - len(failed)} of {len(judged)} pairs ({kinds}; "
            f"first: {failed[0].reason}), and label.max_failure_rate = {judge.max_failure_rate:g}. Check that it "
            "answers, or raise label.timeout or label.retries"
        )


def _failure(judged: Judged) -> JudgeFailure | None:
    return next((verdict for verdict in judged if isinstance(verdict, JudgeFailure)), None)


def _decided(
    judge: LanguageJudge, asked: Sequence[PreferencePair], judged: Sequence[Judged]
) -> tuple[list[PreferencePair], list[Dropped]]:
    kept: list[PreferencePair] = []
    dropped: list[Dropped] = []
    for pair, (forward, backward) in zip(asked, judged, strict=True):
        item = f"{pair.prompt_id}:{pair.chosen},{pair.rejected}"
        if isinstance(forward, JudgeFailure) or isinstance(backward, JudgeFailure):
            failure = forward if isinstance(forward, JudgeFailure) else backward
            assert isinstance(failure, JudgeFailure)
            dropped.append(Dropped(step="label", item=item, reason=f"{failure.kind}: {failure.reason}"))
        elif (ordered := labelled(pair, forward, backward)) is not None:
            kept.append(ordered)
        elif judge.ties == "half":
            kept.append(pair.model_copy(update={"source": f"{pair.source}+judge", "p": 0.5}))
        else:
            dropped.append(Dropped(step="label", item=item, reason="the judge ties, or decides by position"))
    return kept, dropped
