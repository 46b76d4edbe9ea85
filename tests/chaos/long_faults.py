"""A run of two rounds that meets another fault than death at every one of its side effects, one at a time: it ends
well, or says why in one line and ends well when it is started again."""

from pathlib import Path

import pytest
from chaos_runs import PARTS, Whole, assert_well_ended, drive_once, part_of
from faults import Fault

from alignment.errors import UserError


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("fault", ["fail", "full", "lose", "deny"])
def test_hurt_at_any_side_effect_it_ends_well_or_says_why_in_one_line(
    whole: Whole, given: Path, tmp_path: Path, fault: Fault, part: int
):
    """A refused write, a full disk, a lost answer, and a conditional write that wins and is told that it lost."""
    for number in part_of(whole, part):
        folder = tmp_path / str(number)
        hurt = drive_once(given, folder, {number: fault})
        at = hurt.effects.seen[number - 1]
        if hurt.error is not None:
            assert_is_one_line(hurt.error, fault, folder, at)
            hurt = drive_once(given, folder)
        assert_well_ended(hurt, folder, whole, at)


def assert_is_one_line(error: UserError, fault: Fault, folder: Path, at: str) -> None:
    told = str(error)
    assert "\n" not in told
    assert str(folder / "runs") in told
    assert fault != "deny", f"{at}: {told}"
    assert fault != "full" or "no space left" in told, f"{at}: {told}"
