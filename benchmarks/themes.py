"""All that `make bench` measures: each theme gives its figures, and what the JSON and the plots show besides.

Themes whose figures do not depend on how busy the machine is, such as those in simulated time, may run beside each
other; the others have it to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import (
    command_times,
    flash_parts,
    gateway_memory,
    isotp_cpu,
    mechanisms,
    safety_latency,
    simulation,
    wire_efficiency,
    wire_peers,
)
from benchmarks.figures import Better, Figure
from benchmarks.station import CLASSIC, FD, BusKind, all_racks, bus_kind
from ess_can.sim.parts import PARTS


@dataclass(frozen=True, slots=True)
class Result:
    """What a theme found: its figures, and the measurements that they were made from (dataclasses)."""

    figures: tuple[Figure, ...]
    measurements: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Theme:
    """`measure` is given whether to be quick.  `alone` says that nothing else may run meanwhile."""

    name: str
    measure: Callable[[bool], Result]
    alone: bool


def _efficiency(racks: int, kinds: Sequence[BusKind], quick: bool) -> Result:
    """W1, W2 or W3: ours on all these buses, and the peers."""
    kib, peers_kib = (128, 64) if quick else (1024, 256)
    figures, measurements = list[Figure](), list[object]()
    for kind in kinds:
        loaded = racks > 1
        ours = [wire_efficiency.measure(kind, racks, kib)]
        theirs = [wire_peers.measure(wire_peers.TUNED, kind, max(racks, 1), peers_kib)]
        note = ""
        if not loaded:
            # The same with all safety rules at work, whose frames are then on the bus.
            ours.append(wire_efficiency.measure(kind, 1, kib))
            theirs.append(wire_peers.measure(wire_peers.DOCUMENTED, kind, 1, peers_kib // 2))
            theirs.append(wire_peers.measure_both_ends(wire_peers.DOCUMENTED, kind, peers_kib // 2))
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
    return Result((), tuple(mechanisms.measure(96 if quick else 1024)))


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


def _flash_parts(quick: bool) -> Result:
    figures, measurements = list[Figure](), list[object]()
    for part in PARTS.values():
        for timing, bus in zip(flash_parts.TIMINGS, ("500k", "FD 500k/2M"), strict=True):
            found = flash_parts.measure(part, timing, (256 if quick else 1024) * 1024)
            case = f"{part.name} ({part.datasheet}), {bus}"
            note = "bound by its flash" if found.flash_s > found.wire_s else "bound by the wire"
            figures.append(
                Figure("W4", "to verified, over max(wire, flash)", case, found.ratio, 1.05, Better.LOW, note=note)
            )
            measurements.append(found)
    return Result(tuple(figures), tuple(measurements))


def _command_times(quick: bool) -> Result:
    runs = 5 if quick else command_times.RUNS
    shown, verified = command_times.help_s(runs), command_times.verify_s(runs=runs)
    figures = (
        Figure("W12", "ess-can --help", "", shown, command_times.HELP_LIMIT_S, Better.LOW, "s"),
        Figure("W12", "ess-can image verify", "1 MiB", verified, command_times.VERIFY_LIMIT_S, Better.LOW, "s"),
    )
    return Result(figures, ())


def _memory(quick: bool) -> Result:
    small, large = gateway_memory.QUICK_KIB if quick else gateway_memory.FULL_KIB
    found = gateway_memory.compare(small, large)
    figure = Figure(
        "W13",
        "peak memory of an upgrade",
        f"{large / 1024:g} MiB over {small / 1024:g} MiB",
        found.ratio,
        gateway_memory.LIMIT_RATIO,
        Better.LOW,
        note=f"{found.large.peak_mib:.1f} MiB against {found.small.peak_mib:.1f} MiB",
    )
    return Result((figure,), (found,))


THEMES = (
    Theme("memory", _memory, alone=False),
    Theme("wire efficiency, idle bus, classic", lambda quick: _efficiency(0, CLASSIC, quick), alone=False),
    Theme("wire efficiency, idle bus, FD", lambda quick: _efficiency(0, FD, quick), alone=False),
    Theme("wire efficiency, telemetry, classic", lambda quick: _efficiency(all_racks(), CLASSIC, quick), alone=False),
    Theme("wire efficiency, telemetry, FD", lambda quick: _efficiency(all_racks(), FD, quick), alone=False),
    Theme("delay of safety frames", _latency, alone=False),
    Theme("real parts", _flash_parts, alone=False),
    Theme("mechanisms", _mechanisms, alone=False),
    Theme("CPU of ISO-TP", _isotp_cpu, alone=True),
    Theme("speed of the simulator", _simulation, alone=True),
    Theme("start of the command", _command_times, alone=True),
)

NOT_YET = (
    ("W5", "8 BMUs, over their wire times"),
    ("W6", "overhead of the demo"),
    ("W11", "upgrade of 8 KiB, CPU"),
)
"""What is not measured yet."""
