"""A UDS server over a `FakeTarget`, and short ways through the programming sequence."""

from __future__ import annotations

from dataclasses import dataclass, field

from ess_can.uds.access import AccessGuard, CmacAccess
from ess_can.uds.server import UdsServerSession
from tests.support.fake_target import SECRET, SERIAL, FakeStore, FakeTarget

ERASE = bytes.fromhex("3101ff00")
VERIFY = bytes.fromhex("3101fd10")
ACTIVATE = bytes.fromhex("3101fd11")
CONFIRM = bytes.fromhex("3101fd12")
REVERT = bytes.fromhex("3101fd13")


@dataclass
class Challenges:
    """Challenges that differ and are the same in every run."""

    given: list[bytes] = field(default_factory=list)

    def __call__(self, length: int) -> bytes:
        self.given.append((len(self.given) + 1).to_bytes(length, "big"))
        return self.given[-1]


@dataclass
class Bench:
    """A server, its node, and the time."""

    target: FakeTarget = field(default_factory=FakeTarget)
    store: FakeStore = field(default_factory=FakeStore)
    challenges: Challenges = field(default_factory=Challenges)
    now: float = 0.0
    server: UdsServerSession = field(init=False)

    def __post_init__(self) -> None:
        guard = AccessGuard(CmacAccess(SECRET), SERIAL, self.challenges, self.store, self.now)
        self.server = UdsServerSession(self.target, guard)

    def ask(self, payload: bytes | str) -> str:
        """One request, the time standing still; the answers in hex, separated by blanks."""
        request = bytes.fromhex(payload) if isinstance(payload, str) else payload
        return " ".join(answer.hex() for answer in self.server.receive(request, self.now))

    def until_idle(self, limit: float = 600.0) -> list[tuple[float, str]]:
        """Follow the server's deadlines until it has answered; gives times and answers."""
        answers: list[tuple[float, str]] = []
        while not answers or answers[-1][1].endswith("78"):
            due = self.server.next_deadline
            assert due is not None
            assert due <= limit
            self.now = max(self.now, due)
            answers += [(self.now, answer.hex()) for answer in self.server.tick(self.now)]
        return answers

    def unlock(self) -> None:
        seed = bytes.fromhex(self.ask("2711"))[2:]
        assert self.ask(bytes.fromhex("2712") + CmacAccess(SECRET).answer(seed, SERIAL)) == "6712"

    def extended(self) -> None:
        assert self.ask("1003") == "5003003201f4"

    def programming(self, *, unlocked: bool = True) -> None:
        self.extended()
        assert self.ask("31010203") == "71010203"
        assert self.ask("1002") == "5002003201f4"
        if unlocked:
            self.unlock()

    def erased(self, size: int = 512) -> None:
        self.programming()
        assert self.ask(erase(size)) == "7101ff00"

    def downloading(self, size: int = 512) -> None:
        self.erased(size)
        assert self.ask(download(0, size)) == "744000000102"

    def exited(self, data: bytes = bytes(range(256)) * 2) -> None:
        self.downloading(len(data))
        for number, start in enumerate(range(0, len(data), 256), start=1):
            assert self.ask(block(number & 0xFF, data[start : start + 256])) == f"76{number & 0xFF:02x}"
        assert self.ask("37") == "77"

    def verified(self) -> None:
        self.exited()
        assert self.ask(VERIFY + bytes(4)).startswith("7101fd10")


def erase(size: int, sha256: bytes = bytes(range(32))) -> bytes:
    return ERASE + size.to_bytes(4, "big") + sha256


def download(address: int, size: int) -> bytes:
    return bytes.fromhex("340044") + address.to_bytes(4, "big") + size.to_bytes(4, "big")


def block(counter: int, data: bytes = bytes(256)) -> bytes:
    return bytes((0x36, counter)) + data
