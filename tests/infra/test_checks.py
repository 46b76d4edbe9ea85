"""Probes: what passes, and what fails with both numbers."""

import math
import pickle

import pytest

from alignment.execution import Engine
from alignment.probes import ProbeFailed
from infra.checks import check_ends, check_scores, check_weights, probe_prompts
from infra.vllm_actor import Draw, GreedyTrace

PROMPTS, PAIR = [(3, 4)], ((3, 4), (7, 9))
TRACE = GreedyTrace(token_ids=(7, 9), decoded=(-1.0, -2.0), prefilled=(-1.0, -2.0))


def test_the_fixed_prompts_are_fixed_and_fit_the_context():
    """Lengths 1, 5, 17 and 33, each followed by 16 tokens: a context of 33 has room for the first three."""
    assert probe_prompts(100, 256) == probe_prompts(100, 256)
    assert [len(p) for p in probe_prompts(100, 256)] == [1, 5, 17, 33]
    assert [len(p) for p in probe_prompts(100, 33)] == [1, 5, 17]
    assert all(0 <= i < 100 for p in probe_prompts(100, 256) for i in p)


def test_weights_within_the_bound_pass_with_the_difference():
    probe = check_weights("m", PROMPTS, [TRACE], [[-1.0005, -2.0]], Engine())
    assert probe.worst == pytest.approx(0.0005)
    assert probe.mean == pytest.approx(0.00025)
    assert probe.count == 4


def test_weights_beyond_the_bound_fail_with_both_numbers():
    with pytest.raises(
        ProbeFailed, match=r"token 1 .* -2.00000, the training stack -2.00200; they may differ by 0.001"
    ):
        check_weights("m", PROMPTS, [TRACE], [[-1.0, -2.002]], Engine())


def test_either_way_of_reading_can_fail():
    """The prefilled numbers agree; the decoded ones, which samples are made with, do not."""
    trace = TRACE._replace(decoded=(-1.0, -5.0))
    with pytest.raises(ProbeFailed, match=r"-5.00000, the training stack -2.00000"):
        check_weights("m", PROMPTS, [trace], [[-1.0, -2.0]], Engine())


def test_in_bf16_many_small_differences_fail_where_one_does_not():
    """0.5 on one token of two is a mean of 0.25, over 0.15; 0.2 is a mean of 0.1."""
    engine = Engine(dtype="bfloat16")
    check_weights("m", PROMPTS, [TRACE], [[-1.0, -2.2]], engine)
    with pytest.raises(ProbeFailed, match=r"0.15 on average where 0.25"):
        check_weights("m", PROMPTS, [TRACE], [[-1.0, -2.5]], engine)


def test_not_a_number_fails():
    with pytest.raises(ProbeFailed):
        check_weights("m", PROMPTS, [TRACE], [[-1.0, math.nan]], Engine())
    with pytest.raises(ProbeFailed):
        check_scores("rm", [PAIR, PAIR], [1.0, math.nan], [1.0, 2.0])


def test_scores_are_compared_by_their_size():
    """200 against 200.01 is 5e-5 of the score; 0.5 against 0.5002 is 2e-4 below 1."""
    assert check_scores("rm", [PAIR], [200.0], [200.01]).worst == pytest.approx(5e-5, rel=1e-3)
    with pytest.raises(ProbeFailed, match=r"completion 0 scores 0.500000 alone and 0.500200 in a batch"):
        check_scores("rm", [PAIR], [0.5], [0.5002])


def test_a_failing_probe_carries_both_numbers_and_all_it_compared():
    with pytest.raises(ProbeFailed) as failed:
        check_weights("m", PROMPTS, [TRACE], [[-1.0, -4.0]], Engine())
    evidence = failed.value.evidence
    assert evidence.numbers == {"worst": 2.0, "mean": 1.0, "bound": 1e-3, "one": -2.0, "other": -4.0}
    assert evidence.compared == (
        {"prompt_ids": [3, 4], "token_ids": [7, 9], "sampler_decoded": [-1.0, -2.0], "sampler_prefilled": [-1.0, -2.0],
         "training_stack": [-1.0, -4.0]},
    )  # fmt: skip


def test_it_still_does_after_a_way_between_processes():
    with pytest.raises(ProbeFailed) as failed:
        check_scores("rm", [PAIR], [0.5], [0.6])
    carried = pickle.loads(pickle.dumps(failed.value))
    assert (str(carried), carried.evidence) == (str(failed.value), failed.value.evidence)


@pytest.mark.parametrize(
    ("token_ids", "reason", "said"),
    [
        ((7, 9, 8), "stop", r"stopped ends with token 8, which is none of \[2, 5\]"),
        ((), "stop", "stopped ends with token None"),
        ((7, 2, 8), "length", r"goes on after EOS \(2\), token 1 of its 3"),
        ((7, 2, 9, 2), "stop", r"goes on after EOS \(2\), token 1 of its 3"),
        ((7, 2), "length", r"goes on after EOS \(2\)"),
    ],
)
def test_a_completion_that_misses_its_end_or_passes_it_fails(token_ids, reason, said):
    with pytest.raises(ProbeFailed, match=said) as failed:
        check_ends("m", [Draw((2,), "", "stop", 0.0), Draw(token_ids, "text", reason, 0.0)], frozenset({2, 5}), 2)
    assert failed.value.evidence.compared[0]["completion"] == 1
    assert failed.value.evidence.compared[0]["token_ids"] == list(token_ids)


def test_either_end_of_a_turn_will_do_and_a_cut_completion_needs_none():
    """5 is a second end, as models have one for a call of a tool."""
    draws = [Draw((7, 2), "", "stop", 0.0), Draw((7, 5), "", "stop", 0.0), Draw((7, 5, 8), "", "length", 0.0)]
    check_ends("m", draws, frozenset({2, 5}), 2)
