"""`ess-can image keys`: make and look at signing keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ess_can.cli.errors import handle_errors
from ess_can.cli.image_text import key_note, print_json
from ess_can.cli.output_file import write_file
from ess_can.errors import UsageError

if TYPE_CHECKING:
    from ess_can.trust.keys import PublicKey

PATH = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
password_option = click.option(
    "--password", envvar="ESS_CAN_KEY_PASSWORD", show_envvar=True, help="Password of an encrypted private key."
)


@click.group()
def keys() -> None:
    """Make and look at Ed25519 signing keys."""


@keys.command("new")
@click.argument("private", type=PATH)
@password_option
@json_option
@handle_errors
def new_key(private: Path, password: str | None, as_json: bool) -> None:
    """Make a key pair: PRIVATE (such as release.pem) and its public half beside it (release.pub.pem)."""
    from ess_can.trust.keys import SigningKey

    public = private.with_suffix(".pub.pem")
    if public == private or public.exists():
        raise UsageError(f"{public} would be overwritten", remedy="Choose another name; a key is never overwritten.")
    key = SigningKey.generate()
    write_file(private, key.pem(password.encode() if password else None), mode=0o600)
    write_file(public, key.public.pem())
    if as_json:
        print_json(
            {"result": "ok", "private": str(private), "public": str(public), "key_id": key.key_id.hex()}
        )  # fmt: skip
        return
    click.echo(f"private key {private}{'' if password else ' (not encrypted: guard it)'}")
    click.echo(f"public key  {public}")
    click.echo(f"key id      {key.key_id.hex()}")


@keys.command("show")
@click.argument("public", type=PATH)
@json_option
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
