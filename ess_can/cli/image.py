"""`ess-can image`: make, look at and check firmware files.  Needs no bus.

Firmware becomes an upgrade file in two steps, usually by two people with two keys: `image sign` wraps one firmware
for one kind of node (what `imgtool sign` does), `image build` puts signed images into one signed release.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import handle_errors
from ess_can.cli.image_text import facts_document, key_note, print_entry, print_facts, print_json
from ess_can.errors import UsageError
from ess_can.identity import NodeType, Version

if TYPE_CHECKING:
    from ess_can.image.manifest import Dependency
    from ess_can.trust.keys import KeyRing, PublicKey, SigningKey

_NODE_TYPES = [node_type.name.lower() for node_type in NodeType]


def _version(text: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a number such as 17 or 0x11") from error


_PATH = click.Path(path_type=Path)
_DATE = click.DateTime(["%Y-%m-%d"])
_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_output_option = click.option("-o", "--output", type=_PATH, required=True, help="File to write.")
_overwrite_option = click.option("--overwrite", is_flag=True, help="Overwrite the output file.")
_password_option = click.option(
    "--password", envvar="ESS_CAN_KEY_PASSWORD", show_envvar=True, help="Password of an encrypted private key."
)


@click.group()
def image() -> None:
    """Make, look at and check firmware files."""


@image.command()
@click.argument("firmware", type=_PATH)
@_output_option
@click.option("--key", type=_PATH, required=True, help="Firmware signing key, Ed25519 private PEM.")
@click.option("--node-type", type=click.Choice(_NODE_TYPES), required=True)
@click.option(
    "--hardware",
    type=_number,
    metavar="ID",
    multiple=True,
    required=True,
    help="Hardware id it runs on, such as 0x11; repeatable.",
)
@click.option("--version", type=_version, metavar="VERSION", required=True, help="Firmware version, such as 1.2.0.")
@click.option(
    "--security-counter",
    type=_number,
    metavar="NUMBER",
    required=True,
    help="Never lower than that of any release before.",
)
@_password_option
@_overwrite_option
@_json_option
@handle_errors
def sign(
    firmware: Path,
    output: Path,
    key: Path,
    node_type: str,
    hardware: tuple[int, ...],
    version: Version,
    security_counter: int,
    password: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Wrap FIRMWARE (.hex .srec .elf .bin) into a signed node image, as `imgtool sign` does.

    The firmware must be linked to run 0x200 bytes behind the start of the slot.
    """
    from ess_can.image.node_image import build_node_image, parse_node_image
    from ess_can.image.readers import read_firmware

    signer = _signing_key(key, password)
    source = read_firmware(firmware)
    data = build_node_image(
        source.data,
        version=version,
        node_type=NodeType[node_type.upper()],
        hardware_ids=tuple(sorted(hardware)),
        security_counter=security_counter,
        signer=signer,
    )
    facts = parse_node_image(data)
    _write(output, data, overwrite)
    if as_json:
        print_json({"result": "ok", "file": str(output), "image": facts_document(facts)})
    else:
        click.echo(f"{output}: {node_type} {version}, {len(data)} bytes, signed with key {signer.key_id.hex()[:16]}...")


@image.command()
@click.argument("images", type=_PATH, nargs=-1, required=True)
@_output_option
@click.option("--key", type=_PATH, required=True, help="Release signing key, Ed25519 private PEM.")
@click.option("--release", required=True, help="Name of the release.")
@click.option("--version", type=_version, metavar="VERSION", required=True, help="Version of the release.")
@click.option("--created", type=_DATE, required=True, help="Date of the release, such as 2026-11-20.")
@click.option("--expires", type=_DATE, help="Last day on which it may be installed.")
@click.option(
    "--depends",
    type=(click.Choice(_NODE_TYPES), click.Choice(_NODE_TYPES), _version),
    multiple=True,
    metavar="TYPE OTHER VERSION",
    help="Images for TYPE need nodes of type OTHER to run at least VERSION; repeatable.",
)
@_password_option
@_overwrite_option
@_json_option
@handle_errors
def build(
    images: tuple[Path, ...],
    output: Path,
    key: Path,
    release: str,
    version: Version,
    created: datetime,
    expires: datetime | None,
    depends: tuple[tuple[str, str, Version], ...],
    password: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Put signed node IMAGES (from `image sign` or `imgtool sign`) into one signed upgrade file.

    Nodes are programmed in the order in which the images are given.
    """
    from ess_can.image.files import read_limited
    from ess_can.image.manifest import Dependency
    from ess_can.image.node_image import SLOT_SIZE, parse_node_image
    from ess_can.image.upgrade_file import Content, build_upgrade_file

    signer = _signing_key(key, password)
    contents = []
    for path in images:
        data = read_limited(path, SLOT_SIZE)
        facts = parse_node_image(data)
        if facts.signature is None:
            raise UsageError(f"{path} is not signed", why="no node would accept it", remedy="Use `ess-can image sign`.")
        needs: list[Dependency] = [
            Dependency(NodeType[other.upper()], minimum)
            for dependent, other, minimum in depends
            if NodeType[dependent.upper()] is facts.node_type
        ]
        contents.append(Content(data, tuple(needs)))
    result = build_upgrade_file(
        contents,
        release_name=release,
        release_version=version,
        created=created.date(),
        expires=None if expires is None else expires.date(),
        signer=signer,
    )
    _write(output, result, overwrite)
    if as_json:
        print_json({"result": "ok", "file": str(output), "size": len(result), "key_id": signer.key_id.hex()})
    else:
        click.echo(f"{output}: {release} {version}, {len(contents)} image(s), {len(result)} bytes")


@image.command()
@click.argument("file", type=_PATH)
@_json_option
@handle_errors
def show(file: Path, as_json: bool) -> None:
    """Tell what an upgrade file or a node image says of itself.  Proves nothing: see `image verify`."""
    from ess_can.image.files import read_limited
    from ess_can.image.manifest import parse_manifest
    from ess_can.image.node_image import parse_node_image
    from ess_can.image.upgrade_file import MAX_FILE_SIZE, split_images, split_upgrade_file

    data = read_limited(file, MAX_FILE_SIZE)
    if _is_node_image(data):
        facts = parse_node_image(data)
        if as_json:
            print_json({"result": "ok", "kind": "node image", "verified": False, "image": facts_document(facts)})
        else:
            print_facts(facts)
            click.echo("Nothing of this was verified; `ess-can image verify` does.")
        return
    envelope = split_upgrade_file(data)
    manifest = parse_manifest(envelope.manifest)
    split_images(data, envelope, manifest)
    key_id = None if envelope.signature is None else envelope.key_id.hex()
    if as_json:
        print_json(
            {
                "result": "ok",
                "kind": "upgrade file",
                "verified": False,
                "size": len(data),
                "key_id": key_id,
                "manifest": json.loads(envelope.manifest),
            }
        )
        return
    click.echo(f"release     {manifest.release_name} {manifest.release_version}")
    click.echo(f"created     {manifest.created}")
    click.echo(f"expires     {manifest.expires or 'never'}")
    click.echo(f"size        {len(data)} bytes")
    click.echo(f"signed by   {'nobody' if key_id is None else f'key {key_id}'}{key_note(envelope.key_id)}")
    for number, entry in enumerate(manifest.images, 1):
        print_entry(number, entry)
    click.echo("Nothing of this was verified; `ess-can image verify` does.")


@image.command()
@click.argument("file", type=_PATH)
@click.option(
    "--trusted-key",
    "trusted_keys",
    type=_PATH,
    multiple=True,
    required=True,
    help="Public key (PEM) trusted to sign releases and images; repeatable.",
)
@click.option(
    "--firmware-key",
    "firmware_keys",
    type=_PATH,
    multiple=True,
    help="Public key (PEM) trusted to sign images; if given, --trusted-key is for releases only; repeatable.",
)
@click.option("--today", type=_DATE, help="Date to check the expiry against; without it expiry is not checked.")
@click.option("--allow-test-keys", is_flag=True, help="Accept published test keys: for simulated plants only.")
@_json_option
@handle_errors
def verify(
    file: Path,
    trusted_keys: tuple[Path, ...],
    firmware_keys: tuple[Path, ...],
    today: datetime | None,
    allow_test_keys: bool,
    as_json: bool,
) -> None:
    """Check an upgrade file, or a single node image, as the gateway does before it touches the plant."""
    from ess_can.image.files import read_limited
    from ess_can.image.upgrade_file import MAX_FILE_SIZE
    from ess_can.trust.keys import KeyRing

    keyring = KeyRing.load(trusted_keys)
    firmware_keyring = KeyRing.load(firmware_keys) if firmware_keys else keyring
    data = read_limited(file, MAX_FILE_SIZE)
    if _is_node_image(data):
        _verify_image(file, data, firmware_keyring, allow_test_keys, as_json)
    else:
        day = None if today is None else today.date()
        _verify_upgrade(file, data, (keyring, firmware_keyring), allow_test_keys, day, as_json)


def _verify_image(file: Path, data: bytes, keyring: KeyRing, allow_test_keys: bool, as_json: bool) -> None:
    from ess_can.trust.verify import verify_node_image

    image = verify_node_image(data, keyring, allow_test_keys=allow_test_keys)
    if as_json:
        print_json(
            {"result": "ok", "kind": "node image", "verified": True, "image": facts_document(image.facts)}
        )  # fmt: skip
        return
    print_facts(image.facts)
    click.echo(f"{file} is good: signed by {image.signer.name}.")


def _verify_upgrade(
    file: Path, data: bytes, keyrings: tuple[KeyRing, KeyRing], allow_test_keys: bool, today: date | None, as_json: bool
) -> None:
    from ess_can.trust.verify import open_upgrade_file

    keyring, firmware_keyring = keyrings
    upgrade = open_upgrade_file(
        data, keyring, firmware_keyring=firmware_keyring, allow_test_keys=allow_test_keys, today=today
    )
    manifest = upgrade.manifest
    if as_json:
        print_json(
            {
                "result": "ok",
                "kind": "upgrade file",
                "verified": True,
                "size": upgrade.size,
                "digest": upgrade.digest.hex(),
                "key_id": upgrade.signer.key_id.hex(),
                "release_name": manifest.release_name,
                "release_version": str(manifest.release_version),
                "images": [facts_document(image.facts) for image in upgrade.images],
            }
        )
        return
    for number, entry in enumerate(manifest.images, 1):
        print_entry(number, entry)
    click.echo(f"{file} is good: {manifest.release_name} {manifest.release_version}, signed by {upgrade.signer.name}.")


@image.group()
def keys() -> None:
    """Make and look at Ed25519 signing keys."""


@keys.command("new")
@click.argument("private", type=_PATH)
@_password_option
@_json_option
@handle_errors
def new_key(private: Path, password: str | None, as_json: bool) -> None:
    """Make a key pair: PRIVATE (such as release.pem) and its public half beside it (release.pub.pem)."""
    from ess_can.trust.keys import SigningKey

    public = private.with_suffix(".pub.pem")
    if public == private or public.exists():
        raise UsageError(f"{public} would be overwritten", remedy="Choose another name; a key is never overwritten.")
    key = SigningKey.generate()
    _write(private, key.pem(password.encode() if password else None), overwrite=False, mode=0o600)
    _write(public, key.public.pem(), overwrite=False)
    if as_json:
        print_json(
            {"result": "ok", "private": str(private), "public": str(public), "key_id": key.key_id.hex()}
        )  # fmt: skip
        return
    click.echo(f"private key {private}{'' if password else ' (not encrypted: guard it)'}")
    click.echo(f"public key  {public}")
    click.echo(f"key id      {key.key_id.hex()}")


@keys.command("show")
@click.argument("public", type=_PATH)
@_json_option
@handle_errors
def show_key(public: Path, as_json: bool) -> None:
    """Show the id of a PUBLIC key (PEM)."""
    from ess_can.trust.keys import load_public_key

    key: PublicKey = load_public_key(public)
    if as_json:
        print_json({"result": "ok", "key_id": key.key_id.hex(), "algorithm": "Ed25519", "test_key": key.is_test_key})
        return
    click.echo(f"key id      {key.key_id.hex()}{key_note(key.key_id)}")
    click.echo("algorithm   Ed25519")


def _signing_key(path: Path, password: str | None) -> SigningKey:
    from ess_can.trust.keys import SigningKey

    return SigningKey.load(path, password.encode() if password else None)


def _is_node_image(data: bytes) -> bool:
    from ess_can.image.node_image import MAGIC

    return data[:4] == MAGIC.to_bytes(4, "little")


def _write(path: Path, data: bytes, overwrite: bool, mode: int = 0o644) -> None:
    """Write a new file with `mode`; an existing one only if `overwrite`."""
    import os

    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | (os.O_TRUNC if overwrite else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UsageError(f"{path} exists", remedy="Choose another name, or overwrite it with --overwrite.") from error
    except OSError as error:
        raise UsageError(
            f"cannot write {path}", why=error.strerror or str(error), remedy="Give a path that can be written."
        ) from error
