"""Guards of the files that are brought in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Final
from unittest.mock import patch

import ess_can.trust.verify as verify
from ess_can.errors import EssCanError
from ess_can.gateway.streamed_image import StreamedImage
from ess_can.identity import NodeType, Version
from ess_can.image.content import ImageContent, as_content
from ess_can.image.manifest import ImageEntry, Manifest, encode_manifest
from ess_can.image.node_image import parse_node_image
from ess_can.image.upgrade_file import Content, assemble, build_upgrade_file, describe_image
from ess_can.sim.plant import BMU_HARDWARE_ID
from ess_can.trust.keys import KeyRing, PublicKey, SigningKey
from ess_can.trust.verify import VerifiedImage, open_upgrade_file
from tests.campaign.guard import Guard, Off, Run, around, by, refuses, script
from tests.firmware_images import FIRMWARE, RELEASE, small_image


def _image(signer: SigningKey | None = FIRMWARE) -> bytes:
    return small_image(
        payload=bytes(range(256)) * 4,
        version=Version(1, 1, 0),
        node_type=NodeType.BMU,
        hardware_ids=(BMU_HARDWARE_ID,),
        security_counter=2,
        signer=signer,
    )


def _file(image: bytes | None = None, signer: SigningKey = RELEASE, expires: date | None = None) -> bytes:
    content = Content(image or _image())
    return build_upgrade_file(
        [content],
        release_name="Release",
        release_version=Version(1, 1, 0),
        created=date(2026, 1, 1),
        signer=signer,
        expires=expires,
    )


_RELEASE_RING: Final = KeyRing.of(RELEASE.public)
_FIRMWARE_RING: Final = KeyRing.of(FIRMWARE.public)
_STRANGER: Final = SigningKey.from_seed(hashlib.sha256(b"a stranger").digest(), "a stranger")


def opening(text: str, make: Callable[[], bytes], error: str, *, today: date | None = None) -> Run:
    """A bad file is opened."""

    def open_it() -> object:
        return open_upgrade_file(make(), _RELEASE_RING, firmware_keyring=_FIRMWARE_RING, today=today)

    return script(text, lambda: refuses("the file", open_it, error))


def _renamed() -> bytes:
    return _file().replace(b"Release", b"Relaese", 1)


def _damaged() -> bytes:
    data = bytearray(_file())
    at = data.index(bytes(range(64))) + 5
    data[at] ^= 1
    return bytes(data)


def _believes(original: Callable[..., object]) -> object:
    return lambda _image: verify._Hashes(_GOOD.signed, _GOOD.whole, _GOOD.crc32)


_GOOD: Final = verify._hash(as_content(_image()))


def _for_ever(original: Callable[..., object]) -> object:
    def parse(data: bytes) -> object:
        manifest = original(data)
        return replace(manifest, expires=None) if isinstance(manifest, Manifest) else manifest

    return parse


# --- manifest and image -------------------------------------------------------------------------------------------


def _manifest(image: ImageEntry) -> Manifest:
    return Manifest(
        release_name="Release",
        release_version=Version(1, 1, 0),
        created=date(2026, 1, 1),
        expires=None,
        images=(image,),
    )


def _lying(**entry: object) -> Callable[[], bytes]:
    """A file whose signed manifest says something else of its image."""

    def make() -> bytes:
        image = _image()
        described = replace(describe_image(image), **entry)  # type: ignore[arg-type]
        manifest = _manifest(described)
        return assemble(encode_manifest(manifest), [image], RELEASE)

    return make


def _believing(name: str) -> Off:
    """An image is not refused for this."""

    def make(original: Callable[..., object]) -> object:
        def check(entry: ImageEntry, image: ImageContent, *rest: object) -> object:
            try:
                return original(entry, image, *rest)
            except EssCanError as error:
                if error.name != name:
                    raise
                return VerifiedImage(image, parse_node_image(image), bytes(32), 0, FIRMWARE.public)

        return check

    return around(verify, "_check_entry", make)


def _unsigned_trusted(original: Callable[..., object]) -> object:
    def check(what: str, key_id: bytes, signature: bytes | None, *rest: object) -> object:
        return RELEASE.public if signature is None else original(what, key_id, signature, *rest)

    return check


def _unsigned_file() -> bytes:
    manifest = _manifest(describe_image(_image()))
    return assemble(encode_manifest(manifest), [_image()], None)


def _disagreement(what: str, error: str, **entry: object) -> Guard:
    return _file_guard(
        f"manifest and image agree on {what}",
        "trust.verify:_check_entry",
        "bringing to a node what its release does not say",
        _believing(error),
        opening(f"a manifest with another {what} than its image", _lying(**entry), error),
    )


_DISAGREEMENTS: Final = (
    ("CRC", "IMAGE_CORRUPT", {"crc32": 1}),
    ("hash", "IMAGE_CORRUPT", {"sha256": bytes(32)}),
    ("node type", "WRONG_NODE_TYPE", {"node_type": NodeType.COMM_GATEWAY}),
    ("hardware", "WRONG_HARDWARE", {"hardware_ids": (0x77,)}),
    ("version", "MANIFEST_INVALID", {"version": Version(9, 9, 9)}),
    ("security counter", "MANIFEST_INVALID", {"security_counter": 9}),
)


_STRANGER_TRUSTED: Final = around(
    KeyRing, "find", lambda was: lambda ring, key_id: was(ring, key_id) or _STRANGER.public
)


def _file_guard(name: str, where: str, prevents: str, off: Off, run: Run) -> Guard:
    return Guard(f"file, {name}", where, prevents, off, run, "is not refused")


def _published() -> None:
    """With the ring of the published key itself, which may be trusted on a bench only."""
    trusted = vars(verify)["TEST_KEYS"]
    known = {**trusted, _STRANGER.public.key_id: "published"} if trusted else {}
    with patch.object(verify, "TEST_KEYS", known):
        file, ring = _file(signer=_STRANGER), KeyRing.of(_STRANGER.public)
        refuses("the file", lambda: open_upgrade_file(file, ring, firmware_keyring=_FIRMWARE_RING), "TEST_KEY_REFUSED")


def _changing() -> None:
    data = _image()
    streamed = StreamedImage(as_content(data[:-1] + b"x"), hashlib.sha256(data).digest())
    streamed.read(0, len(data))
    refuses("another image", streamed.require_whole, "IMAGE_CORRUPT")


GUARDS: Final = (
    _file_guard(
        "signature",
        "trust.keys:PublicKey.verify",
        "a release that nobody signed",
        by(PublicKey, "verify", lambda *_: True),
        opening("a file of which the manifest was changed", _renamed, "SIGNATURE_INVALID"),
    ),
    _file_guard(
        "hash of an image",
        "trust.verify:_hash",
        "an image that is not the one that was signed",
        around(verify, "_hash", _believes),
        opening("a file of which an image was changed", _damaged, "IMAGE_CORRUPT"),
    ),
    _file_guard(
        "trusted key",
        "trust.keys:KeyRing.find",
        "a release of somebody else",
        _STRANGER_TRUSTED,
        opening("a file that a stranger signed", lambda: _file(signer=_STRANGER), "UNKNOWN_KEY"),
    ),
    _file_guard(
        "trusted firmware key",
        "trust.verify:_verify",
        "firmware of somebody else in a good release",
        _STRANGER_TRUSTED,
        opening("an image that a stranger signed", lambda: _file(_image(signer=_STRANGER)), "UNKNOWN_KEY"),
    ),
    _file_guard(
        "test keys",
        "trust.verify:_check_signature",
        "a release that anybody can sign",
        by(verify, "TEST_KEYS", {}),
        script("a file that is signed with a published key", _published),
    ),
    _file_guard(
        "expiry",
        "trust.verify:open_upgrade_file",
        "a release that was withdrawn by its date",
        around(verify, "parse_manifest", _for_ever),
        opening(
            "a file that has expired",
            lambda: _file(expires=date(2026, 2, 1)),
            "UPGRADE_FILE_EXPIRED",
            today=date(2026, 3, 1),
        ),
    ),
    Guard(
        "file, hashed as it is sent",
        "gateway.streamed_image:StreamedImage.require_whole",
        "sending other bytes than were checked",
        by(StreamedImage, "require_whole", lambda _: None),
        script("an image that changes after it was checked", _changing),
        "is not refused",
    ),
    *(_disagreement(what, error, **entry) for what, error, entry in _DISAGREEMENTS),
    _file_guard(
        "signed at all",
        "trust.verify:_check_signature",
        "a draft that nobody answers for",
        around(verify, "_check_signature", _unsigned_trusted),
        opening("a file without a signature", _unsigned_file, "SIGNATURE_MISSING"),
    ),
    _file_guard(
        "image signed at all",
        "trust.verify:_verify",
        "firmware that nobody answers for",
        _believing("SIGNATURE_MISSING"),
        opening("an image without a signature", lambda: _file(_image(None)), "SIGNATURE_MISSING"),
    ),
)
