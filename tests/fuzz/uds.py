"""A UDS server that is asked anything in any session, and a client that is answered anything."""

from __future__ import annotations

import random
from collections.abc import Callable

from ess_can.errors import UdsError
from ess_can.uds.client import Answered, Failed, KeepAlive, Pending, UdsClientSession
from ess_can.uds.exchange import (
    Exchange,
    SessionTimes,
    enter_session,
    hard_reset,
    read_identifier,
    request_seed,
    send_key,
)
from ess_can.uds.rules import Session
from ess_can.uds.target import BootState, Did, FlashProfile, Nrc, ResumeState
from tests.fuzz.inputs import EDGES, dice, mutated, noise, one_of
from tests.support.fake_target import BANK_SIZE
from tests.support.uds_server import ACTIVATE, CONFIRM, REVERT, VERIFY, Bench, block, download, erase

REQUESTS = 40
P2_S = 0.050
SUPPRESSIBLE = {0x10, 0x11, 0x27, 0x31, 0x3E}
NEED_HV_OFF = {"erase", "begin_download", "write", "end_download", "activate", "confirm"}
NEED_ACCESS = NEED_HV_OFF | {"verify", "revert"}
ACTS = NEED_ACCESS | {"abort_download", "reset"}

PRELUDES: tuple[Callable[[Bench], object], ...] = (
    lambda bench: None,
    Bench.extended,
    lambda bench: bench.programming(unlocked=False),
    Bench.programming,
    Bench.erased,
    Bench.downloading,
    Bench.exited,
    Bench.verified,
)
GOOD = (
    *(bytes((0x10, session)) for session in (1, 2, 3, 0x83)),
    bytes.fromhex("1101"),
    bytes.fromhex("22f189"),
    bytes.fromhex("22f189fd01fd02fd05"),
    bytes.fromhex("2711"),
    bytes.fromhex("2712") + bytes(16),
    bytes.fromhex("31010203"),
    erase(512),
    erase(0xFFFF_FFFF),
    VERIFY + bytes(4),
    ACTIVATE,
    CONFIRM,
    REVERT,
    download(0, 512),
    download(0xFFFF_FFFF, 0xFFFF_FFFF),
    *(block(counter) for counter in (0, 1, 2, 3, 255)),
    block(1, bytes(257)),
    bytes.fromhex("37"),
    bytes.fromhex("3e00"),
    bytes.fromhex("3e80"),
)


def server_case(number: int) -> None:
    """Never an exception; nothing is changed without session, access and high voltage off; an answer within P2."""
    rng = dice("uds server", number)
    bench = Bench()
    PRELUDES[rng.randrange(len(PRELUDES))](bench)
    target = bench.target
    opened = bench.server.unlocked  # nobody here knows the key: what is locked once stays locked
    target.durations = {kind: rng.choice((0.0, 0.03, 0.2, 6.0)) for kind in ACTS}
    target.refusals = {kind: rng.choice(tuple(Nrc)) for kind in ACTS if rng.random() < 0.05}
    target.rejections = {kind: rng.choice(tuple(Nrc)) for kind in ACTS if rng.random() < 0.05}

    def judge(act: str) -> None:
        if act in NEED_HV_OFF:
            assert target.hv_off, act
        if act in NEED_ACCESS:
            assert opened, act
            assert bench.server.unlocked, act
            session = bench.server.session
            assert session is Session.PROGRAMMING or (act in ("confirm", "revert") and session is Session.EXTENDED), act

    target.on_act = judge
    for _ in range(REQUESTS):
        target.hv_off = rng.random() < 0.8
        bench.now += rng.choice((0.0, 0.001, 0.03, 0.5, 2.0, 5.1))
        if rng.random() < 0.05:
            bench.server.reception(bench.now, under_way=rng.random() < 0.5)
        ask(bench, request_of(rng))
        opened = opened and bench.server.unlocked
        if bench.server.reset_pending and rng.random() < 0.8:
            bench.server.perform_reset(bench.now)
        assert len(target.bank) <= BANK_SIZE + 65_536


def request_of(rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return noise(rng, rng.choice((8, 300)))
        case 1:
            return mutated(rng, rng.choice(GOOD), GOOD)
        case 2:
            return bytes((rng.choice((0x10, 0x11, 0x22, 0x27, 0x31, 0x34, 0x36, 0x37, 0x3E)),)) + noise(rng, 40)
        case _:
            return rng.choice(GOOD)


def ask(bench: Bench, request: bytes) -> None:
    """One request; there is an answer, or at least a 78, within P2, unless it asks for none."""
    server = bench.server
    busy = server.reset_pending
    answers = server.receive(request, bench.now)
    silent = not request or bool(request[0] & 0x40) or busy
    silent = silent or (request[0] in SUPPRESSIBLE and len(request) > 1 and bool(request[1] & 0x80))
    if not answers and not silent:
        due = server.next_deadline
        assert due is not None, request.hex()
        assert due <= bench.now + P2_S, request.hex()
        bench.now = max(bench.now, due)
        answers = server.tick(bench.now)
        assert answers, request.hex()
    for answer in answers:
        assert 0 < len(answer) <= 4095
        assert answer[0] != 0x7F or len(answer) == 3


# --- client -----------------------------------------------------------------------------------

EXCHANGES: tuple[Exchange[bytes] | Exchange[bytes | None] | Exchange[SessionTimes] | Exchange[None], ...] = (
    *(read_identifier(did) for did in Did),
    *(enter_session(session) for session in Session),
    hard_reset(),
    request_seed(),
    send_key(bytes(16)),
)
RECORDS = (BootState.unpack, ResumeState.unpack, FlashProfile.unpack)


def client_case(number: int) -> None:
    """Never an exception; what counts as an answer fits the request; every wait ends within its cap."""
    rng = dice("uds client", number)
    client = UdsClientSession()
    now = 0.0
    for _ in range(20):
        exchange = rng.choice(EXCHANGES)
        request = client.request(exchange.request, now)
        began, ended = now, False
        if rng.random() < 0.9:
            client.sent(now)
        for _ in range(rng.randrange(1, 30)):
            now += rng.choice((0.0, 0.001, 0.1, 3.0))
            event = client.receive(answer_of(rng, request), now) or client.tick(now)
            if isinstance(event, Answered):
                payload = event.response.original_payload or b""
                assert payload[0] == request[0] | 0x40
                try:
                    exchange.decode(event.response)
                except UdsError as error:
                    assert error.why  # noqa: PT017
            if isinstance(event, Answered | Failed):
                ended = True
                break
            assert isinstance(event, Pending | KeepAlive | None)
        if not ended:
            client.sent(now)
            for _ in range(3):
                due = client.next_deadline
                assert due is not None
                now = max(now, due)
                assert now <= began + 90 + 60
                if isinstance(client.tick(now), Failed):
                    break
            else:
                raise AssertionError("it waits for ever")
    for unpack in RECORDS:
        try:
            unpack(noise(rng, 40))
        except ValueError as error:
            assert str(error)  # noqa: PT017


def answer_of(rng: random.Random, request: bytes) -> bytes:
    right = bytes((request[0] | 0x40,)) + request[1:3]
    match rng.randrange(6):
        case 0:
            return noise(rng, 300)
        case 1:
            return b"\x7f" + bytes(
                (one_of(rng, request[0], rng.randrange(256)), one_of(rng, 0x78, 0x21, rng.randrange(256)))
            )
        case 2:
            return b"\x7f" + noise(rng, 5)
        case 3:
            return right + noise(rng, 60)
        case 4:
            return mutated(rng, right + rng.choice(EDGES).to_bytes(4, "big") * 4)
        case _:
            return right[: rng.randrange(len(right) + 1)]
