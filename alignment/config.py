"""``RunConfig``: the flow's parameter, the recipe file, the dashboard's form and the command line, in one model."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from alignment.execution import Engine, Trainer
from alignment.gate import Gate, PreferenceAccuracy, WinRate
from alignment.labeling import ByReward, Labeler
from alignment.losses import DPO, Loss, mixes_references
from alignment.merging import Merge
from alignment.models import ModelSource, Scratch
from alignment.refitting import Refit
from alignment.relabeling import Relabel
from alignment.reward_contracts import refit_problems, reward_problems
from alignment.rewards import Pairwise, RewardModel
from alignment.sampling import Decoding, Independent, Sampler
from alignment.score_maps import ScoreMap
from alignment.secrets import secrets_in
from alignment.selection import BestWorst, Selector, SeRA
from alignment.selection_contracts import selection_problems
from alignment.types import Strategy
from alignment.worlds import World


class PromptFile(Strategy):
    """JSONL, JSON or Parquet, optionally ``.gz``: ``prompt`` or ``messages``, optional ``preference``, the rest is
    metadata."""

    type: Literal["file"] = "file"
    path: str
    limit: PositiveInt | None = None
    preference: str | None = Field(default=None, min_length=1, exclude_if=lambda stated: stated is None)
    """Stated for every prompt that states none of its own, to the policy, to the reward and in training alike."""


class WorldPrompts(Strategy):
    """Prompts written by the run's world."""

    type: Literal["world"] = "world"
    count: PositiveInt = 512


class PairFile(Strategy):
    """Existing preference pairs: prompt/chosen/rejected, message lists, ShareGPT, HH transcripts or unpaired labels."""

    path: str
    limit: PositiveInt | None = None


class Labels(Strategy):
    """Where a reward model trained from scratch in the sandbox has its labelled pairs from: every two different
    completions of one request by the base policy, so that it learns on what it will score."""

    prompts: PositiveInt = 1000
    n: int = Field(default=4, ge=2)
    """Completions per request, which make n (n - 1) / 2 pairs."""
    decoding: Decoding = Decoding()


class Lora(Strategy):
    """Low-rank adapters through PEFT, merged on export; the reference is the model with the adapter off."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Literal[0] = 0
    """Branches of one prompt would share a dropout draw."""


class Train(Strategy):
    """One preference update. Everything here bears identity."""

    loss: Loss = DPO()
    learning_rate: PositiveFloat = 1e-4
    epochs: PositiveInt = 1
    groups_per_step: PositiveInt = 16
    """Prompts per optimiser step, over all workers. Their pairs' losses are summed and divided by the step's pairs."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: PositiveFloat = 1.0
    precision: Literal["float32", "bf16"] = "float32"
    lora: Lora | None = None


class Evaluate(Strategy):
    """Held-out prompts answered by the new and by the last promoted policy."""

    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of prompts held out, decided by each prompt's digest, for good."""
    n: PositiveInt = 2
    decoding: Decoding = Decoding()
    bootstrap: PositiveInt = 2000


class Replay(Strategy):
    """Pairs of earlier rounds that are trained on again."""

    rounds: NonNegativeInt = 0
    """How many rounds back; 0 trains on this round's pairs alone."""


class RunConfig(Strategy):
    """One run: rounds of sample, score, select, train, evaluate, decide."""

    model_config = ConfigDict(hide_input_in_errors=True)  # which orchestrators log

    run: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    rounds: PositiveInt = 3
    seed: NonNegativeInt = 0
    store: str = "./runs"
    world: World | None = None
    policy: ModelSource
    prompts: Annotated[PromptFile | WorldPrompts, Field(discriminator="type")] | None = None
    pairs: PairFile | None = None
    """Existing pairs: nothing is sampled or scored for training, and ``rounds`` must be 1, unless ``select`` is
    ``sera``, which adds pairs of its own completions."""
    skip_bad_rows: bool = False
    sampler: Sampler = Independent()
    reward: RewardModel | None = None
    labels: Labels | None = None
    """None: the world's own writer answers both sides of a labelled pair."""
    refit: Refit | None = Field(default=None, exclude_if=lambda refit: refit is None)
    """Has the reward model learn from what promoted policies write; None leaves it as it began."""
    gold: RewardModel | None = None
    """Never trained on, unless ``label.type`` is ``gold``: the measure of over-optimisation. The gate sees it only
    where ``max_hacking_slope`` is set."""
    select: Selector = BestWorst()
    label: Labeler = ByReward()
    """Who decides which completion of a pair is the better one."""
    relabel: Relabel | None = None
    """Puts pairs under other prompts than those they were sampled for; None leaves them as they are."""
    max_missing: float = Field(default=0.1, ge=0, le=1)
    """Share of a round's completions without a score above which the round fails."""
    train: Train = Train()
    merge: Merge | None = None
    """What is done to the trained weights before they are measured; None leaves them alone."""
    evaluate: Evaluate = Evaluate()
    gate: Gate = WinRate()
    start_from: Literal["promoted", "initial"] = "promoted"
    """Which weights a round's training starts from."""
    reference: Literal["initial", "previous"] = "previous"
    """Which policy the loss measures against."""
    replay: Replay = Replay()
    trainer: Trainer = Trainer()
    engine: Engine = Engine()

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, values: Any) -> Any:
        if held := next(secrets_in(values), None):
            raise ValueError(
                f"{held} holds a secret, and a recipe is stored and shown: leave it out. Credentials come from the "
                "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, HF_TOKEN, the variable that label.key names)"
            )
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        """Contracts between fields, each with both values and the way out."""
        if self.pairs is None:
            yield from self._sampling_problems()
        elif self.rounds != 1 and not isinstance(self.select, SeRA):
            yield (
                f"rounds = {self.rounds} with existing pairs: nothing new is sampled, so set rounds to 1, or "
                "select.type to 'sera', which reviews them every round"
            )
        elif self.prompts is not None:
            yield "both pairs and prompts are given: existing pairs bring their own prompts, so leave prompts out"
        if self.relabel is not None and self.pairs is not None and not isinstance(self.relabel.scale, ScoreMap):
            yield (
                f"relabel.scale.type = {self.relabel.scale.type!r} is fitted on rewards of the initial policy, and "
                "existing pairs bring scores of their own: give the scale with type = 'given'"
            )
        if self.pairs is not None and isinstance(self.select, SeRA) and self.select.bootstrap and self.sampler.n < 2:
            yield (
                f"select.bootstrap = {self.select.bootstrap:g} pairs the policy's own completions: sampler.n = 1 gives "
                "none to pair; raise it, or set bootstrap to 0"
            )
        if self.pairs is not None and isinstance(self.select, SeRA) and self.sampler.reads_rewards:
            yield (
                f"sampler.type = {self.sampler.type!r} follows the reward, which a run on existing pairs does not give "
                "it: set sampler.type = 'independent'"
            )
        if isinstance(self.policy, Scratch) and self.world is None and self.pairs is None:
            yield "policy.type = 'scratch' has nothing to learn from: set world, or give a model to policy"
        if self.train.groups_per_step < self.trainer.workers:
            yield (
                f"train.groups_per_step = {self.train.groups_per_step} is less than trainer.workers = "
                f"{self.trainer.workers}: some workers would have nothing to do; raise one or lower the other"
            )
        rewards, held_out = {"reward": self.reward, "gold": self.gold}, self.evaluate.held_out
        labels = self.labels is not None
        yield from reward_problems(rewards, self.label, self.world, labels=labels, held_out=held_out)
        if self.refit is not None:
            relabels, rounds = self.relabel is not None, self.rounds
            yield from refit_problems(self.refit, self.reward, self.world, self.gate, rounds=rounds, relabels=relabels)
        yield from self._loss_problems()
        if isinstance(self.gate, PreferenceAccuracy) and self.pairs is None:
            yield "gate.type = 'preference_accuracy' needs held-out pairs: set pairs, or use gate.type = 'win_rate'"
        if isinstance(self.gate, WinRate) and self.reward is None:
            yield "gate.type = 'win_rate' needs a reward: set reward, or use gate.type = 'preference_accuracy'"

    def _loss_problems(self) -> Iterator[str]:
        if mixes_references(self.train.loss) and self.rounds == 1:
            yield (
                f"train.loss.type = {self.train.loss.type!r} with rounds = 1: it mixes the previous and the initial "
                "policy, which are one until a policy is promoted; raise rounds, or use train.loss.type = 'dpo'"
            )

    def _sampling_problems(self) -> Iterator[str]:
        if self.reward is None:
            yield "reward is missing: candidates cannot be ranked; set reward, or give existing pairs"
        if self.prompts is None:
            yield "prompts are missing: set prompts.path to a file, or prompts.type = 'world' with a world"
        if isinstance(self.prompts, WorldPrompts) and self.world is None:
            yield "prompts.type = 'world' without a world: set world.type, or prompts.path to a file"
        if self.sampler.reads_rewards and isinstance(self.reward, Pairwise):
            yield (
                f"sampler.type = {self.sampler.type!r} with reward.type = 'pairwise': its scores are relative to one "
                "completion of those scored together, so those of two layers cannot be compared; use a reward of "
                "another type, or sampler.type = 'preference_conditioned'"
            )
        if self.relabel is not None and isinstance(self.reward, Pairwise):
            yield (
                "relabel with reward.type = 'pairwise': its scores are relative to one completion of each prompt, so a "
                "goal would mean something else at every prompt; use a reward of another type, or leave relabel out"
            )
        yield from selection_problems(self.select, self.sampler)
