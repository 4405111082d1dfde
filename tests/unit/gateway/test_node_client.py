from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from ess_can.bus.clock import now, pause
from ess_can.errors import (
    AccessDenied,
    AdapterLost,
    EssCanError,
    FlashWriteFailed,
    IsoTpError,
    NBufferOvflw,
    NTimeoutBs,
    NTimeoutCr,
    NUnexpPdu,
    UdsNegativeResponse,
    UdsProtocolError,
    UdsTimeout,
    UsageError,
    VerificationFailed,
    WrongTarget,
)
from ess_can.gateway.node_client import NodeClient, NodeIdentity, Patience
from ess_can.identity import NodeType, Version
from ess_can.image.content import BytesContent
from ess_can.sim.loop import run_virtual
from ess_can.uds.access import CmacAccess
from ess_can.uds.rules import Session
from ess_can.uds.target import Did, FlashProfile, Nrc
from tests.support.fake_target import SECRET
from tests.support.memory_transport import MemoryLink
from tests.support.uds_server import Bench

T = TypeVar("T")
IMAGE = bytes(range(256)) * 3 + b"tail"
CONTENT = BytesContent(IMAGE)
SHA = bytes(range(32))


def with_node(work: Callable[[NodeClient, MemoryLink], Awaitable[T]], link: MemoryLink | None = None) -> T:
    """Run `work` in virtual time; no task may be left when the client is closed."""
    used = link or MemoryLink(Bench())

    async def main() -> T:
        async with NodeClient(used.connect, patience=Patience(busy_limit=30.0, send_limit=5.0)) as node:
            result = await work(node, used)
        assert used.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return run_virtual(main())


async def to_programming(node: NodeClient) -> None:
    await node.enter_extended()
    await node.check_preconditions()
    await node.enter_programming()
    await node.authenticate(CmacAccess(SECRET))


async def to_download(node: NodeClient) -> None:
    await to_programming(node)
    await node.announce(len(IMAGE), SHA)


async def whole(node: NodeClient, link: MemoryLink) -> None:
    await to_download(node)
    await node.download(0, CONTENT)
    await node.verify(zlib.crc32(IMAGE))
    await node.activate_on_trial()
    await node.reset()
    await node.enter_extended()
    await node.authenticate(CmacAccess(SECRET))
    await node.confirm()


def blocks(link: MemoryLink) -> list[str]:
    return [request[2:4] for request in link.requests if request.startswith("36")]


def only(prefix: str, link: MemoryLink, times: int = 1) -> Callable[[int], bool]:
    """Whether the n-th answer starts with `prefix` and is one of its first `times`."""

    def chosen(number: int) -> bool:
        earlier = sum(answer.startswith(prefix) for answer in link.answers[: number + 1])
        return link.answers[number].startswith(prefix) and earlier <= times

    return chosen


# --- the whole way ------------------------------------------------------------------------------


def test_identify() -> None:
    identity = with_node(lambda node, _: node.identify())
    assert identity.node_type is NodeType.BMU
    assert (identity.hardware_id, identity.serial, identity.version) == (3, "BMU-0001", Version(1, 2, 0))
    assert identity.boot_state.boot_counter == 7
    assert identity.resume_state.image_sha256 == bytes(32)
    assert (identity.dbc_sha256, identity.security_counter) == (bytes(range(32)), 4)
    assert identity.flash is None  # a node need not tell


def test_a_node_tells_what_its_flash_is_like() -> None:
    link = MemoryLink(Bench())
    link.bench.target.flash = FlashProfile(128 * 1024, 1.0, 100e-6 / 32, 64 * 1024, 40e6, 4093)
    assert with_node(lambda node, _: node.identify(), link).flash == link.bench.target.flash


def test_only_a_missing_flash_profile_is_no_error() -> None:
    for did in Did:
        if did is not Did.FLASH_PROFILE:
            link = MemoryLink(Bench())
            link.bench.target.lacks = {did}
            with pytest.raises(UdsNegativeResponse):
                with_node(lambda node, _: node.identify(), link)


def test_what_it_runs_alone() -> None:
    link = MemoryLink(Bench())
    state = with_node(lambda node, _: node.boot_state(), link)
    assert state.boot_counter == 7
    assert link.requests == ["22fd01"]


def test_a_senseless_boot_state_is_a_protocol_error() -> None:
    link = MemoryLink(Bench())
    link.lose_request = lambda number: True

    async def work(node: NodeClient, _: MemoryLink) -> object:
        asyncio.get_running_loop().call_at(0.1, lambda: link.deliver(bytes.fromhex("62fd01ffff")))
        return await node.boot_state()

    assert isinstance(refused(work, link), UdsProtocolError)


def test_the_whole_sequence_programs_the_node() -> None:
    link = MemoryLink(Bench())
    with_node(whole, link)
    assert bytes(link.bench.target.bank) == IMAGE
    assert link.bench.target.sha256 == SHA
    acts = ["erase", "begin_download", *["write"] * 4, "end_download", "verify", "activate", "reset", "confirm"]
    assert link.bench.target.acts == acts


def test_progress_tells_the_offset_that_the_node_accepted() -> None:
    async def work(node: NodeClient, _: MemoryLink) -> list[int]:
        seen: list[int] = []
        await to_download(node)
        await node.download(0, CONTENT, seen.append, block=200)
        return seen

    assert with_node(work) == [200, 400, 600, 772]


def test_a_download_reads_no_more_than_a_block_at_a_time() -> None:
    class Recorded:
        size = CONTENT.size

        def __init__(self) -> None:
            self.read_at_once: list[int] = []

        def read(self, offset: int, size: int) -> bytes:
            self.read_at_once.append(size)
            return CONTENT.read(offset, size)

    recorded, link = Recorded(), MemoryLink(Bench())

    async def work(node: NodeClient, _: MemoryLink) -> None:
        await to_download(node)
        await node.download(0, recorded, block=200)

    with_node(work, link)
    assert bytes(link.bench.target.bank) == IMAGE
    assert len(recorded.read_at_once) >= 4
    assert max(recorded.read_at_once) <= 200


def test_a_download_resumes_at_an_offset() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> list[int]:
        seen: list[int] = []
        await to_download(node)
        link.bench.target.bank[:] = IMAGE[:256]
        await node.download(256, CONTENT, seen.append)
        assert bytes(link.bench.target.bank) == IMAGE
        return seen

    assert with_node(work) == [512, 768, 772]


def test_u1_a_node_that_erases_first_is_waited_for() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> float:
        link.bench.target.durations["erase"] = 14.0
        await to_programming(node)
        began = now()
        await node.announce(len(IMAGE), SHA)
        return now() - began

    assert with_node(work) == pytest.approx(14.002)


def test_reverting_and_leaving() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> None:
        await node.enter_extended()
        await node.authenticate(CmacAccess(SECRET))
        await node.revert()
        await node.enter_default()
        assert link.bench.target.acts == ["revert"]
        assert link.bench.server.session is Session.DEFAULT

    with_node(work)


# --- refusals are errors ------------------------------------------------------------------------


def refused(work: Callable[[NodeClient, MemoryLink], Awaitable[object]], link: MemoryLink | None = None) -> EssCanError:
    with pytest.raises(EssCanError) as caught:
        with_node(work, link)
    return caught.value


def test_a_negative_response_is_never_success() -> None:
    error = refused(lambda node, _: node.enter_programming())
    assert isinstance(error, UdsNegativeResponse)
    assert (error.service, error.nrc) == (0x10, 0x7E)


def test_u6_hv_coming_on_in_the_download_is_nrc_22() -> None:
    link = MemoryLink(Bench())

    async def work(node: NodeClient, _: MemoryLink) -> None:
        await to_download(node)
        await node.download(0, CONTENT, lambda _: setattr(link.bench.target, "hv_off", False))

    error = refused(work, link)
    assert isinstance(error, UdsNegativeResponse)
    assert (error.service, error.nrc) == (0x36, 0x22)
    assert blocks(link) == ["01", "02"]


@pytest.mark.parametrize("secret", [bytes(16)])
def test_a_wrong_secret_is_access_denied(secret: bytes) -> None:
    async def work(node: NodeClient, _: MemoryLink) -> None:
        await node.enter_extended()
        await node.authenticate(CmacAccess(secret))

    assert isinstance(refused(work), AccessDenied)


def test_working_without_authentication_is_access_denied() -> None:
    async def work(node: NodeClient, _: MemoryLink) -> None:
        await node.enter_extended()
        await node.confirm()

    assert isinstance(refused(work), AccessDenied)


@pytest.mark.parametrize("kind", ["erase", "write", "end_download"])
def test_f11_a_failure_to_program_has_its_own_error(kind: str) -> None:
    link = MemoryLink(Bench())
    link.bench.target.refusals[kind] = Nrc.GENERAL_PROGRAMMING_FAILURE
    assert isinstance(refused(whole, link), FlashWriteFailed)
    assert "activate" not in link.bench.target.acts


def test_a_failed_memory_check_has_its_own_error() -> None:
    link = MemoryLink(Bench())
    link.bench.target.refusals["verify"] = Nrc.GENERAL_PROGRAMMING_FAILURE
    assert isinstance(refused(whole, link), VerificationFailed)
    link = MemoryLink(Bench())
    link.bench.target.crc_read_back = 0
    assert isinstance(refused(whole, link), VerificationFailed)
    assert "activate" not in link.bench.target.acts


def test_another_refusal_of_the_memory_check_stays_what_it_is() -> None:
    error = refused(lambda node, _: node.verify(0))
    assert isinstance(error, UdsNegativeResponse)
    assert error.nrc == Nrc.SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION


@pytest.mark.parametrize("did", ["f189", "f18c", "fd00", "fd01", "fd02", "fd03", "fd04", "f191"])
def test_senseless_identification_is_a_protocol_error(did: str) -> None:
    link = MemoryLink(Bench())
    link.lose_request = lambda number: link.requests[number] == "22" + did

    async def work(node: NodeClient, _: MemoryLink) -> NodeIdentity:
        loop = asyncio.get_running_loop()
        loop.call_at(0.1, lambda: link.deliver(bytes.fromhex("62" + did + "ffff")))
        return await node.identify()

    assert isinstance(refused(work, link), UdsProtocolError)


def test_u8_another_node_than_the_one_meant() -> None:
    identity = with_node(lambda node, _: node.identify())
    identity.require(node_type=NodeType.BMU)
    identity.require(node_type=NodeType.BMU, hardware_id=3, serial="BMU-0001")
    with pytest.raises(WrongTarget, match="serial number"):
        identity.require(node_type=NodeType.BMU, serial="BMU-0002")
    with pytest.raises(WrongTarget, match="hardware id"):
        identity.require(node_type=NodeType.BMU, hardware_id=0)
    with pytest.raises(WrongTarget, match="node type"):
        identity.require(node_type=NodeType.CMU)


# --- loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3])
def test_u2_a_block_whose_answer_was_lost_is_repeated_and_not_written_twice(times: int) -> None:
    link = MemoryLink(Bench())
    link.lose_answer = lambda number: only("7602", link, times)(number)
    with_node(whole, link)
    assert blocks(link) == ["01", *["02"] * (times + 1), "03", "04"]
    assert bytes(link.bench.target.bank) == IMAGE


def test_a_block_is_repeated_three_times_at_most() -> None:
    link = MemoryLink(Bench())
    link.lose_answer = lambda number: only("7602", link, 99)(number)
    assert isinstance(refused(whole, link), UdsTimeout)
    assert blocks(link) == ["01", "02", "02", "02", "02"]


def test_every_request_or_answer_may_be_lost_once() -> None:
    clean = MemoryLink(Bench())
    with_node(whole, clean)
    for number in range(len(clean.requests)):
        for what in ("lose_request", "lose_answer"):
            link = MemoryLink(Bench())
            setattr(link, what, lambda n, number=number: n == number)
            if clean.requests[number].startswith("1101"):
                assert isinstance(refused(whole, link), UdsTimeout)  # never repeated
                assert link.bench.target.acts.count("reset") == (what == "lose_answer")
            else:
                with_node(whole, link)
                assert bytes(link.bench.target.bank) == IMAGE
                assert link.bench.target.acts.count("write") == 4


def test_a_failed_transmission_is_repeated() -> None:
    link = MemoryLink(Bench())
    link.fail_send = lambda number: NTimeoutBs("no flow control") if number == 10 else None
    with_node(whole, link)
    assert bytes(link.bench.target.bank) == IMAGE


def test_a_failed_reception_is_repeated_at_once() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> tuple[float, int]:
        link.lose_answer = lambda number: number == 0
        asyncio.get_running_loop().call_at(0.01, link.on_error, NTimeoutCr("the answer stopped"))
        await node.enter_extended()
        return now(), node.lost

    at, lost = with_node(work)
    assert at == pytest.approx(0.012)
    assert lost == 1


def test_a_reception_replaced_by_the_next_is_no_loss() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> int:
        asyncio.get_running_loop().call_at(0.0015, link.on_error, NUnexpPdu("a new message"))
        await node.enter_extended()
        return node.repeated

    assert with_node(work) == 0


def test_errors_between_requests_are_counted_only() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> int:
        link.on_error(NTimeoutCr("the answer stopped"))
        await node.enter_extended()
        return node.lost

    assert with_node(work) == 1


def test_a_lost_adapter_is_reported_at_once() -> None:
    link = MemoryLink(Bench())
    link.fail_send = lambda _: AdapterLost("unplugged")
    assert isinstance(refused(lambda node, _: node.enter_extended(), link), AdapterLost)
    assert len(link.requests) == 1


def test_a_message_that_never_leaves_ends_in_a_time_out() -> None:
    class Stuck(MemoryLink):
        async def send(self, payload: bytes) -> None:
            self.requests.append(payload.hex())
            await asyncio.get_running_loop().create_future()

    link = Stuck(Bench())
    assert isinstance(refused(lambda node, _: node.enter_extended(), link), UdsTimeout)
    assert len(link.requests) == 3


def test_u14_a_late_answer_does_not_fit_the_next_request() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> None:
        link.lose_request = lambda _: True
        loop = asyncio.get_running_loop()
        loop.call_at(0.01, lambda: link.deliver(bytes.fromhex("5001003201f4")))
        await node.enter_extended()

    assert isinstance(refused(work), UdsTimeout)


def test_authentication_is_repeated_with_a_new_challenge() -> None:
    link = MemoryLink(Bench())
    link.lose_request = lambda number: number == 3  # 1003, 22, 2711, 2712

    async def work(node: NodeClient, _: MemoryLink) -> int:
        await node.enter_extended()
        await node.authenticate(CmacAccess(SECRET))
        return node.repeated

    assert with_node(work, link) == 1
    assert len(link.bench.challenges.given) == 2


def test_authentication_gives_up_after_three_losses() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> None:
        await node.enter_extended()
        link.lose_request = lambda number: link.requests[number] == "2711"
        await node.authenticate(CmacAccess(SECRET))

    link = MemoryLink(Bench())
    assert isinstance(refused(work, link), UdsTimeout)
    assert link.requests.count("2711") == 3


# --- U14: answers to a challenge and to the next one look alike ----------------------------------


async def unlock(node: NodeClient, _: MemoryLink) -> int:
    await node.enter_extended()
    await node.authenticate(CmacAccess(SECRET))
    return node.repeated


@pytest.mark.parametrize("delay_s", [0.16, 0.3, 1.0])
def test_u14_a_challenge_that_comes_late_is_taken_before_another_is_asked_for(delay_s: float) -> None:
    link = MemoryLink(Bench())
    link.answer_delay = lambda number: delay_s if only("6711", link)(number) else 0.0
    assert with_node(unlock, link) == 0
    assert len(link.bench.challenges.given) == 1
    assert link.bench.server.unlocked


@pytest.mark.parametrize("delay_s", [1.16, 1.2])
def test_u14_a_challenge_that_is_taken_for_the_next_one_costs_a_wrong_key_and_no_more(delay_s: float) -> None:
    """The first one comes when another was asked for, whose own answer is still on its way."""
    link = MemoryLink(Bench())
    delays = {1: delay_s, 2: 0.1}

    def late(number: int) -> float:
        return delays.get(len(link.bench.challenges.given), 0.0) if link.answers[number].startswith("6711") else 0.0

    link.answer_delay = late
    assert with_node(unlock, link) == 2
    assert link.answers.count("7f2735") == 1
    assert link.bench.server.unlocked
    assert link.bench.store.state.failed_attempts == 0


def test_u14_with_a_wrong_secret_late_challenges_do_not_lock_the_node() -> None:
    link = MemoryLink(Bench())
    link.lose_answer = only("6711", link)

    async def work(node: NodeClient, _: MemoryLink) -> None:
        await node.enter_extended()
        await node.authenticate(CmacAccess(bytes(16)))

    error = refused(work, link)
    assert isinstance(error, AccessDenied)
    assert error.nrc == Nrc.INVALID_KEY
    assert sum(request.startswith("2712") for request in link.requests) == 2
    assert not link.bench.store.state.delay_armed


def test_u14_every_answer_may_be_late_and_overtaken() -> None:
    """So late that each request is repeated first, by any amount from then on, one answer at a time."""
    clean = MemoryLink(Bench())
    with_node(lambda node, link: whole(node, link), clean)
    for number in range(len(clean.answers)):
        if clean.answers[number].startswith("5101"):
            continue  # a restart is not repeated
        for delay_s in (0.149, 0.155, 0.2, 0.31, 1.2):
            link = MemoryLink(Bench())
            link.answer_delay = lambda n, late=number, by=delay_s: by if n == late else 0.0  # type: ignore[misc]
            with_node(lambda node, link: whole(node, link), link)
            assert link.bench.target.acts[-1] == "confirm", (number, delay_s)
            assert bytes(link.bench.target.bank) == IMAGE


# --- T5: no room for a block --------------------------------------------------------------------


def test_t5_a_block_without_room_is_halved_once() -> None:
    link = MemoryLink(Bench())
    link.fail_send = lambda number: NBufferOvflw("no room") if len(link.requests[number]) > 2 * 200 else None
    with_node(whole, link)
    assert bytes(link.bench.target.bank) == IMAGE
    link = MemoryLink(Bench())
    link.fail_send = lambda number: NBufferOvflw("no room") if len(link.requests[number]) > 2 * 100 else None
    assert isinstance(refused(whole, link), NBufferOvflw)


def test_t5_a_repeated_block_is_never_made_smaller() -> None:
    link = MemoryLink(Bench())
    link.lose_answer = lambda number: only("7601", link)(number)

    def fail(number: int) -> IsoTpError | None:
        return NBufferOvflw("no room") if blocks(link) == ["01", "01"] else None

    link.fail_send = fail
    assert isinstance(refused(whole, link), NBufferOvflw)


# --- busy, keep-alive, cancellation -------------------------------------------------------------


def test_a_busy_node_is_asked_again_until_it_is_free() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> float:
        link.bench.target.durations["erase"] = 10.0
        await to_programming(node)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await node.announce(len(IMAGE), SHA)
        await node.enter_extended()
        return now()

    assert 10.0 < with_node(work) < 10.3


def test_a_node_that_stays_busy_is_given_up() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> None:
        link.bench.target.durations["erase"] = 100.0
        await to_programming(node)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await node.announce(len(IMAGE), SHA)
        await node.enter_extended()

    error = refused(work)
    assert isinstance(error, UdsNegativeResponse)
    assert error.nrc == Nrc.BUSY_REPEAT_REQUEST


def test_the_session_is_kept_between_requests_and_ends_after_close() -> None:
    link = MemoryLink(Bench())

    async def work(node: NodeClient, _: MemoryLink) -> None:
        await node.enter_extended()
        await pause(21.0)
        assert link.bench.server.session is Session.EXTENDED
        assert link.requests[1:] == ["3e80"] * 10

    with_node(work, link)
    link.bench.server.tick(30.0)
    assert link.bench.server.session is Session.DEFAULT


def test_no_keep_alive_after_a_reset() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> list[str]:
        await node.enter_extended()
        await node.reset()
        await pause(10.0)
        return link.requests

    assert with_node(work) == ["1003", "1101"]


def test_a_keep_alive_that_cannot_be_sent_is_counted() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> int:
        await node.enter_extended()
        link.fail_send = lambda _: AdapterLost("unplugged")
        await pause(3.0)
        return node.lost

    assert with_node(work) == 1


def test_closing_in_the_middle_of_a_keep_alive_leaves_no_task() -> None:
    async def work(node: NodeClient, _: MemoryLink) -> None:
        await node.enter_extended()
        await pause(2.0005)

    with_node(work)


def test_closing_waits_for_what_the_transport_still_sends() -> None:
    link = MemoryLink(Bench(), closing_s=2.0)

    async def main() -> None:
        node = NodeClient(link.connect)
        closing = asyncio.create_task(node.close())
        await pause(0.1)
        assert link.closed
        assert not closing.done()
        await closing
        assert now() == 2.0

    run_virtual(main())


def test_cancelling_stops_at_once_and_the_client_goes_on() -> None:
    async def work(node: NodeClient, link: MemoryLink) -> None:
        await to_download(node)
        task = asyncio.get_running_loop().create_task(node.download(0, CONTENT))
        await pause(0.0045)
        at = now()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == at
        sent = len(link.requests)
        await pause(1.0)
        assert len(link.requests) == sent
        await to_programming(node)
        await node.download(len(link.bench.target.bank), CONTENT)
        assert bytes(link.bench.target.bank) == IMAGE

    with_node(work)


def test_operations_of_two_tasks_take_turns() -> None:
    async def work(node: NodeClient, _: MemoryLink) -> None:
        first, second = await asyncio.gather(node.identify(), node.identify())
        assert first == second

    with_node(work)


def test_a_closed_client_refuses() -> None:
    async def work(node: NodeClient, _: MemoryLink) -> None:
        await node.close()
        await node.enter_extended()

    assert isinstance(refused(work), UsageError)
