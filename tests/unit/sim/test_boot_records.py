from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ess_can.sim.boot_records import (
    AccessDelayRecord,
    BootRecord,
    ImageId,
    LatchRecord,
    NodeRecords,
    RecordLatchStore,
    ResumeRecord,
    TwoSlotRecord,
)
from ess_can.sim.fram import Fram
from ess_can.sim.latches import Latch
from ess_can.sim.power_cut import CutMode, PowerCut

IMAGE = ImageId(1000, bytes(range(32)))
OTHER = ImageId(2000, bytes(32))
BOOT = BootRecord(1, (IMAGE, OTHER), replace(IMAGE, size=77), 3, 0x0102_0304, 9)
SLOT_SIZE = BootRecord.SIZE + 8


def new(power: PowerCut | None = None) -> tuple[Fram, TwoSlotRecord[BootRecord]]:
    fram = Fram(random.Random(1), power)
    return fram, TwoSlotRecord(fram, 0, 1, BootRecord)


@pytest.mark.parametrize(
    "value",
    [
        BOOT,
        BootRecord(),
        BootRecord(0, (None, IMAGE)),
        ResumeRecord(1, IMAGE, True, 1000),
        ResumeRecord(0, IMAGE),
        AccessDelayRecord(3, True),
        AccessDelayRecord(),
        LatchRecord(),
        LatchRecord(frozenset(Latch)),
        LatchRecord(frozenset({Latch.FIRE, Latch.WELD_PLUS})),
    ],
)
def test_payloads_survive_packing(value: BootRecord | ResumeRecord | AccessDelayRecord | LatchRecord) -> None:
    packed = value.pack()
    assert len(packed) == value.SIZE
    assert type(value).unpack(packed) == value


def test_each_latch_has_a_bit_of_its_own() -> None:
    assert len({LatchRecord(frozenset({latch})).pack() for latch in Latch}) == len(Latch)


def test_layout_of_the_boot_record_is_fixed() -> None:
    packed = BOOT.pack()
    assert packed[:10] == bytes.fromhex("01 03 01020304 00000009")
    assert packed[10:14] == (1000).to_bytes(4, "big")
    assert packed[14:46] == IMAGE.sha256


def test_failed_attempts_saturate() -> None:
    assert AccessDelayRecord.unpack(AccessDelayRecord(999).pack()).failed_attempts == 255


def test_senseless_payloads_are_refused() -> None:
    with pytest.raises(ValueError, match="bank 2"):
        BootRecord.unpack(b"\x02" + BOOT.pack()[1:])
    good = ResumeRecord(1, IMAGE, True, 1000)
    for bad in (replace(good, bank=2), replace(good, verified_offset=1001), replace(good, image=ImageId(0, bytes(32)))):
        with pytest.raises(ValueError, match="resume record"):
            ResumeRecord.unpack(bad.pack())


def test_a_latch_bit_without_a_meaning_is_ignored() -> None:
    # Newer firmware's latches are not ours to know, but the known ones stay.
    assert LatchRecord.unpack(b"\xff\xff") == LatchRecord(frozenset(Latch))


def test_nothing_stored_is_none() -> None:
    assert new()[1].load() is None


def test_newest_value_wins_and_slots_take_turns() -> None:
    fram, record = new()
    for counter in range(5):
        before = fram.export()
        record.store(replace(BOOT, boot_counter=counter))
        loaded = record.load()
        assert loaded is not None
        assert loaded.boot_counter == counter
        changed = {at // SLOT_SIZE for at in range(fram.size) if fram.export()[at] != before[at]}
        assert changed == {counter % 2}


def test_an_equal_value_is_not_written_again() -> None:
    power = PowerCut()
    _, record = new(power)
    record.store(BOOT)
    written = power.operations
    record.store(BOOT)
    assert power.operations == written


@pytest.mark.parametrize("mode", CutMode)
def test_a_write_torn_at_any_byte_leaves_old_or_new(mode: CutMode) -> None:
    new_value = replace(BOOT, active_bank=0, trial=None, tries_left=0, security_counter=0xFFFF_FFFF, boot_counter=10)
    for at in range(SLOT_SIZE):
        for generation in range(3):  # over virgin bytes, and over each slot's older value
            power = PowerCut()
            _, record = new(power)
            for counter in range(generation):
                record.store(replace(BOOT, boot_counter=counter))
            record.store(BOOT)
            power.arm(at, mode)
            record.store(new_value)
            assert not power.powered
            power.restore()
            last = at == SLOT_SIZE - 1
            assert record.load() == new_value if mode is CutMode.AFTER and last else record.load() in (BOOT, new_value)
            if not (last and mode is not CutMode.BEFORE):
                assert record.load() == BOOT
            record.store(new_value)  # and the next write succeeds
            assert record.load() == new_value


@pytest.mark.parametrize("mode", CutMode)
def test_the_first_look_at_power_up_counts(mode: CutMode) -> None:
    """What was read then stays, however undecided it was, and being cut off in writing it back loses nothing."""
    new_value = replace(BOOT, boot_counter=10)
    for at in range(2 * SLOT_SIZE):
        for seed in range(4):
            power = PowerCut()
            fram = Fram(random.Random(seed), power)
            record = TwoSlotRecord(fram, 0, 1, BootRecord)
            record.store(BOOT)
            power.arm(SLOT_SIZE - 1, CutMode.UNSTABLE)
            record.store(new_value)
            assert fram.unstable
            power.restore()
            power.arm(at, mode)
            record.recover()
            power.restore()
            found = record.recover()
            assert found in (BOOT, new_value)
            assert fram.unstable == {}
            assert [record.load() for _ in range(9)] == [found] * 9


def test_a_first_record_that_could_not_be_read_stays_unreadable() -> None:
    """There is no other slot to fall back to, and none to copy: what was read counts all the same."""
    found = set()
    for seed in range(20):
        power = PowerCut()
        fram = Fram(random.Random(seed), power)
        record = TwoSlotRecord(fram, 0, 1, BootRecord)
        power.arm(SLOT_SIZE - 1, CutMode.UNSTABLE)
        record.store(BOOT)
        power.restore()
        first = record.recover()
        found.add(first)
        assert [record.load() for _ in range(9)] == [first] * 9
    assert found == {None, BOOT}


def test_what_was_never_written_is_not_written_back() -> None:
    power = PowerCut()
    assert new(power)[1].recover() is None
    assert power.operations == 0


def test_an_undecided_newest_slot_is_not_relied_upon_when_the_other_is_written() -> None:
    """Or both could be lost: the one written is torn, and the other reads differently then."""
    for seed in range(20):
        power = PowerCut()
        record = TwoSlotRecord(Fram(random.Random(seed), power), 0, 1, BootRecord)
        record.store(BOOT)
        power.arm(SLOT_SIZE - 1, CutMode.UNSTABLE)
        record.store(replace(BOOT, boot_counter=10))
        power.restore()
        found = record.recover()
        power.arm(SLOT_SIZE // 2, CutMode.BITS)
        record.store(replace(BOOT, boot_counter=11))
        power.restore()
        assert record.recover() == found


def test_writing_back_what_is_as_it_was_changes_nothing() -> None:
    fram, record = new()
    assert record.recover() is None
    record.store(BOOT)
    record.store(replace(BOOT, boot_counter=10))
    before = fram.export()
    assert record.recover() == replace(BOOT, boot_counter=10)
    assert fram.export() == before


def test_a_damaged_newest_slot_falls_back_to_the_older_one() -> None:
    fram, record = new()
    record.store(replace(BOOT, boot_counter=1))
    record.store(replace(BOOT, boot_counter=2))
    fram.write(SLOT_SIZE + 20, bytes([fram.read(SLOT_SIZE + 20, 1)[0] ^ 1]))
    assert record.load() == replace(BOOT, boot_counter=1)
    fram.write(20, bytes([fram.read(20, 1)[0] ^ 1]))
    assert record.load() is None
    record.store(BOOT)
    assert record.load() == BOOT


def test_a_slot_with_a_senseless_payload_is_invalid() -> None:
    _, record = new()
    record.store(BOOT)
    record.store(replace(BOOT, active_bank=2))
    assert record.load() == BOOT


def test_the_sequence_number_wraps() -> None:
    fram, record = new()
    start = 0xFFFF_FFFE
    for slot, counter in ((0, 0), (1, 1)):
        body = (start + counter).to_bytes(4, "big") + replace(BOOT, boot_counter=counter).pack()
        fram.write(slot * SLOT_SIZE, body + record._crc(body))
    for counter in range(2, 6):
        record.store(replace(BOOT, boot_counter=counter))
        loaded = record.load()
        assert loaded is not None
        assert loaded.boot_counter == counter
    assert fram.read(0, 4) == (2).to_bytes(4, "big")


def test_bytes_of_another_kind_of_record_are_not_taken() -> None:
    fram, record = new()
    record.store(BOOT)
    assert TwoSlotRecord(fram, 0, 2, BootRecord).load() is None


def test_a_nodes_records_do_not_overlap() -> None:
    records = NodeRecords(Fram(random.Random(1)))
    latches = LatchRecord(frozenset({Latch.EMERGENCY_STOP}))
    for _ in range(2):  # both slots
        records.boot.store(BOOT)
        records.resume.store(ResumeRecord(1, IMAGE))
        records.access_delay.store(AccessDelayRecord(2, True))
        records.latches.store(latches)
        records.boot.store(replace(BOOT, boot_counter=10))
        records.resume.store(ResumeRecord(1, OTHER))
        records.access_delay.store(AccessDelayRecord())
        records.latches.store(LatchRecord())
    assert records.boot.load() == replace(BOOT, boot_counter=10)
    assert records.resume.load() == ResumeRecord(1, OTHER)
    assert records.access_delay.load() == AccessDelayRecord()
    assert records.latches.load() == LatchRecord()
    with pytest.raises(ValueError, match="64"):
        NodeRecords(Fram(random.Random(1), size=64))


def test_latches_outlive_their_holder() -> None:
    fram = Fram(random.Random(1))
    assert RecordLatchStore(NodeRecords(fram)).load() == frozenset()
    latched = frozenset({Latch.WELD_MINUS, Latch.FIRE})
    RecordLatchStore(NodeRecords(fram)).save(latched)
    assert RecordLatchStore(NodeRecords(fram)).load() == latched
