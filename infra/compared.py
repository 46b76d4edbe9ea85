"""Labelled pairs as a reward model reads them: each row once, in however many pairs of a prompt it stands."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Ids = tuple[int, ...]


class PairOfRows(NamedTuple):
    """Token ids of the two sides of a labelled pair."""

    chosen: Ids
    rejected: Ids
    p: float = 1.0
    """Probability that chosen is better."""


class Compared(NamedTuple):
    """Rows that go through a model together, and the pairs among them."""

    rows: list[Ids]
    chosen: list[int]
    """Per pair, the row of the preferred side."""
    rejected: list[int]
    p: list[float]

    @property
    def tokens(self) -> int:
        """Positions it takes, padding included."""
        return _positions(self.rows)


def compared(pairs: Iterable[PairOfRows], budget: int) -> Iterator[Compared]:
    """The pairs of one prompt in as few parts as hold ``budget`` positions each; a pair that is larger is one itself.

    In one part a row stands once: n completions in n (n - 1) / 2 pairs cost n passes (Ouyang et al. 2022,
    arXiv:2203.02155, section 3.5).
    """
    part: list[PairOfRows] = []
    rows: dict[Ids, None] = {}
    for pair in pairs:
        grown = rows | dict.fromkeys((pair.chosen, pair.rejected))
        if part and _positions(grown) > budget:
            yield _part(part)
            part, grown = [], dict.fromkeys((pair.chosen, pair.rejected))
        part.append(pair)
        rows = grown
    if part:
        yield _part(part)


def joined(parts: Iterable[Compared]) -> Compared:
    """All rows, and the pairs' places among them."""
    whole = Compared([], [], [], [])
    for part in parts:
        whole.chosen.extend(len(whole.rows) + i for i in part.chosen)
        whole.rejected.extend(len(whole.rows) + i for i in part.rejected)
        whole.p.extend(part.p)
        whole.rows.extend(part.rows)
    return whole


def bradley_terry(margins_B: "Tensor", p: Sequence[float]) -> "Tensor":
    """-p log sigmoid(margin) - (1 - p) log sigmoid(-margin), averaged; margin is r(chosen) - r(rejected)."""
    from torch.nn import functional as F

    p_B = margins_B.new_tensor(p)
    return -(p_B * F.logsigmoid(margins_B) + (1 - p_B) * F.logsigmoid(-margins_B)).mean()


def _part(pairs: Sequence[PairOfRows]) -> Compared:
    place = {row: i for i, row in enumerate(dict.fromkeys(row for pair in pairs for row in pair[:2]))}
    chosen, rejected = [place[pair.chosen] for pair in pairs], [place[pair.rejected] for pair in pairs]
    return Compared(list(place), chosen, rejected, [pair.p for pair in pairs])


def _positions(rows: Iterable[Ids]) -> int:
    lengths = [len(row) for row in rows]
    return len(lengths) * max(lengths)
