"""A message handed to a channel ends once, and somebody is told."""

from __future__ import annotations

import asyncio

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.outgoing import Outgoing, wait_for
from ess_can.errors import AdapterLost, IsoTpError, NTimeoutA, NTimeoutBs
from ess_can.isotp import IsoTpAddress
from ess_can.sim.loop import run_virtual

ADDRESS = IsoTpAddress(0x615, 0x515)


def test_nobody_waits() -> None:
    told: list[IsoTpError] = []
    for error in (None, NTimeoutBs("no flow control"), AdapterLost("it is gone")):
        Outgoing(b"\x3e\x00", None).finish(error, ADDRESS, told.append)
    assert [type(error) for error in told] == [NTimeoutBs, NTimeoutA]
    assert "it is gone" in told[1].why


def test_somebody_waits() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        told: list[IsoTpError] = []
        withdrawn: list[Outgoing] = []
        good, bad, late = (Outgoing(b"\x3e\x00", loop.create_future()) for _ in range(3))
        loop.call_later(0.1, good.finish, None, ADDRESS, told.append)
        await wait_for(good, withdrawn.append)
        loop.call_later(0.1, bad.finish, AdapterLost("it is gone"), ADDRESS, told.append)
        with pytest.raises(AdapterLost):
            await wait_for(bad, withdrawn.append)
        assert withdrawn == []
        task = loop.create_task(wait_for(late, withdrawn.append))
        await pause(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert withdrawn == [late]
        assert late.withdrawn
        late.finish(None, ADDRESS, told.append)  # too late, and no harm
        assert told == []

    run_virtual(scenario())
