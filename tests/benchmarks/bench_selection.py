"""Selection of 100,000 prompts x 64 candidates: seconds and peak memory, in a process of its own for each selector.

Groups come one at a time, as they do from the store's shards, so what is measured is selection and not a list of 6.4
million candidates. The candidates' texts are the same for every prompt and the rewards are not: making a group is part
of the time, reading it from a file is not. SeRA and APL rank over the whole round and keep its groups: here these share
their candidates, so that their figure is that of log-probabilities and ranks and leaves out the texts of a real round.
Run by path, with ``-s`` for the figures.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMPTS, CANDIDATES = 100_000, 64
SECONDS, GIB = 60.0, 4.0

PREAMBLE = f"""
import json, resource, time
import numpy as np
from alignment.selection import APL, RSDPO, RSO, BestWorst, Evidence, SeRA, TopK
from alignment.types import Candidate, Group, Message, Prompt, SequenceLogprobs

P, G = {PROMPTS}, {CANDIDATES}
rng = np.random.default_rng(0)
candidates = tuple(
    Candidate(index=i, text="answer %d" % i, token_ids=(i, 1), finish_reason="stop") for i in range(G)
)

def groups():
    for number in range(P):
        prompt = Prompt(id=str(number), messages=(Message(role="user", content="p"),))
        rewards = dict(reward=tuple(rng.normal(size=G).tolist()))
        yield Group(prompt=prompt, prompt_ids=(1,), candidates=candidates, rewards=rewards)

def logprobs():
    for number in range(P):
        drawn = tuple((-20 + rng.normal(size=G)).tolist())
        yield SequenceLogprobs(prompt_id=str(number), logprobs=drawn, lengths=(2,) * G)

{{before}}
began = time.monotonic()
{{work}}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(dict(seconds=time.monotonic() - began, gib=peak, made=made)))
"""
WHOLE = "made = len({selector}(groups(), np.random.default_rng(1), reward='reward').pairs)"
LOGPROBS = "evidence = Evidence(dict(current=list(logprobs()), initial=list(logprobs())))"
REVIEWED = "made = len({selector}(groups(), np.random.default_rng(1), reward='reward', evidence=evidence).pairs)"
WORK = {
    "accept": (
        "rewards_P_G = rng.normal(size=(P, G))\nrso = RSO(beta=0.5)\n"
        "made = sum(len(rso.accept(rewards_G, rng)) for rewards_G in rewards_P_G)"
    ),
    "rso": WHOLE.format(selector="RSO(beta=0.5)"),
    "rso_gumbel": WHOLE.format(selector="RSO(beta=0.5, method='gumbel')"),
    "best_worst": WHOLE.format(selector="BestWorst()"),
    "top_k": WHOLE.format(selector="TopK(k=4)"),
    "rs_dpo": WHOLE.format(selector="RSDPO(max_pairs_per_prompt=4)"),
    "sera": REVIEWED.format(selector="SeRA()"),
    "apl": REVIEWED.format(selector=f"APL(labels={PROMPTS // 2})"),
}
MADE = {"accept": 8, "rso": 4, "rso_gumbel": 4, "best_worst": 1, "top_k": 4, "rs_dpo": 4, "sera": 0.91, "apl": 0.5}
"""Pairs a prompt. SeRA keeps 70% of one pair each and adds 30% as many."""


@pytest.mark.parametrize("name", sorted(WORK))
def test_a_hundred_thousand_prompts(name: str):
    script = PREAMBLE.format(work=WORK[name], before=LOGPROBS if "evidence" in WORK[name] else "")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)
    print(f"\n{name}: {measured['seconds']:.1f} s, {measured['gib']:.2f} GiB")
    assert measured["made"] == pytest.approx(PROMPTS * MADE[name])
    assert measured["seconds"] < SECONDS
    assert measured["gib"] < GIB
