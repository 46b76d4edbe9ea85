"""Existing preferences, read: pairs, and single labels that become pairs where a prompt has both kinds."""

from collections.abc import Mapping, Sequence

from alignment.types import Dropped, Prompt, Record


class PairRow(Record):
    """Two completions of a prompt, the first one preferred."""

    prompt: Prompt
    chosen: str
    rejected: str
    score_chosen: float | None = None
    """Of the two completions, by whoever labelled them; None where none was given."""
    score_rejected: float | None = None


class LabelledRow(Record):
    """One completion of a prompt, wanted or not."""

    prompt: Prompt
    completion: str
    label: bool


def pair_labels(rows: Mapping[str, LabelledRow]) -> tuple[list[PairRow], list[Dropped]]:
    """Pairs from single labels: where one prompt has both, each wanted completion with each unwanted one.

    ``rows`` are named by where they stand. A row whose prompt has labels of one kind only, or whose completion is
    labelled both ways, is dropped with that reason. Of equal rows one counts.
    """
    groups: dict[str, dict[str, LabelledRow]] = {}
    for where, row in rows.items():
        groups.setdefault(row.prompt.id, {})[where] = row
    pairs: list[PairRow] = []
    dropped: list[Dropped] = []
    for group in groups.values():
        texts = {label: {r.completion.strip() for r in group.values() if r.label == label} for label in (True, False)}
        both_ways = texts[True] & texts[False]
        for where, row in group.items():
            if row.completion.strip() in both_ways:
                reason = "its completion is labelled both true and false"
            elif not texts[not row.label] - both_ways:
                reason = f"its prompt has no other completion labelled {str(not row.label).lower()}"
            else:
                continue
            dropped.append(Dropped(step="pairs", item=where, reason=reason))
        pairs += _product([row for row in group.values() if row.completion.strip() not in both_ways])
    return pairs, dropped


def _product(rows: Sequence[LabelledRow]) -> list[PairRow]:
    wanted, unwanted = (list(dict.fromkeys(r.completion for r in rows if r.label == label)) for label in (True, False))
    return [
        PairRow(prompt=rows[0].prompt, chosen=chosen, rejected=rejected) for chosen in wanted for rejected in unwanted
    ]
