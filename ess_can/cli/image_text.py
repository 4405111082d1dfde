"""How `ess-can image` shows what is in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ess_can.cli.trace_file import trace_document

if TYPE_CHECKING:
    from ess_can.image.manifest import ImageEntry
    from ess_can.image.node_image import NodeImage


def facts_document(facts: NodeImage) -> dict[str, object]:
    """A node image's facts, for --json."""
    return {
        "node_type": facts.node_type.name.lower(),
        "hardware_ids": list(facts.hardware_ids),
        "version": str(facts.version),
        "security_counter": facts.security_counter,
        "size": facts.size,
        "payload_size": facts.payload_size,
        "digest": facts.digest.hex(),
        "key_id": None if facts.key_id is None else facts.key_id.hex(),
    }


def print_facts(facts: NodeImage) -> None:
    """A node image's facts, for people."""
    hardware = ", ".join(f"{number:#04x}" for number in facts.hardware_ids)
    click.echo(f"node image  {facts.node_type.name.lower()} {facts.version}")
    click.echo(f"hardware    {hardware}")
    click.echo(f"counter     {facts.security_counter}")
    click.echo(f"size        {facts.size} bytes, of which firmware {facts.payload_size}")
    click.echo(f"SHA-256     {facts.digest.hex()}")
    signer = "nobody" if facts.key_id is None else f"key {facts.key_id.hex()}{key_note(facts.key_id)}"
    click.echo(f"signed by   {signer}")


def print_entry(number: int, entry: ImageEntry) -> None:
    """One image of a release, for people."""
    hardware = ", ".join(f"{one:#04x}" for one in entry.hardware_ids)
    click.echo(
        f"image {number}     {entry.node_type.name.lower()} {entry.version}, hardware {hardware}, "
        f"security counter {entry.security_counter}, {entry.size} bytes"
    )
    for need in entry.depends:
        click.echo(f"            needs {need.node_type.name.lower()} {need.min_version} or newer")


def key_note(key_id: bytes) -> str:
    """A remark to print behind the id of a published test key, else nothing."""
    from ess_can.trust.keys import TEST_KEYS

    return f" (TEST KEY: {TEST_KEYS[key_id]})" if key_id in TEST_KEYS else ""


def print_json(document: dict[str, object]) -> None:
    """The one document of a command under --json: no error unless it names one, and its trace if it wrote one."""
    whole = {"result": document.get("result"), "exit_code": 0, "error": None, **document, **trace_document()}
    click.echo(json.dumps(whole, indent=2))
