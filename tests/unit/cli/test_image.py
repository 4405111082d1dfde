from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ess_can.cli.image import image as command
from ess_can.identity import NodeType
from ess_can.image.node_image import parse_node_image
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import open_upgrade_file
from tests.firmware_images import small_image, small_upgrade
from tests.unit.trust.samples import FOLDER

TEST_KEYS = FOLDER / "keys"


def run(*arguments: object, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], env=environment)


def document(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with release and firmware keys and a firmware binary."""
    for name in ("release", "firmware"):
        assert run("keys", "new", tmp_path / f"{name}.pem").exit_code == 0
    (tmp_path / "fw.bin").write_bytes(b"firmware " * 50)
    return tmp_path


def sign(folder: Path, *more: object, node_type: str = "bmu", output: str = "bmu.img") -> Result:
    return run(
        *("sign", folder / "fw.bin", "-o", folder / output, "--key", folder / "firmware.pem", "--node-type", node_type),
        *("--hardware", "0x12", "--hardware", "17", "--version", "1.2.0", "--security-counter", "3", *more),
    )


def build(folder: Path, *more: object) -> Result:
    return run(
        *("build", folder / "bmu.img", "-o", folder / "out.essup", "--key", folder / "release.pem"),
        *("--release", "Spring", "--version", "2.0.0", "--created", "2026-11-20", *more),
    )


def verify(folder: Path, file: str, *more: object) -> Result:
    keys = ("--trusted-key", folder / "release.pub.pem", "--trusted-key", folder / "firmware.pub.pem")
    return run("verify", folder / file, *keys, *more)


def test_from_firmware_to_verified_release(folder: Path) -> None:
    assert sign(folder).exit_code == 0
    assert sign(folder, node_type="comm_gateway", output="gateway.img").exit_code == 0
    result = build(
        folder, folder / "gateway.img", "--expires", "2027-01-31", "--depends", "bmu", "comm_gateway", "1.0.0"
    )
    assert result.exit_code == 0, result.output
    ring = KeyRing.load([folder / "release.pub.pem", folder / "firmware.pub.pem"])
    upgrade = open_upgrade_file(folder / "out.essup", ring)
    assert [entry.node_type for entry in upgrade.manifest.images] == [NodeType.BMU, NodeType.COMM_GATEWAY]
    assert upgrade.manifest.images[0].hardware_ids == (0x11, 0x12)
    assert [len(entry.depends) for entry in upgrade.manifest.images] == [1, 0]
    assert str(upgrade.manifest.expires) == "2027-01-31"

    shown = run("show", folder / "out.essup")
    assert shown.exit_code == 0
    for text in (
        "Spring 2.0.0",
        "2027-01-31",
        "hardware 0x11, 0x12",
        "needs comm_gateway 1.0.0",
        "Nothing of this was",
    ):
        assert text in shown.stdout
    good = verify(folder, "out.essup", "--today", "2027-01-31")
    assert good.exit_code == 0
    assert "is good" in good.stdout
    late = verify(folder, "out.essup", "--today", "2027-02-01")
    assert late.exit_code == 38
    assert "error UPGRADE_FILE_EXPIRED: " in late.stderr
    assert "what to do: " in late.stderr
    assert late.stdout == ""


def test_json_documents(folder: Path) -> None:
    signed = document(sign(folder, "--json"))
    assert signed["image"]["hardware_ids"] == [0x11, 0x12]
    built = document(build(folder, "--json"))
    assert built["size"] == (folder / "out.essup").stat().st_size
    shown = document(run("show", folder / "out.essup", "--json"))
    assert (shown["verified"], shown["manifest"]["release_name"]) == (False, "Spring")
    verified = document(verify(folder, "out.essup", "--json"))
    assert (verified["result"], verified["verified"], verified["release_version"]) == ("ok", True, "2.0.0")
    image = document(run("show", folder / "bmu.img", "--json"))
    assert (image["kind"], image["verified"]) == ("node image", False)
    image = document(verify(folder, "bmu.img", "--json"))
    assert (image["verified"], image["image"]["version"]) == (True, "1.2.0")
    key = document(run("keys", "show", folder / "release.pub.pem", "--json"))
    assert key == {
        "result": "ok",
        "exit_code": 0,
        "error": None,
        "key_id": built["key_id"],
        "algorithm": "Ed25519",
        "test_key": False,
    }


def test_an_error_is_one_json_document_too(folder: Path) -> None:
    result = run("show", folder / "fw.bin", "--json")
    assert result.exit_code == 24
    error = document(result)
    assert (error["result"], error["exit_code"], error["error"]["name"]) == ("error", 24, "NOT_AN_UPGRADE_FILE")
    assert error["error"]["remedy"]
    assert result.stderr == ""


def test_a_single_image_is_shown_and_verified(folder: Path) -> None:
    sign(folder)
    shown = run("show", folder / "bmu.img")
    assert "node image  bmu 1.2.0" in shown.stdout
    assert "is good" in verify(folder, "bmu.img").stdout
    assert run("verify", folder / "bmu.img", "--trusted-key", folder / "release.pub.pem").exit_code == 30


def test_the_firmware_key_can_be_separate(folder: Path) -> None:
    sign(folder)
    build(folder)
    trust = ("--trusted-key", folder / "release.pub.pem", "--firmware-key", folder / "firmware.pub.pem")
    assert run("verify", folder / "out.essup", *trust).exit_code == 0
    assert run("verify", folder / "out.essup", *trust[:2]).exit_code == 30


def test_samples_are_shown_as_signed_by_test_keys() -> None:
    sample = FOLDER / "bmu-1.1.0.essup"
    release, firmware = (TEST_KEYS / f"TEST-ONLY-{name}.pub.pem" for name in ("release", "firmware"))
    trust = ("--trusted-key", release, "--firmware-key", firmware)
    assert "TEST KEY: ess-can TEST-ONLY release" in run("show", sample).stdout
    assert "TEST KEY" in run("keys", "show", TEST_KEYS / "TEST-ONLY-release.pub.pem").stdout
    assert run("verify", sample, *trust).exit_code == 31
    assert run("verify", sample, *trust, "--allow-test-keys").exit_code == 0


def test_what_an_upgrade_with_it_costs_is_shown() -> None:
    shown = run("show", FOLDER / "bmu-1.1.0.essup")
    lost = document(run("show", FOLDER / "bmu-1.1.0.essup", "--json"))["unavailable"]
    assert [line for line in shown.stdout.splitlines() if line.startswith("unavailable")] == lost
    assert "high voltage is off and the PCS locked" in lost[0]
    assert lost[1].endswith("for up to 15 s each, while they restart: all messages of every bmu")
    assert "`ess-can upgrade --dry-run`" in shown.stdout


def test_drafts_and_unsigned_images_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "draft.essup").write_bytes(small_upgrade(signer=None))
    (tmp_path / "unsigned.img").write_bytes(small_image(signer=None))
    for name in ("draft.essup", "unsigned.img"):
        assert "signed by   nobody" in run("show", tmp_path / name).stdout
    assert document(run("show", tmp_path / "draft.essup", "--json"))["key_id"] is None


def test_an_unsigned_image_is_not_released(folder: Path) -> None:
    (folder / "bmu.img").write_bytes(small_image(signer=None))
    assert build(folder).exit_code == 2
    assert not (folder / "out.essup").exists()


def test_files_are_not_overwritten_by_accident(folder: Path) -> None:
    assert sign(folder).exit_code == 0
    again = sign(folder)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert sign(folder, "--overwrite").exit_code == 0
    assert run("keys", "new", folder / "release.pem").exit_code == 2
    (folder / "release.pub.pem").unlink()
    before = (folder / "release.pem").read_bytes()
    assert run("keys", "new", folder / "release.pem").exit_code == 2
    assert (folder / "release.pem").read_bytes() == before
    assert sign(folder, output="missing/folder.img").exit_code == 2


def test_private_keys_are_for_their_owner_only(folder: Path) -> None:
    assert (folder / "release.pem").stat().st_mode & 0o777 == 0o600


def test_a_password_protects_a_key(tmp_path: Path) -> None:
    secret = {"ESS_CAN_KEY_PASSWORD": "secret"}
    made = run("keys", "new", tmp_path / "firmware.pem", "--json", environment=secret)
    assert document(made)["key_id"] == SigningKey.load(tmp_path / "firmware.pem", b"secret").key_id.hex()
    (tmp_path / "fw.bin").write_bytes(b"firmware")
    assert sign(tmp_path).exit_code == 2
    assert sign(tmp_path, "--password", "wrong").exit_code == 2
    assert sign(tmp_path, "--password", "secret").exit_code == 0
    assert parse_node_image((tmp_path / "bmu.img").read_bytes()).payload_size == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version", "1.2"),
        ("--security-counter", "many"),
        ("--hardware", "0xZZ"),
        ("--node-type", "pcs"),
    ],
)
def test_values_that_make_no_sense(folder: Path, arguments: tuple[str, str]) -> None:
    result = sign(folder, *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_a_value_that_the_format_cannot_hold(folder: Path) -> None:
    assert sign(folder, "--security-counter", "-1").exit_code == 33


@pytest.mark.parametrize("mebibytes", [1, 16])
def test_images_of_many_sizes_are_signed_released_shown_and_verified(folder: Path, mebibytes: int) -> None:
    (folder / "fw.bin").write_bytes(random.Random(mebibytes).randbytes(mebibytes << 20))
    slot = ("--slot-kib", mebibytes * 1024 + 4)
    assert sign(folder).exit_code == 23
    refused = sign(folder, "--slot-kib", mebibytes * 1024)  # nothing is left for header and signature
    assert refused.exit_code == 23
    assert "--slot-kib" in refused.stderr
    assert not (folder / "bmu.img").exists()
    assert document(sign(folder, *slot, "--json"))["image"]["payload_size"] == mebibytes << 20
    refused = build(folder)
    assert refused.exit_code == 23
    assert "--slot-kib" in refused.stderr
    assert build(folder, *slot).exit_code == 0
    assert run("show", folder / "bmu.img").exit_code == 23
    assert "firmware" in run("show", folder / "bmu.img", *slot).stdout
    assert "image 1 " in run("show", folder / "out.essup").stdout
    for name in ("bmu.img", "out.essup"):
        refused = verify(folder, name)
        assert refused.exit_code == 23
        assert "--slot-kib" in refused.stderr
        assert "is good" in verify(folder, name, *slot).stdout


def test_what_a_slot_cannot_be(folder: Path) -> None:
    for slot in ("0", "-1", "many"):
        assert sign(folder, "--slot-kib", slot).exit_code == 2


def test_no_room_for_the_private_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    result = verify(folder, "bmu.img", "--json")
    assert result.exit_code == 6
    assert document(result)["error"]["name"] == "TEMPORARY_FILE_FAILED"


def test_importing_the_commands_loads_nothing_heavy() -> None:
    code = "import sys, ess_can.cli.image; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "ess_can.cli.image" in loaded
    assert not {"cryptography", "bincopy", "rich", "cantools", "can"} & set(loaded)


def test_verifying_loads_nothing_that_it_does_not_need(folder: Path) -> None:
    sign(folder)
    arguments = ["verify", str(folder / "bmu.img"), "--trusted-key", str(folder / "firmware.pub.pem")]
    code = (
        f"import sys, ess_can.cli.main as m\ntry: m.main(['image', *{arguments}])\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code_and_modules = done.stdout.splitlines()[-1].split()
    assert code_and_modules[0] == "0", done.stderr
    assert not {"bincopy", "rich", "cantools", "can", "udsoncan", "asyncio"} & set(code_and_modules)
