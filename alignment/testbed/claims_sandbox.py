"""What the methods claim, measured in the sandbox on the whole stack: readable text, a learned reward, real updates.

The grid is {independent, preference_conditioned, prs} x {best_worst, rso, sera} x {dpo, rad, sft}, at equal generated
tokens per prompt: plain arms have as many completions as PRS's tokens buy, its feedback included, and every claim says
both figures. PRS's controls have as many completions as PRS, so that their trees have its shape.

SeRA reviews pairs by what training has changed, and before any training it keeps all of them. Its cells are therefore
runs of two rounds: the first is that of ``best_worst``, found and not made again, and the second reviews its own pairs.
They are compared with ``best_worst`` after two rounds, which samples the very same completions.

Differences are paired by prompt and averaged over the grid's other axes before the interval is taken, over prompts.
That leaves out the spread of training seeds: there is one. The null controls repeat a cell with another seed, which
draws other completions, another order of training and other evaluation answers, and so show how large that spread is.
Bounds were set before anything was measured.
"""

from alignment.testbed.cells import Arm, Cell, Pairs, Update
from alignment.testbed.claims import Claim
from alignment.testbed.outcomes import Contrast, Reading, Steering

ARMS: tuple[Arm, ...] = ("independent", "preference_conditioned", "prs")
PAIRS: tuple[Pairs, ...] = ("best_worst", "rso", "sera")
UPDATES: tuple[Update, ...] = ("dpo", "rad", "sft")
GOALS = (1, 4, 7, 10)
NULL_BOUND = 0.2
"""Of gold, from 0 to 10."""


def grid_cell(arm: Arm, pairs: Pairs, update: Update) -> Cell:
    return Cell(arm, pairs, update, rounds=2 if pairs == "sera" else 1)


def _of_arm(arm: Arm) -> tuple[Cell, ...]:
    return tuple(grid_cell(arm, pairs, update) for pairs in PAIRS for update in UPDATES)


def _of_pairs(pairs: Pairs, rounds: int) -> tuple[Cell, ...]:
    return tuple(Cell(arm, pairs, update, rounds) for arm in ARMS for update in UPDATES)


def _of_update(update: Update) -> tuple[Cell, ...]:
    return tuple(grid_cell(arm, pairs, update) for arm in ARMS for pairs in PAIRS)


def _sampled(name: str, ours: Arm, theirs: Arm, paper: str) -> Contrast:
    """Gold of the completion that the reward selects of all that was generated for a prompt."""
    claim = Claim.positive(name, f"gold of the selected({ours}) - gold of the selected({theirs}) > 0", paper)
    return Contrast(claim, (Cell(ours),), (Cell(theirs),), "best")


def _trained(name: str, inequality: str, paper: str, ours: tuple[Cell, ...], theirs: tuple[Cell, ...]) -> Contrast:
    return Contrast(Claim.positive(name, inequality, paper), ours, theirs, "trained")


def _null(name: str, what: str, repeated: Cell, of: Cell, *, trained: bool) -> Contrast:
    inequality = f"|{what}(seed 1) - {what}(seed 0)| < {NULL_BOUND:g}, preference_conditioned"
    claim = Claim.within(NULL_BOUND, name, inequality, "none: null control")
    return Contrast(claim, (repeated,), (of,), "trained" if trained else "best")


CONTROL = "none: control, what is refined says nothing about the answer"
CONDITIONED = Cell("preference_conditioned")

READINGS: tuple[Reading, ...] = (
    _sampled(
        "prs sandbox over preference-conditioned",
        "prs",
        "preference_conditioned",
        "paper: +0.5 to +0.6 of reward at 16 completions",
    ),
    _sampled("prs sandbox against empty draft", "prs", "empty_draft", CONTROL),
    _sampled("prs sandbox against foreign draft", "prs", "foreign_draft", CONTROL),
    _sampled(
        "prs sandbox against foreign feedback",
        "prs",
        "foreign_feedback",
        "none: control, feedback is another prompt's",
    ),
    _sampled(
        "prs sandbox against no feedback",
        "prs",
        "no_feedback",
        "paper: +0.2 of reward at 32 completions",
    ),
    _sampled(
        "prs sandbox preference",
        "preference_conditioned",
        "independent",
        "paper: +0.6 to +0.9 of reward",
    ),
    _null("prs sandbox null", "gold of the selected", CONDITIONED._replace(seed=1), CONDITIONED, trained=False),
    _trained(
        "prs sandbox training over preference-conditioned",
        "gold(trained on prs) - gold(trained on preference_conditioned) > 0, mean over pairs and updates",
        "paper: wins 50.5% to 59% against it after three rounds",
        _of_arm("prs"),
        _of_arm("preference_conditioned"),
    ),
    _trained(
        "prs sandbox training preference",
        "gold(trained on preference_conditioned) - gold(trained on independent) > 0, mean over pairs and updates",
        "paper: wins 44% to 67.5% against it after three rounds",
        _of_arm("preference_conditioned"),
        _of_arm("independent"),
    ),
    _trained(
        "prs sandbox training against empty draft",
        "gold(trained on prs) - gold(trained on empty_draft) > 0, best_worst and dpo",
        CONTROL,
        (Cell("prs"),),
        (Cell("empty_draft"),),
    ),
    _null("prs sandbox training null", "gold(trained)", CONDITIONED._replace(seed=1), CONDITIONED, trained=True),
    _trained(
        "rso sandbox over best_worst",
        "gold(rso) - gold(best_worst) > 0, mean over samplers and updates",
        "paper: none against best and worst; testbed of arrays +0.109",
        _of_pairs("rso", 1),
        _of_pairs("best_worst", 1),
    ),
    _trained(
        "sera sandbox over best_worst",
        "gold(sera) - gold(best_worst) > 0 after two rounds, mean over samplers and updates",
        "paper: 20 to 40% better than three baselines, on other measures",
        _of_pairs("sera", 2),
        _of_pairs("best_worst", 2),
    ),
    _trained(
        "rad sandbox over dpo",
        "gold(rad at goal 10) - gold(dpo) > 0, mean over samplers and pairs; rad has two rows for each pair",
        "paper: +7.2 points of AlpacaEval 2 LC on average",
        _of_update("rad"),
        _of_update("dpo"),
    ),
    Steering(
        Claim.positive(
            "rad sandbox steerability",
            f"rank correlation of goal and gold > 0 over goals {', '.join(map(str, GOALS))}, within a prompt",
            "paper: none; testbed of arrays 1",
        ),
        tuple(Cell("preference_conditioned", update="rad", goal=goal) for goal in GOALS),
    ),
)
"""Every claim that is measured in the sandbox. Claims of one method stand together."""


def matching_readings(wanted: str | None) -> list[Reading]:
    """The claims whose name contains ``wanted``; all where it is None."""
    return [reading for reading in READINGS if wanted is None or wanted in reading.claim.name]
