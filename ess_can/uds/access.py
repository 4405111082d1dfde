"""Security access (ISO 14229-1 service 27): a challenge, an answer that needs a secret, and a delay against guessing.

What the answer is computed from is behind `AccessAlgorithm`, so that certificates (service 29) or a hardware module can
take the place of the shared secret without a change to either session.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ess_can.errors import AccessDenied, UsageError
from ess_can.uds.target import Nrc

CHALLENGE_LENGTH = 16
"""Bytes of a challenge: 128 bit, so that none ever comes twice."""
_SECRET_LENGTH = 16


class AccessAlgorithm(Protocol):
    """How the answer to a challenge is computed; both sides hold one."""

    def answer(self, challenge: bytes, serial: bytes) -> bytes:
        """The key for this challenge (16 bytes) and the serial number of the node that gave it."""


@dataclass(frozen=True, slots=True)
class CmacAccess:
    """AES-128 CMAC (NIST SP 800-38B, RFC 4493) over the challenge followed by the node's serial number.

    The serial number binds an answer to one node.  Whoever holds the 16-byte secret can program every node that shares
    it.  Raises UsageError for a secret of another length.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != _SECRET_LENGTH:
            raise UsageError(
                "the access secret has the wrong length",
                why=f"{len(self.secret)} bytes, AES-128 needs {_SECRET_LENGTH}",
                remedy="Give a secret of 16 bytes (32 hexadecimal digits).",
            )

    def answer(self, challenge: bytes, serial: bytes) -> bytes:
        """The 16-byte CMAC."""
        # The import takes tens of milliseconds and most commands never authenticate.
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.cmac import CMAC

        mac = CMAC(AES(self.secret))
        mac.update(challenge + serial)
        return mac.finalize()


class NoAccess:
    """For a client that only reads: it has no secret and never authenticates."""

    def answer(self, challenge: bytes, serial: bytes) -> bytes:
        """Raises AccessDenied."""
        raise AccessDenied("there is no access secret", why="this client was opened for reading only")


@dataclass(frozen=True, slots=True)
class AccessState:
    """What must survive a restart: wrong keys since the last right one, and whether the delay is to run."""

    failed_attempts: int = 0
    delay_armed: bool = False


class AccessStore(Protocol):
    """Where the node keeps `AccessState` over restarts and loss of power."""

    def load(self) -> AccessState:
        """What was saved last; a fresh `AccessState` if nothing was."""

    def save(self, state: AccessState) -> None:
        """Keep `state`; it is durable on return."""


class AccessGuard:
    """The server's side: gives challenges, judges keys, counts wrong ones.

    `challenges` gives that many unpredictable bytes; a challenge serves for one key only, right or wrong.  After
    `attempts` wrong keys nothing is accepted for `delay_s` seconds; from then on each further wrong key starts the
    delay again, until a right one clears the count.  After a restart an armed delay runs again in full.
    """

    def __init__(
        self,
        algorithm: AccessAlgorithm,
        serial: bytes,
        challenges: Callable[[int], bytes],
        store: AccessStore,
        now: float,
        *,
        attempts: int = 3,
        delay_s: float = 10.0,
    ) -> None:
        self._algorithm = algorithm
        self._serial = serial
        self._challenges = challenges
        self._store = store
        self._attempts = attempts
        self._delay_s = delay_s
        self.restart(now)

    def restart(self, now: float) -> None:
        """As after a restart of the node: locked, no challenge pending, an armed delay runs in full from `now`."""
        self._state = self._store.load()
        self._locked_until = now + self._delay_s
        self.lock()

    def lock(self) -> None:
        """Forget the unlocking and the pending challenge, as every change of session does."""
        self.unlocked = False
        self._challenge: bytes | None = None

    def request_seed(self, now: float) -> bytes | Nrc:
        """A new challenge, which voids the one before; zeros if already unlocked (ISO 14229-1, requestSeed)."""
        if self._delayed(now):
            return Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED
        if self.unlocked:
            return bytes(CHALLENGE_LENGTH)
        challenge = self._challenges(CHALLENGE_LENGTH)
        if len(challenge) != CHALLENGE_LENGTH or not any(challenge):  # zeros would say "already unlocked"
            return Nrc.CONDITIONS_NOT_CORRECT
        self._challenge = challenge
        return challenge

    def send_key(self, key: bytes, now: float) -> Nrc | None:
        """Unlock if `key` answers the pending challenge; else the response code."""
        if self._delayed(now):
            return Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED
        challenge, self._challenge = self._challenge, None
        if challenge is None:
            return Nrc.REQUEST_SEQUENCE_ERROR
        # Counted before it is judged: cutting the power in between gives no free attempt.
        failed = min(self._state.failed_attempts + 1, self._attempts)
        self._keep(AccessState(failed, delay_armed=failed >= self._attempts))
        if hmac.compare_digest(key, self._algorithm.answer(challenge, self._serial)):
            self._keep(AccessState())
            self.unlocked = True
            return None
        if self._state.delay_armed:
            self._locked_until = now + self._delay_s
            return Nrc.EXCEEDED_NUMBER_OF_ATTEMPTS
        return Nrc.INVALID_KEY

    def _delayed(self, now: float) -> bool:
        if not self._state.delay_armed:
            return False
        if now < self._locked_until:
            return True
        self._keep(AccessState(self._state.failed_attempts))
        return False

    def _keep(self, state: AccessState) -> None:
        if state != self._state:
            self._store.save(state)
            self._state = state
