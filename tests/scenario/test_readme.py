"""What the README shows is so: its Python example runs as it stands, and the demo prints what it says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import cast

import pytest

from ess_can.bus.clock import pause
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import Report
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import NodeImage, build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.signals.dbc import StationCodec
from ess_can.sim.controller import Controller
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import BMU_HARDWARE_ID, COMM_GATEWAY_HARDWARE_ID, Plant, PlantSpec
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import verify_node_image
from tests.unit.cli.run import python

README = Path(__file__).resolve().parents[2] / "README.md"
HARDWARE = {NodeType.BMU: BMU_HARDWARE_ID, NodeType.COMM_GATEWAY: COMM_GATEWAY_HARDWARE_ID}


class OpenedBus:
    """What `open_bus` gives, around a controller of the simulated wire."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.send = controller.send
        self.subscribe = controller.subscribe
        self.watch = controller.watch
        self.withdraw = controller.withdraw
        self.fd = controller.fd

    def start(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Leave the wire."""
        self._controller.detach()


def image(key: SigningKey, node_type: NodeType, version: str) -> bytes:
    return build_node_image(
        bytes(range(256)) * 16,
        version=Version.parse(version),
        node_type=node_type,
        hardware_ids=(HARDWARE[node_type],),
        security_counter=1,
        signer=key,
    )


def test_the_python_example_upgrades_a_plant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(example, str(README), "exec"), namespace)  # noqa: S102 - the example is ours
    example_main = cast("Callable[[], Awaitable[Report]]", namespace["main"])
    key, release_key = SigningKey.generate(), SigningKey.generate()
    release = build_upgrade_file(
        [Content(image(key, NodeType.BMU, "1.2.0"))],
        release_name="Example",
        release_version=Version(1, 2, 0),
        created=date(2026, 11, 22),
        signer=release_key,
    )
    (tmp_path / "bmu-1.2.0.essup").write_bytes(release)
    (tmp_path / "release.pub.pem").write_bytes(release_key.public.pem())
    (tmp_path / "firmware.pub.pem").write_bytes(key.public.pem())
    (tmp_path / "site.secret").write_text(TEST_ONLY_ACCESS_SECRET.hex())
    monkeypatch.chdir(tmp_path)

    def verify(content: bytes) -> NodeImage:
        return verify_node_image(content, KeyRing.of(key.public)).facts

    async def run() -> Report:
        images = {node_type: image(key, node_type, "1.0.0") for node_type in HARDWARE}
        plant = Plant(PlantSpec(), StationCodec.load(), images, verify)
        opened = OpenedBus(plant.gateway_controller())
        monkeypatch.setitem(namespace, "open_bus", lambda *_: opened)
        plant.start()
        await pause(2.0)
        report = await example_main()
        plant.stop()
        return report

    report = run_virtual(run())
    assert report.result is Phase.DONE, report.error
    printed = capsys.readouterr().out
    size = len(image(key, NodeType.BMU, "1.2.0"))
    assert f"bmu2: {size} of {size} bytes, 0 s left" in printed
    assert "HV-off proof" in printed
    assert [str(node.to_version) for node in report.nodes] == ["1.2.0", "1.2.0"]


def stable(line: str) -> bool:
    """Whether a line of the demo is the same on every machine."""
    return "on the clock" not in line


def test_the_readme_shows_what_the_demo_prints() -> None:
    shown = README.read_text("utf-8").split("```text\n")[1].split("```")[0].splitlines()
    printed = python(["-m", "ess_can", "demo"]).stdout.rstrip().splitlines()
    assert [line for line in printed if stable(line)] == [line for line in shown if stable(line)]
    assert len(shown) == len(printed)
