"""A gateway behind a serial adapter (slcan): python-can's own driver on a pseudo terminal, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ess_can.identity import NodeType
from ess_can.sim.plant import Plant
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from tests.firmware_images import FIRMWARE, RELEASE, small_upgrade
from tests.scenario.support import COMM_GATEWAY, NEW, OLD, QUICK, image, small_plant
from tests.support.lawicel import Lawicel

_TIMEOUT_S = 60.0
_PLANT = replace(QUICK, running=False, speed=20.0)


@dataclass
class Rig:
    """A plant on its bus, and an adapter plugged into this machine."""

    plant: Plant
    adapter: Lawicel

    async def gateway(self, *arguments: str, bitrate: int = 500_000, on_line: OnLine | None = None) -> Ended:
        """Run a command behind the adapter; `on_line` sees what it prints, line by line."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ess_can", *arguments, "--racks", "2", "-b", str(bitrate)),
            *("-i", "slcan", "-c", self.adapter.path, "--bus-kwargs", "sleep_after_open=0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        out = ""
        async with asyncio.timeout(_TIMEOUT_S):
            errors = asyncio.ensure_future(process.stderr.read())
            async for line in process.stdout:
                out += line.decode()
                if on_line is not None:
                    on_line(line.decode())
            return Ended(await process.wait(), out, (await errors).decode())


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    errors: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


OnLine = Callable[[str], None]


def behind_an_adapter(test: Callable[[Rig], Awaitable[None]]) -> Rig:
    """Run a test on the ordinary loop, with a plant that keeps real time."""

    async def run() -> Rig:
        plant = small_plant(_PLANT)
        adapter = Lawicel(lambda bitrate: plant.wire.controller("adapter", depth=16, bitrate=bitrate))
        plant.start()
        rig = Rig(plant, adapter)
        try:
            await test(rig)
        finally:
            adapter.pull()
            plant.stop()
        return rig

    return asyncio.run(run())


def release_files(folder: Path, kib: int) -> tuple[str, ...]:
    """A release for the comm gateway, and the options that make it acceptable."""
    file = folder / "release.essup"
    file.write_bytes(small_upgrade(image(NodeType.COMM_GATEWAY, NEW, kib)))
    for name, key in (("release", RELEASE), ("firmware", FIRMWARE)):
        (folder / f"{name}.pem").write_bytes(key.public.pem())
    (folder / "secret").write_text(TEST_ONLY_ACCESS_SECRET.hex())
    return (
        *("upgrade", str(file), "--trusted-key", str(folder / "release.pem")),
        *("--firmware-key", str(folder / "firmware.pem"), "--access-secret", str(folder / "secret")),
    )


def test_a_whole_upgrade(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        ended = await rig.gateway(*release_files(tmp_path, 8), "--json")
        assert (ended.code, ended.errors) == (0, ""), ended.out
        (node,) = ended.document["nodes"]
        assert (node["from_version"], node["runs"]) == ("1.0.0", "1.1.0")
        assert rig.plant.versions()[COMM_GATEWAY] == NEW

    rig = behind_an_adapter(test)
    assert rig.adapter.bitrates == [500_000]
    assert rig.adapter.nonsense == ["C", "O"]  # python-can closes what is not open, and opens twice
    assert rig.adapter.lost == 0


def test_an_adapter_that_is_pulled_in_the_middle_of_the_transfer(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        def pull(line: str) -> None:
            if line.endswith("transfer\n"):
                rig.plant.wire.loop.call_later(0.1, rig.adapter.pull)

        ended = await rig.gateway(*release_files(tmp_path, 64), on_line=pull)
        assert ended.code == 12, ended.errors
        assert "error ADAPTER_LOST: the slcan adapter is gone" in ended.errors
        assert "what to do: Replug the adapter" in ended.errors
        assert "Traceback" not in ended.errors
        assert rig.plant.versions()[COMM_GATEWAY] == OLD

    behind_an_adapter(test)


def test_at_another_bit_rate_nothing_is_heard_and_nothing_is_said(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        ended = await rig.gateway(*release_files(tmp_path, 8), "--json", bitrate=250_000)
        assert (ended.code, ended.document["error"]["name"]) == (14, "BUS_SILENT")
        assert "bit rate" in ended.document["error"]["remedy"]

    rig = behind_an_adapter(test)
    assert rig.adapter.bitrates == [250_000]
    assert rig.adapter.sent == 0


def test_a_bit_rate_that_the_adapter_does_not_have(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        ended = await rig.gateway("status", "--json", bitrate=499_999)
        assert (ended.code, ended.document["error"]["name"]) == (11, "INTERFACE_UNAVAILABLE")
        assert "bitrate" in ended.document["error"]["why"]

    behind_an_adapter(test)
