from __future__ import annotations

import random

import pytest

from ess_can.sim.flash import Flash, FlashError, FlashTiming, SectorDefect
from ess_can.sim.flash_queue import EraseStep, FlashQueue, ProgramStep, Step
from ess_can.sim.power_cut import CutMode
from tests.unit.sim.memory_rig import GEOMETRY

START = GEOMETRY.slot_offset
TIMING = FlashTiming(sector_erase_s=2.0, unit_program_s=0.25)
FIRST = ProgramStep(START, bytes(32), 32)
SECOND = ProgramStep(START + 32, bytes(16), 48)


def new() -> tuple[Flash, FlashQueue, list[Step]]:
    flash = Flash(random.Random(1), geometry=GEOMETRY, timing=TIMING)
    done: list[Step] = []
    return flash, FlashQueue(flash, 1, done.append), done


def test_steps_follow_each_other_without_a_gap() -> None:
    _, queue, done = new()
    assert queue.free_at(9.0) == 9.0
    queue.add([EraseStep(1), FIRST, SECOND], 10.0)
    assert queue.free_at(10.0) == 12.75
    queue.advance(12.4)
    assert done == [EraseStep(1)]
    assert queue.free_at(12.4) == 12.75
    queue.advance(12.75)
    assert done == [EraseStep(1), FIRST, SECOND]
    assert queue.idle


def test_late_attention_does_not_make_the_hardware_late() -> None:
    _, queue, done = new()
    queue.add([FIRST, SECOND], 10.0)
    queue.advance(99.0)
    assert done == [FIRST, SECOND]
    queue.add([EraseStep(2)], 99.0)
    assert queue.free_at(99.0) == 101.0


def test_dropping_leaves_the_step_under_way() -> None:
    _, queue, done = new()
    queue.add([FIRST, SECOND], 10.0)
    queue.drop_waiting()
    assert queue.free_at(10.0) == 10.5
    queue.advance(20.0)
    assert done == [FIRST]


@pytest.mark.parametrize(
    ("defect", "step", "error"),
    [
        (SectorDefect.REPORTED, EraseStep(1), FlashError.ERASE_FAILED),
        (SectorDefect.REPORTED, FIRST, FlashError.PROGRAM_FAILED),
        (SectorDefect.SILENT, FIRST, FlashError.PROGRAM_FAILED),
    ],
)
def test_the_first_error_drops_the_rest_and_stays(defect: SectorDefect, step: Step, error: FlashError) -> None:
    flash, queue, done = new()
    flash.inject_defect(1, 1, defect)
    queue.add([step, SECOND], 10.0)
    queue.advance(99.0)
    assert (queue.failure, done, queue.idle) == (error, [], True)
    queue.clear_failure()
    assert queue.failure is None


def test_a_step_that_the_flash_refuses_is_an_error() -> None:
    flash, queue, done = new()
    flash.running_bank = 1
    queue.add([FIRST, SECOND], 10.0)
    assert (queue.failure, done, queue.idle) == (FlashError.RUNNING_BANK, [], True)


def test_what_cannot_be_read_back_is_an_error() -> None:
    flash, queue, done = new()
    flash.power.arm(1, CutMode.AFTER)  # both units are programmed, and power is gone
    queue.add([FIRST], 10.0)
    queue.advance(10.5)
    assert (queue.failure, done) == (FlashError.NO_POWER, [])


def test_the_next_step_may_be_refused_as_well() -> None:
    flash, queue, done = new()
    flash.inject_ecc_error(1, START + 40)
    queue.add([FIRST, SECOND], 10.0)
    queue.advance(99.0)
    assert (queue.failure, done, queue.idle) == (FlashError.NOT_ERASED, [FIRST], True)
