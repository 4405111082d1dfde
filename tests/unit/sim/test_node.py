"""The simulated node: power, boot, trial, watchdog, and what it holds."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Awaitable, Callable, Mapping

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.identity import NodeType, Version
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.messages import ImageState, NodeInfo
from ess_can.sim.boot_records import BootRecord
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import Behaviour, Board, SimulatedNode
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.wire import Wire
from ess_can.uds.access import CmacAccess
from ess_can.uds.target import FlashProfile
from tests.scenario.support import BMU1, NEW, OLD, image, station_codec, verify

OLD_IMAGE = image(NodeType.BMU, OLD, 4)
NEW_IMAGE = image(NodeType.BMU, NEW, 4)


class StubApplication:
    """Notes what the node asks of it."""

    def __init__(self) -> None:
        self.starts: list[Behaviour] = []
        self.stops = 0
        self.held = False
        self.hung = False
        self.allowed = True

    def start(self, link: StationLink, behaviour: Behaviour, now: float) -> None:
        self.starts.append(behaviour)

    def stop(self, now: float) -> None:
        self.stops += 1

    def hang(self) -> None:
        self.hung = True

    def hold(self, held: bool) -> None:
        self.held = held

    def programming_allowed(self, now: float) -> bool:
        return self.allowed

    def reset_allowed(self, now: float) -> bool:
        return self.allowed


class Rig:
    """One node with a tester beside it on a wire."""

    def __init__(self, behaviours: Mapping[Version, Behaviour] | None = None, answer_s: float = 0.0) -> None:
        codec = station_codec()
        self.wire = Wire(BitTiming(500_000))
        self.application = StubApplication()
        self.node = SimulatedNode(
            BMU1,
            Board(0x11, "BMU-000001", CmacAccess(TEST_ONLY_ACCESS_SECRET), answer_s=answer_s),
            self.wire.controller("bmu1", depth=32),
            codec,
            self.application,
            verify,
            random.Random(1),
            behaviours or {},
        )
        tester = self.wire.controller("tester")
        self.wire.controller("another node, which acknowledges")
        self.infos: list[tuple[float, NodeInfo]] = []
        StationLink(tester, codec).subscribe(NodeInfo, lambda heard: self.infos.append((heard.at, heard.message)))
        self.answers: list[bytes] = []
        self.answered_at = 0.0
        self._channel = IsoTpChannel(
            tester,
            IsoTpAddress(*codec.diagnostic_ids(BMU1)),
            IsoTpParams(),
            on_message=self._answered,
            on_error=lambda _: None,
        )

    def _answered(self, payload: bytes, at: float) -> None:
        self.answers.append(payload)
        self.answered_at = at

    @property
    def time(self) -> float:
        return self.wire.loop.time()

    async def ask(self, request: str, within_s: float = 0.2) -> str:
        self.answers.clear()
        await self._channel.send(bytes.fromhex(request))
        await pause(within_s)
        return self.answers[-1].hex() if self.answers else ""

    async def unlock(self) -> None:
        await self.ask("2711")
        key = CmacAccess(TEST_ONLY_ACCESS_SECRET).answer(self.answers[-1][2:], b"BMU-000001")
        assert await self.ask("2712" + key.hex()) == "6712"

    async def programming(self) -> None:
        for request in ("1003", "31010203", "1002"):
            assert not (await self.ask(request)).startswith("7f")
        await self.unlock()

    async def put_on_trial(self, content: bytes = NEW_IMAGE) -> None:
        """Program, verify and activate it, and restart."""
        await self.programming()
        size, sha256 = len(content).to_bytes(4, "big").hex(), hashlib.sha256(content).hexdigest()
        assert await self.ask("3101ff00" + size + sha256, 2.0) == "7101ff00"
        assert (await self.ask("340044" + "00000000" + size)).startswith("74")
        for number, start in enumerate(range(0, len(content), 4000), start=1):
            assert await self.ask(f"36{number:02x}" + content[start : start + 4000].hex(), 0.3) == f"76{number:02x}"
        assert await self.ask("37") == "77"
        assert (await self.ask("3101fd10" + zlib.crc32(content).to_bytes(4, "big").hex())).startswith("7101fd10")
        assert await self.ask("3101fd11") == "7101fd11"
        assert await self.ask("1101", 0.01) == "5101"


def on_node(
    script: Callable[[Rig], Awaitable[None]],
    behaviours: Mapping[Version, Behaviour] | None = None,
    answer_s: float = 0.0,
) -> None:
    async def run() -> None:
        rig = Rig(behaviours, answer_s)
        rig.node.install(OLD_IMAGE)
        rig.node.power_on()
        await script(rig)
        if rig.node.running:
            rig.node.power_off(rig.time)

    run_virtual(run())


def test_after_power_on_it_boots_and_says_so_at_once() -> None:
    async def script(rig: Rig) -> None:
        assert not rig.node.running
        with pytest.raises(RuntimeError):
            _ = rig.node.memory
        await pause(0.75)
        assert not rig.infos
        await pause(0.1)
        assert rig.node.running
        assert rig.node.boots == 1
        assert [info.version for _, info in rig.infos] == [OLD]
        assert rig.infos[0][0] == pytest.approx(rig.node.board.boot_s, abs=0.005)
        assert rig.application.starts == [Behaviour.GOOD]
        assert not rig.application.held
        await pause(2.0)
        assert len(rig.infos) == 5

    on_node(script)


def test_power_off_silences_it_and_forgets_its_session() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        assert await rig.ask("1003") == "5003003201f4"
        rig.node.power_off(rig.time)
        heard = len(rig.infos)
        assert await rig.ask("22f189", 1.0) == ""
        assert (len(rig.infos), rig.application.stops) == (heard, 1)
        rig.node.power_on()
        await pause(1.0)
        assert await rig.ask("31010203") == "7f317f"
        assert rig.node.boots == 2

    on_node(script)


def test_its_identifiers() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        assert bytes.fromhex(await rig.ask("22f189"))[3:] == b"1.0.0"
        assert bytes.fromhex(await rig.ask("22f18c"))[3:] == b"BMU-000001"
        assert await rig.ask("22f191") == "62f19111"
        assert await rig.ask("22fd00") == "62fd0002"
        assert bytes.fromhex(await rig.ask("22fd03"))[3:] == station_codec().sha256
        assert await rig.ask("22fd04") == "62fd0400000001"
        assert await rig.ask("22f190") == "7f2231"

    on_node(script)


def test_a_programming_session_holds_high_voltage_open_until_it_ends() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.ask("1003")
        assert not rig.application.held
        await rig.ask("31010203")
        await rig.ask("1002")
        assert rig.application.held
        await rig.ask("1001")
        assert not rig.application.held
        await rig.programming()
        assert rig.application.held
        await pause(5.5)  # S3
        assert not rig.application.held

    on_node(script)


def test_an_image_on_trial_runs_holds_open_and_goes_back_by_itself() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.put_on_trial()
        await pause(1.0)
        assert (rig.node.memory.version, rig.node.memory.standing) == (NEW, ImageState.TRIAL)
        assert rig.infos[-1][1].image_state is ImageState.TRIAL
        assert rig.application.held
        await pause(58.5)
        assert rig.node.memory.version == NEW
        await pause(3.0)
        assert (rig.node.memory.version, rig.node.memory.standing) == (OLD, ImageState.CONFIRMED)
        assert not rig.application.held
        assert rig.node.boots == 3

    on_node(script)


def test_a_confirmed_image_stays_and_its_trial_timer_does_nothing() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.put_on_trial()
        await pause(1.0)
        await rig.ask("1003")
        await rig.unlock()
        told = len(rig.infos)
        asked_at = rig.time
        assert await rig.ask("3101fd12", 0.02) == "7101fd12"
        assert [info.image_state for _, info in rig.infos[told:]] == [ImageState.CONFIRMED]  # and not in its next cycle
        assert rig.infos[-1][0] - asked_at < 0.005
        assert not rig.application.held
        await pause(70.0)
        assert (rig.node.memory.version, rig.node.memory.standing) == (NEW, ImageState.CONFIRMED)
        assert rig.node.boots == 2

    on_node(script)


def test_an_image_that_hangs_is_given_up_by_the_watchdog() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.put_on_trial()
        await pause(1.5)
        assert not rig.node.running
        assert rig.application.starts == [Behaviour.GOOD]
        await pause(3.0)
        assert rig.node.memory.version == OLD
        assert rig.node.boots == 3

    on_node(script, {NEW: Behaviour.HANGS})


def test_a_reset_is_refused_while_it_would_drop_contactors() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.ask("1003")
        rig.application.allowed = False
        assert await rig.ask("1101") == "7f1122"
        rig.application.allowed = True
        assert await rig.ask("1101", 0.01) == "5101"
        await pause(1.0)
        assert rig.node.boots == 2

    on_node(script)


def test_a_node_restarts_only_once_its_answer_has_left() -> None:
    """On a busy wire that takes longer than a node has patience elsewhere."""

    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.ask("1003")
        busy = rig.wire.controller("busy", depth=200)

        def fill() -> None:
            for _ in range(150):
                busy.send(CanFrame(0x001, bytes(8)))

        rig.wire.loop.call_later(0.0001, fill)  # while the request is on the wire
        held: list[bool] = []
        rig.wire.loop.call_later(0.02, lambda: held.append(rig.application.held))
        assert await rig.ask("1101", 0.1) == "5101"
        assert held == [True]  # nothing closes while it waits
        await pause(1.0)
        assert rig.node.boots == 2

    on_node(script)


def test_a_node_may_think_before_it_answers() -> None:
    """And restarts only after that."""
    took: dict[float, float] = {}
    boots: list[int] = []

    async def script(rig: Rig) -> None:
        await pause(1.0)
        asked_at = rig.time
        assert await rig.ask("1003") == "5003003201f4"
        took[rig.node.board.answer_s] = rig.answered_at - asked_at
        assert await rig.ask("1101") == "5101"
        await pause(1.0)
        boots.append(rig.node.boots)

    on_node(script)
    on_node(script, answer_s=0.02)
    assert took[0.02] - took[0.0] == pytest.approx(0.02, abs=1e-4)
    assert boots == [2, 2]


def test_a_node_that_loses_power_while_it_thinks_answers_nothing() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        assert await rig.ask("1003", within_s=0.01) == ""
        rig.node.power_off(rig.time)
        await pause(0.1)
        assert rig.answers == []

    on_node(script, answer_s=0.02)


def test_a_node_that_hangs_is_deaf_and_dumb_until_its_watchdog_restarts_it() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        rig.node.hang(rig.time)
        hung_at, infos = rig.time, len(rig.infos)
        assert rig.application.hung
        assert await rig.ask("22f18c") == ""
        await pause(2.5)
        assert len(rig.infos) == infos
        await pause(0.5)
        assert rig.infos[infos][0] == pytest.approx(hung_at + 2.0 + 0.8, abs=0.01)
        assert (await rig.ask("22f18c")).startswith("62f18c")
        rig.node.power_off(rig.time)
        rig.node.hang(rig.time)  # nothing hangs that does not run

    on_node(script)


def test_answers_may_be_altered() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        rig.node.alter_answer = lambda answer: answer[::-1]
        assert await rig.ask("3e00") == "007e"
        rig.node.alter_answer = None
        assert await rig.ask("3e00") == "7e00"

    on_node(script)


def test_firmware_that_restarts_itself_is_given_up() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.put_on_trial()
        boots = rig.node.boots
        await pause(3.0)
        assert rig.node.boots == boots + 2
        assert rig.node.memory.version == OLD

    on_node(script, behaviours={NEW: Behaviour.BOOT_LOOPS})


def test_a_node_says_how_fast_its_flash_is() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        answer = await rig.ask("22fd05")
        assert answer[:6] == "62fd05"
        assert FlashProfile.unpack(bytes.fromhex(answer[6:])) == FlashProfile(
            131072, 1.0, 3.125e-6, 131072, 11e6, 24576, dirty_bytes=131072
        )

    on_node(script)


@pytest.mark.parametrize("spam", [False, True])
def test_flash_work_stops_with_the_sector_under_way_once_it_is_not_allowed_any_more(spam: bool) -> None:
    announced, download = "3101ff00" + "00000003" + "11" * 32, "340044" + "00000000" + "00000003"

    async def script(rig: Rig) -> None:
        geometry = rig.node.flash.geometry
        for sector in range(2, geometry.sectors_per_bank):
            rig.node.flash.factory_program(1, sector * geometry.sector_size, bytes(geometry.unit_size))
        await pause(1.0)
        await rig.programming()
        assert await rig.ask(announced) == "7101ff00"
        assert rig.node.flash.counters.sectors_erased == 0
        started = rig.time
        assert await rig.ask(download, 0.05) == "744000006002"
        assert await rig.ask("3601112233", 0.05) == "7601"
        await rig.ask("37", 0.3)
        assert rig.answers[-1].hex() == "7f3778"
        rig.application.allowed = False
        for _ in range(60 if spam else 0):  # whatever else is asked meanwhile
            await rig.ask("3e00", 0.005)
        await pause(started + 1.2 - rig.time)
        assert rig.node.flash.counters.sectors_erased == 1
        assert rig.answers[-1].hex() == "7f3722"
        await pause(8.0)
        assert rig.node.flash.counters.sectors_erased == 1
        rig.application.allowed = True
        await rig.programming()
        assert await rig.ask(download) == "744000006002"
        assert await rig.ask("3601112233") == "7601"
        assert await rig.ask("37", 7.0) == "77"
        assert rig.node.flash.counters.sectors_erased == 7

    on_node(script)


def test_a_node_without_a_bootable_image_runs_its_bootloader_only() -> None:
    async def script(rig: Rig) -> None:
        rig.node.power_off(rig.time)
        rig.node.records.boot.store(BootRecord())
        rig.node.power_on()
        await pause(1.0)
        assert rig.node.memory.standing is ImageState.RECOVERY
        assert rig.infos[-1][1].image_state is ImageState.RECOVERY
        assert rig.application.starts == []
        assert rig.application.held

    on_node(script)


def test_wrong_keys_are_remembered_over_a_restart() -> None:
    async def script(rig: Rig) -> None:
        await pause(1.0)
        await rig.ask("1003")
        for _ in range(3):
            await rig.ask("2711")
            await rig.ask("2712" + "00" * 16)
        rig.node.reset(rig.time)
        await pause(1.0)
        await rig.ask("1003")
        assert await rig.ask("2711") == "7f2737"

    on_node(script)
