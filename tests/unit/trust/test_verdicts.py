"""Every sample file gets exactly the verdict that the table in firmware_samples/verdicts.toml says."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import pytest

from ess_can.errors import EssCanError, FileTooLarge, FileUnreadable, TestKeyRefused
from ess_can.identity import NodeType, Version
from ess_can.resources import test_key_path as packaged_key_path
from ess_can.trust.compatibility import Compatibility, NodeFacts, check_compatibility
from ess_can.trust.keys import KeyRing
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file, verify_node_image
from tests.unit.trust.samples import FOLDER, script

TABLE = tomllib.loads((FOLDER / "verdicts.toml").read_text())
TODAY = date.fromisoformat(TABLE["today"])
PLANT = [
    NodeFacts(
        NodeType[node["type"].upper()], node["hardware_id"], Version.parse(node["version"]), node["security_counter"]
    )
    for node in TABLE["node"]
]
RELEASE = KeyRing.load([packaged_key_path("TEST-ONLY-release.pub.pem")])
FIRMWARE = KeyRing.load([packaged_key_path("TEST-ONLY-firmware.pub.pem")])


def opened(path: Path) -> VerifiedUpgrade:
    return open_upgrade_file(path, RELEASE, firmware_keyring=FIRMWARE, allow_test_keys=True, today=TODAY)


def verdict(path: Path) -> tuple[str, str]:
    """Where the first error is found, and its name."""
    try:
        upgrade = opened(path)
    except EssCanError as error:
        return "file", error.name
    try:
        found = {check_compatibility(image.facts, node_for(image.facts.node_type)) for image in upgrade.images}
    except EssCanError as error:
        return "plant", error.name
    return "plant", "NOTHING_TO_DO" if found == {Compatibility.SAME_VERSION} else "ACCEPTED"


def node_for(node_type: NodeType) -> NodeFacts:
    return next((node for node in PLANT if node.node_type is node_type), PLANT[0])


@pytest.mark.parametrize(
    ("name", "stage", "expected"),
    [pytest.param(row["file"], row["stage"], row["expected"], id=row["file"]) for row in TABLE["verdict"]],
)
def test_verdict(name: str, stage: str, expected: str) -> None:
    assert verdict(FOLDER / name) == (stage, expected)


def test_the_table_and_the_folder_name_the_same_files() -> None:
    listed = {row["file"] for row in TABLE["verdict"]}
    present = {str(path.relative_to(FOLDER)) for path in (FOLDER / "bad").iterdir()}
    assert {name for name in listed if name.startswith("bad/")} == present


def test_the_committed_files_are_what_the_script_makes() -> None:
    make_bad = script("make_bad")
    for name, data in make_bad.files().items():
        assert (FOLDER / "bad" / name).read_bytes() == data, name
    assert (FOLDER / "verdicts.toml").read_text() == make_bad.verdicts()


@pytest.mark.parametrize("name", ["bmu-1.1.0.essup", "comm_gateway-1.1.0.essup"])
def test_the_samples_are_refused_outside_a_bench(name: str) -> None:
    with pytest.raises(TestKeyRefused):
        open_upgrade_file(FOLDER / name, RELEASE, firmware_keyring=FIRMWARE)


def test_the_committed_samples_are_what_the_script_makes_of_the_firmware() -> None:
    build = script("build")
    for sample in build.SAMPLES:
        for path, data in build.outputs(sample).items():
            assert path.read_bytes() == data, path.name
        image = verify_node_image((FOLDER / f"{sample.name}.signed.bin").read_bytes(), FIRMWARE, allow_test_keys=True)
        assert image.facts.version == sample.version


def test_the_bmu_sample_is_large_enough_to_mean_something() -> None:
    assert opened(FOLDER / "bmu-1.1.0.essup").images[0].size >= 256 * 1024


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable):
        opened(tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.essup"
    path.write_bytes((FOLDER / "bad" / "same-version.essup").read_bytes())
    with path.open("r+b") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(FileTooLarge):
        opened(path)
