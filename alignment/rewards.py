"""Reward models: what they are. The heavy ones are opened by ``infra.engines``."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue, PositiveFloat

from alignment.models import ModelSource
from alignment.types import Strategy


class ScalarHead(Strategy):
    """A transformers sequence classifier with one output, read at the last token of prompt + completion."""

    type: Literal["scalar_head"] = "scalar_head"
    model: ModelSource


class Pairwise(Strategy):
    """RSO's ranking model turned into a pointwise score against one baseline completion per prompt.

    Liu et al. 2024, arXiv:2309.06657: r(x, y) = logit P(y beats y_b | x), with y_b one random candidate of the
    group, whose own score is exactly 0. The log-odds are read from the two answer tokens' logits, averaged over
    both orders (ours) and clipped to +-``clip`` (ours). Scores of different prompts are not comparable.
    """

    type: Literal["pairwise"] = "pairwise"
    model: ModelSource
    template: str = "{prompt}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\nThe better answer is "
    first: str = "A"
    second: str = "B"
    clip: PositiveFloat = 15.0


class Verifier(Strategy):
    """A Python function ``module:name`` called as ``f(prompt, completion, **arguments) -> float``.

    A failed check is an exception, never a number. The source of its module bears identity.
    """

    type: Literal["verifier"] = "verifier"
    function: str = Field(pattern=r"^[\w.]+:\w+$")
    arguments: Mapping[str, JsonValue] = {}


class Implicit(Strategy):
    """beta * (log pi(y|x) - log pi_ref(y|x)), summed over tokens: the reward a DPO-trained policy implies.

    Rafailov et al. 2023, arXiv:2305.18290, section 4. Zero everywhere when policy and reference are the same.
    """

    type: Literal["implicit"] = "implicit"
    policy: ModelSource
    reference: ModelSource
    beta: PositiveFloat = 0.1


RewardModel = Annotated[ScalarHead | Pairwise | Verifier | Implicit, Field(discriminator="type")]
