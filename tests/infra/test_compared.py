"""Labelled pairs put together to be read: each row once, within a budget, with the loss of plain pairs."""

import itertools
import math

import pytest

from infra.compared import PairOfRows, bradley_terry, compared, joined

A, B, C = (1, 1), (2, 2, 2), (3,)


def test_a_row_stands_once_in_however_many_pairs():
    [part] = compared([PairOfRows(A, B), PairOfRows(B, C), PairOfRows(A, C, 0.5)], budget=100)
    assert part == ([A, B, C], [0, 1, 0], [1, 2, 2], [1.0, 1.0, 0.5])
    assert part.tokens == 3 * 3


def test_a_prompt_with_more_rows_than_the_budget_holds_is_cut_and_no_pair_is_lost():
    """Twelve rows of two tokens in 66 pairs; a budget of ten holds five rows, so ten pairs at the most."""
    rows = [(i, i) for i in range(12)]
    pairs = [PairOfRows(a, b) for a, b in itertools.combinations(rows, 2)]
    parts = list(compared(pairs, budget=10))
    assert all(part.tokens <= 10 for part in parts)
    read = [(part.rows[i], part.rows[j]) for part in parts for i, j in zip(part.chosen, part.rejected, strict=True)]
    assert read == [(pair.chosen, pair.rejected) for pair in pairs]


def test_a_pair_beyond_the_budget_is_a_part_of_its_own():
    parts = list(compared([PairOfRows(A, C), PairOfRows((9,) * 50, C), PairOfRows(A, C)], budget=8))
    assert [part.tokens for part in parts] == [4, 100, 4]


def test_joined_parts_point_at_their_own_rows():
    whole = joined([*compared([PairOfRows(A, B)], 100), *compared([PairOfRows(C, A)], 100)])
    assert whole == ([A, B, C, A], [0, 2], [1, 3], [1.0, 1.0])


def test_the_loss_is_bradley_and_terrys_with_soft_labels():
    """Margins 0 and 2: log 2, and with p = 1/4 a quarter of -log sigmoid(2) and three of -log sigmoid(-2)."""
    import torch

    sure, doubted = math.log(2), math.log1p(math.exp(-2)) / 4 + 3 * math.log1p(math.exp(2)) / 4
    loss = bradley_terry(torch.tensor([0.0, 2.0]), [1.0, 0.25])
    assert loss.item() == pytest.approx((sure + doubted) / 2, abs=1e-6)
