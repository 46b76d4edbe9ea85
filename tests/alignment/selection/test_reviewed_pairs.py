"""SeRA and reference-guided filtering, with margins worked by hand. Implicit rewards are log pi - log pi_initial; the
initial policy gives 0 everywhere below, so a candidate's implicit reward is its log-probability under ``current``."""

import math

import numpy as np
import pytest
from made_groups import couples, evidence, group, pair, real_answers, select
from pydantic import ValidationError

from alignment.errors import UserError
from alignment.selection import BestWorst, ReferenceGuided, SeRA, needed_policies, reviews_pairs
from alignment.selection.margins import draw_of, kept_band, length_slope

SPREAD = np.array([5.0, -1.0, 3.0, 0.0, 2.0, 4.0, 1.0, -2.0, 6.0, 7.0])
DRAW = np.arange(10)[::-1].astype(np.int64)


@pytest.mark.parametrize(
    ("band", "kept"), [("top", [0, 8, 9]), ("mid", [2, 4, 6]), ("low", [1, 3, 7]), ("random", [7, 8, 9])]
)
def test_each_band_keeps_its_part_of_the_ranking(band, kept):
    """Ten margins, 30%: 5, 6, 7 are the top and -2, -1, 0 the lowest; 1, 2, 3 leave 3 below and 4 above. The control
    takes the smallest draws, which are the last three."""
    assert kept_band(SPREAD, DRAW, share=0.3, band=band).tolist() == kept


@pytest.mark.parametrize(("count", "share", "kept"), [(10, 0.7, 7), (3, 0.5, 2), (5, 0.5, 3), (1, 0.3, 0), (0, 0.7, 0)])
def test_the_kept_share_is_rounded_to_the_nearest_whole_number(count, share, kept):
    for band in ("top", "mid", "low", "random"):
        assert len(kept_band(np.arange(count, dtype=float), DRAW[:count], share=share, band=band)) == kept


def test_equal_margins_are_ordered_by_the_draw_and_not_by_place():
    assert kept_band(np.zeros(10), DRAW, share=0.2, band="top").tolist() == [0, 1]
    assert kept_band(np.zeros(10), DRAW[::-1], share=0.2, band="top").tolist() == [8, 9]


def test_the_length_slope_by_hand():
    """Margins 2 + 3 gap exactly: slope 3 whatever the intercept; with equal gaps there is nothing to explain."""
    gaps = np.array([-2.0, 0.0, 1.0, 5.0])
    assert length_slope(2 + 3 * gaps, gaps) == pytest.approx(3)
    assert length_slope(np.array([1.0, 2.0]), np.array([4.0, 4.0])) == 0.0
    assert length_slope(np.array([]), np.array([])) == 0.0


def labelled_round(margins, own=2):
    """One prompt per margin: labelled candidates 0 over 1 with that margin, and ``own`` more with rewards 0, 1, ..."""
    groups = [group([0.0] * (2 + own), name=f"prompt {i}") for i in range(len(margins))]
    current = [[m, 0.0, *(0.1 * (i + 1) * k for k in range(own))] for i, m in enumerate(margins)]
    sums = {"current": current, "initial": [[0.0] * (2 + own)] * len(margins)}
    return groups, sums, [pair(g, 0, 1) for g in groups]


def test_sera_keeps_the_widest_margins_and_adds_the_widest_of_its_own():
    """Ten labelled margins, 70% kept: all but the three lowest (-2, -1, 0 at 7, 1, 3). Round(0.3 * 7) = 2 are added:
    the own margins 0.1 .. 1.0 grow with the prompt, so prompts 8 and 9 give (3, 2)."""
    groups, sums, labelled = labelled_round(SPREAD.tolist())
    selection = select(SeRA(), *groups, evidence=evidence(groups, sums, labelled))
    kept, added = selection.pairs[:7], selection.pairs[7:]
    assert kept == tuple(labelled[i] for i in (0, 2, 4, 5, 6, 8, 9))
    assert [(p.prompt_id, p.chosen, p.rejected, p.source) for p in added] == [
        (groups[i].prompt.id, 3, 2, "sera_bootstrap") for i in (8, 9)
    ]
    assert [p.margin for p in added] == pytest.approx([0.9, 1.0])
    assert selection.metrics["implicit_margin"] == pytest.approx(SPREAD.mean())
    assert selection.metrics["implicit_margin_kept"] == pytest.approx(28 / 7)
    wanted = {"reviewed": 10, "kept": 7, "bootstrapped": 2, "pairs": 9, "degenerate": 0, "ensemble": 0, "dropped": 3}
    assert {name: selection.metrics[name] for name in wanted} == wanted
    assert {d.item for d in selection.dropped} == {groups[i].prompt.id for i in (1, 3, 7)}


def test_the_previous_policy_has_its_share_in_labelling_own_pairs():
    """Own rewards now (0, 1), before (3, 0): half each gives 1.5 over 0.5, so the order turns; g = 0 keeps it."""
    g = group([0.0] * 4)
    sums = {"current": [[1.0, 0.0, 0.0, 1.0]], "initial": [[0.0] * 4], "previous": [[0.0, 0.0, 3.0, 0.0]]}
    known = evidence([g], sums, [pair(g, 0, 1)])
    turned, straight = (select(SeRA(keep=1, bootstrap=1, ensemble=e), g, evidence=known) for e in (0.5, 0.0))
    assert (couples(turned)[1], turned.pairs[1].margin, turned.metrics["ensemble"]) == ((2, 3), 1.0, 0.5)
    assert (couples(straight)[1], straight.pairs[1].margin) == ((3, 2), 1.0)


def test_the_previous_policy_does_not_choose_among_labelled_pairs():
    """Kept by the current margin alone: 2 before 1, although the previous policy has them the other way."""
    groups, sums, labelled = labelled_round([2.0, 1.0], own=0)
    known = evidence(groups, {**sums, "previous": [[0.0, 0.0], [9.0, 0.0]]}, labelled)
    assert select(SeRA(keep=0.5), *groups, evidence=known).pairs == (labelled[0],)


def test_before_any_training_nothing_is_selected_and_nothing_added():
    """Current and initial policy give the same numbers, so every margin is 0 and any 70% would be arbitrary."""
    groups, _, labelled = labelled_round([1.0] * 10)
    same = [[-1.0, -2.0, -3.0, -4.0]] * 10
    selection = select(SeRA(), *groups, evidence=evidence(groups, {"current": same, "initial": same}, labelled))
    assert selection.pairs == tuple(labelled)
    assert (selection.metrics["degenerate"], selection.metrics["bootstrapped"]) == (1, 0)


def test_a_collapsed_policy_adds_nothing_and_is_counted():
    """All own completions alike: the text says so even where rounding tells their log-probabilities apart."""
    g = group([0.0] * 4, texts=["a", "b", "same", "same"])
    known = evidence([g], {"current": [[1.0, 0.0, 0.5, 0.6]], "initial": [[0.0] * 4]}, [pair(g, 0, 1)])
    metrics = select(SeRA(bootstrap=1), g, evidence=known).metrics
    assert (metrics["bootstrapped"], metrics["collapsed"]) == (0, 1)


def test_own_pairs_within_the_least_margin_are_not_added():
    groups, sums, labelled = labelled_round([1.0] * 10)
    known = evidence(groups, sums, labelled)
    assert select(SeRA(keep=1, bootstrap=1, min_margin=0.75), *groups, evidence=known).metrics["bootstrapped"] == 3


def test_cut_and_empty_completions_are_in_no_pair_and_say_why():
    """Prompt 0's chosen was cut; of prompt 1's own completions one is empty, so it has no own pair."""
    cut = group([0.0] * 4, name="0", truncated=[0])
    blank = group([0.0] * 4, name="1", texts=["a", "b", "", "d"])
    sums = {"current": [[9.0, 0.0, 0.0, 0.0], [1.0, 0.0, 8.0, 0.0]], "initial": [[0.0] * 4] * 2}
    known = evidence([cut, blank], sums, [pair(cut, 0, 1), pair(blank, 0, 1)])
    selection = select(SeRA(keep=1, bootstrap=9), cut, blank, evidence=known)
    assert couples(selection) == [(0, 1)]
    assert selection.dropped[0].reason == "no pair left of 1: a completion was cut at the token limit or is empty"


def test_a_margin_that_is_not_finite_is_dropped_with_a_reason():
    groups, sums, labelled = labelled_round([math.nan, 1.0], own=0)
    selection = select(SeRA(keep=1), *groups, evidence=evidence(groups, sums, labelled))
    assert selection.pairs == (labelled[1],)
    assert [d.reason for d in selection.dropped] == ["no pair left of 1: the margin is nan"]


def test_lengths_explain_margins_away_when_asked():
    """Margins are 1 per token of length difference plus (0, 0, 0.5): plain ranking keeps the longest gap (4 tokens),
    the residual one the pair whose margin exceeds what its length explains."""
    tokens = [[tuple(range(n + 1)), (99,)] for n in (4, 1, 2)]
    groups = [group([0.0, 0.0], name=str(i), tokens=t) for i, t in enumerate(tokens)]
    known = evidence(
        groups,
        {"current": [[4.0, 0.0], [1.0, 0.0], [2.5, 0.0]], "initial": [[0.0, 0.0]] * 3},
        [pair(g, 0, 1) for g in groups],
    )
    plain, residual = (
        select(SeRA(keep=1 / 3, length_residual=r), *groups, evidence=known).pairs[0].prompt_id for r in (False, True)
    )
    assert (plain, residual) == (groups[0].prompt.id, groups[2].prompt.id)


@pytest.mark.parametrize(("form", "best"), [("log_ratio", 0), ("mean_log_ratio", 1), ("mean_logprob", 2)])
def test_the_implicit_reward_is_the_losss_own(form, best):
    """Three candidates of 4, 1 and 2 tokens. Log-ratios 4, 2, -1: candidate 0 has the largest sum, candidate 1 the
    largest mean (2 against 1); log pi is -8, -3, -1, per token -2, -3, -0.5: candidate 2 without a reference."""
    g = group([0.0] * 3, tokens=[(1, 2, 3, 4), (5,), (6, 7)])
    known = evidence([g], {"current": [[-8.0, -3.0, -1.0]], "initial": [[-12.0, -5.0, 0.0]]}, [])
    implicit = known.implicit_of("current", form)(g)
    assert int(np.argmax(implicit)) == best


def test_without_labelled_pairs_best_and_worst_by_reward_are_reviewed():
    """Reward order and implicit order disagree in prompt 1, whose pair is the one that is not kept; an own pair of the
    very same two candidates is not added again."""
    groups = [group([2.0, 0.0], name="a"), group([0.0, 2.0], name="b")]
    known = evidence(groups, {"current": [[1.0, 0.0], [1.0, 0.0]], "initial": [[0.0, 0.0]] * 2})
    selection = select(SeRA(keep=0.5, bootstrap=0), *groups, evidence=known)
    assert [(p.prompt_id, p.chosen, p.source) for p in selection.pairs] == [(groups[0].prompt.id, 0, "best_worst")]
    again = select(SeRA(keep=1, bootstrap=9), groups[0], evidence=known)
    assert couples(again) == [(0, 1)]


def test_review_does_not_depend_on_the_rounds_order():
    rng = np.random.default_rng(0)
    groups, sums, labelled = labelled_round(rng.integers(0, 3, size=40).tolist())
    known = evidence(groups, sums, labelled)
    for selector in (SeRA(), SeRA(band="random"), ReferenceGuided(), ReferenceGuided(band="random")):
        there, back = (select(selector, *order, evidence=known).pairs for order in (groups, groups[::-1]))
        assert sorted(there, key=str) == sorted(back, key=str)


def test_reference_guided_keeps_what_the_reference_tells_apart():
    """Differences under the initial policy 3, -4, 1, 0 of four pairs, half kept: signed 3 and 1, absolute -4 and 3;
    per token (chosen of 6, 3, 1, 3 tokens, rejected of 3 with sum 0): 0.5, -4/3, 1, 0, so 0 and 2 again."""
    tokens = [[tuple(range(n)), (90, 91, 92)] for n in (6, 3, 1, 3)]
    groups = [group([0.0, 0.0], name=str(i), tokens=t) for i, t in enumerate(tokens)]
    labelled = [pair(g, 0, 1) for g in groups]
    known = evidence(groups, {"initial": [[3.0, 0.0], [-4.0, 0.0], [1.0, 0.0], [0.0, 0.0]]}, labelled)

    def kept(**fields):
        pairs = select(ReferenceGuided(**fields), *groups, evidence=known).pairs
        return [labelled.index(p) for p in pairs]

    assert kept() == [0, 2]
    assert kept(score="absolute") == [0, 1]
    assert kept(band="low") == [1, 3]
    assert kept(per_token=True, keep=0.25) == [2]


@pytest.mark.parametrize("bad", [{"keep": 0}, {"keep": 1.1}, {"ensemble": 1.5}, {"bootstrap": -1}, {"band": "best"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        SeRA(**bad)


def test_what_is_needed_is_declared_and_its_absence_named():
    assert needed_policies(SeRA()) == ("current", "previous", "initial")
    assert needed_policies(ReferenceGuided()) == ("initial",)
    assert reviews_pairs(SeRA())
    with pytest.raises(UserError, match="under the current policy are needed, and there are none"):
        select(SeRA(), group([1.0, 0.0]))


def test_log_probabilities_of_other_completions_are_refused():
    g, other = group([0.0, 0.0]), group([0.0, 0.0], tokens=[(1,), (2,)])
    known = evidence([other], {"current": [[0.0, 0.0]], "initial": [[0.0, 0.0]]}, [pair(g, 0, 1)])
    with pytest.raises(ValueError, match="of other completions"):
        select(SeRA(), g, evidence=known)


def test_counts_on_real_answers_are_exact(shared_data):
    """805 prompts. Labelled: the first two of 24 answers by score where they differ. Implicit rewards are random
    (seed 1), so no margin ties: int(0.7 n + 0.5) are kept and int(0.3 kept + 0.5) added, of 22 own answers each."""
    groups, rewards_P_G = real_answers(shared_data)
    rng = np.random.default_rng(1)
    labelled = [pair(g, *((0, 1) if r[0] > r[1] else (1, 0)))
                for g, r in zip(groups, rewards_P_G, strict=True) if r[0] != r[1]]  # fmt: skip
    sums = {name: rng.normal(-50, 10, size=rewards_P_G.shape).tolist() for name in ("current", "previous", "initial")}
    selection = select(SeRA(), *groups, evidence=evidence(groups, sums, labelled))
    whole = {g.prompt.id: g for g in groups}
    kept = [p for p in selection.pairs if p.source == "given"]
    added = [p for p in selection.pairs if p.source != "given"]
    assert len(kept) == int(0.7 * selection.metrics["reviewed"] + 0.5)
    assert len(added) == int(0.3 * len(kept) + 0.5)
    assert set(kept) <= set(labelled)
    assert all(p.chosen > 1 and p.rejected > 1 for p in added)
    assert all(whole[p.prompt_id].candidates[p.chosen].text.strip() for p in selection.pairs)
    current, initial = np.array(sums["current"]), np.array(sums["initial"])
    place = {g.prompt.id: i for i, g in enumerate(groups)}
    margin = {p: float((current - initial)[place[p.prompt_id]][[p.chosen, p.rejected]] @ [1, -1]) for p in labelled}
    assert min(margin[p] for p in kept) > max(margin[p] for p in labelled if p not in set(kept))
    assert len(draw_of(0, labelled)) == len(labelled)


def test_without_labels_a_first_round_has_the_pairs_of_best_worst():
    """Also where equal rewards are ordered by a draw: of four best and four worst candidates, the same two."""
    groups = [group([1.0] * 4 + [0.0] * 4, name=str(i)) for i in range(20)]
    same = [[-1.0] * 8] * 20
    known = evidence(groups, {"current": same, "initial": same})
    assert select(SeRA(), *groups, evidence=known).pairs == select(BestWorst(), *groups).pairs
