"""What a run achieved, in plain words: the first thing a person reads, and no kinder than the numbers."""

from alignment.summary import Change, Interval, RunSummary, change_of, gold_labelled, over_optimised, refitted_rounds
from tasks.numbers import bounds, digits_for, number, round_name


def headline(summary: RunSummary) -> str:
    """One sentence: did the last promoted policy get better, by the best measure there is?"""
    if not summary.rounds:
        return "No round has finished yet."
    if not summary.promoted:
        return "No round was promoted: the policy is still the one the run began with."
    if change := change_of(summary, "gold_mean"):
        return _sentence("Gold reward", change)
    if change := change_of(summary, "reward_mean"):
        return _sentence("Reward", change)
    last = round_name(summary.promoted[-1].round).capitalize()
    if refitted_rounds(summary):
        return f"{last} was promoted; its reward is on another scale than the reward before the run."
    return f"{last} was promoted; no reward was measured before and after."


def _sentence(name: str, change: Change) -> str:
    before, after = (_told(interval) for interval in (change.before, change.after))
    match change.direction:
        case "rose":
            return f"{name} rose from {before} to {after}. The 95% intervals do not overlap."
        case "fell":
            return f"{name} fell from {before} to {after}. The 95% intervals do not overlap."
        case "overlaps" if gain := change.sure_gain:
            verb, size = ("rose", gain) if gain.mean > 0 else ("fell", gain.negated)
            told = f"The 95% intervals overlap, but prompt by prompt it {verb} by {_told(size)}."
            return f"{name} went from {before} to {after}. {told}"
        case "overlaps":
            told = "The 95% intervals overlap: this run alone shows no difference."
            return f"{name} went from {before} to {after}. {told}"
        case "no_interval":
            return f"{name} went from {before} to {after}, measured without intervals."


def _told(interval: Interval) -> str:
    digits = digits_for(interval)
    return f"{number(interval.mean, digits)} {bounds(interval, digits)}".rstrip()


def remarks(summary: RunSummary) -> tuple[str, ...]:
    """What a careful reader should know beside the headline."""
    said: list[str] = []
    if summary.rounds:
        said.append(_progress(summary))
    if summary.promoted and change_of(summary, "gold_mean") is None and change_of(summary, "reward_mean"):
        said.append("There is no gold reward: a reward that is trained on can rise without better answers.")
    if refits := refitted_rounds(summary):
        names = ", ".join(round_name(k) for k in refits)
        said.append(f"The reward model was refitted before {names}: rewards on either side do not compare.")
    if gold_labelled(summary):
        said.append("Gold reward ordered the training pairs, so it is no measure that training could not see.")
    if hacked := over_optimised(summary):
        names = ", ".join(round_name(k) for k in hacked)
        said.append(f"Over-optimisation in {names}: the reward rose while gold reward fell.")
    return tuple(said)


def _progress(summary: RunSummary) -> str:
    done, kept, asked = len(summary.rounds), len(summary.promoted), summary.rounds_asked
    of = f" of {asked}" if asked is not None and asked != done else ""
    plural = "round" if done == 1 and not of else "rounds"
    verdicts = f"{kept} promoted" if kept == done else f"{kept} promoted, {done - kept} rejected"
    return f"{done}{of} {plural} finished: {verdicts}."
