"""Guards of the journal, of resuming by it, and of the files that are brought in."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

import ess_can.journal.kept_files as kept_files
import ess_can.journal.lock as lock
import ess_can.journal.schema as schema
import ess_can.trust.verify as verify
from ess_can.campaign.monitors import Invariant
from ess_can.errors import EssCanError
from ess_can.gateway.record import Doing, UpgradeLog
from ess_can.gateway.streamed_image import StreamedImage
from ess_can.identity import NodeType, Version
from ess_can.image.content import as_content
from ess_can.image.manifest import Manifest
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.journal.entries import Entry
from ess_can.journal.journal import Journal
from ess_can.journal.store import DATABASE, Chain
from ess_can.sim.plant import BMU_HARDWARE_ID
from ess_can.trust.keys import KeyRing, PublicKey, SigningKey
from ess_can.trust.verify import open_upgrade_file
from tests.campaign.guard import Guard, Off, Run, around, both, by, upgrade
from tests.campaign.guards_memory import require
from tests.firmware_images import FIRMWARE, RELEASE, small_image
from tests.unit.journal.rig import FILE, SHA256, WallClock, begin, whole_upgrade

_WRONG: Final = "wrong: "


def records(text: str, script: Callable[[Path], None]) -> Run:
    """Something is done with a journal in a directory."""

    def wrong() -> str:
        with tempfile.TemporaryDirectory() as directory:
            try:
                script(Path(directory))
            except AssertionError as error:
                return f"{_WRONG}{error}"
        return ""

    return Run(text, wrong)


def refuses(what: str, act: Callable[[], object], error: str) -> None:
    """It must raise this error."""
    try:
        act()
    except EssCanError as refusal:
        require(refusal.name == error, f"{what}: {refusal.name}, not {error}")
        return
    raise AssertionError(f"{what} is not refused")


def _open(directory: Path) -> Journal:
    return Journal.open(directory, WallClock())


def _write_behind(directory: Path, *statements: str) -> None:
    connection = sqlite3.connect(directory / DATABASE)
    triggers = list(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.commit()
    connection.close()


def _written(directory: Path) -> None:
    journal = _open(directory)
    whole_upgrade(journal)
    journal.close()


def _changed(directory: Path) -> None:
    _written(directory)
    _write_behind(directory, "UPDATE entries SET text = 'nothing' WHERE seq = 3")
    refuses("a journal with an entry that was changed", lambda: _open(directory).close(), "JOURNAL_CORRUPT")


def _removed(directory: Path) -> None:
    _written(directory)
    _write_behind(directory, "DELETE FROM entries WHERE seq = 3")
    refuses("a journal with a gap", lambda: _open(directory).close(), "JOURNAL_CORRUPT")


def _by_sql(directory: Path) -> None:
    _written(directory)
    connection = sqlite3.connect(directory / DATABASE)
    try:
        connection.execute("UPDATE entries SET text = 'nothing' WHERE seq = 3")
        changed = True
    except sqlite3.Error:
        changed = False
    connection.close()
    require(not changed, "an entry can be changed")


def _two(directory: Path) -> None:
    first = _open(directory)
    try:
        refuses("a second writer", lambda: _open(directory).close(), "LOCKED")
    finally:
        first.close()


def _kept(directory: Path) -> None:
    journal = _open(directory)
    begin(journal)
    path = next((directory / "files").iterdir())
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    try:
        refuses("a kept file that was changed", lambda: journal.kept_file("1"), "JOURNAL_CORRUPT")
    finally:
        journal.close()


def _copied(directory: Path) -> None:
    journal = _open(directory)
    try:
        other = hashlib.sha256(FILE + b"x").digest()
        require(other != SHA256, "the same")
        refuses("a file that changed after its check", lambda: journal.begin("x", FILE, other, ""), "FILE_UNREADABLE")
    finally:
        journal.close()


# --- files ------------------------------------------------------------------------------------------------


def _image(signer: SigningKey = FIRMWARE) -> bytes:
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

    def wrong() -> str:
        try:
            refuses(
                "the file",
                lambda: open_upgrade_file(make(), _RELEASE_RING, firmware_keyring=_FIRMWARE_RING, today=today),
                error,
            )
        except AssertionError as mistake:
            return f"{_WRONG}{mistake}"
        return ""

    return Run(text, wrong)


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

# --- how they are switched off --------------------------------------------------------------------------------


_NO_TRIGGERS: Final = both(
    by(schema.migrate, "__defaults__", ((schema.STEPS[0][:1],),)),
    by(schema.check, "__defaults__", ((schema.STEPS[0][:1],),)),
)


def _for_ever(original: Callable[..., object]) -> object:
    def parse(data: bytes) -> object:
        manifest = original(data)
        return replace(manifest, expires=None) if isinstance(manifest, Manifest) else manifest

    return parse


async def _enters(doing: Doing) -> Doing:
    return doing


async def _leaves(*_: object) -> None:
    """No result."""


def _late(original: Callable[..., object]) -> object:
    async def enter(doing: Doing) -> Doing:
        from asyncio import get_running_loop

        get_running_loop().call_later(0.2, doing._log.write_later, doing._intend)
        return doing

    return enter


def _goes_on(original: Callable[..., object]) -> object:
    async def write(log: UpgradeLog, job: object) -> None:
        try:
            await original(log, job)  # type: ignore[misc]
        except EssCanError:
            return

    return write


def _believes_chain(original: Callable[..., object]) -> object:
    def take(chain: Chain, row: tuple[object, ...]) -> Entry:
        from ess_can.journal.store import parse

        entry = parse(row)
        chain.history.take(entry)
        chain.length, chain.head = chain.length + 1, entry.digest
        return entry

    return take


def _records(name: str, where: str, prevents: str, off: Off, run: Run) -> Guard:
    return Guard(name, where, prevents, off, run, _WRONG)


GUARDS: Final = (
    Guard(
        "journal, intent",
        "gateway.record:Doing.__aenter__",
        "a deed of which nobody can know after a crash",
        by(Doing, "__aenter__", _enters),
        upgrade(),
        Invariant.RECORDED,
    ),
    Guard(
        "journal, intent before the deed",
        "gateway.record:Doing.__aenter__",
        "a deed that a crash leaves without a record",
        around(Doing, "__aenter__", _late),
        upgrade(),
        Invariant.RECORDED,
    ),
    Guard(
        "journal, result",
        "gateway.record:Doing.__aexit__",
        "not knowing what came of a deed",
        by(Doing, "__aexit__", _leaves),
        upgrade(),
        Invariant.RECORDED,
    ),
    Guard(
        "journal, no record, no upgrade",
        "gateway.record:UpgradeLog.write",
        "going on without a record",
        around(UpgradeLog, "write", _goes_on),
        upgrade("gateway:disk%20:error"),
        Invariant.RECORDED,
    ),
    _records(
        "journal, chain",
        "journal.store:Chain.take",
        "a history that was rewritten",
        around(Chain, "take", _believes_chain),
        records("a journal of which an entry was changed", _changed),
    ),
    _records(
        "journal, no gap",
        "journal.store:Chain.take",
        "a history from which something was taken",
        around(Chain, "take", _believes_chain),
        records("a journal of which an entry is gone", _removed),
    ),
    _records(
        "journal, entries stay",
        "journal.schema:STEPS",
        "changing an entry by mistake",
        _NO_TRIGGERS,
        records("an entry is changed by SQL", _by_sql),
    ),
    _records(
        "journal, one writer",
        "journal.lock:ProcessLock",
        "two gateways that write one journal",
        by(lock, "lock_file", lambda _: True),
        records("a journal is opened twice", _two),
    ),
    _records(
        "journal, kept file",
        "journal.kept_files:DiskFiles.open",
        "going on with another file than it began with",
        by(kept_files, "_hash", lambda _: SHA256),
        records("a kept file is changed", _kept),
    ),
    _records(
        "journal, copy of what was checked",
        "journal.kept_files:_require_same",
        "keeping another file than was checked",
        by(kept_files, "_require_same", lambda *_: None),
        records("a file changes after its check", _copied),
    ),
    _records(
        "file, signature",
        "trust.keys:PublicKey.verify",
        "a release that nobody signed",
        by(PublicKey, "verify", lambda *_: True),
        opening("a file of which the manifest was changed", _renamed, "SIGNATURE_INVALID"),
    ),
    _records(
        "file, hash of an image",
        "trust.verify:_hash",
        "an image that is not the one that was signed",
        around(verify, "_hash", _believes),
        opening("a file of which an image was changed", _damaged, "IMAGE_CORRUPT"),
    ),
    _records(
        "file, trusted key",
        "trust.keys:KeyRing.find",
        "a release of somebody else",
        by(KeyRing, "find", lambda _ring, key_id: _STRANGER.public),
        opening("a file that a stranger signed", lambda: _file(signer=_STRANGER), "UNKNOWN_KEY"),
    ),
    _records(
        "file, trusted firmware key",
        "trust.verify:_verify",
        "firmware of somebody else in a good release",
        around(KeyRing, "find", lambda was: lambda ring, key_id: was(ring, key_id) or _STRANGER.public),
        opening("an image that a stranger signed", lambda: _file(_image(signer=_STRANGER)), "UNKNOWN_KEY"),
    ),
    _records(
        "file, test keys",
        "trust.verify:_check_signature",
        "a release that anybody can sign",
        by(verify, "TEST_KEYS", {}),
        Run("a file that is signed with a published key", lambda: _published()),
    ),
    _records(
        "file, expiry",
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
        Run("an image that changes after it was checked", lambda: _changing()),
        _WRONG,
    ),
)


def _published() -> str:
    """With the ring of the published key itself, which may be trusted on a bench only."""
    from unittest.mock import patch

    trusted = vars(verify)["TEST_KEYS"]
    known = {**trusted, _STRANGER.public.key_id: "published"} if trusted else {}
    with patch.object(verify, "TEST_KEYS", known):
        try:
            refuses(
                "the file",
                lambda: open_upgrade_file(_file(signer=_STRANGER), KeyRing.of(_STRANGER.public)),
                "TEST_KEY_REFUSED",
            )
        except AssertionError as mistake:
            return f"{_WRONG}{mistake}"
    return ""


def _changing() -> str:
    data = _image()
    streamed = StreamedImage(as_content(data[:-1] + b"x"), hashlib.sha256(data).digest())
    streamed.read(0, len(data))
    try:
        refuses("another image", streamed.require_whole, "IMAGE_CORRUPT")
    except AssertionError as mistake:
        return f"{_WRONG}{mistake}"
    return ""
