"""Where the monitor's view goes: a terminal that is refreshed, lines now and then, or one JSON document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import Enum

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ess_can.bus.clock import Cycle
from ess_can.cli.errors import describe
from ess_can.cli.image_text import print_json
from ess_can.cli.monitor_view import Line, picture, plain_text
from ess_can.errors import BusError
from ess_can.gateway.station_snapshot import E2eVerdicts, Heard, Snapshot
from ess_can.signals.messages import Message

_REFRESH_S = 0.25


class Screen:
    """Shows snapshots while the loop runs, from `start` to `end`.

    `where` and `rate_source` are as in `picture`.  `live` allows a terminal to be refreshed in place (without it there
    is one picture, at the end); `silent` shows nothing.  `last` is the last snapshot; `lost` the error that ended the
    listening, for its owner to set.
    """

    def __init__(
        self, where: str, rate_source: str, *, every_s: float, silent: bool, live: bool, console: Console | None = None
    ) -> None:
        self.last: Snapshot | None = None
        self.lost: BusError | None = None
        self._where = where
        self._rate_source = rate_source
        self._silent = silent
        self._console = console or Console(highlight=False)
        terminal = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False) if terminal and live and not silent else None
        self._colours = terminal
        self._cycle = Cycle(_REFRESH_S if self._live else every_s, lambda _: self._show())
        self._look: Callable[[], Snapshot] | None = None

    def start(self, look: Callable[[], Snapshot]) -> None:
        """Show what `look` gives, from now on."""
        self._look = look
        if self._live is not None:
            self._live.start()
            self._cycle.start()
        elif not self._silent and not self._colours:
            self._cycle.start(delay_s=self._cycle.period_s)

    def end(self) -> Snapshot:
        """Show the last picture and leave the terminal as it was; gives the last snapshot."""
        self._cycle.stop()
        if self._look is None:
            raise RuntimeError("the screen was not started")
        last = self.last = self._look()
        if not self._silent:
            self._show(last)
        if self._live is not None:
            self._live.stop()
        return last

    def _show(self, snapshot: Snapshot | None = None) -> None:
        if self._look is None:
            return
        self.last = snapshot or self._look()
        height = None if self._live is None else self._console.height  # in place, what does not fit would be cut off
        lines = picture(self.last, self._where, self._rate_source, height)
        if self._live is not None:
            self._live.update(_rich(lines), refresh=True)
        elif self._colours:
            self._console.print(_rich(lines))
        else:
            click.echo("\n".join(plain_text(line) for line in lines) + "\n")


def _rich(lines: list[Line]) -> Text:
    pieces = [[(piece.text, piece.tone.value) for piece in line] for line in lines]
    return Text("\n", no_wrap=True, overflow="crop").join(Text.assemble(*line, no_wrap=True) for line in pieces)


# --- for programs ---------------------------------------------------------------------------------


def print_document(snapshot: Snapshot, error: BusError | None) -> None:
    """The document of ``monitor --json``."""
    print_json(
        {
            "result": "ok" if error is None else "error",
            "exit_code": 0 if error is None else error.exit_code,
            "error": None if error is None else describe(error),
            **document(snapshot),
        }
    )


def document(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot, for --json.  Ages are in milliseconds; what was never heard is null."""
    traffic = snapshot.traffic
    return {
        "listened_s": round(snapshot.listened_s, 3),
        "bus": {
            "load_percent": round(100 * traffic.load, 2),
            "bitrate": traffic.bitrate,
            "frames": traffic.frames,
            "frames_per_s": round(traffic.frames_per_s, 1),
            "unknown_frames": traffic.unknown,
            "unknown_ids": [f"{can_id & 0x1FFF_FFFF:X}" for can_id in traffic.unknown_ids],
            "unusable_frames": traffic.unusable,
            "diagnostic": [{"node": str(node), "frames_per_s": round(rate, 1)} for node, rate in traffic.diagnostic],
        },
        "pcs": _heard(snapshot.pcs),
        "racks": [
            {
                "rack": rack.rack,
                "hv": _heard(rack.hv),
                "state": _heard(rack.state),
                "cells": _heard(rack.cells),
                "alarms": _heard(rack.alarms),
            }
            for rack in snapshot.racks
        ],
        "hv_off": {
            "proved": snapshot.hv_off_proved,
            "polled": snapshot.polled,
            "evidence": [
                {
                    "source": one.source.value,
                    "rack": one.rack or None,
                    "holds": not one.missing,
                    "missing": one.missing or None,
                    "age_ms": _ms(one.age_s),
                }
                for one in snapshot.evidence
            ],
        },
        "e2e": [_verdicts(one) for one in snapshot.e2e],
        "nodes": [
            {
                "name": str(node.address),
                "type": node.address.node_type.name.lower(),
                "version": None if node.info is None else str(node.info.message.version),
                "bank": None if node.info is None else node.info.message.bank,
                "image": None if node.info is None else node.info.message.image_state.name.lower(),
                "boot_counter": None if node.info is None else node.info.message.boot_counter,
                "dbc_ok": node.dbc_ok,
                "age_ms": None if node.info is None else _ms(node.info.age_s),
                "stale": node.info is None or node.info.stale,
            }
            for node in snapshot.nodes
        ],
        "command": _heard(snapshot.command),
        "upgrade": _heard(snapshot.notice),
        "warnings": [
            {**describe(one.error), "times": one.times, "age_ms": _ms(one.age_s)} for one in snapshot.warnings
        ],
    }


def _heard(heard: Heard[Message] | None) -> dict[str, object] | None:
    if heard is None:
        return None
    values = {field.name: getattr(heard.message, field.name) for field in fields(heard.message)}
    told = {name: value.name.lower() if isinstance(value, Enum) else value for name, value in values.items()}
    return {**told, "age_ms": _ms(heard.age_s), "stale": heard.stale}


def _verdicts(one: E2eVerdicts) -> dict[str, object]:
    return {
        "message": one.name,
        "ok": one.ok,
        "lost": one.lost,
        "repeated": one.repeated,
        "wrong_sequence": one.wrong_sequence,
        "crc_errors": one.crc_errors,
        "unusable": one.unusable,
        "last": None if one.last is None else one.last.value,
        "age_ms": _ms(one.age_s),
        "stale": one.stale,
    }


def _ms(age_s: float | None) -> float | None:
    return None if age_s is None else round(1000 * age_s, 1)
