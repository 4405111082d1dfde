"""The bytes of the whole programming sequence, locked: what the client sends and what the server answers.

``uds_sequence.txt`` holds one message per line: ``>`` to the node, ``<`` from it.  Written from the protocol's
description, not from a run.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from ess_can.gateway.node_client import NodeClient
from ess_can.image.content import BytesContent
from ess_can.sim.loop import run_virtual
from ess_can.uds.access import CmacAccess
from ess_can.uds.target import FlashProfile
from tests.support.fake_target import SECRET
from tests.support.memory_transport import MemoryLink
from tests.support.uds_server import Bench

IMAGE = bytes(range(20))
GOLDEN = Path(__file__).with_name("uds_sequence.txt")


def golden() -> list[str]:
    lines = GOLDEN.read_text().splitlines()
    return [line.split("#")[0].replace(" ", "") for line in lines if line.strip() and not line.startswith("#")]


async def upgrade(link: MemoryLink) -> None:
    async with NodeClient(link.connect) as node:
        await node.identify()
        await node.enter_extended()
        await node.check_preconditions()
        await node.enter_programming()
        await node.authenticate(CmacAccess(SECRET))
        await node.announce(len(IMAGE), bytes(range(32)))
        await node.download(0, BytesContent(IMAGE))
        await node.verify(zlib.crc32(IMAGE))
        await node.activate_on_trial()
        await node.reset()
        await node.enter_extended()
        await node.authenticate(CmacAccess(SECRET))
        await node.confirm()
        await node.enter_default()


def recorded() -> MemoryLink:
    bench = Bench()
    bench.target.max_data = 16
    bench.target.flash = FlashProfile(128 * 1024, 1.0, 100e-6 / 32, 64 * 1024, 40e6, 16)
    bench.target.durations["erase"] = 3.0
    link = MemoryLink(bench)
    run_virtual(upgrade(link))
    return link


def test_client_and_server_send_the_golden_bytes() -> None:
    link = recorded()
    assert [line[1:] for line in golden() if line.startswith(">")] == link.requests
    assert [line[1:] for line in golden() if line.startswith("<")] == link.answers
