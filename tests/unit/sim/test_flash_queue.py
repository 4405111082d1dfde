from __future__ import annotations

import random

import pytest

from ess_can.sim.flash import Flash, FlashError, FlashTiming, SectorDefect
from ess_can.sim.flash_queue import EraseStep, FlashQueue, ProgramStep, Step
from ess_can.sim.power_cut import CutMode
from tests.unit.sim.memory_rig import GEOMETRY

START = GEOMETRY.slot_offset
SECTOR = GEOMETRY.sector_size
ALL = GEOMETRY.sectors_per_bank
TIMING = FlashTiming(sector_erase_s=2.0, unit_program_s=0.25)
FIRST = ProgramStep(START, bytes(32), 32, 2)
SECOND = ProgramStep(START + 32, bytes(16), 48, 2)
THIRD = ProgramStep(START + SECTOR, bytes(16), 80, 3)
LAST = ProgramStep(START + 48, bytes(16), 64, ALL)


def new() -> tuple[Flash, FlashQueue, list[Step]]:
    flash = Flash(random.Random(1), geometry=GEOMETRY, timing=TIMING)
    done: list[Step] = []
    return flash, FlashQueue(flash, 1, done.append), done


def dirty() -> tuple[Flash, FlashQueue, list[Step]]:
    """The same, no sector of the slot being blank."""
    flash, queue, done = new()
    for sector in range(1, ALL):
        flash.factory_program(1, sector * SECTOR, bytes(16))
    return flash, queue, done


def test_steps_follow_each_other_without_a_gap() -> None:
    _, queue, done = new()
    assert (queue.free_at(9.0), queue.done_at(9.0)) == (9.0, 9.0)
    queue.erase([1], 10.0)
    queue.program([FIRST, SECOND], 10.0)
    assert (queue.free_at(10.0), queue.done_at(10.0)) == (12.0, 12.75)
    queue.advance(12.4)
    assert done == [EraseStep(1)]
    assert queue.done_at(12.4) == 12.75
    queue.advance(12.75)
    assert done == [EraseStep(1), FIRST, SECOND]
    assert queue.idle


def test_sectors_are_erased_ahead_while_there_is_no_data() -> None:
    _, queue, done = dirty()
    queue.erase([1, 2, 3], 10.0)
    queue.advance(99.0)
    assert done == [EraseStep(1), EraseStep(2), EraseStep(3)]
    queue.program([FIRST, THIRD], 99.0)
    assert queue.done_at(99.0) == 99.75


def test_data_for_an_erased_sector_goes_before_the_next_erase() -> None:
    _, queue, done = dirty()
    queue.erase([1, 2, 3], 10.0)
    queue.program([FIRST], 11.0)
    queue.advance(12.5)
    assert done == [EraseStep(1), FIRST]
    queue.program([SECOND], 12.6)  # the erase that began meanwhile cannot be stopped
    queue.advance(14.75)
    assert done == [EraseStep(1), FIRST, EraseStep(2), SECOND]
    assert queue.done_at(14.75) == 16.75


def test_data_waits_for_its_own_sector_only() -> None:
    _, queue, done = dirty()
    queue.erase([1, 2, 3], 10.0)
    queue.program([FIRST, THIRD], 10.0)
    queue.advance(15.0)
    assert done == [EraseStep(1), FIRST, EraseStep(2), THIRD]


def test_the_step_that_completes_the_image_waits_until_the_slot_is_clean() -> None:
    _, queue, done = dirty()
    queue.erase([1, 2, 3], 10.0)
    queue.program([FIRST, SECOND, LAST], 10.0)
    assert queue.done_at(10.0) == 17.0
    queue.advance(17.0)
    assert done == [EraseStep(1), FIRST, SECOND, EraseStep(2), EraseStep(3), LAST]


def test_what_is_held_in_ram_leaves_it_step_by_step() -> None:
    _, queue, _ = dirty()
    queue.erase([1, 2], 10.0)
    queue.program([FIRST, SECOND, THIRD], 10.0)
    assert queue.held_bytes == 64
    assert queue.held_at_most(64, 10.0) == 10.0
    assert queue.held_at_most(63, 10.0) == 12.5
    assert queue.held_at_most(32, 10.0) == 12.5
    assert queue.held_at_most(31, 10.0) == 12.75
    assert queue.held_at_most(15, 10.0) == 15.0
    assert queue.held_at_most(-1, 10.0) == 15.0
    for at, held in ((12.4, 64), (12.5, 32), (12.75, 16), (14.9, 16), (15.0, 0)):
        queue.advance(at)
        assert queue.held_bytes == held, at


@pytest.mark.parametrize("seed", range(40))
def test_what_is_forecast_is_what_happens(seed: int) -> None:
    """Whatever was given when: if nothing is added, room and end come at the very instant."""
    rng = random.Random(seed)
    _, queue, _ = dirty()
    now, offset = 10.0, START
    queue.erase(range(1, ALL), now)
    while offset < GEOMETRY.bank_size and rng.random() < 0.9:
        steps = []
        for _ in range(rng.randrange(1, 5)):
            size = min(16 * rng.randrange(1, 4), SECTOR - offset % SECTOR)
            if offset < GEOMETRY.bank_size:
                offset += size
                completes = offset == GEOMETRY.bank_size
                needs = ALL if completes else (offset - 1) // SECTOR + 1
                steps.append(ProgramStep(offset - size, bytes(size), 0, needs))
        queue.program(steps, now)
        now += rng.choice((0.0, 0.1, 0.7, 2.3))
        queue.advance(now)
    end = queue.done_at(now)
    while queue.held_bytes:
        held = queue.held_bytes
        at = queue.held_at_most(held - 1, now)
        queue.advance(at - 1e-9)
        assert queue.held_bytes == held
        now = at
        queue.advance(now)
        assert queue.held_bytes < held
    assert (queue.done_at(now), queue.failure) == (end, None)
    if end > now:
        queue.advance(end - 1e-9)
        assert not queue.idle
    queue.advance(end)
    assert queue.idle


def test_late_attention_does_not_make_the_hardware_late() -> None:
    _, queue, done = new()
    queue.program([FIRST, SECOND], 10.0)
    queue.advance(99.0)
    assert done == [FIRST, SECOND]
    queue.erase([2], 99.0)
    assert queue.free_at(99.0) == 101.0


def test_dropping_leaves_the_step_under_way() -> None:
    _, queue, done = dirty()
    queue.erase([1, 2], 10.0)
    queue.program([FIRST, SECOND], 10.0)
    queue.advance(12.0)
    queue.drop_waiting()
    assert (queue.done_at(12.0), queue.held_bytes) == (12.5, 32)
    queue.advance(20.0)
    assert done == [EraseStep(1), FIRST]
    assert (queue.idle, queue.held_bytes) == (True, 0)


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
    if isinstance(step, EraseStep):
        queue.erase([step.sector, 2], 10.0)
    queue.program([FIRST, SECOND], 10.0)
    queue.advance(99.0)
    assert (queue.failure, done, queue.idle, queue.held_bytes) == (error, [], True, 0)
    queue.clear_failure()
    assert queue.failure is None


def test_a_step_that_the_flash_refuses_is_an_error() -> None:
    flash, queue, done = new()
    flash.running_bank = 1
    queue.program([FIRST, SECOND], 10.0)
    assert (queue.failure, done, queue.idle) == (FlashError.RUNNING_BANK, [], True)
    queue.clear_failure()
    queue.erase([1, 2], 10.0)
    assert (queue.failure, done, queue.idle) == (FlashError.RUNNING_BANK, [], True)


def test_what_cannot_be_read_back_is_an_error() -> None:
    flash, queue, done = new()
    flash.power.arm(1, CutMode.AFTER)  # both units are programmed, and power is gone
    queue.program([FIRST], 10.0)
    queue.advance(10.5)
    assert (queue.failure, done) == (FlashError.NO_POWER, [])


def test_the_next_step_may_be_refused_as_well() -> None:
    flash, queue, done = new()
    flash.inject_ecc_error(1, START + 40)
    queue.program([FIRST, SECOND], 10.0)
    queue.advance(99.0)
    assert (queue.failure, done, queue.idle) == (FlashError.NOT_ERASED, [FIRST], True)


def test_each_step_asks_whether_it_may_begin_and_a_refusal_drops_what_waits() -> None:
    """It is looked at late: what would have begun meanwhile is judged by what is known now."""
    asked: list[float] = []
    stopped: list[bool] = []
    flash = Flash(random.Random(1), geometry=GEOMETRY, timing=TIMING)

    def may_begin(now: float) -> bool:
        asked.append(now)
        return now < 2.0

    queue = FlashQueue(flash, 1, lambda _step: None, may_begin=may_begin, on_stopped=lambda: stopped.append(True))
    queue.erase((1, 2, 3), 1.0)
    queue.advance(5.0)
    assert asked == [1.0, 5.0]
    assert stopped == [True]
    assert queue.idle
    assert flash.counters.sectors_erased == 1
