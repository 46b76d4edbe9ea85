"""A run as a store could hold it: three rounds, the second rejected for over-optimising."""

import hashlib
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from alignment.report import (
    Answer,
    Curve,
    DroppedRows,
    Event,
    Example,
    NamedArtifact,
    PairExample,
    ProbeResult,
    ReportData,
    RewardSpread,
    RoundAnswer,
    StepCost,
)
from alignment.summary import InitialSummary, PolicyName, RoundSummary, RunSummary
from alignment.types import Artifact, Message, Prompt, Step

STORE = "s3://models/ratchet"
WHEN = datetime(2026, 11, 20, 9, 14, 3, tzinfo=UTC)
WORST = {"worst": 3.8e-06, "bound": 1e-4}
STEPS = {"generate": 41.2, "score": 9.6, "logprobs": 6.1, "select": 0.4, "train": 63.0, "evaluate": 22.5, "decide": 0.2}
KINDS = {"generate": "completions", "score": "groups", "logprobs": "logprobs", "select": "pairs", "train": "policy"}

CONFIG = {
    "run": "quickstart",
    "rounds": 3,
    "seed": 0,
    "store": STORE,
    "world": {"type": "sandbox", "seed": 0, "label_noise": 0.6},
    "policy": {"type": "scratch", "examples": 24000, "epochs": 1.0, "learning_rate": 0.003},
    "prompts": {"type": "world", "count": 512},
    "pairs": None,
    "sampler": {"type": "independent", "n": 8, "decoding": {"temperature": 1.0, "max_tokens": 64}},
    "reward": {"type": "scalar_head", "model": {"type": "scratch", "examples": 4000}},
    "gold": {"type": "verifier", "function": "alignment.testbed.gold:score", "arguments": {}},
    "select": {"type": "best_worst", "pairs_per_prompt": 2, "min_margin": 0.0},
    "relabel": [],
    "train": {"loss": {"type": "dpo", "beta": 0.1}, "learning_rate": 0.0001, "epochs": 1, "lora": None},
    "gate": {"type": "win_rate"},
    "reference": "previous",
}


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def policy(round: int | None) -> PolicyName:
    return PolicyName(uri=f"{STORE}/objects/policy/{digest('recipe', round)}", digest=digest("policy", round))


def metrics(
    gold: float, reward: float, win: float | None, kl: float, length: float, distinct: float
) -> dict[str, float | None]:
    around = {"gold": (gold, 0.14), "reward": (reward, 0.06), "kl_initial": (kl, 0.04 * kl), "length": (length, 0.4)}
    ends = {
        f"{name}_{end}": value + sign * half
        for name, (value, half) in around.items()
        for end, sign in (("low", -1), ("high", 1))
    }
    return {
        "reward_mean": reward,
        "gold_mean": gold,
        "win_rate": win,
        "kl_initial": kl,
        "length_mean": length,
        "distinct_2": distinct,
        "distinct_2_low": distinct - 0.004,
        "distinct_2_high": distinct + 0.004,
        **ends,
        "win_rate_low": None if win is None else win - 0.045,
        "win_rate_high": None if win is None else win + 0.045,
        "length_ratio": None if win is None else length / 24.6,
        "truncated_rate": 0.0117,
        "pairs": None if win is None else 1019.0,
        "dropped": 3.0,
        "tokens": None if win is None else 187_412.0,
        "engine_seconds": None if win is None else 142.8,
    }


def rounds() -> tuple[RoundSummary, ...]:
    rows = (
        ("promoted", ("win rate 71.3% [66.8%, 75.8%] clears 50%",), metrics(7.231, 0.812, 0.713, 2.08, 26.1, 0.112)),
        (
            "rejected",
            ("win rate 50.9% [46.4%, 55.4%] does not clear 50%", "length ratio 1.38 is over the budget of 1.25"),
            metrics(6.884, 1.207, 0.509, 6.91, 33.9, 0.079),
        ),
        ("promoted", ("win rate 58.2% [53.7%, 62.7%] clears 50%",), metrics(7.604, 1.088, 0.582, 3.97, 26.9, 0.104)),
    )
    return tuple(
        RoundSummary(
            round=k,
            verdict=verdict,
            reasons=reasons,
            policy=policy(k),
            metrics=numbers,
            steps={
                name: Step(
                    uri=f"{STORE}/objects/{name}/{digest(name, k)}",
                    recipe=digest(name, k),
                    seconds=s + 1.7 * k,
                    reused=k == 0 and s < 10,
                )
                for name, s in STEPS.items()
            },
        )
        for k, (verdict, reasons, numbers) in enumerate(rows)
    )


def whole_summary() -> RunSummary:
    initial = InitialSummary(policy=policy(None), metrics=metrics(6.537, 0.331, None, 0.0, 24.6, 0.131))
    return RunSummary(run="quickstart", store=STORE, config=CONFIG, initial=initial, rounds=rounds())


ASKED = (
    ("Write a short memo to Noah about the reunion. Mention: basket, village.", "Please keep it under 16 words."),
    ("Write a friendly note to Quinn about the picnic. Mention: melon, lantern, river.", None),
    ("Tell Ada when the concert starts. Mention: piano, ticket.", "End with a question."),
)
ANSWERED = (
    ("Hello Noah, It should be sunny. the reunion almost here. I have packed the basket.", 0.21, 5.9),
    ("Hello Noah, The reunion is near the village. I have packed the basket. Take care.", 0.86, 8.1),
    (
        "Hello Noah, Thank you. The reunion is near the village. I have packed the basket. Thank you. "
        "It should be sunny. Thank you so much. Take care.",
        1.42,
        6.7,
    ),
    ("Noah, The reunion is at the village. Bring the basket. Take care.", 1.17, 9.2),
)


def prompt(text: str, preference: str | None = None) -> Prompt:
    return Prompt.of((Message(role="user", content=text),), preference)


def spread(rng: np.random.Generator, measure: Literal["reward", "gold"], *laws: tuple[float, float]) -> RewardSpread:
    before, after = (tuple(rng.normal(mean, sd, 206).clip(-2, 10).tolist()) for mean, sd in laws)
    return RewardSpread(measure=measure, before=before, after=after, round=2)


def curve(rng: np.random.Generator, round: int) -> Curve:
    """26 optimiser steps; the loss begins at log 2."""
    steps = np.arange(26)
    loss = np.log(2) * np.exp(-steps / 30) + np.where(steps == 0, 0, rng.normal(0, 0.012, 26))
    accuracy = 0.5 + 0.3 * (1 - np.exp(-steps / 8)) + rng.normal(0, 0.03, 26)
    margin = 3 * (1 - np.exp(-steps / 14)) + rng.normal(0, 0.1, 26)
    return Curve(round=round, loss=tuple(loss), accuracy=tuple(accuracy.clip(0, 1)), margin=tuple(margin))


def whole_report() -> ReportData:
    """Three rounds, the second rejected for over-optimising."""
    rng, summary = np.random.default_rng(7), whole_summary()
    asked = [prompt(*a) for a in ASKED]
    answers = tuple(
        RoundAnswer(round=k, text=text, reward=reward, gold=gold, truncated=k == 1)
        for k, (text, reward, gold) in zip((None, 0, 1, 2), ANSWERED, strict=True)
    )
    return ReportData(
        summary=summary,
        spreads=(
            spread(rng, "gold", (6.54, 1.6), (7.6, 1.3)),
            spread(rng, "reward", (0.33, 0.8), (1.09, 0.6)),
        ),
        examples=tuple(Example(prompt=p, answers=answers) for p in asked),
        pairs=tuple(
            PairExample(
                round=k,
                prompt=asked[k],
                source="best_worst",
                margin=1.31,
                chosen=Answer(text=ANSWERED[1][0], reward=1.52, gold=8.1),
                rejected=Answer(text=ANSWERED[0][0], reward=0.21, gold=5.9),
            )
            for k in range(3)
        ),
        dropped=(
            DroppedRows(
                round=None,
                step="prompts",
                reason="prompt has # tokens, the context holds 256",
                count=2,
                items=("prompts.jsonl:17: prompt has 301 tokens, the context holds 256",),
            ),
            DroppedRows(round=0, step="select", reason="all rewards equal", count=14, items=("4c1a0de2", "90be11aa")),
        ),
        costs=(
            StepCost(round=None, step="policy from scratch", seconds=204.7, tokens=1_390_122, reused=True),
            StepCost(round=None, step="reward model from scratch", seconds=66.2, tokens=402_118, reused=False),
            *(
                StepCost(
                    round=r.round,
                    step=name,
                    seconds=s.seconds,
                    reused=s.reused,
                    tokens=None if name in ("select", "decide") else int(1700 * s.seconds),
                )
                for r in summary.rounds
                for name, s in r.steps.items()
            ),
        ),
        curves=tuple(curve(rng, k) for k in range(3)),
        probes=(
            ProbeResult(round=0, name="sampler and trainer agree", passed=True, numbers=WORST, note="8 prompts"),
            ProbeResult(round=1, name="reward alone equals reward in a batch", passed=False, numbers={"worst": 0.0021}),
        ),
        events=(Event(at=WHEN, round=1, text="sampler 0 died; shard 3 was given to sampler 1"),),
        artifacts=(
            NamedArtifact(round=None, name="prompts", artifact=artifact("prompts", None)),
            *(
                NamedArtifact(round=k, name=n, artifact=artifact(kind, k))
                for k in range(3)
                for n, kind in KINDS.items()
            ),
        ),
    )


def artifact(kind: str, round: int | None) -> Artifact:
    recipe = digest(kind, round)
    return Artifact(kind=kind, uri=f"{STORE}/objects/{kind}/{recipe}", recipe=recipe, digest=digest(recipe))  # type: ignore[arg-type]
