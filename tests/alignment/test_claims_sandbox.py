"""The sandbox's claims: which cells they need, and what is read off outcomes that were made by hand."""

import pytest

from alignment.summary import Interval
from alignment.testbed.cells import ANCHOR, PLAIN, Cell, completions_for
from alignment.testbed.claims import Claim
from alignment.testbed.claims_sandbox import ARMS, NULL_BOUND, PAIRS, READINGS, UPDATES, grid_cell, matching_readings
from alignment.testbed.outcomes import (
    Contrast,
    Outcome,
    Steering,
    all_needed,
    needed,
    rank_correlation,
    read_off,
)

PRAND = Cell("preference_conditioned")


def outcome(best=(), trained=(), *, tokens=400.0, seconds=10.0) -> Outcome:
    """Golds of prompts a, b, c ..."""
    best, trained = (dict(zip("abcdef", golds, strict=False)) for golds in (best, trained))
    mean = Interval(mean=sum(trained.values()) / max(1, len(trained)))
    return Outcome(
        best=best, trained=trained, completions=12, tokens=tokens, draft_tokens=33, gold=mean, kl=Interval(mean=1.0),
        seconds=seconds,
    )  # fmt: skip


def contrast(ours, theirs, measure="trained", claim=None) -> Contrast:
    return Contrast(claim or Claim.positive("rso sandbox x", "a - b > 0", "none"), ours, theirs, measure)


class TestCells:
    def test_a_cell_names_its_run(self):
        assert Cell("prs", "rso").run == "claims-prs-rso-dpo-s0"
        assert Cell("prs", "sera", "sft", rounds=2).run == "claims-prs-sera-sft-2-rounds-s0"
        assert Cell("prs", update="rad", goal=4, seed=1).run == "claims-prs-best_worst-rad-goal4-s1"

    def test_all_claims_need_forty_four_runs_each_with_a_name_of_its_own(self):
        """27 of the grid, of which sera's 9 have two rounds, best_worst's 9 after two rounds, 4 controls of PRS, one
        repeated with another seed, and RAD at three goals beside 10."""
        cells = all_needed(READINGS)
        assert {grid_cell(a, p, u) for a in ARMS for p in PAIRS for u in UPDATES} <= set(cells)
        assert len(cells) == len({cell.run for cell in cells}) == 27 + 9 + 4 + 1 + 3

    def test_plain_arms_come_after_the_run_that_tells_how_many_completions_they_have(self):
        for reading in READINGS:
            cells = all_needed([reading])
            assert not any(cell.arm in PLAIN for cell in cells) or cells[0] == ANCHOR

    @pytest.mark.parametrize(
        ("wanted", "runs"),
        [
            ("prs sandbox over", {"claims-prs-best_worst-dpo-s0", "claims-preference_conditioned-best_worst-dpo-s0"}),
            ("against foreign draft", {"claims-prs-best_worst-dpo-s0", "claims-foreign_draft-best_worst-dpo-s0"}),
            ("rso R1", set()),
        ],
    )
    def test_only_the_cells_that_a_named_claim_needs_are_run(self, wanted, runs):
        assert {cell.run for cell in all_needed(matching_readings(wanted))} == runs

    def test_a_claim_of_rso_runs_no_second_round_and_no_control(self):
        cells = all_needed(matching_readings("rso sandbox"))
        assert len(cells) == 18
        assert {cell.rounds for cell in cells} == {1}
        assert {cell.arm for cell in cells} == set(ARMS)


class TestEqualTokens:
    def test_feedback_is_charged_to_prs(self):
        """12 completions of 30 tokens and 8 of feedback are 368: 12.27 plain completions, so 12. With 40 of feedback
        they are 400, or 13.3."""
        assert completions_for(12 * 30 + 8, 30) == 12
        assert completions_for(12 * 30 + 40, 30) == 13

    def test_longer_refinements_buy_more_plain_completions(self):
        """6 drafts of 30, 6 refinements of 40 and 10 of feedback are 430: 14.33, so 14."""
        assert completions_for(6 * 30 + 6 * 40 + 10, 30) == 14

    def test_there_are_two_at_least(self):
        assert completions_for(20, 30) == 2


class TestReading:
    def test_a_contrast_is_paired_by_prompt_and_averaged_over_places(self):
        """a: (7 - 6 + 8 - 5) / 2 = 2; b: (6 - 6 + 4 - 6) / 2 = -1; c is not measured everywhere."""
        cells = [Cell("prs", "rso"), Cell("prs", "rso", "sft"), Cell("prs"), Cell("prs", update="sft")]
        golds = [(7, 6, 9), (8, 4), (6, 6, 1), (5, 6, 1)]
        outcomes = {cell: outcome(trained=of) for cell, of in zip(cells, golds, strict=True)}
        values = contrast(tuple(cells[:2]), tuple(cells[2:])).values(outcomes)
        assert values.tolist() == [2.0, -1.0]

    def test_what_was_selected_and_what_was_trained_are_not_mixed(self):
        outcomes = {Cell("prs"): outcome((9, 8), (1, 1)), PRAND: outcome((7, 7), (5, 5))}
        ours, theirs = (Cell("prs"),), (PRAND,)
        assert contrast(ours, theirs, "best").values(outcomes).tolist() == [2.0, 1.0]
        assert contrast(ours, theirs).values(outcomes).tolist() == [-4.0, -4.0]

    def test_a_result_has_mean_interval_verdict_and_the_tokens_of_both_sides(self):
        """Every prompt differs by 2, so the interval has no width."""
        outcomes = {Cell("prs"): outcome((9, 8, 7), tokens=412.4), PRAND: outcome((7, 6, 5), tokens=405.6)}
        ((claim, result),) = read_off([contrast((Cell("prs"),), (PRAND,), "best")], outcomes)
        assert (result.ours, result.low, result.high, result.verdict) == (2.0, 2.0, 2.0, "holds")
        assert claim.inequality == result.inequality == "a - b > 0; 412 against 406 tokens generated per prompt"

    def test_a_claim_about_training_says_how_far_it_moved_both_sides(self):
        outcomes = {Cell("prs"): outcome(trained=(9, 8, 7)), PRAND: outcome(trained=(7, 6, 5))}
        outcomes[PRAND] = outcomes[PRAND].model_copy(update={"kl": Interval(mean=0.254)})
        ((claim, _),) = read_off([contrast((Cell("prs"),), (PRAND,))], outcomes)
        assert claim.inequality == "a - b > 0; 400 against 400 tokens generated per prompt, KL 1.00 against 0.25 nats"

    def test_an_interval_over_prompts_is_as_wide_as_they_differ(self):
        """Differences 0 and 2 in turn over 400 prompts: mean 1, standard error 1 / 20, so about 1 ± 0.098."""
        ours = outcome().model_copy(update={"best": {str(i): 2.0 * (i % 2) for i in range(400)}})
        theirs = outcome().model_copy(update={"best": {str(i): 0.0 for i in range(400)}})
        ((_, result),) = read_off([contrast((Cell("prs"),), (PRAND,), "best")], {Cell("prs"): ours, PRAND: theirs})
        assert result.ours == 1.0
        assert (result.low, result.high) == (pytest.approx(0.902, abs=0.01), pytest.approx(1.098, abs=0.01))

    def test_one_common_prompt_leaves_a_claim_unresolved(self):
        outcomes = {Cell("prs"): outcome((9,)), PRAND: outcome((7, 6))}
        ((_, result),) = read_off([contrast((Cell("prs"),), (PRAND,), "best")], outcomes)
        assert (result.ours, result.low, result.verdict) == (None, None, "not resolved")

    def test_a_null_control_holds_within_its_bound(self):
        claim = Claim.within(NULL_BOUND, "prs sandbox null", "|x| < 0.2", "none")
        for difference, verdict in ((0.1, "holds"), (-0.3, "does not hold")):
            outcomes = {Cell("prs"): outcome((5 + difference,) * 3), PRAND: outcome((5, 5, 5))}
            ((_, result),) = read_off([contrast((Cell("prs"),), (PRAND,), "best", claim)], outcomes)
            assert result.verdict == verdict

    def test_seconds_of_a_cell_are_shared_by_the_claims_that_need_it(self):
        """prs (10 s) is needed by both, the others (10 s each) by one: 5 + 10 each, 30 in all."""
        readings = [contrast((Cell("prs"),), (Cell(arm),), "best") for arm in ("empty_draft", "foreign_draft")]
        outcomes = {cell: outcome((5, 6)) for cell in all_needed(readings)}
        assert [result.seconds for _, result in read_off(readings, outcomes)] == [15.0, 15.0]

    def test_seconds_of_the_run_that_plain_arms_need_are_counted_too(self):
        reading = contrast((PRAND,), (Cell("independent"),), "best")
        assert needed(reading) == (ANCHOR, PRAND, Cell("independent"))
        outcomes = {cell: outcome((5, 6)) for cell in needed(reading)}
        assert [result.seconds for _, result in read_off([reading], outcomes)] == [30.0]


class TestSteering:
    def test_gold_that_follows_the_goal_is_one_and_gold_that_does_not_move_is_nought(self):
        """Prompt a rises over the goals, b falls, c stays."""
        cells = tuple(Cell("prs", update="rad", goal=goal) for goal in (1, 4, 7))
        golds = [(1, 9, 5), (4, 7, 5), (8, 2, 5)]
        outcomes = {cell: outcome(trained=of) for cell, of in zip(cells, golds, strict=True)}
        steering = Steering(Claim.positive("rad sandbox x", "rho > 0", "none"), cells)
        assert steering.values(outcomes).tolist() == pytest.approx([1.0, -1.0, 0.0])

    def test_equal_values_share_a_rank(self):
        """Ranks 1.5, 1.5, 3 and 1, 2, 3: covariance 1.5 over sqrt(1.5 * 2) = 0.866. By place it would be 1."""
        assert rank_correlation([5, 5, 7], [1, 2, 3]) == pytest.approx(0.75**0.5)


def test_every_claim_is_of_a_method_and_says_sandbox():
    names = [reading.claim.name for reading in READINGS]
    assert len(set(names)) == len(names)
    assert {name.split()[0] for name in names} == {"prs", "rso", "sera", "rad"}
    assert {name.split()[1] for name in names} == {"sandbox"}
    methods = [name.split()[0] for name in names]
    assert methods == sorted(methods, key=methods.index)


def test_both_sides_of_a_contrast_differ_in_one_thing_at_a_time():
    """Arm, pairs, update or seed; and their places correspond."""
    for reading in READINGS:
        if isinstance(reading, Contrast):
            assert len(reading.ours) == len(reading.theirs)
            for a, b in zip(reading.ours, reading.theirs, strict=True):
                assert sum(x != y for x, y in zip(a, b, strict=True)) == 1
