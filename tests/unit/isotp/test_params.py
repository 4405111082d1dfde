from __future__ import annotations

from collections.abc import Callable

import pytest

from ess_can.can.frame import EXTENDED_FLAG
from ess_can.errors import UsageError
from ess_can.isotp import Endpoint, IsoTpAddress, IsoTpCounters, IsoTpParams


@pytest.mark.parametrize(
    "build",
    [
        lambda: IsoTpParams(tx_dl=9, fd=True),
        lambda: IsoTpParams(tx_dl=64),
        lambda: IsoTpParams(brs=True),
        lambda: IsoTpParams(padding=256),
        lambda: IsoTpParams(block_size=256),
        lambda: IsoTpParams(st_min=0x80),
        lambda: IsoTpParams(st_min=0xFA),
        lambda: IsoTpParams(wft_max=-1),
        lambda: IsoTpParams(max_payload=0),
        lambda: IsoTpParams(max_payload=1 << 32),
        lambda: IsoTpParams(n_as_s=0.0),
        lambda: IsoTpParams(n_cr_s=float("inf")),
        lambda: IsoTpParams(min_rate=float("nan")),
        lambda: IsoTpAddress(0x800, 0x7E8),
        lambda: IsoTpAddress(0x7E0, EXTENDED_FLAG | 0x2000_0000),
        lambda: IsoTpAddress(-1, 0x7E8),
        lambda: IsoTpAddress(0x7E0, 0x7E0),
        lambda: Endpoint(IsoTpAddress(1, 2), IsoTpParams(), max_in_flight=0),
    ],
)
def test_nonsense_is_refused(build: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        build()


def test_addresses_print_as_identifiers() -> None:
    assert str(IsoTpAddress(0x7E0, 0x7E8)) == "7E0->7E8"
    assert str(IsoTpAddress(EXTENDED_FLAG | 0x18DA10F1, EXTENDED_FLAG | 0x18DAF110)) == "18DA10F1->18DAF110"


def test_counters_add_up() -> None:
    assert IsoTpCounters(remote_frame=2, late_confirmation=3).ignored == 5
