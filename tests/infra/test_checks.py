"""Probes: what passes, and what fails with both numbers."""

import math

import pytest

from alignment.execution import Engine
from infra.checks import ProbeFailed, check_scores, check_weights, probe_prompts
from infra.vllm_actor import GreedyTrace

TRACE = GreedyTrace(token_ids=(7, 9), decoded=(-1.0, -2.0), prefilled=(-1.0, -2.0))


def test_the_fixed_prompts_are_fixed_and_fit_the_context():
    """Lengths 1, 5, 17 and 33, each followed by 16 tokens: a context of 33 has room for the first three."""
    assert probe_prompts(100, 256) == probe_prompts(100, 256)
    assert [len(p) for p in probe_prompts(100, 256)] == [1, 5, 17, 33]
    assert [len(p) for p in probe_prompts(100, 33)] == [1, 5, 17]
    assert all(0 <= i < 100 for p in probe_prompts(100, 256) for i in p)


def test_weights_within_the_bound_pass_with_the_difference():
    probe = check_weights("m", [TRACE], [[-1.0005, -2.0]], Engine())
    assert probe.worst == pytest.approx(0.0005)
    assert probe.mean == pytest.approx(0.00025)
    assert probe.count == 4


def test_weights_beyond_the_bound_fail_with_both_numbers():
    with pytest.raises(
        ProbeFailed, match=r"token 1 .* -2.00000, the training stack -2.00200; they may differ by 0.001"
    ):
        check_weights("m", [TRACE], [[-1.0, -2.002]], Engine())


def test_either_way_of_reading_can_fail():
    """The prefilled numbers agree; the decoded ones, which samples are made with, do not."""
    trace = TRACE._replace(decoded=(-1.0, -5.0))
    with pytest.raises(ProbeFailed, match=r"-5.00000, the training stack -2.00000"):
        check_weights("m", [trace], [[-1.0, -2.0]], Engine())


def test_in_bf16_many_small_differences_fail_where_one_does_not():
    """0.5 on one token of two is a mean of 0.25, over 0.15; 0.2 is a mean of 0.1."""
    engine = Engine(dtype="bfloat16")
    check_weights("m", [TRACE], [[-1.0, -2.2]], engine)
    with pytest.raises(ProbeFailed, match=r"0.15 on average where 0.25"):
        check_weights("m", [TRACE], [[-1.0, -2.5]], engine)


def test_not_a_number_fails():
    with pytest.raises(ProbeFailed):
        check_weights("m", [TRACE], [[-1.0, math.nan]], Engine())
    with pytest.raises(ProbeFailed):
        check_scores("rm", [1.0, math.nan], [1.0, 2.0])


def test_scores_are_compared_by_their_size():
    """200 against 200.01 is 5e-5 of the score; 0.5 against 0.5002 is 2e-4 below 1."""
    assert check_scores("rm", [200.0], [200.01]).worst == pytest.approx(5e-5, rel=1e-3)
    with pytest.raises(ProbeFailed, match=r"completion 0 scores 0.500000 alone and 0.500200 in a batch"):
        check_scores("rm", [0.5], [0.5002])
