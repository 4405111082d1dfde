"""What `ess-can monitor` shows: one layout of at most 80 columns, for a terminal and for plain text alike.

A line is a row of pieces, each with a tone; what carries it decides what a tone looks like.  A plant of two racks
takes at most 24 lines.  Where a larger one does not fit, parts of it are told in brief: what is good as a number, what
is not by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain

from ess_can.gateway.hv_gate import Source
from ess_can.gateway.station_snapshot import E2eVerdicts, Heard, HvEvidence, NodeSnapshot, Snapshot
from ess_can.identity import NodeAddress
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import BmsHvStatus, ContactorState, ImageState, Message, PcsState, RackState, UpgradePhase

WIDTH = 80


class Tone(Enum):
    """What a piece of text is; the values are rich's styles, and quiet ones."""

    PLAIN = ""
    HEAD = "bold"
    DIM = "dim"
    GOOD = "green"
    WARN = "yellow"
    BAD = "red"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Piece, ...]


def plain_text(line: Line) -> str:
    """The line without its tones."""
    return "".join(piece.text for piece in line).rstrip()


def picture(snapshot: Snapshot, where: str, rate_source: str, height: int | None = None) -> list[Line]:
    """All lines.  `where` names the bus; `rate_source` tells how its bit rate is known, such as ``assumed``.

    If they are more than `height`, as many parts as it takes are told in brief; there may still be more.
    """
    top = [_title(snapshot, where), *_bus(snapshot, rate_source), *_masters(snapshot), *_power(snapshot)]
    parts = [list(_evidence(snapshot)), list(_e2e(snapshot)), list(_nodes(snapshot))]
    warnings = list(_warnings(snapshot))
    for number, brief in ((1, _e2e_in_brief), (0, _evidence_in_brief), (2, _nodes_in_brief)):
        if height is not None and len(top) + sum(map(len, parts)) + len(warnings) > height:
            parts[number] = list(brief(snapshot))
    return [*top, *chain.from_iterable(parts), *warnings]


def _title(snapshot: Snapshot, where: str) -> Line:
    title = f"ess-can monitor  {where}"
    return Piece(title[:58], Tone.HEAD), Piece(f"  heard for {snapshot.listened_s:.1f} s", Tone.DIM)


def _bus(snapshot: Snapshot, rate_source: str) -> Iterator[Line]:
    traffic = snapshot.traffic
    if not traffic.frames:
        yield Piece("bus       "), Piece("silent", Tone.BAD)
        return
    load = 100 * traffic.load
    yield (
        Piece("bus       "),
        Piece(f"load {load:.1f} %", Tone.WARN if load > 80 else Tone.PLAIN),
        Piece(f" of {traffic.bitrate / 1000:g} kbit/s ({rate_source})", Tone.DIM),
        Piece(f"  {traffic.frames_per_s:.0f} frames/s"),
        Piece("" if snapshot.plant_heard else "  nothing of the plant", Tone.BAD),
    )
    streams = [Piece(f"{node} {rate:.0f} UDS frames/s  ") for node, rate in traffic.diagnostic]
    ids = len(traffic.unknown_ids)
    strange = (
        *([f"{traffic.unknown} frames, {ids} unknown id{'s' * (ids > 1)}"] if ids else []),
        *([f"{traffic.unusable} unusable"] if traffic.unusable else []),
    )
    if streams or strange:
        yield Piece(f"{'':<10}"), *streams, Piece("  ".join(strange), Tone.WARN)


def _masters(snapshot: Snapshot) -> Iterator[Line]:
    command, notice = snapshot.command, snapshot.notice
    if command is None or command.stale:
        since = "" if command is None else f" (the last EMS_PcsCommand {_age(command)} ago)"
        yield Piece("command   "), Piece(f"nobody commands the plant{since}", Tone.DIM)
    else:
        order = command.message.command.name
        setpoint = f" {command.message.power_setpoint_kw:.1f} kW" if order == "RUN" else ""
        upgrade = ", upgrade active" if command.message.upgrade_active else ""
        yield Piece("command   "), Piece(f"EMS_PcsCommand {order}{setpoint}{upgrade}"), _age_piece(command, "  ")
    if notice is None or notice.stale or notice.message.phase is UpgradePhase.NONE:
        yield Piece("upgrade   "), Piece("none announced", Tone.DIM)
    else:
        told = notice.message
        target = f" {NodeAddress(told.target_type, told.target_index)}" if told.target_index else ""
        silent = f", may be silent {told.silent_up_to_s:.0f} s" if told.silent_up_to_s else ""
        text = f"{told.phase.name}{target}, session {told.session:04X}{silent}"
        yield Piece("upgrade   "), Piece(text, Tone.WARN)


# --- the power path -------------------------------------------------------------------------------


def _power(snapshot: Snapshot) -> Iterator[Line]:
    yield (
        Piece(f"{'':<10}{'state':<12}{'contactors':<16}{'link':>9}{'current':>10}{'SoC':>8}  HV off   age", Tone.HEAD),
    )
    pcs = snapshot.pcs
    if pcs is None:
        yield Piece(f"{'PCS':<10}"), Piece("not heard", Tone.BAD)
    else:
        status = pcs.message
        bad = status.state in (PcsState.FAULT, PcsState.EMERGENCY_STOP)
        yield (
            Piece(f"{'PCS':<10}"),
            Piece(f"{_name(status.state):<12}"[:12], Tone.BAD if bad else _tone(pcs)),
            Piece(f"{_name(status.contactors):<16}{'':>9}{_number(status.dc_current_a, 'A'):>10}", _tone(pcs)),
            Piece(f"  {'locked' if status.lock_acknowledged else 'unlocked':<9}", _tone(pcs)),
            Piece(f"{'remote' if status.remote_control else 'local':<7}", _tone(pcs)),
            _age_piece(pcs),
        )
    for rack in snapshot.racks:
        hv, state = rack.hv, rack.state
        name = Piece(f"rack {rack.rack:<5}")
        if hv is None:
            yield name, Piece("no valid BMS_HvStatus", Tone.BAD)
            continue
        told = hv.message
        flags = [
            *(["STOP"] if told.emergency_stop else []),
            *(["HVIL"] if not told.hvil_closed else []),
            *(["WELD"] if told.weld_plus or told.weld_minus else []),
        ]
        off = Piece(f"  {'yes' if told.hv_off else 'no':<7}", _tone(hv, Tone.GOOD if told.hv_off else Tone.PLAIN))
        yield (
            name,
            _state(state),
            Piece(f"{_contactors(told):<16}", _tone(hv)),
            Piece(f"{_number(told.link_voltage_v, 'V'):>9}{_number(told.current_a, 'A'):>10}", _tone(hv)),
            Piece(f"{'-' if state is None else _number(state.message.soc_percent, '%'):>8}"),
            Piece(f"  {'/'.join(flags):<7}", Tone.BAD) if flags else off,
            _age_piece(hv),
        )


def _state(state: Heard[Message] | None) -> Piece:
    told = getattr(state.message, "state", None) if state is not None else None
    if state is None or not isinstance(told, RackState):
        return Piece(f"{'unknown':<12}", Tone.WARN)
    return Piece(f"{_name(told):<12}", Tone.BAD if told is RackState.FAULT else _tone(state))


# --- the proof ------------------------------------------------------------------------------------


def _verdict(snapshot: Snapshot) -> Line:
    if snapshot.hv_off_proved:
        verdict = Piece("high voltage is off, by all evidence", Tone.GOOD)
    else:
        good = sum(not one.missing for one in snapshot.evidence)
        verdict = Piece(f"not proved: {good} of {len(snapshot.evidence)} sources hold", Tone.DIM)
    return Piece(f"{'HV off?':<10}", Tone.HEAD), verdict


def _evidence_in_brief(snapshot: Snapshot) -> Iterator[Line]:
    """While some sources hold, those that do not; where none holds, each would say that HV is on."""
    yield _verdict(snapshot)
    missing = [one for one in snapshot.evidence if one.missing]
    if len(missing) < len(snapshot.evidence):
        for one in missing:
            yield Piece(f"  {one.source.value}{f' {one.rack}' * bool(one.rack)}: "), _holds(one, 50)


def _evidence(snapshot: Snapshot) -> Iterator[Line]:
    yield _verdict(snapshot)
    of_rack = {(one.source, one.rack): one for one in snapshot.evidence}
    pcs = of_rack.get((Source.PCS_STATUS, 0))
    if pcs is not None:
        yield Piece("  PCS     "), _holds(pcs, 50)
    for rack in snapshot.racks:
        status, notice = of_rack.get((Source.RACK_STATUS, rack.rack)), of_rack.get((Source.RACK_NOTICE, rack.rack))
        if status is None or notice is None:
            continue
        answer = _holds(notice, 24) if snapshot.polled else Piece("not polled", Tone.DIM)
        yield Piece(f"  rack {rack.rack:<3}"), _holds(status, 36), Piece(" notice: ", Tone.DIM), answer


def _holds(evidence: HvEvidence, width: int) -> Piece:
    if evidence.missing:
        text, tone = evidence.missing, Tone.DIM
    else:
        text, tone = f"holds, {_milliseconds(evidence.age_s or 0.0)} old", Tone.GOOD
    return Piece(f"{text[:width]:<{width}}", tone)


_E2E_HEAD = f"{'E2E':<18}{'ok':>8}{'lost':>7}{'repeat':>8}{'order':>7}{'CRC':>6}  {'last':<15}age"


def _e2e(snapshot: Snapshot) -> Iterator[Line]:
    yield (Piece(_E2E_HEAD, Tone.HEAD),)
    for one in snapshot.e2e:
        yield _e2e_line(one)


def _e2e_in_brief(snapshot: Snapshot) -> Iterator[Line]:
    bad = [one for one in snapshot.e2e if one.stale or _faults(one) or not _usable(one)]
    good = [one for one in snapshot.e2e if one not in bad]
    lost = sum(one.lost for one in good)
    text = f"{len(good)} of {len(snapshot.e2e)} messages without a fault" + f", {lost} gaps" * bool(lost)
    yield Piece(f"{'E2E':<10}", Tone.HEAD), Piece(text)
    for one in bad:
        yield _e2e_line(one)


def _e2e_line(one: E2eVerdicts) -> Line:
    last = "none yet" if one.last is None and not one.unusable else "unusable" if one.last is None else one.last.value
    faults = f"{one.repeated:>8}{one.wrong_sequence:>7}{one.crc_errors:>6}"
    return (
        Piece(f"  {one.name:<16}{one.ok:>8}{one.lost:>7}"),
        Piece(faults, Tone.WARN if _faults(one) else Tone.PLAIN),
        Piece(f"  {last:<15}", Tone.PLAIN if _usable(one) else Tone.WARN),
        Piece(f"{_milliseconds(one.age_s)}{' stale' * one.stale}", Tone.WARN if one.stale else Tone.DIM),
    )


def _faults(one: E2eVerdicts) -> int:
    return one.repeated + one.wrong_sequence + one.crc_errors + one.unusable


def _usable(one: E2eVerdicts) -> bool:
    return one.last in (Verdict.OK, Verdict.OK_SOME_LOST)


_NODES_HEAD = f"{'node':<16}{'type':<14}{'version':<12}{'bank':<6}{'image':<11}{'boots':<7}{'DBC':<7}age"


def _nodes(snapshot: Snapshot) -> Iterator[Line]:
    yield (Piece(_NODES_HEAD, Tone.HEAD),)
    for node in snapshot.nodes:
        yield _node_line(str(node.address), node)


def _nodes_in_brief(snapshot: Snapshot) -> Iterator[Line]:
    """One line for all nodes that are alike; its age is the oldest of theirs."""
    yield (Piece(_NODES_HEAD, Tone.HEAD),)
    alike: dict[object, list[NodeSnapshot]] = {}
    for node in snapshot.nodes:
        info = None if node.info is None else (replace(node.info.message, boot_counter=0), node.info.stale)
        alike.setdefault((node.address.node_type, info, node.dbc_ok), []).append(node)
    for nodes in alike.values():
        if len(nodes) == 1:
            yield _node_line(str(nodes[0].address), nodes[0])
        else:
            oldest = max(nodes, key=lambda node: node.info.age_s if node.info is not None else 0.0)
            yield _node_line(_numbers(nodes), oldest, boots="")


def _numbers(nodes: list[NodeSnapshot]) -> str:
    """``bmu1-3,5``: nodes of one type, in order."""
    runs: list[tuple[int, int]] = []
    for number in (node.address.index for node in nodes):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    words = (str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return nodes[0].address.node_type.name.lower() + ",".join(words)


def _node_line(name: str, node: NodeSnapshot, boots: str | None = None) -> Line:
    called = Piece(f"  {name:<13} ")
    if node.info is None:
        return called, Piece("not heard", Tone.BAD)
    told, tone = node.info.message, _tone(node.info)
    confirmed = told.image_state is ImageState.CONFIRMED
    return (
        called,
        Piece(f"{_name(told.node_type):<14}{told.version!s:<12}{told.bank:<6}", tone),
        Piece(f"{_name(told.image_state):<11}", tone if confirmed else Tone.WARN),
        Piece(f"{told.boot_counter if boots is None else boots:<7}", tone),
        Piece(f"{'ok' if node.dbc_ok else 'OTHER':<7}", tone if node.dbc_ok else Tone.BAD),
        _age_piece(node.info),
    )


def _warnings(snapshot: Snapshot) -> Iterator[Line]:
    for warning in snapshot.warnings:
        text = f"{warning.error.name} ({warning.times} times, {warning.age_s:.1f} s ago): {warning.error}"
        yield Piece("warning   "), Piece(text[: WIDTH - 10], Tone.BAD)


# --- words ----------------------------------------------------------------------------------------


def _name(value: Enum) -> str:
    return value.name.lower().replace("_", " ")


def _contactors(status: BmsHvStatus) -> str:
    """One word where the three agree on a usual state, else each by itself: ``+cl -op p?``."""
    mains = {status.main_plus, status.main_minus}
    if len(mains) == 1 and status.precharge is ContactorState.OPEN:
        return _name(status.main_plus)
    short = {ContactorState.OPEN: "op", ContactorState.CLOSED: "cl", ContactorState.MOVING: "mv"}
    plus, minus, pre = (short.get(one, "?") for one in (status.main_plus, status.main_minus, status.precharge))
    return f"+{plus} -{minus} pre {pre}"


def _number(value: float | None, unit: str) -> str:
    return f"? {unit}" if value is None else f"{value:.1f} {unit}"


def _milliseconds(age_s: float) -> str:
    return f"{1000 * age_s:.0f} ms" if age_s < 10 else f"{age_s:.0f} s"


def _age(heard: Heard[Message]) -> str:
    return _milliseconds(heard.age_s)


def _age_piece(heard: Heard[Message], before: str = "") -> Piece:
    if heard.stale:
        return Piece(f"{before}{_age(heard)} stale", Tone.WARN)
    return Piece(f"{before}{_age(heard)}", Tone.DIM)


def _tone(heard: Heard[Message], fresh: Tone = Tone.PLAIN) -> Tone:
    return Tone.DIM if heard.stale else fresh
