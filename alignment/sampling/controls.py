"""PRS without what it is said to live on: the arms that show whether a gain comes from reflection at all."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt, model_validator

from alignment.errors import UserError
from alignment.sampling.growing import NO_BEST, Draft, Grower, Refine, Seed, Tree
from alignment.sampling.interleave import Growth, interleave
from alignment.sampling.requests import Decoding, Drawn, Generate, Score
from alignment.types import Prompt, Strategy


class ReflectionControl(Strategy):
    """PRS of two layers with one thing replaced. Meant for ``ratchet claims``, not for alignment (ours).

    A policy may write better answers whenever it is asked to improve something, whatever that is. Then PRS gains, and
    not by reflecting: it gains as much with a control. ``empty_draft`` refines nothing, ``foreign_draft`` the best
    draft of another prompt, ``foreign_feedback`` the prompt's own best draft with what was said about another one's.
    Feedback on an empty or foreign draft is asked for with the prompt's own request; with ``refine.feedbacks = 0``
    there is none. The first layer is drawn and counted as in PRS.

    The other prompt is the next one by id in the same call, and the first one for the last. Unlike in every other
    sampler, what is drawn therefore depends on sharding: compare controls at an equal ``engine.shard_prompts``.
    """

    reads_rewards: ClassVar[bool] = True

    type: Literal["reflection_control"] = "reflection_control"
    replace: Literal["empty_draft", "foreign_draft", "foreign_feedback"]
    n: PositiveInt = 16
    """Completions: n // 2 drafts, the rest refinements."""
    decoding: Decoding = Decoding()
    refine: Refine = Refine()

    @property
    def tokens_at_most(self) -> int:
        """Sampled for one prompt, feedback included."""
        return self.n * self.decoding.max_tokens + self.refine.tokens_at_most(self.decoding, 1)

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.n < 2:
            raise ValueError(f"n = {self.n}: a control has two layers; raise n to 2 at least")
        if self.replace == "foreign_feedback" and self.refine.feedbacks == 0:
            raise ValueError("replace = 'foreign_feedback' with refine.feedbacks = 0: there is none; set it to 1")
        if self.refine.feedbacks > self.n - self.n // 2:
            raise ValueError(
                f"refine.feedbacks = {self.refine.feedbacks} for {self.n - self.n // 2} refinements: some feedback "
                "would go unused; lower it, or raise n"
            )
        if self.refine.reward_cap is not None:
            raise ValueError(
                f"refine.reward_cap = {self.refine.reward_cap} would stop PRS and not its control: unset it"
            )
        return self

    def __call__(self, prompts: Sequence[Prompt], generate: Generate, score: Score, *, seed: Seed) -> list[Drawn]:
        """n candidates per prompt, none for one that does not fit the context. UserError where another prompt is
        needed and there is none."""
        growers = [Grower(Tree(prompt), self.decoding, self.refine, seed) for prompt in prompts]
        feedback = interleave([self._first(grower) for grower in growers], generate, score)
        others = _next_by_id(growers, self.replace)
        return interleave(
            [self._second(grower, growers[at], feedback[at]) for grower, at in zip(growers, others, strict=True)],
            generate,
            score,
        )

    def _first(self, grower: Grower) -> Growth[list[str] | str]:
        """The first layer, and what is said of its best where that is to be handed on."""
        yield from grower.drafts(self.n // 2)
        yield from grower.rated(0)
        best = grower.tree.best
        if best is None or self.replace != "foreign_feedback":
            return []
        return (yield from grower.feedback(best.text, 1))

    def _second(self, grower: Grower, other: Grower, their_feedback: list[str] | str) -> Growth[Drawn]:
        tree, width = grower.tree, self.n - self.n // 2
        own, theirs = tree.best, other.tree.best
        if not tree.candidates:
            return tree.drawn()
        if own is None or theirs is None:
            yield from grower.drafts(width, 1, NO_BEST)
            return tree.drawn()
        match self.replace:
            case "empty_draft":
                draft = Draft("", None)
            case "foreign_draft":
                draft = Draft(theirs.text, None)
            case "foreign_feedback":
                draft = Draft(own.text, own.index)
        feedback = their_feedback
        if self.replace != "foreign_feedback" and self.refine.feedbacks:
            feedback = yield from grower.feedback(draft.text, 1)
        yield from grower.refinements(width, 1, draft, feedback)
        return tree.drawn()


def _next_by_id(growers: Sequence[Grower], replace: str) -> list[int]:
    """Per prompt, which one lends it a draft or feedback: of those with a best draft, the next by id."""
    lenders = sorted((i for i, g in enumerate(growers) if g.tree.best), key=lambda i: growers[i].tree.prompt.id)
    if replace == "empty_draft" or not lenders:
        return list(range(len(growers)))
    if len(lenders) == 1:
        raise UserError(
            f"sampler.replace = {replace!r} takes from another prompt, and of {len(growers)} sampled together only "
            f"{growers[lenders[0]].tree.prompt.id} has a draft to give: raise engine.shard_prompts"
        )
    after = {at: lenders[(place + 1) % len(lenders)] for place, at in enumerate(lenders)}
    return [after.get(at, at) for at in range(len(growers))]
