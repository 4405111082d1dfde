"""All that `make bench` measures: each theme gives its figures, and what the JSON and the plots show besides.

Themes in simulated time do not depend on how busy the machine is, and run beside each other.  The others have it to
themselves: their processes must not be late, and of CPU and wall time they give the least of several short rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import (
    bus_load,
    command_times,
    demo_overhead,
    eight_nodes,
    estimates,
    flash_parts,
    gateway_memory,
    isotp_cpu,
    mechanisms,
    safety_latency,
    simulation,
    small_upgrade,
    wire_efficiency,
    wire_peers,
)
from benchmarks.figures import Better, Figure
from benchmarks.station import CLASSIC, FD, BusKind, all_racks, bus_kind
from ess_can.cli.embedded import plant_spec
from ess_can.sim.parts import PARTS


@dataclass(frozen=True, slots=True)
class Result:
    """What a theme found: its figures, and the measurements that they were made from (dataclasses)."""

    figures: tuple[Figure, ...]
    measurements: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Theme:
    """`measure` is given whether to be quick.  What is `exact` is simulated time, and the same on every machine."""

    name: str
    measure: Callable[[bool], Result]
    exact: bool


def _efficiency(racks: int, kinds: Sequence[BusKind], quick: bool) -> Result:
    """W1, W2 or W3: ours on all these buses, and the peers; with their defaults they are as far off with any image."""
    kib, defaults_kib = (96, 32) if quick else (1024, 128)
    figures, measurements = list[Figure](), list[object]()
    for kind in kinds:
        loaded = racks > 1
        ours = [wire_efficiency.measure(kind, racks, kib)]
        theirs = [wire_peers.measure(wire_peers.TUNED, kind, max(racks, 1), kib)]
        note = ""
        if not loaded:
            # The same with all safety rules at work, whose frames are then on the bus.
            ours.append(wire_efficiency.measure(kind, 1, kib))
            theirs.append(wire_peers.measure(wire_peers.DOCUMENTED, kind, 1, defaults_kib))
            theirs.append(wire_peers.measure_both_ends(wire_peers.DOCUMENTED, kind, defaults_kib))
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
    return Result((), tuple(mechanisms.measure(64, 4) if quick else mechanisms.measure(1024)))


def _isotp_cpu(quick: bool) -> Result:
    figures, measurements = list[Figure](), list[object]()
    rounds = 8 if quick else isotp_cpu.ROUNDS
    kinds = ((False, "classic", 3.0, 12), (True, "FD 64 bytes", 2.0, 80))  # as many messages as take as long
    for fd, kind, target, messages in kinds:
        pair = isotp_cpu.over_virtual(fd, messages, rounds)
        bare = isotp_cpu.virtual_alone(fd, messages, rounds)
        note = (
            f"{pair.ours.cpu_s_per_mib:.2f} against {pair.theirs.cpu_s_per_mib:.2f} CPU-s/MiB; python-can's virtual "
            f"alone, send and recv, takes {bare.cpu_s_per_mib:.2f}"
        )
        figures.append(
            Figure("W8", "times less CPU, over virtual", kind, pair.ratio_per_mib, target, Better.HIGH, note=note)
        )
        measurements += [pair, bare]
    for fd, kind, _, messages in kinds:
        pair = isotp_cpu.cores_alone(fd, messages, 3 * rounds)
        note = f"{pair.ours.cpu_us_per_frame:.2f} against {pair.theirs.cpu_us_per_frame:.2f} us a frame"
        figures.append(Figure("W9", "times less CPU, core", kind, pair.ratio_per_mib, 8.0, Better.HIGH, note=note))
        measurements.append(pair)
    return Result(tuple(figures), tuple(measurements))


def _simulation(quick: bool) -> Result:
    runs = [simulation.measure(1024) for _ in range(3 if quick else 7)]
    best = max(runs, key=lambda speed: speed.times_real_time)
    figure = Figure(
        "W10",
        "simulated over wall time",
        "1 MiB, 500k",
        best.times_real_time,
        simulation.TIMES_REAL_TIME,
        Better.HIGH,
        note=f"{best.simulated_s:.1f} s in {best.wall_s:.2f} s, {1e6 * best.cpu_s / best.frames:.1f} us of CPU a frame",
    )
    return Result((figure,), (best,))


def _small_upgrade(quick: bool) -> Result:
    best = small_upgrade.measure(10 if quick else 30)
    figure = Figure(
        "W11",
        "CPU of a whole upgrade",
        "8 KiB, 2 racks",
        best.cpu_s,
        small_upgrade.LIMIT_S,
        Better.LOW,
        "s",
        note=f"{best.simulated_s:.1f} s simulated, {best.frames} frames",
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


def _eight_nodes(quick: bool) -> Result:
    figures, measurements = list[Figure](), list[object]()
    for part in PARTS.values():
        for bus, fd in (("500k", False), ("FD 500k/2M", True)):
            kib = 32 if quick and not fd else eight_nodes.IMAGE_KIB
            found = eight_nodes.measure(replace(plant_spec(None, fd, None, eight_nodes.RACKS, 1), flash=part), kib)
            figures.append(
                Figure(
                    "W5",
                    f"{found.nodes} nodes of {kib} KiB, over their wire times",
                    f"{part.name}, {bus}",
                    found.ratio,
                    eight_nodes.LIMIT,
                    Better.LOW,
                    note=f"its flash alone takes {found.flash_s:.1f} s, all on the wire {found.wire_s:.1f} s",
                )
            )
            measurements.append(found)
    return Result(tuple(figures), tuple(measurements))


def _demo_overhead(_quick: bool) -> Result:
    figures, measurements = list[Figure](), list[object]()
    limit = 100 * demo_overhead.LIMIT_SHARE
    for racks, case in ((2, "the demo, 2 racks"), (8, "the same with 8 racks")):
        found = demo_overhead.demo(racks)
        rules = f"rules ask for {found.proof_s:.2f} s of proof and {found.trial_s:.2f} s of trial"
        of_all = f"of {found.total_s:.1f} s"
        all_else = f"{found.other_s:.3f} s {of_all}"
        share, other = 100 * found.share, 100 * found.other_share
        figures += [
            Figure("W6", "neither wire nor physics", case, share, limit, Better.LOW, "%", note=f"{rules}, {of_all}"),
            Figure("W6", "and asked for by no rule", case, other, limit, Better.LOW, "%", note=all_else),
        ]
        measurements.append(found)
    return Result(tuple(figures), tuple(measurements))


def _bus_load(quick: bool) -> Result:
    """How far the stream is from the share that was asked, at worst."""
    figures, measurements = list[Figure](), list[object]()
    seconds, limit = 1.0 if quick else 3.0, 100 * bus_load.TOLERANCE
    for timing in bus_load.BUSES:
        name = bus_load.name_of(timing)
        streams = [bus_load.measure(cap, timing, seconds=seconds)[0] for cap in bus_load.CAPS]
        note = ", ".join(f"{load.stream:.2%} for {load.asked:.0%}" for load in streams)
        worst = 100 * max(load.error for load in streams)
        figures.append(Figure("cap", "share of the bus, off by", name, worst, limit, Better.LOW, "%", note=note))
        total = bus_load.measure(bus_load.YIELDING, timing, yields=True, others=bus_load.OTHERS, seconds=seconds)
        note = ", ".join(f"{load.stream:.1%} beside {load.others:.1%}" for load in total)
        worst = 100 * max(load.total_error for load in total)
        what = f"yielding, all within {bus_load.YIELDING:.0%}, off by"
        figures.append(Figure("cap", what, name, worst, limit, Better.LOW, "%", note=note))
        measurements += [*streams, *total]
    return Result(tuple(figures), tuple(measurements))


def _estimates(_quick: bool) -> Result:
    figures, measurements = list[Figure](), list[object]()
    for name in estimates.CASES:
        found = estimates.measure(name)
        note = (
            f"{found.expected_duration_s:.2f} s expected, {found.duration_s:.2f} s taken; high voltage off "
            f"{found.expected_hv_off_s:.2f} s and {found.hv_off_s:.2f} s"
        )
        limit = 100 * estimates.TOLERANCE
        figures.append(Figure("ETA", "dry run, off by", name, 100 * found.error, limit, Better.LOW, "%", note=note))
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
    Theme("wire efficiency, idle bus, classic", lambda quick: _efficiency(0, CLASSIC, quick), exact=True),
    Theme("several nodes", _eight_nodes, exact=True),
    Theme("mechanisms", _mechanisms, exact=True),
    Theme("wire efficiency, telemetry, classic", lambda quick: _efficiency(all_racks(), CLASSIC, quick), exact=True),
    Theme("overhead of the demo", _demo_overhead, exact=True),
    Theme("cap on the bus load", _bus_load, exact=True),
    Theme("real parts", _flash_parts, exact=True),
    Theme("estimates", _estimates, exact=True),
    Theme("wire efficiency, idle bus, FD", lambda quick: _efficiency(0, FD, quick), exact=True),
    Theme("wire efficiency, telemetry, FD", lambda quick: _efficiency(all_racks(), FD, quick), exact=True),
    Theme("delay of safety frames", _latency, exact=True),
    Theme("memory", _memory, exact=False),
    Theme("CPU of ISO-TP", _isotp_cpu, exact=False),
    Theme("speed of the simulator", _simulation, exact=False),
    Theme("CPU of a small upgrade", _small_upgrade, exact=False),
    Theme("start of the command", _command_times, exact=False),
)
"""Of those that run beside each other the longest first."""
