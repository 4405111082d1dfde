"""Ed25519 keys: whom we trust, and signing.

A key's id is the SHA-256 of its SubjectPublicKeyInfo (RFC 8410), which is MCUboot's key hash, too.  The algorithm
belongs to the key: nothing in a file can choose another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ess_can.errors import UsageError
from ess_can.image.files import read_limited

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: AlgorithmIdentifier and BIT STRING header
_PEM_LIMIT = 16 * 1024
_PUBLIC_KEY_REMEDY = "Give --trusted-key and --firmware-key the paths of readable public keys in PEM form."

TEST_KEYS: Final = {
    bytes.fromhex("58db84ebdec708f1837b5c430ef3bc3c5371141fa0e0a0ca7a0f16dd6457faad"): "ess-can TEST-ONLY release",
    bytes.fromhex("70e48e4fc6609993f281356569c182aa9626fccc957a4b874af7cb5b331b139f"): "ess-can TEST-ONLY firmware",
    bytes.fromhex("c1907fa4eac7fae3840a78902b6f0710b037e9968e5c6274a12a28790c7d4e3c"): "MCUboot root-ed25519",
    bytes.fromhex("6754edab1e29affef4a05935adecbeb1a7b8b62397b31e39a61b5bfcaafd63af"): "MCUboot root-ed25519-2",
    bytes.fromhex("b1d87d60173352b9a4808979790fc699fb4c4f83b49cf1970edd96ff4adc36a6"): "MCUboot root-ed25519-unknown",
}
"""Ids of keys whose private half is published: ours and MCUboot's examples.  They prove nothing outside a bench."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: its 32 raw bytes, its id, and a name for messages."""

    raw: bytes
    name: str = field(default="", compare=False)

    @property
    def spki(self) -> bytes:
        """The DER SubjectPublicKeyInfo."""
        return _SPKI_PREFIX + self.raw

    @property
    def key_id(self) -> bytes:
        """SHA-256 of `spki`."""
        return hashlib.sha256(self.spki).digest()

    @property
    def is_test_key(self) -> bool:
        """Whether the private half is published."""
        return self.key_id in TEST_KEYS

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over `message`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """PEM, as `openssl pkey -pubout` writes it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

        return load_der_public_key(self.spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key; fits `ess_can.image.node_image.Signer`."""

    _private: Ed25519PrivateKey = field(repr=False)
    public: PublicKey

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's random numbers."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls._of(Ed25519PrivateKey.generate(), "")

    @classmethod
    def from_seed(cls, seed: bytes, name: str = "") -> Self:
        """The key of a 32-byte seed (RFC 8032)."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls._of(Ed25519PrivateKey.from_private_bytes(seed), name)

    @classmethod
    def _of(cls, private: Ed25519PrivateKey, name: str) -> Self:
        return cls(private, PublicKey(private.public_key().public_bytes_raw(), name))

    @classmethod
    def load(cls, path: Path, password: bytes | None = None) -> Self:
        """Read a PKCS #8 PEM file.  Raises UsageError if it is no Ed25519 private key or the password is wrong."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = read_limited(path, _PEM_LIMIT, remedy="Give --key the path of a readable private key in PEM form.")
        try:
            private = load_pem_private_key(data, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _unusable(path, "a private", str(error)) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise _unusable(path, "a private", "it is a key of another algorithm")
        return cls._of(private, path.name)

    @property
    def key_id(self) -> bytes:
        """The id of the public half."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message`."""
        return self._private.sign(message)

    def pem(self, password: bytes | None = None) -> bytes:
        """PKCS #8 PEM, encrypted if there is a password."""
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        protection = BestAvailableEncryption(password) if password else NoEncryption()
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The public keys that are trusted for one purpose."""

    keys: tuple[PublicKey, ...]

    @classmethod
    def of(cls, *keys: PublicKey) -> Self:
        """A ring of these keys."""
        return cls(keys)

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Self:
        """A ring of PEM public keys.  Raises UsageError, FileUnreadable."""
        return cls(tuple(load_public_key(path) for path in paths))

    def find(self, key_id: bytes) -> PublicKey | None:
        """The key with this id."""
        return next((key for key in self.keys if key.key_id == key_id), None)


def load_public_key(path: Path) -> PublicKey:
    """Read a PEM SubjectPublicKeyInfo file.  Raises UsageError if it is no Ed25519 public key, FileUnreadable."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_limited(path, _PEM_LIMIT, remedy=_PUBLIC_KEY_REMEDY)
    try:
        public = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "it is a private key: give its public half" if b"PRIVATE KEY-" in data else str(error)
        raise _unusable(path, "a public", hint) from error
    if not isinstance(public, Ed25519PublicKey):
        raise _unusable(path, "a public", "it is a key of another algorithm")
    return PublicKey(public.public_bytes_raw(), path.name)


def _unusable(path: Path, kind: str, why: str) -> UsageError:
    return UsageError(
        f"{path} is not {kind} Ed25519 key in PEM form",
        why=why,
        remedy="Make keys with `ess-can image keys new`, `imgtool keygen -t ed25519` or `openssl genpkey`; "
        "the password of an encrypted one is taken from ESS_CAN_KEY_PASSWORD.",
    )
