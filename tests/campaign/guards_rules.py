"""Guards of whole upgrades, each of which the monitor of one rule finds missing by itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import ess_can.gateway.isolation as isolation
import ess_can.sim.bootloader as bootloader
from ess_can.campaign.monitors import Invariant
from ess_can.campaign.run import TWICE, checked_seed
from ess_can.gateway.policy import Start
from ess_can.gateway.resume import Earlier
from ess_can.gateway.run import _Attempt
from ess_can.image.node_image import NodeImage, parse_node_image
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId
from ess_can.sim.bootloader import BootDecision, Bootloader, BootReason
from ess_can.sim.flash import FlashError
from tests.campaign.guard import Guard, Off, Run, around, by, campaign, upgrade

_HANGS: Final = upgrade("firmware:bmu1:hangs", ends="ROLLED_BACK")


def _nothing_to_fall_back_to(original: Callable[..., object]) -> object:
    def decide(*args: object) -> object:
        decision = original(*args)
        if isinstance(decision, BootDecision) and decision.reason is BootReason.TRIES_USED:
            return replace(decision, standing=ImageState.RECOVERY, facts=None)
        return decision

    return decide


def _takes_no_try(original: Callable[..., object]) -> object:
    def decide(*args: object) -> object:
        decision = original(*args)
        if isinstance(decision, BootDecision) and decision.standing is ImageState.TRIAL:
            record = decision.record
            return replace(decision, record=replace(record, tries_left=record.tries_left + 1))
        return decision

    return decide


def _boots_what_it_holds(loader: Bootloader, bank: int, image: ImageId) -> NodeImage | None:
    """By its header alone."""
    content = loader.flash.read(bank, loader.flash.geometry.slot_offset, image.size)
    return None if isinstance(content, FlashError) else parse_node_image(content)


def _counter_too_high(original: Callable[..., object]) -> object:
    def confirm(loader: Bootloader, running: BootDecision) -> object:
        facts = running.facts
        raised = None if facts is None else replace(facts, security_counter=facts.security_counter + 1)
        return original(loader, replace(running, facts=raised))

    return confirm


def _says_nothing(*_: object) -> None:
    """The journal gets no last word."""


class _ByChance(random.Random):
    """Its seed does not matter."""

    def __init__(self, _seed: object = None) -> None:
        super().__init__()


def _waits_for_ever(original: Callable[..., object]) -> object:
    return lambda condition, _within_s: original(condition, 1e6)


def _counter_far_too_high(original: Callable[..., object]) -> object:
    def confirm(loader: Bootloader, running: BootDecision) -> object:
        facts = running.facts
        raised = None if facts is None else replace(facts, security_counter=facts.security_counter + 5)
        return original(loader, replace(running, facts=raised))

    return confirm


def _seed_twice() -> str:
    return checked_seed(TWICE).wrong


def _guard(name: str, where: str, prevents: str, off: Off, run: Run, seen: Invariant) -> Guard:
    return Guard(f"rules, {name}", where, prevents, off, run, seen)


GUARDS: Final = (
    _guard(
        "back to the confirmed image",
        "sim.bootloader:decide",
        "a node that runs nothing because its trial failed",
        around(bootloader, "decide", _nothing_to_fall_back_to),
        _HANGS,
        Invariant.BOOTABLE,
    ),
    _guard(
        "what boots is hashed and verified",
        "sim.bootloader:Bootloader._check",
        "executing bytes that changed after they were verified",
        by(Bootloader, "_check", _boots_what_it_holds),
        upgrade("flash:bmu1:rot=700@TRIAL_BOOT+0"),
        Invariant.SIGNED,
    ),
    _guard(
        "each boot on trial takes a try",
        "sim.bootloader:decide",
        "an image that never runs well, booted for ever",
        around(bootloader, "decide", _takes_no_try),
        _HANGS,
        Invariant.TRIAL_BOOTS,
    ),
    _guard(
        "the counter is the image's",
        "sim.bootloader:Bootloader.confirm",
        "a node that refuses its own confirmed image as too old",
        around(Bootloader, "confirm", _counter_too_high),
        upgrade(),
        Invariant.ROLLBACK_COUNTER,
    ),
    _guard(
        "the last word in the journal",
        "gateway.run:_Attempt._close_record",
        "a failure of which nobody can read how the plant was left",
        by(_Attempt, "_close_record", _says_nothing),
        _HANGS,
        Invariant.TYPED_FAILURE,
    ),
    _guard(
        "seeded entropy",
        "campaign.station:Station._run",
        "a finding that nobody can see again",
        by(random, "Random", _ByChance),
        Run(f"seed {TWICE} run twice", _seed_twice),
        Invariant.REPEATABLE,
    ),
    _guard(
        "the counter lets the next one in",
        "sim.bootloader:Bootloader.confirm",
        "a node that takes no upgrade any more",
        around(Bootloader, "confirm", _counter_far_too_high),
        campaign(),
        Invariant.AVAILABILITY,
    ),
    _guard(
        "a plant that is held may be resumed",
        "gateway.resume:Earlier.start",
        "an upgrade that nobody can end, because it began",
        by(Earlier, "start", property(lambda _: Start.FRESH)),
        campaign("gateway:kill@PROGRAM+0.05"),
        Invariant.LIVENESS,
    ),
    _guard(
        "waits for the plant end",
        "gateway.isolation:Isolation.ramp_down",
        "a plant that is held, and neither upgraded nor given back",
        around(isolation, "until", _waits_for_ever),
        upgrade("plant:ramp-ignored@RAMP_DOWN+0~100"),
        Invariant.DEADLINES,
    ),
)
