"""Whatever a tester sends, in whatever order: the server never raises, and changes nothing that it should not.

The machine knows the session, the access and the order of steps from its own requests and the answers only.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ess_can.uds.access import CmacAccess
from ess_can.uds.target import Nrc
from tests.support.fake_target import MAX_DATA, SECRET, SERIAL
from tests.support.uds_server import ACTIVATE, CONFIRM, REVERT, VERIFY, Bench, block, download, erase

CHANGES = {"erase", "begin_download", "write", "end_download", "activate", "confirm"}
SIZES = st.sampled_from([0, 1, 255, 256, 300, 512, 70_000, 0xFFFF_FFFF])
SERVICES = st.sampled_from([0x10, 0x11, 0x22, 0x27, 0x31, 0x34, 0x36, 0x37, 0x3E])


class Attacker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.target.on_act = self.judge
        self.session = 1
        self.unlocked = False
        self.last_activity = 0.0
        self.step = "idle"  # idle, receiving, complete, exited, verified, by our own book-keeping
        self.announced = 0
        self.counter = 0
        self.sent = b""  # of this download
        self.expected = b""  # what the bank must hold
        self.outstanding = b""

    # --- what the node is asked to do, judged as it is asked --------------------------------------

    def judge(self, act: str) -> None:
        if act in CHANGES:
            assert self.unlocked, act
            assert self.bench.target.hv_off, act
            assert self.session == 2 or (act == "confirm" and self.session == 3), act
        if act == "activate":
            assert self.step == "verified"  # U15
        if act in ("write", "end_download"):
            assert self.step == "receiving"  # U5
        if act == "write":
            assert self.outstanding[1] == (self.counter + 1) & 0xFF  # U3
            assert 1 <= len(self.outstanding) - 2 <= MAX_DATA
            assert len(self.sent) + len(self.outstanding) - 2 <= self.announced  # U12
        if act == "end_download":
            assert len(self.sent) == self.announced  # U12
        if act == "revert":
            assert self.unlocked
            assert self.session in (2, 3)

    def learn(self, request: bytes, answer: bytes) -> None:
        """Take from an answer what it says about the server."""
        if answer[0] == 0x7F:
            if answer[2] not in (0x21, 0x78):
                self.learn_refusal(request, answer[2])
            return
        if request[0] == 0x10:
            self.session, self.unlocked, self.step = request[1] & 0x7F, False, "idle"
        elif request[0] == 0x11:
            self.bench.server.perform_reset(self.bench.now)
            self.session, self.unlocked, self.step = 1, False, "idle"
        elif request[0] == 0x27 and request[1] & 0x7F == 0x12:
            self.unlocked = True
        elif request[0] == 0x34:
            self.step, self.sent, self.counter = "receiving", b"", 0
            self.announced = int.from_bytes(request[7:11], "big")
        elif request[0] == 0x36:
            if not (self.sent and request[1] == self.counter):  # else U2: repeated
                self.counter = request[1]
                self.sent += request[2:]
                self.expected += request[2:]
        elif request[0] == 0x37:
            self.step = "exited"
        elif request[0] == 0x31:
            rid = request[2:4].hex()
            if rid == "ff00":
                self.step, self.expected = "idle", b""
            elif rid == "fd10":
                self.step = "verified"

    def learn_refusal(self, request: bytes, nrc: int) -> None:
        failed = nrc in (Nrc.GENERAL_PROGRAMMING_FAILURE, Nrc.TRANSFER_DATA_SUSPENDED)
        if failed and self.step == "receiving" and request[0] in (0x36, 0x37):
            self.step = "suspended"
        elif request[:1] == b"\x31" and request[2:4].hex() in ("ff00", "fd10") and self.step == "verified":
            self.step = "idle" if failed or nrc == Nrc.REQUEST_OUT_OF_RANGE else self.step

    def ask(self, request: bytes) -> bytes | None:
        """One request and its answer, the operation it may start followed to its end."""
        bench = self.bench
        if self.session != 1 and bench.now >= self.last_activity + 5.0:
            self.session, self.unlocked, self.step = 1, False, "idle"
        self.outstanding = request
        answers = bench.server.receive(request, bench.now)
        assert len(answers) <= 1
        while not answers and self.running():
            due = bench.server.next_deadline
            assert due is not None
            bench.now = max(bench.now, due)
            answers = [answer for answer in bench.server.tick(bench.now) if answer[2:3] != b"\x78"]
        if request and not request[0] & 0x40:
            self.last_activity = bench.now
        if not answers:
            self.suppressed(request)
            return None
        self.learn(request, answers[0])
        return answers[0]

    def running(self) -> bool:
        due = self.bench.server.next_deadline
        return due is not None and due < self.last_activity + 5.0 and due - self.bench.now <= 4.5

    def suppressed(self, request: bytes) -> None:
        """No answer: either nothing was asked, or a positive answer was suppressed."""
        if len(request) > 1 and not request[0] & 0x40:
            assert request[1] & 0x80
            assert request[0] not in (0x22, 0x34, 0x36, 0x37)
            self.learn(request, bytes((request[0] | 0x40,)))

    # --- what a tester does -----------------------------------------------------------------------

    @initialize(slow=st.booleans())
    def durations(self, slow: bool) -> None:
        if slow:
            self.bench.target.durations = {"erase": 3.0, "write": 0.06, "end_download": 0.01, "verify": 1.0}

    @rule(payload=st.binary(max_size=24))
    def anything(self, payload: bytes) -> None:
        self.ask(payload)

    @rule(service=SERVICES, rest=st.binary(max_size=20))
    def a_service_with_anything(self, service: int, rest: bytes) -> None:
        self.ask(bytes((service,)) + rest)

    @rule(session=st.sampled_from([1, 2, 3, 0x82, 0x83]))
    def enter(self, session: int) -> None:
        self.ask(bytes((0x10, session)))

    @rule()
    def check(self) -> None:
        self.ask(bytes.fromhex("31010203"))

    @rule(good=st.booleans())
    def authenticate(self, good: bool) -> None:
        seed = self.ask(b"\x27\x11")
        if seed is not None and seed[0] == 0x67 and any(seed[2:]):
            key = CmacAccess(SECRET).answer(seed[2:], SERIAL) if good else bytes(16)
            answer = self.ask(b"\x27\x12" + key)
            assert answer is not None
            assert (answer[0] == 0x67) == good

    @rule(depth=st.integers(0, 7), attack=st.sampled_from(["none", "hv on", "too much", "again", "activate"]))
    def the_proper_way_and_an_attack(self, depth: int, attack: str) -> None:
        """Authenticated and erased, then 34, 36, 36, 37, verify, activate as far as `depth` goes, then the attack."""
        self.bench.target.hv_off = True
        self.heal()
        self.ask(b"\x10\x03")
        self.check()
        self.ask(b"\x10\x02")
        self.authenticate(good=True)
        if depth > 0:
            self.ask(erase(512))
        for _ in range(depth - 1):
            self.ask(self.proper_next())
        if attack == "hv on":
            self.bench.target.hv_off = False
            self.ask(self.proper_next())
            self.bench.target.hv_off = True
        elif attack == "too much":
            self.ask(block((self.counter + 1) & 0xFF, bytes(self.announced - len(self.sent) + 1)))
        elif attack == "again" and self.step == "receiving" and self.sent:
            assert self.ask(block(self.counter)) == bytes((0x76, self.counter))  # U2: answered
        elif attack == "activate":
            self.ask(ACTIVATE)

    @rule(size=SIZES)
    def any_erase(self, size: int) -> None:
        self.ask(erase(size))

    @rule(address=SIZES, size=SIZES)
    def any_download(self, address: int, size: int) -> None:
        self.ask(download(address, size))

    @rule(size=SIZES)
    def resume(self, size: int) -> None:
        self.ask(download(len(self.expected), size))

    @rule(step=st.sampled_from([-1, 0, 1, 1, 1, 2]), length=st.sampled_from([0, 1, 44, 255, 256, 256, 257]))
    def any_block(self, step: int, length: int) -> None:
        self.ask(block((self.counter + step) & 0xFF, bytes((length & 0xFF,)) * length))

    @rule(request=st.sampled_from([b"\x37", VERIFY + bytes(4), ACTIVATE, CONFIRM, REVERT, b"\x3e\x80", b"\x3e\x00"]))
    def next_step(self, request: bytes) -> None:
        self.ask(request)

    def proper_next(self) -> bytes:
        """The request that is next on the proper way, by our own book-keeping."""
        if self.step == "receiving":
            left = self.announced - len(self.sent)
            return block((self.counter + 1) & 0xFF, bytes((self.counter,)) * min(left, MAX_DATA)) if left else b"\x37"
        after = {"idle": download(len(self.expected), 300), "exited": VERIFY + bytes(4), "verified": ACTIVATE}
        return after.get(self.step, erase(512))

    @rule()
    def go_on(self) -> None:
        self.ask(self.proper_next())

    @rule(data=st.data())
    def go_on_with_hv_on(self, data: st.DataObject) -> None:
        """Nothing but high voltage stands against the request: `judge` sees whether it gets through (U6)."""
        request = data.draw(st.sampled_from([self.proper_next(), erase(512), CONFIRM]))
        before, self.bench.target.hv_off = self.bench.target.hv_off, False
        self.ask(request)
        self.bench.target.hv_off = before

    @rule(extra=st.integers(1, 300))
    def a_longer_block_than_is_left(self, extra: int) -> None:
        left = self.announced - len(self.sent)
        self.ask(block((self.counter + 1) & 0xFF, bytes(left + extra)))

    @precondition(lambda self: self.step == "receiving" and self.sent)
    @rule()
    def the_last_block_again(self) -> None:
        lapsed, sent = self.bench.now >= self.last_activity + 5.0, self.sent
        answer = self.ask(block(self.counter))
        if not lapsed:
            assert answer == bytes((0x76, self.counter))  # U2: answered
        assert self.sent == sent

    @rule(request=st.sampled_from([erase(512), VERIFY + bytes(4), ACTIVATE]))
    def a_programming_routine_in_the_extended_session(self, request: bytes) -> None:
        self.ask(b"\x10\x03")
        self.authenticate(good=True)
        self.ask(request)

    @rule()
    def restart(self) -> None:
        self.ask(b"\x11\x01")

    @rule(hv_off=st.booleans())
    def high_voltage(self, hv_off: bool) -> None:
        self.bench.target.hv_off = hv_off

    @rule(kind=st.sampled_from(["erase", "write", "end_download", "verify"]), at_once=st.booleans())
    def fail(self, kind: str, at_once: bool) -> None:
        (self.bench.target.rejections if at_once else self.bench.target.refusals)[kind] = (
            Nrc.GENERAL_PROGRAMMING_FAILURE
        )

    @rule()
    def heal(self) -> None:
        self.bench.target.rejections.clear()
        self.bench.target.refusals.clear()

    @precondition(lambda self: self.session != 1)
    @rule(seconds=st.sampled_from([0.1, 4.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.bench.now += seconds

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def the_bank_holds_what_was_accepted(self) -> None:
        assert bytes(self.bench.target.bank) == self.expected

    @invariant()
    def what_we_believe_of_the_server_is_not_less_than_it_grants(self) -> None:
        if self.bench.server.next_deadline is None or self.bench.now < self.last_activity + 5.0:
            assert self.bench.server.session == self.session
            assert self.bench.server.unlocked == self.unlocked


Attacker.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestUdsServer = Attacker.TestCase
