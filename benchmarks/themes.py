"""All that `make bench` measures: each theme gives its figures, and what the JSON and the plots show besides.

Themes whose figures are simulated time do not depend on the machine and may run beside each other; the others have it
to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import isotp_cpu, mechanisms, safety_latency, simulation, start_up, wire_efficiency, wire_peers
from benchmarks.figures import Better, Figure
from benchmarks.station import CLASSIC, FD, BusKind, all_racks, bus_kind


@dataclass(frozen=True, slots=True)
class Result:
    """What a theme found: its figures, and the measurements that they were made from (dataclasses)."""

    figures: tuple[Figure, ...]
    measurements: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Theme:
    """`measure` is given whether to be quick.  `exact` says that its figures are simulated time."""

    name: str
    measure: Callable[[bool], Result]
    exact: bool


def _efficiency(racks: int, kinds: Sequence[BusKind], quick: bool) -> Result:
    """W1, W2 or W3: ours on all these buses, and the peers."""
    kib, peers_kib = (192, 64) if quick else (1024, 256)
    figures, measurements = list[Figure](), list[object]()
    for kind in kinds:
        loaded = racks > 1
        ours = [wire_efficiency.measure(kind, racks, kib)]
        theirs = [wire_peers.measure(wire_peers.TUNED, kind, max(racks, 1), peers_kib)]
        note = ""
        if not loaded:
            # The same with all safety rules at work, whose frames are then on the bus.
            ours.append(wire_efficiency.measure(kind, 1, kib))
            theirs.append(wire_peers.measure(wire_peers.DOCUMENTED, kind, 1, peers_kib))
            theirs.append(wire_peers.measure_both_ends(wire_peers.DOCUMENTED, kind, peers_kib))
            note = f"can-isotp's defaults at both ends: {theirs[-1].efficiency:.3f}"
        figures.append(
            Figure(
                "W3" if loaded else "W2" if kind.fd else "W1",
                "wire efficiency, all racks' telemetry" if loaded else "wire efficiency, idle bus",
                f"{kind.name}, {racks} racks" if loaded else kind.name,
                min(transfer.efficiency for transfer in ours),
                wire_efficiency.bound(kind, racks),
                Better.HIGH,
                peer=theirs[0].efficiency,
                peer_name="tuned, no threads",
                note=note,
            )
        )
        measurements += [*ours, *theirs]
    return Result(tuple(figures), tuple(measurements))


def _latency(quick: bool) -> Result:
    kib, idle_s = (48, 5.0) if quick else (256, 10.0)
    figures, measurements = list[Figure](), list[object]()
    for kind in (bus_kind("125k"), bus_kind("500k"), bus_kind("FD 500k/2M")):
        ours = safety_latency.measure(kind, kib, idle_s)
        measurements.append(ours)
        # At 125 kbit/s can-isotp's queued block holds up the heartbeat for longer than the plant waits for it.
        theirs = None if kind.name == "125k" else safety_latency.measure_peer(wire_peers.DOCUMENTED, kind, 32, idle_s)
        if theirs is not None:
            measurements.append(theirs)
        figures += [
            Figure(
                "W7",
                "added to BMS_HvStatus",
                kind.name,
                ours.arbitration_frames,
                safety_latency.ARBITRATION_BOUND,
                Better.LOW,
                "frames",
                peer=None if theirs is None else theirs.arbitration_frames,
                peer_name="no threads",
            ),
            Figure(
                "W7",
                "added to EMS_PcsCommand",
                kind.name,
                ours.queue_frames,
                safety_latency.QUEUE_BOUND,
                Better.LOW,
                "frames",
                peer=None if theirs is None else theirs.queue_frames,
                peer_name="no threads",
            ),
        ]
    return Result(tuple(figures), tuple(measurements))


def _mechanisms(quick: bool) -> Result:
    return Result((), tuple(mechanisms.measure(128 if quick else 1024)))


def _isotp_cpu(quick: bool) -> Result:
    figures, measurements = list[Figure](), list[object]()
    messages = 60 if quick else 240
    for fd, kind, target in ((False, "classic", 3.0), (True, "FD 64 bytes", 2.0)):
        pair = isotp_cpu.over_virtual(fd, messages)
        bare = isotp_cpu.virtual_alone(fd, messages)
        note = (
            f"{pair.ours.cpu_s_per_mib:.2f} against {pair.theirs.cpu_s_per_mib:.2f} CPU-s/MiB; python-can's virtual "
            f"alone takes {bare.cpu_s_per_mib:.2f}"
        )
        figures.append(
            Figure("W8", "times less CPU, over virtual", kind, pair.ratio_per_mib, target, Better.HIGH, note=note)
        )
        measurements += [pair, bare]
    for fd, kind in ((False, "classic"), (True, "FD 64 bytes")):
        pair = isotp_cpu.cores_alone(fd, messages)
        note = f"{pair.ours.cpu_us_per_frame:.2f} against {pair.theirs.cpu_us_per_frame:.2f} us a frame"
        figures.append(Figure("W9", "times less CPU, core", kind, pair.ratio_per_mib, 8.0, Better.HIGH, note=note))
        measurements.append(pair)
    return Result(tuple(figures), tuple(measurements))


def _simulation(quick: bool) -> Result:
    best = max((simulation.measure(1024) for _ in range(1 if quick else 3)), key=lambda speed: speed.times_real_time)
    figure = Figure(
        "W10", "simulated over wall time", "1 MiB, 500k", best.times_real_time, simulation.TIMES_REAL_TIME, Better.HIGH
    )
    return Result((figure,), (best,))


def _start_up(quick: bool) -> Result:
    shown, verified = start_up.measure(5 if quick else 15)
    figures = (
        Figure("W12", shown.command, "", shown.best_s, start_up.HELP_BOUND_S, Better.LOW, "s"),
        Figure("W12", verified.command, "1 MiB", verified.best_s, start_up.VERIFY_BOUND_S, Better.LOW, "s"),
    )
    return Result(figures, (shown, verified))


THEMES = (
    Theme("wire efficiency, idle bus, classic", lambda quick: _efficiency(0, CLASSIC, quick), exact=True),
    Theme("wire efficiency, idle bus, FD", lambda quick: _efficiency(0, FD, quick), exact=True),
    Theme("wire efficiency, telemetry, classic", lambda quick: _efficiency(all_racks(), CLASSIC, quick), exact=True),
    Theme("wire efficiency, telemetry, FD", lambda quick: _efficiency(all_racks(), FD, quick), exact=True),
    Theme("delay of safety frames", _latency, exact=True),
    Theme("mechanisms", _mechanisms, exact=True),
    Theme("CPU of ISO-TP", _isotp_cpu, exact=False),
    Theme("speed of the simulator", _simulation, exact=False),
    Theme("start of the command", _start_up, exact=False),
)

NOT_YET = (
    ("W4", "real parts, over max(wire, flash)"),
    ("W5", "8 BMUs, over their wire times"),
    ("W6", "overhead of the demo"),
    ("W11", "upgrade of 8 KiB, CPU"),
    ("W13", "memory, 16 MiB over 1 MiB"),
)
"""What is not measured yet."""
