import numpy as np
import pytest
from made_groups import couples, group, select

from alignment.selection import RSO
from alignment.selection.pairing import first_round, tournament

REWARDS = np.array([0.3, 1.2, -0.4, 0.9, 0.1, 2.0, -1.0, 0.7])


def test_a_tournament_of_eight_has_seven_games_and_the_best_plays_three():
    """4 + 2 + 1 games; the best wins its three, so it stands in exactly three couples, and the worst in one."""
    for seed in range(40):
        games = tournament(range(8), REWARDS, np.random.default_rng(seed))
        played = np.bincount(np.array(games).ravel(), minlength=8)
        assert len(games) == 7
        assert (played[5], played[6]) == (3, 1)
        assert len({frozenset(game) for game in games}) == 7


def test_a_loser_plays_no_more():
    """Whoever lost a game is in none of the later ones."""
    for seed in range(40):
        out = set()
        for i, j in tournament(range(8), REWARDS, np.random.default_rng(seed)):
            assert not {i, j} & out
            out.add(i if REWARDS[i] < REWARDS[j] else j)
        assert out == set(range(8)) - {5}


@pytest.mark.parametrize("count", [2, 3, 5, 7, 8, 13])
def test_any_number_gives_one_game_less_than_players(count):
    rewards = np.random.default_rng(count).normal(size=count)
    assert len(tournament(range(count), rewards, np.random.default_rng(0))) == count - 1
    assert len(first_round(range(count), np.random.default_rng(0))) == count // 2


def test_nobody_or_one_alone_gives_no_couple():
    rng = np.random.default_rng(0)
    assert first_round([], rng) == first_round([3], rng) == tournament([3], REWARDS, rng) == []


def test_equals_go_on_by_the_draw():
    """Four equals: over 400 seeds each reaches the final in about half (within 4 sd, 40)."""
    finals = [tournament(range(4), np.zeros(4), np.random.default_rng(s))[-1] for s in range(400)]
    reached = np.bincount(np.array(finals).ravel(), minlength=4)
    assert np.all(np.abs(reached - 200) < 40)


def test_the_first_round_does_not_pair_neighbours_in_reward():
    """Sorted by reward and paired with the next, eight would always give the four smallest gaps. At random, the
    chance that all four couples are neighbours is 1/105: at most 8 of 200 seeds (mean 1.9, 4 sd 5.5)."""
    rank = np.argsort(np.argsort(REWARDS))
    neighbours = sum(
        all(abs(rank[i] - rank[j]) == 1 and min(rank[i], rank[j]) % 2 == 0 for i, j in drawn)
        for drawn in (first_round(range(8), np.random.default_rng(s)) for s in range(200))
    )
    assert neighbours <= 8


def test_rso_pairs_what_it_accepts_in_a_tournament_when_asked():
    """beta = 0 accepts the top 4 of 6; three games, and candidate 0, the best, wins the final."""
    g = group([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    selection = select(RSO(beta=0, num_accepted=4, pairing="tournament"), g)
    assert len(selection.pairs) == 3
    assert {i for c in couples(selection) for i in c} == {0, 1, 2, 3}
    assert couples(selection)[-1][0] == 0
