"""Refitting: the reward model goes on learning from what the policy writes now."""

from pydantic import Field, PositiveInt

from alignment.sampling import Decoding
from alignment.types import Strategy


class Refit(Strategy):
    """Between rounds the reward model is retrained, from its last weights, on all labels so far and on labels of fresh
    completions by the policy that was promoted, so that it knows what it is about to score.

    After RLP (Lang et al. 2024, arXiv:2403.19279), which retrains the reward model on outputs of the trained policy
    once, and then the policy from the SFT model (``start_from = "initial"``). Neither form of the paper is here: its
    labels are no labels but pairs made without a labeller, by confidence in the largest cluster of equivalent outputs
    (RLP-SPG), or a multi-view objective on pairs of outputs beside the old labels (RLP-UML). Ours come from the
    sandbox's labeller. That it is done in every round is ours as well: the paper shows one refresh.

    Rewards before and after a refit are on different scales. A round compares its policy with the standing one under
    one and the same reward model, which scores the standing policy's answers anew.
    """

    every: PositiveInt = 1
    """Rounds from one possible refit to the next. None takes place where no policy was promoted since."""
    prompts: PositiveInt = 200
    """Requests that the promoted policy answers each time, other ones than before."""
    n: int = Field(default=4, ge=2)
    """Completions per request, which make n (n - 1) / 2 labelled pairs."""
    decoding: Decoding = Decoding()

    def is_due(self, k: int, promoted: int | None) -> bool:
        """Whether there is a refit before round ``k``; ``promoted`` is the round that made the standing policy, None
        for the one the run began with."""
        return k > 0 and k % self.every == 0 and promoted is not None and promoted >= k - self.every

    def first_prompt(self, k: int) -> int:
        """Where the requests of a refit before round ``k`` begin, counted from those of all earlier rounds on: the
        same whether the earlier refits took place or not."""
        return (k // self.every - 1) * self.prompts

    def possible(self, first: int, rounds: int) -> int:
        """How many refits there can be before rounds ``first`` to ``rounds`` - 1."""
        return sum(k > 0 and k % self.every == 0 for k in range(first, rounds))
