"""The cores are sans-IO; what else every module keeps."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.modules import Module, modules

_PURE_PACKAGES = {"can", "signals", "isotp", "uds", "image", "trust"}
_PURE_OF_SIM = {
    *("flash", "flash_queue", "fram", "boot_records", "bootloader", "programming", "image_verdict", "power_cut"),
    *("electrical", "pcs", "rack", "hv_control", "hv_evidence", "rack_states", "trace", "flash_cells", "pcs_memory"),
}
_FORBIDDEN_IN_CORES = {
    *("asyncio", "socket", "select", "selectors", "threading", "time", "subprocess", "multiprocessing", "concurrent"),
    "signal",
}
_CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter", "time_ns"}
_LONGEST = 400
_LONGER = {"ess_can.errors"}
"""Modules that may be longer: one catalogue of errors, of a few lines each."""


def is_core(module: Module) -> bool:
    return module.package in _PURE_PACKAGES or (
        module.package == "sim" and module.name.rpartition(".")[2] in _PURE_OF_SIM
    )


CORES = [module for module in modules() if is_core(module)]


def test_the_named_cores_exist() -> None:
    assert {module.name.rpartition(".")[2] for module in CORES} >= _PURE_OF_SIM


@pytest.mark.parametrize("module", CORES, ids=lambda module: module.name)
def test_a_core_does_no_io_and_reads_no_clock(module: Module) -> None:
    assert not {name.split(".")[0] for name in module.imports()} & _FORBIDDEN_IN_CORES
    assert not [name for name in module.imports() if name.startswith("ess_can.bus.clock")]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            pytest.fail(f"{module.name}:{node.lineno} waits")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CLOCKS:
            pytest.fail(f"{module.name}:{node.lineno} reads a clock: {ast.unparse(node)}")


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_no_module_asserts(module: Module) -> None:
    assert not [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_a_module_can_be_read_in_one_sitting(module: Module) -> None:
    lines = len(module.path.read_text("utf-8").splitlines())
    assert (lines > _LONGEST) == (module.name in _LONGER), f"{lines} lines"


def test_no_thread_is_started_but_by_the_one_reader() -> None:
    assert {m.name for m in modules() if "threading" in m.imports()} == {
        "ess_can.bus.reader",
        "ess_can.sim.loop",  # to refuse other threads
    }
