from __future__ import annotations

import pytest

from ess_can.sim.power_cut import Admission, CutMode, PowerCut


def test_unarmed_power_admits_and_counts_everything() -> None:
    power = PowerCut()
    assert power.admit(3) == Admission(3)
    assert power.admit(2) == Admission(2)
    assert power.operations == 5


@pytest.mark.parametrize(
    ("mode", "admission", "operations"),
    [
        (CutMode.BEFORE, Admission(2), 12),
        (CutMode.PREFIX, Admission(2, CutMode.PREFIX), 13),
        (CutMode.BITS, Admission(2, CutMode.BITS), 13),
        (CutMode.UNSTABLE, Admission(2, CutMode.UNSTABLE), 13),
        (CutMode.AFTER, Admission(3), 13),
    ],
)
def test_cut_at_the_third_operation_from_now(mode: CutMode, admission: Admission, operations: int) -> None:
    power = PowerCut()
    power.admit(10)
    power.arm(2, mode)
    assert power.admit(5) == admission
    assert not power.powered
    assert power.operations == operations
    assert power.admit(5) == Admission(0)


def test_cut_behind_the_operations_asked_for_does_not_happen_yet() -> None:
    power = PowerCut()
    power.arm(5, CutMode.BITS)
    assert power.admit(5) == Admission(5)
    assert power.powered
    assert power.admit(1) == Admission(0, CutMode.BITS)


def test_restore_gives_power_and_disarms() -> None:
    power = PowerCut()
    power.arm(0, CutMode.BEFORE)
    power.admit(1)
    power.restore()
    assert power.admit(4) == Admission(4)


def test_a_cut_in_the_past_is_an_error() -> None:
    with pytest.raises(ValueError, match="past"):
        PowerCut().arm(-1, CutMode.BEFORE)


def test_who_depends_on_power_is_told_in_the_operation_at_which_it_is_lost() -> None:
    power = PowerCut()
    told: list[bool] = []
    power.on_cut.append(lambda: told.append(power.powered))
    power.arm(3, CutMode.AFTER)
    power.admit(3)
    assert not told
    power.admit(3)
    assert told == [False]
    power.admit(3)
    assert told == [False]


def test_a_cut_that_is_disarmed_does_not_come() -> None:
    power = PowerCut()
    power.arm(0, CutMode.BEFORE)
    power.disarm()
    assert power.admit(5) == Admission(5)
