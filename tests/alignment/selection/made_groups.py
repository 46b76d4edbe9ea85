"""Groups, evidence and real answers for tests of selectors."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignment.selection.evidence import Evidence, PolicyName
from alignment.types import Candidate, Group, Message, PreferencePair, Prompt, SequenceLogprobs

Sums = Mapping[PolicyName, Sequence[Sequence[float]]]


def group(rewards_G, *, name="p", texts=None, truncated=(), tokens=None) -> Group:
    """One prompt; unless given, candidate i has a text of its own and three tokens of its own."""
    texts = texts or [f"answer {i}" for i in range(len(rewards_G))]
    tokens = tokens or [(10 * i, 10 * i + 1, 10 * i + 2) for i in range(len(rewards_G))]
    candidates = tuple(
        Candidate(index=i, text=t, token_ids=tuple(tokens[i]), finish_reason="length" if i in truncated else "stop")
        for i, t in enumerate(texts)
    )
    prompt = Prompt.of((Message(role="user", content=name),))
    return Group(prompt=prompt, prompt_ids=(5, 6), candidates=candidates, rewards={"proxy": tuple(rewards_G)})


def evidence(groups: Sequence[Group], sums: Sums, labelled: Sequence[PreferencePair] | None = None) -> Evidence:
    """Summed log-probabilities of each group's candidates, by policy."""
    rows = {
        policy: [
            SequenceLogprobs(
                prompt_id=g.prompt.id, logprobs=tuple(of_G), lengths=tuple(len(c.token_ids) for c in g.candidates)
            )
            for g, of_G in zip(groups, of_P_G, strict=True)
        ]
        for policy, of_P_G in sums.items()
    }
    return Evidence(logprobs=rows, labelled=labelled)


def pair(of: Group, chosen: int, rejected: int) -> PreferencePair:
    return PreferencePair(prompt_id=of.prompt.id, chosen=chosen, rejected=rejected, source="given")


def select(selector, *groups, seed=0, **known):
    return selector(groups, np.random.default_rng(seed), reward="proxy", **known)


def couples(selection):
    return [(p.chosen, p.rejected) for p in selection.pairs]


def real_answers(shared_data: Path) -> tuple[list[Group], np.ndarray]:
    """805 prompts with 24 models' answers each; reward = log-odds of beating one common opponent, clipped at 1e-6."""
    with gzip.open(shared_data / "candidates" / "alpaca_eval_v2.24models.jsonl.gz", "rt") as rows:
        prompts = [json.loads(row) for row in rows]
    p_P_G = np.array([[c["preference"] - 1 for c in row["candidates"]] for row in prompts]).clip(1e-6, 1 - 1e-6)
    rewards_P_G = np.log(p_P_G / (1 - p_P_G))
    groups = [
        group(
            r.tolist(),
            name=row["instruction"] + str(i),
            texts=[c["output"] for c in row["candidates"]],
            tokens=[(k, *range(100, 100 + len(c["output"].split()))) for k, c in enumerate(row["candidates"])],
        )
        for i, (r, row) in enumerate(zip(rewards_P_G, prompts, strict=True))
    ]
    return groups, rewards_P_G
