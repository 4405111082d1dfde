"""`ess-can image`: make, look at and check firmware files.  Needs no bus.

Firmware becomes an upgrade file in two steps, usually by two people with two keys: `image sign` wraps one firmware
for one kind of node (what `imgtool sign` does), `image build` puts signed images into one signed release.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import handle_errors
from ess_can.cli.image_keys import PATH, json_option, keys, password_option
from ess_can.cli.image_text import facts_document, key_note, print_entry, print_facts, print_json
from ess_can.cli.output_file import write_file
from ess_can.cli.slot_option import slot_option
from ess_can.errors import UsageError
from ess_can.identity import NodeType, Version

if TYPE_CHECKING:
    from ess_can.image.content import ImageContent
    from ess_can.image.manifest import Dependency
    from ess_can.trust.keys import SigningKey
    from ess_can.trust.verify import VerifiedImage, VerifiedUpgrade

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


_DATE = click.DateTime(["%Y-%m-%d"])
_output_option = click.option("-o", "--output", type=PATH, required=True, help="File to write.")
_overwrite_option = click.option("--overwrite", is_flag=True, help="Overwrite the output file.")


@click.group()
def image() -> None:
    """Make, look at and check firmware files."""


@image.command()
@click.argument("firmware", type=PATH)
@_output_option
@click.option("--key", type=PATH, required=True, help="Firmware signing key, Ed25519 private PEM.")
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
@slot_option
@password_option
@_overwrite_option
@json_option
@handle_errors
def sign(
    firmware: Path,
    output: Path,
    key: Path,
    node_type: str,
    hardware: tuple[int, ...],
    version: Version,
    security_counter: int,
    slot_kib: int,
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
    source = read_firmware(firmware, slot_kib * 1024)
    data = build_node_image(
        source.data,
        version=version,
        node_type=NodeType[node_type.upper()],
        hardware_ids=tuple(sorted(hardware)),
        security_counter=security_counter,
        signer=signer,
    )
    facts = parse_node_image(data, slot_kib * 1024)
    write_file(output, data, overwrite=overwrite)
    if as_json:
        print_json({"result": "ok", "file": str(output), "image": facts_document(facts)})
    else:
        click.echo(f"{output}: {node_type} {version}, {len(data)} bytes, signed with key {signer.key_id.hex()[:16]}...")


@image.command()
@click.argument("images", type=PATH, nargs=-1, required=True)
@_output_option
@click.option("--key", type=PATH, required=True, help="Release signing key, Ed25519 private PEM.")
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
@slot_option
@password_option
@_overwrite_option
@json_option
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
    slot_kib: int,
    password: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Put signed node IMAGES (from `image sign` or `imgtool sign`) into one signed upgrade file.

    Nodes are programmed in the order in which the images are given.
    """
    from ess_can.image.files import read_limited
    from ess_can.image.manifest import Dependency
    from ess_can.image.node_image import LARGER_SLOT, parse_node_image
    from ess_can.image.upgrade_file import Content, build_upgrade_file

    signer, slot_size = _signing_key(key, password), slot_kib * 1024
    contents = []
    for path in images:
        data = read_limited(path, slot_size, remedy=LARGER_SLOT)
        facts = parse_node_image(data, slot_size)
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
        slot_size=slot_size,
    )
    write_file(output, result, overwrite=overwrite)
    if as_json:
        print_json({"result": "ok", "file": str(output), "size": len(result), "key_id": signer.key_id.hex()})
    else:
        click.echo(f"{output}: {release} {version}, {len(contents)} image(s), {len(result)} bytes")


@image.command()
@click.argument("file", type=PATH)
@slot_option
@json_option
@handle_errors
def show(file: Path, slot_kib: int, as_json: bool) -> None:
    """Tell what an upgrade file or a node image says of itself.  Proves nothing: see `image verify`."""
    from ess_can.gateway.losses import losses_of_any
    from ess_can.image.files import copy_limited
    from ess_can.image.manifest import parse_manifest
    from ess_can.image.node_image import parse_node_image
    from ess_can.image.upgrade_file import MAX_FILE_SIZE, split_images, split_upgrade_file

    content = copy_limited(file, MAX_FILE_SIZE)
    if _is_node_image(content):
        facts = parse_node_image(content, slot_kib * 1024)
        if as_json:
            print_json({"result": "ok", "kind": "node image", "verified": False, "image": facts_document(facts)})
        else:
            print_facts(facts)
            click.echo("Nothing of this was verified; `ess-can image verify` does.")
        return
    envelope = split_upgrade_file(content)
    manifest = parse_manifest(envelope.manifest)
    split_images(content, envelope, manifest)
    key_id = None if envelope.signature is None else envelope.key_id.hex()
    meanwhile = losses_of_any(entry.node_type for entry in manifest.images)
    if as_json:
        print_json(
            {
                "result": "ok",
                "kind": "upgrade file",
                "verified": False,
                "size": content.size,
                "key_id": key_id,
                "manifest": json.loads(envelope.manifest),
                "unavailable": meanwhile,
            }
        )
        return
    click.echo(f"release     {manifest.release_name} {manifest.release_version}")
    click.echo(f"created     {manifest.created}")
    click.echo(f"expires     {manifest.expires or 'never'}")
    click.echo(f"size        {content.size} bytes")
    click.echo(f"signed by   {'nobody' if key_id is None else f'key {key_id}'}{key_note(envelope.key_id)}")
    for number, entry in enumerate(manifest.images, 1):
        print_entry(number, entry)
    for loss in meanwhile:
        click.echo(loss)
    click.echo("For how long, `ess-can upgrade --dry-run` says of a station.")
    click.echo("Nothing of this was verified; `ess-can image verify` does.")


@image.command()
@click.argument("file", type=PATH)
@click.option(
    "--trusted-key",
    "trusted_keys",
    type=PATH,
    multiple=True,
    required=True,
    help="Public key (PEM) trusted to sign releases and images; repeatable.",
)
@click.option(
    "--firmware-key",
    "firmware_keys",
    type=PATH,
    multiple=True,
    help="Public key (PEM) trusted to sign images; if given, --trusted-key is for releases only; repeatable.",
)
@click.option("--today", type=_DATE, help="Date to check the expiry against; without it expiry is not checked.")
@click.option("--allow-test-keys", is_flag=True, help="Accept published test keys: for simulated plants only.")
@slot_option
@json_option
@handle_errors
def verify(
    file: Path,
    trusted_keys: tuple[Path, ...],
    firmware_keys: tuple[Path, ...],
    today: datetime | None,
    allow_test_keys: bool,
    slot_kib: int,
    as_json: bool,
) -> None:
    """Check an upgrade file, or a single node image, as the gateway does before it touches the plant."""
    from ess_can.image.files import copy_limited
    from ess_can.image.upgrade_file import MAX_FILE_SIZE
    from ess_can.trust.keys import KeyRing
    from ess_can.trust.verify import open_upgrade_file, verify_node_image

    keyring = KeyRing.load(trusted_keys)
    firmware_keyring = KeyRing.load(firmware_keys) if firmware_keys else keyring
    content, slot_size = copy_limited(file, MAX_FILE_SIZE), slot_kib * 1024
    if _is_node_image(content):
        image = verify_node_image(content, firmware_keyring, allow_test_keys=allow_test_keys, slot_size=slot_size)
        _print_verified_image(file, image, as_json)
    else:
        upgrade = open_upgrade_file(
            content,
            keyring,
            firmware_keyring=firmware_keyring,
            allow_test_keys=allow_test_keys,
            today=None if today is None else today.date(),
            slot_size=slot_size,
        )
        _print_verified_upgrade(file, upgrade, as_json)


def _print_verified_image(file: Path, image: VerifiedImage, as_json: bool) -> None:
    if as_json:
        print_json(
            {"result": "ok", "kind": "node image", "verified": True, "image": facts_document(image.facts)}
        )  # fmt: skip
        return
    print_facts(image.facts)
    click.echo(f"{file} is good: signed by {image.signer.name}.")


def _print_verified_upgrade(file: Path, upgrade: VerifiedUpgrade, as_json: bool) -> None:
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


image.add_command(keys)


def _signing_key(path: Path, password: str | None) -> SigningKey:
    from ess_can.trust.keys import SigningKey

    return SigningKey.load(path, password.encode() if password else None)


def _is_node_image(content: ImageContent) -> bool:
    from ess_can.image.node_image import MAGIC

    return content.read(0, 4) == MAGIC.to_bytes(4, "little")
