"""What flows through a round: prompts, candidates, groups, pairs, artifacts, manifests."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

SCHEMA_VERSION = 2
"""Bears identity: raising it makes every artifact anew."""


class Record(BaseModel):
    """Something stored: frozen, and refusing unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Strategy(BaseModel):
    """Something a run chooses; its fields are its configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN. Anything else is a ValueError or TypeError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from what it is for, such as (run seed, round, prompt id, call).

    Seeds of neighbouring rows are unrelated, so an engine that gives its n-th sample ``seed + n`` never repeats
    one row's stream in the next.
    """
    return int.from_bytes(hashlib.sha256(canonical_json(parts).encode()).digest()[:8]) >> 1


class Message(Record):
    role: Literal["system", "user", "assistant"]
    content: str


class Goal(Record):
    """The score a policy is asked for, in words that the policy sees and no reward ever does."""

    text: str = Field(min_length=1)
    placement: Literal["system", "user"] = "system"
    """At the front of the system's turn, or of the first user's turn for chat templates without a system's."""


class Prompt(Record):
    """A conversation that ends with the user's turn, with an optional stated preference and an optional goal."""

    id: str
    """Digest of messages, preference and goal; metadata does not bear identity."""
    messages: tuple[Message, ...] = Field(min_length=1)
    preference: str | None = None
    goal: Goal | None = None
    metadata: Mapping[str, JsonValue] = {}

    @classmethod
    def of(
        cls,
        messages: tuple[Message, ...],
        preference: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        goal: Goal | None = None,
    ) -> Self:
        identity: dict[str, Any] = {"messages": [m.model_dump() for m in messages], "preference": preference}
        if goal is not None:
            identity["goal"] = goal.model_dump()
        prompt_id = digest_of(identity)[:32]
        return cls(id=prompt_id, messages=messages, preference=preference, goal=goal, metadata=metadata or {})

    def at_goal(self, goal: Goal | None) -> Self:
        """The same question with this goal in place of the one it may have: another prompt, with another id."""
        return self if goal == self.goal else self.of(self.messages, self.preference, self.metadata, goal)


class Candidate(Record):
    """One completion of a prompt."""

    index: int = Field(ge=0)
    """Position within the group; pairs refer to it."""
    text: str
    token_ids: tuple[int, ...]
    """As sampled, EOS included when ``finish_reason`` is "stop"; never re-tokenised."""
    finish_reason: Literal["stop", "length"]
    parent: int | None = None
    """Index of the draft this one refines (PRS)."""
    feedback: str | None = None
    """What the policy said of that draft, as this completion was shown it."""
    logprob: float | None = None
    """Summed over its tokens under the policy that sampled it, by the sampler's own arithmetic; None when it was
    sampled under another prompt. Never mixed with the training stack's numbers inside one margin."""


class Failure(Record):
    """A score that could not be had, a prompt that could not be answered, or a completion that was not drawn as asked:
    with a reason."""

    prompt_id: str
    candidate: int | None = None
    model: str | None = None
    """Which reward model failed; None when the sampler did."""
    reason: str


class Group(Record):
    """A prompt with all its candidates and their rewards."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    """The rendered prompt's tokens, which every candidate continues."""
    candidates: tuple[Candidate, ...]
    rewards: Mapping[str, tuple[float | None, ...]] = {}
    """Per reward model, (G,) aligned with ``candidates``; None is a failed score, explained in ``failures``."""
    failures: tuple[Failure, ...] = ()

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if [c.index for c in self.candidates] != list(range(len(self.candidates))):
            raise ValueError(f"prompt {self.prompt.id}: candidate indices are not 0..{len(self.candidates) - 1}")
        for model, rewards_G in self.rewards.items():
            if len(rewards_G) != len(self.candidates):
                raise ValueError(
                    f"prompt {self.prompt.id}: {len(rewards_G)} rewards of {model!r} "
                    f"for {len(self.candidates)} candidates"
                )
        return self


class PreferencePair(Record):
    """Chosen and rejected, as indices into one group."""

    prompt_id: str
    chosen: int
    rejected: int
    p: float = Field(default=1.0, ge=0, le=1)
    """Soft label: probability that chosen is better."""
    weight: float = Field(default=1.0, ge=0)
    source: str
    """Which strategy made the pair."""
    condition: str | None = None
    """Text of the goal in its prompt, where the pair was relabelled for one (RAD)."""
    margin: float | None = None
    """Reward of chosen minus reward of rejected, where rewards made the pair; of a conditioned pair, the
    goal-conditioned reward."""


class SequenceLogprobs(Record):
    """Log-probabilities of one group's candidates under one model, by the training stack."""

    prompt_id: str
    logprobs: tuple[float, ...]
    """(G,), natural log, summed over completion tokens in float32."""
    lengths: tuple[int, ...]
    """(G,) completion tokens."""


class TokenLogprobs(Record):
    """As :class:`SequenceLogprobs`, token by token, for losses that weigh tokens apart."""

    prompt_id: str
    logprobs: tuple[tuple[float, ...], ...]
    """(G,) of (T,), natural log, in float32."""


class Dropped(Record):
    """A row or prompt that does not go on, and why."""

    step: str
    item: str
    reason: str


Kind = Literal[
    "prompts", "policy", "reward_model", "completions", "groups", "logprobs", "pairs", "evaluation", "verdict"
]


class Artifact(Record):
    """An immutable object in the store."""

    kind: Kind
    uri: str
    """Folder of the object: ``{store}/objects/{kind}/{recipe}``."""
    recipe: str
    """Digest of what was asked for."""
    digest: str
    """Digest of what came out."""
    parents: tuple[str, ...] = ()
    """``kind/recipe`` of every artifact it was made from."""
    facts: Mapping[str, JsonValue] = {}
    """Small numbers and notes about it: counts, metrics, probe results. Not part of the digest."""


class Step(Record):
    """One step of a round as it is shown."""

    uri: str
    recipe: str
    seconds: float
    reused: bool


class StepNote(Record):
    """What a step cost the run that named it. Written once, by whoever came first."""

    seconds: float
    """Wall-clock seconds of making it; 0 when it was found."""
    reused: bool
    """Whether it stood in the store before this run came to it."""
    finished: str
    """When, as ISO 8601 in UTC."""


class RoundManifest(Record):
    """What happened in one round."""

    round: int
    verdict: Literal["promoted", "rejected"]
    reasons: tuple[str, ...]
    policy: Artifact
    """The policy this round trained, promoted or not."""
    evaluation: Artifact
    metrics: Mapping[str, float | None]
    rewards: Mapping[str, str] = {}
    """Digest of every model and verifier that scored the evaluation, by its place such as ``reward.model``. Rewards of
    two rounds compare only where they are equal; empty in manifests from before this was noted."""
    probes: Mapping[str, JsonValue] = {}
