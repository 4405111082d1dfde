from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ess_can.bus.machine_facts import read_machine, read_packages, read_serial_port


def test_this_machine(tmp_path: Path) -> None:
    facts = read_machine("virtual", "x", tmp_path)
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.folder == tmp_path
    assert facts.free_bytes > 0
    assert "virtual" in facts.no_isotp  # what the kernel's ISO-TP needs is socketcan
    assert "crcmod" in sys.modules


def test_packages_are_compared_with_the_package_s_own_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {package.name: package for package in read_packages()}
    assert found["python-can"].fits
    assert found["python-can"].wanted == "<5,>=4.6.1"
    assert "pytest" not in found, "what only development needs is not asked for"
    versions = {"python-can": "3.3.4"}

    def version(name: str) -> str:
        if name == "cantools":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name, "99")

    monkeypatch.setattr(metadata, "version", version)
    found = {package.name: package for package in read_packages()}
    assert (found["python-can"].version, found["python-can"].fits) == ("3.3.4", False)
    assert (found["cantools"].version, found["cantools"].fits) == (None, False)
    assert found["click"].fits


def test_a_checkout_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert read_packages() == ()


def test_serial_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = tmp_path / "ttyACM0"
    assert not read_serial_port(str(port)).exists
    port.touch()
    found = read_serial_port(f"{port}@115200")
    assert (found.path, found.exists, found.permitted) == (str(port), True, True)
    assert found.group
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert not read_serial_port(str(port)).permitted
