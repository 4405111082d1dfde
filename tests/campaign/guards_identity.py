"""Guards before an upgrade: who is to be upgraded, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import ess_can.gateway.plan as plan
from ess_can.campaign.plants import Site
from ess_can.campaign.station import Station
from ess_can.errors import EssCanError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.node_client import NodeIdentity
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.image.manifest import Dependency
from ess_can.image.node_image import build_node_image
from ess_can.signals.messages import (
    NodeInfo,
)
from ess_can.sim.plant import BMU_HARDWARE_ID
from ess_can.trust.compatibility import Compatibility
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file
from ess_can.uds.target import Did
from tests.campaign.guard import Act, Course, Guard, Off, around, by, course, says, upgrade
from tests.campaign.guards_policy import BMU1, COMM_GATEWAY
from tests.firmware_images import FIRMWARE, RING, small_upgrade


def altered(did: Did, value: bytes, moment: str = "0", node: NodeAddress = COMM_GATEWAY) -> Act:
    """A node answers with another value of an identifier, of the same length."""

    def do(station: Station) -> None:
        head = did.to_bytes(2, "big")

        def alter(answer: bytes) -> bytes:
            return answer[:3] + value + answer[3 + len(value) :] if answer[:3] == b"\x62" + head else answer

        station.plant.nodes[node].alter_answer = alter

    return Act(f"{node} answers {did.name} with {value[:4].hex()}", moment, do)


def _blind_identity(name: str) -> Off:
    def make(original: Callable[..., object]) -> object:
        def require(identity: NodeIdentity, **wanted: object) -> None:
            original(identity, **{**wanted, name: getattr(identity, name)})

        return require

    return around(NodeIdentity, "require", make)


def _serials(site: Site) -> GatewayConfig:
    return replace(site.config(), serials=((BMU1, "BMU-000001"),))


def _no_dbc(original: Callable[..., object]) -> object:
    async def identify(master: object, address: NodeAddress) -> object:
        from ess_can.gateway.station_master import StationMaster

        assert isinstance(master, StationMaster)
        return await master.client(address).identify()

    return identify


def _only_these(*names: str) -> Off:
    """The gateway's plan takes an image for compatible for which these are the reason."""

    def make(original: Callable[..., object]) -> object:
        def check(*args: object) -> object:
            try:
                return original(*args)
            except EssCanError as error:
                if error.name in names:
                    return Compatibility.NEWER
                raise

        return check

    return around(plan, "check_compatibility", make)


def _needing(site: Site, version: Version) -> VerifiedUpgrade:
    """A BMU image that needs a newer comm gateway."""
    return _signed(site, version, 2, (Dependency(NodeType.COMM_GATEWAY, Version(2, 0, 0)),))


def _jumping(site: Site, version: Version) -> VerifiedUpgrade:
    """A BMU image whose security counter is as good as the last."""
    return _signed(site, version, 1 << 31)


def _signed(site: Site, version: Version, counter: int, depends: tuple[Dependency, ...] = ()) -> VerifiedUpgrade:
    image = build_node_image(
        bytes(site.payload_bytes),
        version=version,
        node_type=NodeType.BMU,
        hardware_ids=(BMU_HARDWARE_ID,),
        security_counter=counter,
        signer=FIRMWARE,
    )
    return open_upgrade_file(small_upgrade(image, depends=depends), RING)


_OLDER: Final = Course((), "REFUSED VERSION_DOWNGRADE", version=Version(0, 9, 0))

GUARDS: Final = (
    Guard(
        "identity, node type",
        "gateway.node_client:NodeIdentity.require",
        "programming a node of another type that answers in its place",
        _blind_identity("node_type"),
        upgrade(altered(Did.NODE_TYPE, b"\x03", node=BMU1), ends="REFUSED WRONG_TARGET"),
        "not REFUSED WRONG_TARGET",
    ),
    Guard(
        "identity, hardware",
        "gateway.node_client:NodeIdentity.require",
        "programming a node that is not the one that is heard",
        _blind_identity("hardware_id"),
        upgrade(altered(Did.HARDWARE_NUMBER, b"\x77", node=BMU1), ends="REFUSED WRONG_TARGET"),
        "not REFUSED WRONG_TARGET",
    ),
    Guard(
        "identity, serial number",
        "gateway.node_client:NodeIdentity.require",
        "programming at another site, or another board than the one checked",
        _blind_identity("serial"),
        course(Course(("node:bmu1:impostor@0~60",), "REFUSED WRONG_TARGET", config=_serials)),
        "not REFUSED WRONG_TARGET",
    ),
    Guard(
        "identity, DBC",
        "gateway.plan:identify",
        "programming a node whose signals have another layout",
        around(plan, "identify", _no_dbc),
        upgrade(altered(Did.DBC_FINGERPRINT, bytes(32), node=BMU1), ends="REFUSED DBC_MISMATCH"),
        "not REFUSED DBC_MISMATCH",
    ),
    Guard(
        "release, no downgrade",
        "gateway.plan:make_plan",
        "bringing back an older version with its known defects",
        _only_these("VERSION_DOWNGRADE"),
        course(_OLDER, "an upgrade to an older version"),
        "not REFUSED VERSION_DOWNGRADE",
    ),
    Guard(
        "release, security counter",
        "gateway.plan:make_plan",
        "bringing back what is less secure",
        _only_these("SECURITY_DOWNGRADE"),
        upgrade(altered(Did.SECURITY_COUNTER, bytes((0, 0, 1, 0)), node=BMU1), ends="REFUSED SECURITY_DOWNGRADE"),
        "not REFUSED SECURITY_DOWNGRADE",
    ),
    Guard(
        "release, hardware",
        "gateway.plan:make_plan",
        "bringing firmware of another board",
        _only_these("WRONG_HARDWARE"),
        upgrade(
            altered(Did.HARDWARE_NUMBER, b"\x77", node=BMU1),
            says("other hardware", NodeInfo, "0", BMU1, hardware_id=0x77),
            ends="REFUSED WRONG_HARDWARE",
        ),
        "not REFUSED WRONG_HARDWARE",
    ),
    Guard(
        "release, dependencies",
        "trust.compatibility:check_dependencies",
        "firmware beside other firmware that it does not work with",
        by(plan, "check_dependencies", lambda *_: None),
        course(
            Course((), "REFUSED DEPENDENCY_UNMET", brings=_needing),
            "an upgrade to an image that needs a newer comm gateway",
        ),
        "not REFUSED DEPENDENCY_UNMET",
    ),
    Guard(
        "release, security counter jump",
        "gateway.plan:make_plan",
        "using up a node's counter, so that it takes no release after this one",
        _only_these("SECURITY_COUNTER_JUMP"),
        course(
            Course((), "REFUSED SECURITY_COUNTER_JUMP", brings=_jumping),
            "an upgrade to an image whose counter is as good as the last",
        ),
        "not REFUSED SECURITY_COUNTER_JUMP",
    ),
)
