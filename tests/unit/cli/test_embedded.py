from __future__ import annotations

from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import open_sample_upgrade, plant_spec, rack_count, upgrade_simulated_plant
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import ignore
from ess_can.sim.plant import Plant
from tests.unit.cli.run import COMM_GATEWAY_UPGRADE


def test_specs() -> None:
    classic = plant_spec(None, False, None, 3, 5)
    assert (classic.racks, classic.seed, classic.bit_timing, classic.isotp.fd) == (3, 5, BitTiming(500_000), False)
    fd = plant_spec(1_000_000, True, None, 1, 1)
    assert (fd.bit_timing, fd.isotp.tx_dl) == (BitTiming(1_000_000, 2_000_000), 64)
    assert plant_spec(None, False, 8_000_000, 1, 1).bit_timing.data_bitrate is None
    assert (rack_count(1), rack_count(2)) == ("1 rack", "2 racks")


def test_the_same_seed_gives_the_same_trace_and_the_plant_can_be_prepared() -> None:
    upgrade = open_sample_upgrade(COMM_GATEWAY_UPGRADE)

    def trace_hash(seed: int) -> str:
        done = upgrade_simulated_plant(upgrade, plant_spec(None, False, None, 1, seed), ignore)
        assert done.report.result is Phase.DONE
        assert done.frames > 5000
        return done.trace_hash

    assert trace_hash(1) == trace_hash(1) != trace_hash(2)

    def stop_it(plant: Plant) -> None:
        plant.racks[0].hardware.emergency_stop = True

    refused = upgrade_simulated_plant(upgrade, plant_spec(None, False, None, 2, 1), ignore, prepare=stop_it)
    assert refused.report.result is Phase.REFUSED
    assert refused.report.exit_code == 43
