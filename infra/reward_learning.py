"""Reward models trained on labelled pairs of stored completions, in the calling process."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignment.errors import UserError
from alignment.metrics import paired_bootstrap
from alignment.models import Trained
from alignment.probes import Probe
from alignment.splits import split_held_out
from alignment.types import Dropped
from infra import checks
from infra.compared import Compared, PairOfRows, compared, joined
from infra.reward_objectives import Objective, Question
from infra.scratch import Progress, batches, fit, padded

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLES = 2000
PROBED = 8


def learn(
    objective: Objective, questions: Sequence[Question], how: Trained, *, skip_bad_rows: bool, progress: Progress
) -> dict[str, Any]:
    """Train the objective's model in place on the pairs of the prompts that are not held out, and measure it on the
    pairs of those that are.

    Facts: how many pairs were learnt from, ``ranking_accuracy`` on held-out pairs with its 95% interval over prompts
    (ends None below two prompts), and what was dropped. Raises UserError for a pair that cannot be read, unless bad
    rows are skipped, and where nothing is left on either side.
    """
    prompts = list({q.group.prompt.id: q.group.prompt for q in questions}.values())
    kept, _ = split_held_out(prompts, how.held_out, field="the reward model's held_out")
    training = {prompt.id for prompt in kept}
    dropped: list[Dropped] = []
    read = [(q.group.prompt.id, _read(objective, q, dropped)) for q in questions]
    _refuse(dropped, sum(len(q.pairs) for q in questions), skip_bad_rows)
    parts = [part for prompt, pairs in read if prompt in training for part in compared(pairs, how.batch_tokens)]
    held_out = [(prompt, pairs) for prompt, pairs in read if prompt not in training]
    if not parts:
        raise UserError("training a reward model: every pair to learn from was dropped; mend the pairs")

    def loss_of(batch: Sequence[int]) -> "Tensor":
        both = joined(parts[i] for i in batch)
        outputs = _outputs(objective, both)
        return objective.loss(outputs[both.chosen], outputs[both.rejected], both.p)

    fit(objective.model, how, [part.tokens for part in parts], loss_of, progress)
    return {
        "pairs": sum(len(part.p) for part in parts),
        **_accuracy(objective, held_out, how),
        "dropped": [d.model_dump() for d in dropped],
    }


def reload_probe(objective: Objective, again: Objective, questions: Sequence[Question], model: str) -> Probe:
    """Probe (e): the saved model, opened ``again``, gives rows of the first questions what it gave when it was trained.
    Raises ProbeFailed with both numbers."""
    import torch

    pairs = [pair for question in questions[:PROBED] for pair in objective.read(question)]
    rows = [row for pair in pairs if not isinstance(pair, str) for row in pair][:PROBED]
    with torch.inference_mode():
        ours, theirs = (
            _outputs(one, Compared(rows, [], [], [])).float().reshape(len(rows), -1).sum(dim=1).tolist()
            for one in (objective, again)
        )
    return checks.check_reload(model, [(row[:-1], row[-1:]) for row in rows], ours, theirs, "float32")


def _read(objective: Objective, question: Question, dropped: list[Dropped]) -> list[PairOfRows]:
    """The pairs that can be read; the others join ``dropped`` with the reason."""
    read: list[PairOfRows] = []
    for pair, rows in zip(question.pairs, objective.read(question), strict=True):
        if isinstance(rows, str):
            item = f"{pair.prompt_id}:{pair.chosen},{pair.rejected}"
            dropped.append(Dropped(step="reward-model", item=item, reason=rows))
        else:
            read.append(PairOfRows(*rows, pair.p))
    return read


def _refuse(dropped: Sequence[Dropped], total: int, skip_bad_rows: bool) -> None:
    if dropped and not skip_bad_rows:
        raise UserError(
            f"training a reward model: pair {dropped[0].item}: {dropped[0].reason}; {len(dropped)} of {total} pairs "
            "cannot be read. Mend them, start from a model with a longer context, or drop them with --skip-bad-rows"
        )


def _outputs(objective: Objective, both: Compared) -> "Tensor":
    import torch

    model: Any = objective.model
    pad = model.config.pad_token_id or 0  # the mask says what is padding, whatever its id
    lengths = torch.tensor([len(row) for row in both.rows], device=model.device)
    mask = (torch.arange(int(lengths.max()), device=model.device) < lengths[:, None]).long()
    return objective.forward(padded(both.rows, pad).to(model.device), mask)


def _accuracy(
    objective: Objective, held_out: Sequence[tuple[str, Sequence[PairOfRows]]], how: Trained
) -> dict[str, float | int | None]:
    """Over prompts, so that one with many pairs counts once. A label of 1/2 says nothing; equal outputs count half."""
    parts = [(prompt, part) for prompt, pairs in held_out for part in compared(pairs, how.batch_tokens)]
    right: dict[str, list[float]] = {}
    for prompt, part, margins in _margins(objective, parts, how):
        decided = [(margin, p) for margin, p in zip(margins, part.p, strict=True) if p != 0.5]
        right.setdefault(prompt, []).extend(float(np.sign(margin * (p - 0.5)) + 1) / 2 for margin, p in decided)
    means_P = np.array([np.mean(of_prompt) for of_prompt in right.values() if of_prompt], dtype=np.float64)
    pairs = sum(map(len, right.values()))
    if len(means_P) < 2:
        mean, low, high = (float(means_P[0]) if len(means_P) else None), None, None
    else:
        mean, low, high = paired_bootstrap(means_P, np.random.default_rng(how.seed), RESAMPLES)
    interval = {"ranking_accuracy": mean, "ranking_accuracy_low": low, "ranking_accuracy_high": high}
    return {"held_out_pairs": pairs, "held_out_prompts": len(means_P), **interval}


def _margins(
    objective: Objective, parts: Sequence[tuple[str, Compared]], how: Trained
) -> Iterator[tuple[str, Compared, list[float]]]:
    """Of each part, in float32, as rewards are."""
    import torch

    lengths = [part.tokens for _, part in parts]
    for batch in batches(lengths, how.batch_tokens, np.random.default_rng(how.seed)) if parts else ():
        chosen_parts = [parts[i] for i in batch]
        both = joined(part for _, part in chosen_parts)
        with torch.inference_mode():
            outputs = _outputs(objective, both)
            margins = objective.margin(outputs[both.chosen], outputs[both.rejected]).float().tolist()
        for prompt, part in chosen_parts:
            yield prompt, part, margins[: len(part.p)]
            margins = margins[len(part.p) :]
