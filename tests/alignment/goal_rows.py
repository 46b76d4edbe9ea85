"""Groups whose completions are scored, relabelled under goals, and read back."""

import re

from alignment.relabeling import Relabelled, RewardConditioned
from alignment.rendering import conversation
from alignment.score_maps import ScoreMap
from alignment.types import Candidate, Goal, Group, Message, PreferencePair, Prompt

MAP = ScoreMap()


def group_of(question: str, rewards, goal: Goal | None = None) -> Group:
    prompt = Prompt.of((Message(role="user", content=question),), goal=goal)
    candidates = tuple(
        Candidate(
            index=i, text=f"{question} {i}", token_ids=(9, 10 + i, 2), finish_reason="stop", logprob=-1.0,
            parent=0 if i else None,
        )
        for i in range(len(rewards))
    )  # fmt: skip
    return Group(prompt=prompt, prompt_ids=(1, 5), candidates=candidates, rewards={"reward": tuple(rewards)})


def pair_of(group: Group, chosen: int, rejected: int) -> PreferencePair:
    return PreferencePair(prompt_id=group.prompt.id, chosen=chosen, rejected=rejected, source="test")


def words(prompt: Prompt) -> tuple[int, ...]:
    """A chat template of one token a word."""
    return tuple(range(1, 1 + sum(len(m.content.split()) for m in conversation(prompt))))


def relabelled(groups, pairs, how=None, *, context=None, scale=MAP) -> Relabelled:
    return (how or RewardConditioned())(groups, pairs, scale, words, reward="reward", context=context)


def told(result: Relabelled) -> list[tuple[float, str, str]]:
    """(goal, chosen text, rejected text) of every row."""
    groups = {g.prompt.id: g for g in result.groups}
    rows = []
    for pair in result.pairs:
        texts = [groups[pair.prompt_id].candidates[i].text for i in (pair.chosen, pair.rejected)]
        assert pair.condition is not None
        rows.append((float(re.findall(r"score of (\S+),", pair.condition)[0]), *texts))
    return rows


class Unswapped(RewardConditioned):
    """What the authors' script for templates without a system role does: the low goal, and the labels as they were."""

    def _rows(self, one):
        same, low = super()._rows(one)
        kept = {"chosen": low.pair.rejected, "rejected": low.pair.chosen}
        return same, low._replace(pair=low.pair.model_copy(update=kept))


def check_each_goal_prefers_its_own_answer(how: RewardConditioned) -> None:
    group = group_of("q", (8.0, 3.5))
    assert told(relabelled([group], [pair_of(group, 0, 1)], how)) == [(8.0, "q 0", "q 1"), (3.5, "q 1", "q 0")]
