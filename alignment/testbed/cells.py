"""Cells of the sandbox's claims: each is one ordinary run, which differs from the others in what is compared."""

from typing import Any, Literal, NamedTuple, assert_never

from alignment.config import RunConfig
from alignment.losses import DPO, SFT
from alignment.sampling import Independent, PreferenceConditioned, ReflectionControl, Reflective, Sampler
from alignment.selection import RSO, BestWorst, Selector, SeRA

Arm = Literal[
    "prs",
    "preference_conditioned",
    "independent",
    "empty_draft",
    "foreign_draft",
    "foreign_feedback",
    "no_feedback",
]
"""How completions are drawn: PRS, its two baselines, and PRS with one thing replaced. ``independent`` does not show the
policy a stated preference, or it would be ``preference_conditioned`` draw by draw."""
Pairs = Literal["best_worst", "rso", "sera"]
Update = Literal["dpo", "rad", "sft"]
"""DPO, DPO on pairs relabelled by RAD, and supervised training on the chosen completions."""

PLAIN: tuple[Arm, ...] = ("preference_conditioned", "independent")
"""Arms without feedback and refinements: their number of completions is what PRS's tokens buy."""


class Cell(NamedTuple):
    """What of a run is compared; everything else is the base configuration's."""

    arm: Arm
    pairs: Pairs = "best_worst"
    update: Update = "dpo"
    rounds: int = 1
    goal: int = 10
    """Which goal a policy trained by RAD is evaluated at. The training is the same for all, and found."""
    seed: int = 0

    @property
    def run(self) -> str:
        """The name of its run: ``claims-prs-rso-dpo-s0``."""
        rounds = f"-{self.rounds}-rounds" if self.rounds > 1 else ""
        goal = f"-goal{self.goal}" if self.goal != Cell._field_defaults["goal"] else ""
        return f"claims-{self.arm}-{self.pairs}-{self.update}{rounds}{goal}-s{self.seed}"


ANCHOR = Cell("prs")
"""The run whose tokens the plain arms are given."""


def completions_for(tokens: float, draft_tokens: float) -> int:
    """How many plain completions of ``draft_tokens`` tokens the ``tokens`` generated for a prompt buy.

    The nearest whole number: with N of them the arms differ by a share of 1 / 2N at most, and by what lengths differ.
    """
    return max(2, round(tokens / draft_tokens))


def configured(base: RunConfig, cell: Cell, plain_n: int | None) -> RunConfig:
    """The cell's run. ``base`` is PRS, RSO and RAD together with DPO, and lends every cell what it has of these.

    ``plain_n`` is the number of completions of a plain arm; the other cells need none. ValueError for another base, and
    for a plain arm without ``plain_n``.
    """
    prs, rso, rad = base.sampler, base.select, base.relabel
    if not (isinstance(prs, Reflective) and isinstance(rso, RSO) and rad and isinstance(base.train.loss, DPO)):
        raise ValueError("claims are measured around a configuration of PRS, RSO, RAD and DPO")
    changed: dict[str, Any] = {
        "run": cell.run,
        "rounds": cell.rounds,
        "seed": cell.seed,
        "sampler": _sampler(cell.arm, prs, plain_n),
        "select": _selector(cell.pairs, rso),
        "relabel": rad.model_copy(update={"serve": float(cell.goal)}) if cell.update == "rad" else None,
        "train": base.train.model_copy(update={"loss": SFT()}) if cell.update == "sft" else base.train,
    }
    return RunConfig.model_validate({**dict(base), **changed})


def _sampler(arm: Arm, prs: Reflective, plain_n: int | None) -> Sampler:
    match arm:
        case "prs":
            return prs
        case "preference_conditioned":
            return PreferenceConditioned(n=_known(plain_n), decoding=prs.decoding)
        case "independent":
            return Independent(n=_known(plain_n), decoding=prs.decoding, withhold_preference=True)
        case "no_feedback":
            return prs.model_copy(update={"refine": prs.refine.model_copy(update={"feedbacks": 0})})
        case "empty_draft" | "foreign_draft" | "foreign_feedback":
            return ReflectionControl(replace=arm, n=prs.n, decoding=prs.decoding, refine=prs.refine)
        case _:
            assert_never(arm)


def _known(plain_n: int | None) -> int:
    if plain_n is None:
        raise ValueError(f"how many completions PRS's tokens buy is known once {ANCHOR.run} has sampled")
    return plain_n


def _selector(pairs: Pairs, rso: RSO) -> Selector:
    match pairs:
        case "best_worst":
            return BestWorst()
        case "rso":
            return rso
        case "sera":
            return SeRA()
        case _:
            assert_never(pairs)
