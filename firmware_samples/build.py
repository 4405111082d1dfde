"""Sign the sample firmware: `<name>.bin` becomes a node image and, for what upgrades the demo plant, an upgrade file.

Run by `make firmware` after the C sources were built.  The results are committed; the same input gives the same bytes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ess_can.errors import EssCanError
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import build_node_image
from ess_can.image.readers import read_firmware
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.trust.keys import SigningKey

HERE = Path(__file__).resolve().parent
CREATED = date(2026, 11, 20)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample firmware and whether it is released as an upgrade."""

    node_type: NodeType
    hardware_id: int
    version: Version
    security_counter: int
    released: bool

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"{self.node_type.name.lower()}-{self.version}"


SAMPLES = (
    Sample(NodeType.BMU, 0x11, Version(1, 0, 0), 1, released=False),
    Sample(NodeType.BMU, 0x11, Version(1, 1, 0), 2, released=True),
    Sample(NodeType.COMM_GATEWAY, 0x21, Version(1, 0, 0), 1, released=False),
    Sample(NodeType.COMM_GATEWAY, 0x21, Version(1, 1, 0), 2, released=True),
)


def test_key(name: str) -> SigningKey:
    """The private TEST key `release` or `firmware`."""
    return SigningKey.load(HERE / "keys" / f"TEST-ONLY-{name}.pem")


def outputs(sample: Sample) -> dict[Path, bytes]:
    """The sample's files: path and content.  Raises EssCanError."""
    image = build_node_image(
        read_firmware(HERE / f"{sample.name}.bin").data,
        version=sample.version,
        node_type=sample.node_type,
        hardware_ids=(sample.hardware_id,),
        security_counter=sample.security_counter,
        signer=test_key("firmware"),
    )
    files = {HERE / f"{sample.name}.signed.bin": image}
    if sample.released:
        files[HERE / f"{sample.name}.essup"] = build_upgrade_file(
            [Content(image)],
            release_name=f"Sample {sample.node_type.name.lower()}",
            release_version=sample.version,
            created=CREATED,
            signer=test_key("release"),
        )
    return files


def main() -> int:
    """Build all samples; 1 if one could not be built."""
    status = 0
    for sample in SAMPLES:
        try:
            for path, data in outputs(sample).items():
                path.write_bytes(data)
                sys.stdout.write(f"{path.name}: {len(data)} bytes\n")
        except EssCanError as error:
            sys.stderr.write(f"{sample.name}: {error}\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
