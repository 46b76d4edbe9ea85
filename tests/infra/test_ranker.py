"""A language model that learns which of two answers is the better one, and scores with what it learnt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from labelled_questions import question, thanks

from alignment.models import Pretrained, Trained
from alignment.rewards import Pairwise
from alignment.splits import split_held_out
from alignment.types import Group
from infra.model_actor import ModelActor
from infra.reward_learning import learn
from infra.reward_models import baseline_of, pairwise
from infra.reward_objectives import ranker, save

ASKS = Pairwise(model=Pretrained(model="m"), template="{prompt} A: {a} B: {b} ")
HOW = Trained(pairs="a file", epochs=30, learning_rate=3e-3, batch_tokens=2048)
STILL = HOW.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1})


def silent(step: int, steps: int, loss: float) -> None:
    pass


class Numbers:
    """The training stack's numbers, in this process."""

    def __init__(self) -> None:
        self.actor = ModelActor(threads=1, gpu=False)

    def log_odds(self, model: Any, sequences: Sequence[Any], first: int, second: int, *, batch_size: int | None = None):
        return self.actor.log_odds(model, sequences, first, second, batch_size=batch_size or 8)

    def scores(self, *_: object, **__: object) -> list[float]:
        raise AssertionError("a ranking model was asked for a scalar")

    sums = scores


def scores_of(folder: Path, group: Group) -> list[float]:
    reward = pairwise(ASKS, folder, Numbers(), seed=(0,))  # pyright: ignore[reportArgumentType]
    read = reward.read(group)
    at = baseline_of((0,), group.prompt.id, len(group.candidates))
    measured = iter(reward.measure([item for item in read if not isinstance(item, float | str)], False))
    return [0.0 if i == at else next(measured) for i in range(len(read))]


class Odds:
    """Log-odds of the answer shown first: what the comparisons give, one after another."""

    def __init__(self, *odds: float) -> None:
        self.odds = list(odds)

    def log_odds(self, model: Any, sequences: Sequence[Any], first: int, second: int, *, batch_size: int | None = None):
        assert len(sequences) == len(self.odds)
        return self.odds


def test_a_score_is_half_the_difference_of_both_orders_clipped_and_the_baselines_is_zero(tiny_policy: Path):
    """Shown first 3 and second 1: (3 - 1)/2. A judge that always takes the first, 2 and 2, has said nothing: 0. 40 and
    -40 are 40, clipped to 15. Four candidates are three comparisons, each asked both ways."""
    odds = Odds(3.0, 1.0, 2.0, 2.0, 40.0, -40.0)
    reward = pairwise(ASKS, tiny_policy, odds, seed=(0,))  # pyright: ignore[reportArgumentType]
    asked = question(tiny_policy, 0, ("one", "two", "three", "four")).group
    read, at = reward.read(asked), baseline_of((0,), asked.prompt.id, 4)
    compared = [item for item in read if not isinstance(item, float | str)]
    assert [i for i, item in enumerate(read) if item == 0.0] == [at]
    assert all(item.first != item.second for item in compared)
    assert reward.measure(compared, False) == [1.0, 0.0, 15.0]


def test_the_loss_is_on_the_answer_alone_with_the_pair_in_both_orders(tiny_policy: Path):
    """-(log p(A | chosen first) + log p(B | rejected first)) / 2 over all tokens that could follow, by plain
    transformers; with p = 1/4 a quarter of that and three of the contrary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_policy), AutoTokenizer.from_pretrained(tiny_policy)
    text = "Write note 0. A: {} B: {} "
    with torch.no_grad():
        one, other = (
            model(torch.tensor([tokenizer(text.format(*order))["input_ids"]])).logits[0, -1].log_softmax(-1)
            for order in (("Yes.", "No."), ("No.", "Yes."))
        )
    a, b = (tokenizer(name, add_special_tokens=False)["input_ids"][0] for name in "AB")
    right, wrong = -(one[a] + other[b]) / 2, -(one[b] + other[a]) / 2
    asked = question(tiny_policy, 0, ("Yes.", "No."))
    sure, doubted = (asked._replace(pairs=(asked.pairs[0].model_copy(update={"p": p}),)) for p in (1.0, 0.25))
    for one_question, expected in ((sure, right), (doubted, right / 4 + 3 * wrong / 4)):
        losses: list[float] = []
        others = [question(tiny_policy, i, ("Yes.", "No.")) for i in range(1, 12)]
        _, held_out = split_held_out([q.group.prompt for q in (one_question, *others)], 0.2)
        rest = [q for q in others if q.group.prompt in held_out]
        assert one_question.group.prompt not in held_out
        objective = ranker(ASKS, tiny_policy, "cpu")
        heard = lambda step, steps, loss, to=losses: to.append(loss)  # noqa: E731
        learn(objective, [one_question, *rest], STILL, skip_bad_rows=False, progress=heard)
        assert losses == [pytest.approx(expected.item(), rel=2e-2)]  # products may be in bf16 while training


def test_what_it_learnt_orders_answers_to_prompts_it_never_saw(tiny_policy: Path, tmp_path: Path):
    questions = thanks(tiny_policy, 60)
    objective = ranker(ASKS, tiny_policy, "cpu")
    facts = learn(objective, questions, HOW, skip_bad_rows=False, progress=silent)
    save(objective, tiny_policy, tmp_path)
    _, held_out = split_held_out([q.group.prompt for q in questions], 0.2)
    right = [
        scores[0] > other
        for q in questions
        if q.group.prompt in held_out
        for scores in [scores_of(tmp_path, q.group)]
        for other in scores[1:]
    ]
    assert facts["ranking_accuracy"] > 0.9
    assert sum(right) / len(right) > 0.9


def test_a_comparison_beyond_the_context_is_dropped_with_its_numbers(tiny_policy: Path):
    long = question(tiny_policy, 99, ("Thank you. " * 12, "No, " * 20))
    facts = learn(
        ranker(ASKS, tiny_policy, "cpu"), [*thanks(tiny_policy, 12), long], STILL, skip_bad_rows=True, progress=silent
    )
    assert [d["item"] for d in facts["dropped"]] == [f"{long.group.prompt.id}:0,1"]
    assert "exceed the reward model's context of 128" in facts["dropped"][0]["reason"]
