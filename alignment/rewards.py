"""Reward models: what they are. The heavy ones are opened by ``infra.engines``."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, NonNegativeFloat, PositiveFloat, model_validator

from alignment.ensembles import Aggregate, Standard
from alignment.models import ModelSource, RewardModelSource, Trained
from alignment.types import Strategy


class ScalarHead(Strategy):
    """A transformers sequence classifier with one output, read at the last token of prompt + completion."""

    type: Literal["scalar_head"] = "scalar_head"
    model: RewardModelSource


class Pairwise(Strategy):
    """RSO's ranking model turned into a pointwise score against one baseline completion per prompt.

    Liu et al. 2024, arXiv:2309.06657: r(x, y) = logit P(y beats y_b | x), with y_b one random candidate of the
    group, whose own score is exactly 0. The log-odds are read from the two answer tokens' logits, averaged over
    both orders (ours) and clipped to +-``clip`` (ours). Scores of different prompts are not comparable.

    Where its model is ``trained``, it is a language model that learns on labelled pairs to name the better answer, as
    the paper's is, asked in the words of ``template`` (ours). There pairs are flipped at random against a bias for one
    place; here each stands in both orders (ours).
    """

    type: Literal["pairwise"] = "pairwise"
    model: RewardModelSource
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


Member = Annotated[ScalarHead | Pairwise | Verifier | Implicit, Field(discriminator="type")]


class Ensemble(Strategy):
    """Several named reward models as one, each measured in its own standard deviations.

    Coste et al. 2023, arXiv:2310.02743: a policy exploits what one model gets wrong, and where models disagree they
    get something wrong. Each member is standardised by its rewards of the initial policy's held-out answers, so that
    the scale is fixed for the run and no member counts by its units. A completion that a member cannot score has no
    reward: an average over whoever answered would be another reward. Members' standardised rewards stand in the
    groups beside the ensemble's, as ``reward.member``.
    """

    type: Literal["ensemble"] = "ensemble"
    members: Mapping[str, Member] = Field(min_length=2)
    aggregate: Aggregate = "mean"
    """``lower_bound`` and ``worst`` are conservative: what the members dispute counts for less."""
    penalty: NonNegativeFloat = 1.0
    """Standard deviations over members that ``lower_bound`` takes off; the others do not use it."""
    standards: Mapping[str, Standard] = {}
    """Each member's mean and standard deviation; empty has them measured at the run's start."""

    @model_validator(mode="after")
    def _every_member_has_one(self) -> Self:
        if self.standards and set(self.standards) != set(self.members):
            raise ValueError(
                f"standards are given for {sorted(self.standards)} and members are {sorted(self.members)}: give one "
                "for each, or none"
            )
        return self


RewardModel = Annotated[ScalarHead | Pairwise | Verifier | Implicit | Ensemble, Field(discriminator="type")]


def trained_models(reward: RewardModel, path: str) -> Iterator[tuple[str, Trained]]:
    """Every model of a reward that is trained on labelled pairs, by the dotted path of its field."""
    match reward:
        case ScalarHead(model=Trained() as model) | Pairwise(model=Trained() as model):
            yield f"{path}.model", model
        case Ensemble(members=members):
            for name, member in members.items():
                yield from trained_models(member, f"{path}.members.{name}")
        case _:
            pass
