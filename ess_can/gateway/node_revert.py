"""Bringing nodes back to their confirmed image: after a trial that failed, or one that a dead gateway left."""

from __future__ import annotations

from ess_can.bus.clock import now, pause, until
from ess_can.errors import AccessDenied, BusError, EssCanError, TrialBootFailed
from ess_can.gateway.plan import Leftover, identify
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.station_master import StationMaster
from ess_can.identity import NodeAddress
from ess_can.journal.entries import Deed
from ess_can.signals.messages import ImageState

_ASK_AGAIN_S = 0.5


async def ask_to_revert(master: StationMaster, address: NodeAddress, log: UpgradeLog, *, restart: bool = True) -> bool:
    """Ask a node to give up its trial, armed or running, and to restart; whether it gave it up.

    It may be restarting meanwhile.
    """
    deadline = now() + master.config.times.node_boot_s
    async with log.doing(Deed.REVERT, address) as deed:
        while True:
            try:
                client = master.client(address)
                await client.enter_extended()
                await client.authenticate(master.access)
                await client.revert()
                deed.done()
                master.armed.ended(address)
                if restart:
                    await client.reset()
                return True
            except EssCanError as error:
                if now() >= deadline or isinstance(error, BusError | AccessDenied):
                    if deed.ok is None:
                        deed.failed(f"{error.name}: {error}")
                    by_itself = "; it does so by itself" if restart else ""
                    log.note(f"{address}: could not be asked to revert ({error}){by_itself}")
                    return bool(deed.ok)
            finally:
                await master.hang_up(address)
            await pause(_ASK_AGAIN_S)


async def take_back(master: StationMaster, leftover: Leftover, log: UpgradeLog) -> None:
    """Have a node of an upgrade that did not end run its confirmed image, and boot no other one at its next restart.

    Raises TrialBootFailed if that does not show, and what the diagnostic exchange raises.
    """
    address, since = leftover.address, now()
    asked = await ask_to_revert(master, address, log, restart=leftover.on_trial)
    if not asked and not leftover.on_trial:
        raise TrialBootFailed(
            f"{address} may still boot another image at its next restart", why="it could not be asked to revert"
        )

    def confirmed() -> bool:
        sample = master.view.nodes.get(address)
        return sample is not None and sample.at > since and sample.value.image_state is ImageState.CONFIRMED

    shows = await until(confirmed, master.config.times.revert_s)
    state = (await identify(master, address)).boot_state
    if not shows or state.standing != ImageState.CONFIRMED:
        raise TrialBootFailed(f"{address} does not go back to its confirmed image", why=f"it runs {state.version}")
    if state.armed:
        raise TrialBootFailed(f"{address} still boots another image at its next restart", why="it says so itself")
    master.armed.ended(address)
