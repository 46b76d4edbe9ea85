"""The steps by which one prompt's completions grow: a layer of drafts, feedback on the best, refinements of it.

Ye & Ng 2024, arXiv:2408.12163, algorithm 1. Whatever the policy is shown on the way, every completion is stored as one
of the original prompt, and only the original prompt, with its stated preference, reaches the reward.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, FiniteFloat, NonNegativeInt

from alignment.rendering import prompt_text
from alignment.sampling.interleave import Growth, draw, rate
from alignment.sampling.meta_text import MetaText
from alignment.sampling.requests import Decoding, Drawn, Request
from alignment.sampling.texts import OneTurn, RefineTexts
from alignment.types import Candidate, Failure, Prompt, Strategy, seed_of

Seed = tuple[int | str, ...]

NO_BEST = "drawn as a draft: there is no finished draft with a reward"
NO_DRAFT_FITS = "drawn as a draft: the best one and the request to refine it exceed the context"
NO_FEEDBACK_FITS = "refined without feedback: draft and feedback together exceed the context"
NO_FEEDBACK_ASKED = "refined without feedback: the draft and the request for feedback exceed the context"
NO_FEEDBACK_GIVEN = "refined without feedback: what came back was blank"


class Refine(Strategy):
    """How the best completion so far is refined."""

    feedbacks: NonNegativeInt = 1
    """Texts of feedback on it per layer, each for an equal share of the layer's refinements, the first for one more
    where it does not divide. 1 is the paper's; 0 refines without feedback (its "PRS w/o f")."""
    feedback_decoding: Decoding | None = None
    """None draws feedback as completions are drawn, as the paper does. One cut by its limit is used as it is."""
    texts: RefineTexts = Field(default=OneTurn())
    meta_text: MetaText = MetaText()
    reward_cap: FiniteFloat | None = None
    """A prompt whose best reward reaches it gets no further layer, so fewer completions (not in the paper)."""

    def tokens_at_most(self, decoding: Decoding, layers: int) -> int:
        """Of feedback, over ``layers`` refined layers."""
        return layers * self.feedbacks * (self.feedback_decoding or decoding).max_tokens


class Tree:
    """What has been drawn for one prompt so far."""

    def __init__(self, prompt: Prompt):
        self.prompt = prompt
        self.candidates: list[Candidate] = []
        self.rewards: dict[int, float] = {}
        """By candidate index. A failed score is absent, so it cannot win."""
        self.failures: list[Failure] = []
        self.tokens = 0

    @property
    def best(self) -> Candidate | None:
        """The highest reward so far; of equal ones the shorter text, then the earlier. None when nothing is scored."""
        if not self.rewards:
            return None
        return self.candidates[min(self.rewards, key=lambda i: (-self.rewards[i], len(self.candidates[i].text), i))]

    def note(self, reason: str, candidate: int | None = None) -> None:
        self.failures.append(Failure(prompt_id=self.prompt.id, candidate=candidate, reason=reason))

    def add(self, drawn: Sequence[Candidate], reason: str | None = None) -> None:
        """Completions drawn under the prompt itself; ``reason`` is why they are not refinements."""
        for one in drawn:
            self.tokens += len(one.token_ids)
            if reason is not None:
                self.note(reason, len(self.candidates))
            self.candidates.append(one.model_copy(update={"index": len(self.candidates)}))

    def drawn(self) -> Drawn:
        return Drawn(tuple(self.candidates), tuple(self.failures), self.tokens)


class Draft(NamedTuple):
    """What is refined."""

    text: str
    parent: int | None
    """Its index in the group; None for one that is not of it."""


class Grower(NamedTuple):
    """Grows one tree."""

    tree: Tree
    decoding: Decoding
    how: Refine
    seed: Seed
    """Of the run and round; the prompt's id is added here."""

    def drafts(self, n: int, layer: int = 0, reason: str | None = None) -> Growth[None]:
        """``n`` completions of the prompt itself; layer 0 draws what ``Independent`` draws."""
        drawn = yield from draw(self._request(self.tree.prompt, n, self.decoding, layer))
        self.tree.add(drawn, reason)

    def rated(self, since: int) -> Growth[None]:
        """Score the finished, non-blank candidates from index ``since`` on; no other can be refined."""
        due = [c for c in self.tree.candidates[since:] if c.finish_reason == "stop" and c.text.strip()]
        if due:
            rewards = yield from rate(self.tree.prompt, [c.text for c in due])
            for candidate, reward in zip(due, rewards, strict=True):
                if reward is not None and math.isfinite(reward):
                    self.tree.rewards[candidate.index] = reward

    def feedback(self, draft: str, layer: int) -> Growth[list[str] | str]:
        """Texts of feedback on a draft, or the reason why there are none."""
        asked = self.how.texts.feedback(self.tree.prompt, draft)
        decoding = self.how.feedback_decoding or self.decoding
        drawn = yield from draw(self._request(asked, self.how.feedbacks, decoding, "feedback", layer))
        self.tree.tokens += sum(len(c.token_ids) for c in drawn)
        given = [c.text for c in drawn if c.text.strip()]
        return given or (NO_FEEDBACK_GIVEN if drawn else NO_FEEDBACK_ASKED)

    def layer(self, n: int, layer: int) -> Growth[None]:
        """``n`` refinements of the best candidate so far."""
        best = self.tree.best
        if best is None:
            yield from self.drafts(n, layer, NO_BEST)
            return
        feedback: list[str] | str = []
        if self.how.feedbacks:
            feedback = yield from self.feedback(best.text, layer)
        yield from self.refinements(n, layer, Draft(best.text, best.index), feedback)

    def refinements(self, n: int, layer: int, draft: Draft, feedback: list[str] | str) -> Growth[None]:
        """``n`` refinements of a draft: an equal share with each text of feedback, all without where there is none."""
        if isinstance(feedback, str) or not feedback:
            yield from self._unaided(n, layer, 0, draft, feedback if isinstance(feedback, str) else None)
            return
        for branch, (text, share) in enumerate(zip(feedback, shares(n, len(feedback)), strict=True)):
            if share:
                yield from self._aided(share, layer, branch, draft, text)

    def _aided(self, n: int, layer: int, branch: int, draft: Draft, feedback: str) -> Growth[None]:
        asked = self.how.texts.refinement(self.tree.prompt, draft.text, feedback)
        drawn = yield from draw(self._request(asked, n, self.decoding, "refine", layer, branch))
        if drawn:
            self._add_refinements(drawn, draft, feedback)
        else:
            yield from self._unaided(n, layer, branch, draft, NO_FEEDBACK_FITS)

    def _unaided(self, n: int, layer: int, branch: int, draft: Draft, reason: str | None) -> Growth[None]:
        asked = self.how.texts.refinement(self.tree.prompt, draft.text, None)
        drawn = yield from draw(self._request(asked, n, self.decoding, "refine", layer, branch))
        if drawn:
            self._add_refinements(drawn, draft, None, reason)
        else:
            drawn = yield from draw(self._request(self.tree.prompt, n, self.decoding, layer, branch))
            self.tree.add(drawn, NO_DRAFT_FITS)

    def _add_refinements(
        self, drawn: Sequence[Candidate], draft: Draft, feedback: str | None, reason: str | None = None
    ) -> None:
        tree, prompt = self.tree, prompt_text(self.tree.prompt)
        for one in drawn:
            tree.tokens += len(one.token_ids)
            cleaned = self.how.meta_text.cleaned(one.text, prompt)
            if cleaned.objection:
                tree.note(f"a refinement is set aside: {cleaned.objection}")
                continue
            if reason is not None:
                tree.note(reason, len(tree.candidates))
            # the sampler's number answers for the prompt that held the draft, not for the one it is stored under
            update = {"index": len(tree.candidates), "parent": draft.parent, "feedback": feedback, "logprob": None}
            if cleaned.text != one.text:
                update |= {"text": cleaned.text, "token_ids": ()}
            tree.candidates.append(one.model_copy(update=update))

    def _request(self, prompt: Prompt, n: int, decoding: Decoding, *call: int | str) -> Request:
        seed = seed_of(*self.seed, self.tree.prompt.id, *call)
        return Request(prompt=prompt, n=n, seed=seed, decoding=decoding)


def grown(grower: Grower, widths: Sequence[int]) -> Growth[Drawn]:
    """A tree whose layers have these widths. Of the last one no reward is needed."""
    tree, cap = grower.tree, grower.how.reward_cap
    yield from grower.drafts(widths[0])
    if not tree.candidates:
        return tree.drawn()
    scored = 0
    for layer, width in enumerate(widths[1:], start=1):
        since, scored = scored, len(tree.candidates)
        yield from grower.rated(since)
        best = tree.best
        if cap is not None and best is not None and tree.rewards[best.index] >= cap:
            tree.note(f"no layer {layer}: reward {tree.rewards[best.index]:g} of {best.index} reaches the cap {cap:g}")
            break
        yield from grower.layer(width, layer)
    return tree.drawn()


def shares(total: int, parts: int) -> list[int]:
    """As equal as can be, the larger ones first; they sum to ``total``."""
    return [total // parts + (part < total % parts) for part in range(parts)]
