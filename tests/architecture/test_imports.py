"""Imports run one way: cli -> gateway -> bus, uds, journal -> isotp, signals, image, trust -> can, identity, errors.

Beside that way stands `sim`, which uses the cores and of `bus` what is no adapter.  `campaign` puts gateway and
simulated plant together and watches; it and `cli` alone import `sim`.
"""

from __future__ import annotations

import pytest

from tests.architecture.modules import Module, modules

_BASE = {"can", "identity", "errors"}
_CORES = {"isotp", "signals", "image", "trust"}

ALLOWED: dict[str, set[str]] = {
    "": set(),
    "__main__": {"cli"},
    "errors": set(),
    "identity": set(),
    "file_lock": set(),
    "resources": {"errors"},
    "can": {"errors", "identity"},
    "isotp": _BASE,
    "signals": _BASE | {"resources"},
    "image": _BASE,
    "trust": _BASE | {"image"},
    "uds": _BASE | _CORES,
    "bus": _BASE | _CORES,
    "journal": _BASE | {"file_lock"},
    "gateway": _BASE | _CORES | {"bus", "uds", "journal"},
    "sim": _BASE | _CORES | {"bus", "uds", "file_lock"},
    "campaign": _BASE | _CORES | {"bus", "uds", "journal", "gateway", "sim", "resources"},
    "cli": _BASE | _CORES | {"bus", "uds", "journal", "gateway", "sim", "campaign", "resources", "__version__"},
}

_OF_BUS_FOR_SIM = {"clock", "port", "station", "isotp_channel"}


def test_the_table_names_every_part() -> None:
    assert {module.package for module in modules()} == set(ALLOWED)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_imports_run_one_way(module: Module) -> None:
    assert module.own_imports() - {module.package} <= ALLOWED[module.package]


@pytest.mark.parametrize("module", [m for m in modules() if m.package == "sim"], ids=lambda module: module.name)
def test_the_simulator_knows_no_adapter(module: Module) -> None:
    of_bus = {name.split(".")[2] for name in module.imports() if name.startswith("ess_can.bus.")}
    assert of_bus <= _OF_BUS_FOR_SIM


def test_only_the_command_line_imports_the_simulator() -> None:
    assert {m.package for m in modules() if "sim" in m.own_imports()} <= {"sim", "campaign", "cli"}


def test_python_can_has_one_home() -> None:
    found = {m.name for m in modules() if any(name.split(".")[0] == "can" for name in m.imports())}
    assert found == {
        "ess_can.bus.python_can",
        "ess_can.bus.message",
        "ess_can.bus.adapter_help",
        "ess_can.bus.interfaces",
        "ess_can.bus.trace",
        "ess_can.cli.bus_options",
    }
