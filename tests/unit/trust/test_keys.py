from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ess_can.errors import FileUnreadable, UsageError
from ess_can.resources import test_key_path as packaged_key_path
from ess_can.trust.keys import TEST_KEYS, KeyRing, PublicKey, SigningKey, load_public_key
from tests.firmware_images import FIRMWARE, RELEASE, STRANGER
from tests.unit.trust.samples import FOLDER


def test_the_id_is_the_hash_of_the_subject_public_key_info() -> None:
    loaded = serialization.load_pem_public_key(RELEASE.public.pem())
    der = loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert der == RELEASE.public.spki
    assert RELEASE.key_id == RELEASE.public.key_id == hashlib.sha256(der).digest()


def test_rfc_8032_test_vector_2() -> None:
    key = SigningKey.from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = key.sign(b"\x72")
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert key.public.verify(signature, b"\x72")
    assert not key.public.verify(signature, b"\x73")
    assert not STRANGER.public.verify(signature, b"\x72")
    assert not key.public.verify(signature[:-1], b"\x72")


@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_new_key_survives_its_file(tmp_path: Path, password: bytes | None) -> None:
    key = SigningKey.generate()
    path = tmp_path / "k.pem"
    path.write_bytes(key.pem(password))
    again = SigningKey.load(path, password)
    assert again.public == key.public
    assert again.public.name == "k.pem"
    (tmp_path / "k.pub.pem").write_bytes(key.public.pem())
    assert load_public_key(tmp_path / "k.pub.pem") == key.public
    assert key.public != SigningKey.generate().public


def test_the_private_half_is_not_shown() -> None:
    assert "private" not in repr(RELEASE).lower()


def test_what_is_no_key(tmp_path: Path) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    files = {
        "text": b"hello",
        "private": RELEASE.pem(),
        "locked": RELEASE.pem(b"secret"),
        "public": RELEASE.public.pem(),
        "ec-private": elliptic.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "ec-public": elliptic.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in ("text", "private", "locked", "ec-public", "ec-private"):
        with pytest.raises(UsageError):
            load_public_key(tmp_path / name)
    with pytest.raises(UsageError, match="public half"):
        load_public_key(tmp_path / "private")
    for name in ("text", "public", "locked", "ec-private"):
        with pytest.raises(UsageError):
            SigningKey.load(tmp_path / name)
    with pytest.raises(UsageError):
        SigningKey.load(tmp_path / "locked", b"wrong")
    with pytest.raises(UsageError):
        SigningKey.load(tmp_path / "private", b"needless")
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileUnreadable) as caught:
            load_public_key(path)
        assert "--trusted-key" in caught.value.remedy
    with pytest.raises(FileUnreadable) as caught:
        SigningKey.load(tmp_path)
    assert "--key" in caught.value.remedy


def test_a_ring_finds_by_id(tmp_path: Path) -> None:
    ring = KeyRing.of(RELEASE.public, FIRMWARE.public)
    assert ring.find(FIRMWARE.key_id) == FIRMWARE.public
    assert ring.find(STRANGER.key_id) is None
    path = tmp_path / "k.pem"
    path.write_bytes(RELEASE.public.pem())
    assert KeyRing.load([path]) == KeyRing.of(RELEASE.public)


@pytest.mark.parametrize("name", ["release", "firmware"])
def test_the_published_test_keys_are_known_as_such(name: str) -> None:
    public = load_public_key(packaged_key_path(f"TEST-ONLY-{name}.pub.pem"))
    private = SigningKey.load(FOLDER / "keys" / f"TEST-ONLY-{name}.pem")
    assert private.public == public
    assert public.is_test_key
    assert TEST_KEYS[public.key_id] == f"ess-can TEST-ONLY {name}"
    assert "TEST KEY ONLY" in (FOLDER / "keys" / f"TEST-ONLY-{name}.pem").read_text()


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("d4b31ba49a3add3f825d10ca7f31b50b0de87f37ccc49f1a403a5c1320ffb4e0", "MCUboot root-ed25519"),
        ("c3bcdf30764e1f5db40d892e0d0eab049c30064e79a8edb6f7792e469a26da77", "MCUboot root-ed25519-2"),
        ("d239ead53588b0f5b2433e4b2bf276190b8687915cb01330cd40d0c736671195", "MCUboot root-ed25519-unknown"),
    ],
)
def test_mcuboots_example_keys_are_known_as_such(raw: str, name: str) -> None:
    assert TEST_KEYS[PublicKey(bytes.fromhex(raw)).key_id] == name


def test_other_keys_are_not() -> None:
    assert not RELEASE.public.is_test_key
